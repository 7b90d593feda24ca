"""A Ray head for one machine: on the loopback address only, with token authentication, small."""

import json
import secrets
import socket
import sys
from pathlib import Path
from typing import Protocol

from services.embedded.settings import HOST, Settings

OBJECT_STORE_BYTES = 256 * 2**20  # only ids and small values pass through Ray

TORCH_ENVIRONMENT = {  # of every worker, in images as well
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",  # small blocks kept aside split the heap: .1 GB in a search
    "GOMP_SPINCOUNT": "1000",  # torch's waiting threads sleep soon: spinning doubled a step's time on two cores
}


class RayParams(Protocol):
    """Ray's start parameters, as far as they are changed here."""

    ray_client_server_port: int | None


def without_client_server(params: RayParams, head: bool) -> None:
    """Ray's start hook: leaves out the Ray Client server, which nobody uses and no option turns off."""
    if head:
        params.ray_client_server_port = None


def make_token(path: Path) -> None:
    """Writes a new token that only its owner can read, where there is none."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))


def client_environment(settings: Settings) -> dict[str, str]:
    """What a process needs to speak to this Ray."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(settings.token_file),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # everywhere: use the loopback address, not the machine's
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def environment(settings: Settings) -> dict[str, str]:
    """What Ray and, through it, every worker runs with."""
    return (
        client_environment(settings)
        | TORCH_ENVIRONMENT
        | {
            "DASHBOARD_METRIC_PORT": "0",  # any free one
            "RAY_DEDUP_LOGS": "0",
            "RAY_DISABLE_WORKER_LOG_PREFIX": "1",
            "RAY_START_HOOK": f"{__name__}.without_client_server",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # after which workers of a dead head end
            "FASTERSEG_JOB_CPUS": str(settings.cpus),
            "FASTERSEG_TENSORBOARD_DIR": str(settings.tensorboard_dir),
            **({"FASTERSEG_DATA_ROOT": str(settings.data_root)} if settings.data_root else {}),
        }
    )


def command(settings: Settings, gcs_port: int, folder: Path) -> list[str]:
    """The command that runs Ray until it is stopped; every port that is not named is any free one."""
    return [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--block",
        "--no-monitor",
        "--disable-usage-stats",
        "--log-color=false",
        f"--node-ip-address={HOST}",
        f"--port={gcs_port}",
        f"--dashboard-host={HOST}",
        f"--dashboard-port={settings.dashboard_port}",
        "--dashboard-agent-listen-port=0",
        f"--num-cpus={settings.cpus}",
        f"--resources={json.dumps({'profiler': 1})}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={folder}",
    ]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
