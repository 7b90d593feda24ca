"""An S3 server that is no mock: Ceph's gateway, from Debian's packages, which are unpacked and not installed.

A monitor, a storage daemon that keeps everything in memory, and the gateway, all on 127.0.0.1 and of any user.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.contracts.s3_servers import S3Server

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw")  # as their packages are called
NEEDED = ("lib", *PROGRAMS, "ceph-base", "ceph-common")  # how the packages begin that hold what these link with
START_SECONDS = 120.0
USER = "contracts"
CONFIGURATION = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{monitor_port}/0
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms mon cluster mode = crc
ms mon service mode = crc
run dir = {folder}
admin socket =
log file = {folder}/$name.log
log to stderr = false
plugin dir = {libraries}/ceph
erasure code dir = {libraries}/ceph/erasure-code
osd class dir = {libraries}/rados-classes
mon data = {folder}/monitor
mon allow pool size one = true
mon data avail crit = 0
paxos propose interval = 0.05
paxos min wait = 0.01
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd crush initial weight = 1
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
rgw data = {folder}
rgw rados pool pg num min = 1
rgw frontends = beast endpoint=127.0.0.1:{gateway_port}
"""


class PackagesUnavailable(Exception):
    """Debian's packages cannot be had here."""


@dataclass(frozen=True)
class _Cluster:
    """Unpacked packages, and the folder of what runs."""

    root: Path
    folder: Path

    @property
    def libraries(self) -> Path:
        (classes,) = self.root.glob("usr/lib/*/rados-classes")
        return classes.parent

    def run(self, *command: str) -> None:
        """Runs a program of the packages to its end."""
        subprocess.run(self._arguments(command), env=self._environment(), check=True, stdout=subprocess.DEVNULL)

    @contextmanager
    def running(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A program of the packages that runs until the context is left."""
        with subprocess.Popen(self._arguments(command), env=self._environment()) as process:
            try:
                yield process
            finally:
                process.kill()

    def _arguments(self, command: tuple[str, ...]) -> list[str]:
        program = self.root / "usr" / "bin" / command[0]
        return [str(program) if program.exists() else command[0], *command[1:]]

    def _environment(self) -> dict[str, str]:
        folders = (self.libraries, self.libraries / "ceph", self.root / "lib" / self.libraries.name)
        return {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, folders)),
            "CEPH_CONF": str(self.folder / "ceph.conf"),
        }


@dataclass(frozen=True, kw_only=True)
class CephGateway(S3Server):
    """A gateway whose one user has other keys, too, while a test lets him."""

    cluster: _Cluster

    @contextmanager
    def other_keys(self, access_key: str, secret_key: str) -> Iterator[None]:
        """Keys that are good until the context is left."""
        self._keys("create", "--access-key", access_key, "--secret-key", secret_key)
        yield
        self._keys("rm", "--access-key", access_key)

    def _keys(self, *command: str) -> None:
        self.cluster.run("radosgw-admin", "key", *command, "--uid", USER, "--key-type", "s3")


@contextmanager
def ceph_gateway(folder: Path) -> Iterator[CephGateway]:
    """A gateway that answers, with one user and no buckets; PackagesUnavailable where it cannot be had."""
    cluster = _Cluster(root=folder / "root", folder=folder)
    _unpack(folder / "packages", cluster.root)
    monitor_port, gateway_port = _free_ports(2)
    fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
    text = CONFIGURATION.format(
        fsid=fsid,
        folder=folder,
        libraries=cluster.libraries,
        monitor_port=monitor_port,
        gateway_port=gateway_port,
    )
    (folder / "ceph.conf").write_text(text)
    (folder / "osd").mkdir()
    server = CephGateway(
        endpoint=f"127.0.0.1:{gateway_port}", access_key=USER, secret_key="a secret of contracts", cluster=cluster
    )
    monmap = str(folder / "monmap")
    address = f"[v2:127.0.0.1:{monitor_port}]"
    with ExitStack() as processes:
        cluster.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        cluster.run("ceph-mon", "--mkfs", "--id", "a", "--monmap", monmap)
        processes.enter_context(cluster.running("ceph-mon", "--id", "a", "-f"))
        cluster.run(sys.executable, str(Path(__file__).with_name("ceph_new_osd.py")), osd)
        cluster.run("ceph-osd", "--id", "0", "--mkfs", "--osd-uuid", osd)
        processes.enter_context(cluster.running("ceph-osd", "--id", "0", "-f"))
        keys = ("--access-key", server.access_key, "--secret-key", server.secret_key)
        cluster.run("radosgw-admin", "user", "create", "--uid", USER, "--display-name", USER, *keys)
        gateway = processes.enter_context(cluster.running("radosgw", "--name", "client.rgw.a", "-f"))
        _wait_for(gateway_port, gateway)
        yield server


def _unpack(packages: Path, root: Path) -> None:
    """Fetches and unpacks the packages of the programs with the libraries that this machine lacks."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise PackagesUnavailable("Ceph's gateway comes from Debian's packages, and there is no apt-get here")
    packages.mkdir()
    try:
        plan = _apt(packages, "install", "--simulate", "--no-install-recommends", "-o", "Debug::NoLocking=1", *PROGRAMS)
        names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
        _apt(packages, "download", *(name for name in names if name.startswith(NEEDED)))
    except subprocess.CalledProcessError as error:
        raise PackagesUnavailable(f"apt-get cannot fetch {', '.join(PROGRAMS)}: {error.stderr.strip()}") from error
    for package in packages.iterdir():
        subprocess.run(["dpkg", "--extract", package, root], check=True)


def _apt(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["apt-get", "-qq", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def _free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        bound = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in bound:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in bound]


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert process.poll() is None, "the gateway ended instead of answering"
            assert time.monotonic() < deadline, f"the gateway did not answer within {START_SECONDS:g} s"
            time.sleep(0.1)
        else:
            return
