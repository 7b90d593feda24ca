"""The wait for a node with room for a job, and what no node has: nothing else would tell why the job does not begin."""

from collections.abc import Callable, Collection, Mapping

from services.client.attempt import AttemptClient

FIXES = {
    "CPU": "lower FASTERSEG_JOB_CPUS, or add a node of so many cores",
    "GPU": "add a node with a GPU",
    "profiler": "start a node with `ray start --resources='{\"profiler\": 1}'`",
}

Resources = Mapping[str, float]  # Ray's, by their names


def wait_for_room(
    needed: Resources,
    is_placed: Callable[[], bool],
    nodes: Callable[[], Collection[Resources]],
    attempt: AttemptClient,
) -> bool:
    """Whether a job got its place; not, where it is to stop meanwhile.

    A place that no node could give is warned of, again once something else is missing, and waited for: a node may join.
    """
    warned: str | None = None
    while not is_placed():
        if attempt.should_stop:
            return False
        missing = shortage(needed, nodes())
        if missing is not None and missing != warned:
            attempt.event("warning", {"message": missing})
        warned = missing
    return True


def shortage(needed: Resources, nodes: Collection[Resources]) -> str | None:
    """What no node would have for a job even if it were idle, and how to change that; none where one has it all."""
    if any(all(node.get(name, 0.0) >= amount for name, amount in needed.items()) for node in nodes):
        return None
    most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in needed}
    short = [
        f"it needs {amount:g} of the resource {name}, and the most that a node has is {most[name]:g}: {FIXES[name]}"
        for name, amount in needed.items()
        if amount > most[name]
    ]
    together = ", ".join(f"{name} {amount:g}" for name, amount in needed.items())
    return f"no node can run this job: {'; '.join(short) or f'none has {together} together: add one that has'}"
