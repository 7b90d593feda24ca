"""What a running service adds to a job from its submission to its worker's first line, part by part.

    fasterseg up
    python -m benchmarks.job_overhead

Jobs of the service and bare Ray jobs take turns. A bare one does what a worker cannot do without: its driver joins the
cluster, reserves a core, and starts a task that imports torch. That is the floor; what the service takes beyond it is
its own: the overhead, to the line that the worker logs once torch is there. Its first report of progress comes when it
has set up its work, here an engine and the first operator. The last line is one JSON object.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import NamedTemporaryFile

from ray.job_submission import JobSubmissionClient

from benchmarks.timing import setting
from services.client.client import FasterSegClient
from services.client.schemas import Job, JobState, JsonObject

PROFILE: JsonObject = {
    "space": {"num_layers": 3, "expansion_ratios": [2], "student_ratio": 2},
    "resolution": {"height": 64, "width": 64},
    "dataset": "camvid",
    "passes": 1,
    "samples": 1,
    "random_networks": 0,
    "accept_noise": True,
}
WAITING = "waiting for a machine"  # the driver's own report
LINE = re.compile(r"(\S+Z) INFO services\.workers\.driver: (begun|working)")
BARE = """
import time
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

@ray.remote(num_cpus=1)
def task():
    import torch
    return time.time()

ray.init(address="auto", logging_level="WARNING")
driver = time.time()
group = placement_group([{"CPU": 1}])
ray.get(group.ready())
reserved = task.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group))
print("DRIVER", driver, "TASK", ray.get(reserved.remote()))
"""
POLL_SECONDS = 0.02


def main() -> None:
    """Prints a line for each pair of jobs, and a summary of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control-plane", default="http://127.0.0.1:8000")
    parser.add_argument("--ray", default="http://127.0.0.1:8265")
    parser.add_argument("--state", type=Path, default=Path(".fasterseg"), help="the service's, where its tokens are")
    parser.add_argument("--jobs", type=int, default=10)
    arguments = parser.parse_args()
    headers = {"Authorization": f"Bearer {(arguments.state / 'ray.token').read_text().strip()}"}
    ray = JobSubmissionClient(arguments.ray, headers=headers)
    token = (arguments.state / "api.token").read_text().strip()
    pairs: list[dict[str, float]] = []
    with FasterSegClient(arguments.control_plane, token=token) as client, NamedTemporaryFile("w", suffix=".py") as bare:
        bare.write(BARE)
        bare.flush()
        for _ in range(arguments.jobs):
            pair = _service(client) | _bare(ray, bare.name)
            print(json.dumps({name: round(seconds, 2) for name, seconds in pair.items()}), flush=True)
            pairs.append(pair)
    medians = {name: round(median(pair[name] for pair in pairs), 2) for name in pairs[0]}
    overhead = round(median(pair["total"] - pair["bare_total"] for pair in pairs), 2)
    print(json.dumps(medians | {"overhead": overhead, "setting": setting() | {"jobs": arguments.jobs}}))


def _service(client: FasterSegClient) -> dict[str, float]:
    """Seconds of each part of a job: until it is acknowledged and claimed, its driver and its worker log a line."""
    begun = time.time()
    job = client.submit("profile", PROFILE)
    accepted = time.time()
    claimed = _until(client, job.id, lambda job: job.state is not JobState.QUEUED)
    reported = _until(client, job.id, lambda job: job.progress is not None and job.progress.phase != WAITING)
    client.wait(job.id)
    lines = {event: datetime.fromisoformat(moment).timestamp() for moment, event in LINE.findall(client.logs(job.id))}
    return {
        "accepted": accepted - begun,
        "claimed": claimed - accepted,
        "driver": lines["begun"] - claimed,
        "worker": lines["working"] - lines["begun"],
        "total": lines["working"] - begun,
        "reported": reported - lines["working"],
    }


def _until(client: FasterSegClient, job: str, is_it_so: Callable[[Job], bool]) -> float:
    while not is_it_so(client.job(job)):
        time.sleep(POLL_SECONDS)
    return time.time()


def _bare(ray: JobSubmissionClient, script: str) -> dict[str, float]:
    begun = time.time()
    job = ray.submit_job(entrypoint=f"{sys.executable} {script}", entrypoint_num_cpus=0)
    while not ray.get_job_status(job).is_terminal():
        time.sleep(POLL_SECONDS)
    words = ray.get_job_logs(job).split()
    driver, task = (float(words[words.index(name) + 1]) for name in ("DRIVER", "TASK"))
    return {"bare_driver": driver - begun, "bare_task": task - driver, "bare_total": task - begun}


if __name__ == "__main__":
    main()
