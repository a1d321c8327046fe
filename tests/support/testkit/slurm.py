"""A real Slurm of two nodes on this machine, on loopback, in one folder, without systemd and control groups."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NODES = ("node1", "node2")
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_CONF = """
ClusterName=vidatt
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0
PriorityType=priority/basic
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
SlurmdTimeout=5
MessageTimeout=3
TCPTimeout=1
KillWait=2
InactiveLimit=0
WaitTime=0
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=2000 State=UNKNOWN
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


class Cluster:
    """A running Slurm; `environment` is what sbatch, srun and the others need to find it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": _PATH}
        ports = [_free_port() for _ in range(3)]
        host = socket.gethostname().split(".")[0]
        conf = _CONF.format(host=host, user=getpass.getuser(), ports=ports, folder=folder)
        (folder / "slurm.conf").write_text(conf)
        for name in ("state", "spool", "munge"):
            (folder / name).mkdir(mode=0o700)
        key = folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        self.run(
            "munged", "--force", f"--key-file={key}", f"--socket={folder}/munge.sock",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munge/log", f"--seed-file={folder}/munge/seed",
        )  # fmt: skip
        self.run("slurmctld", "-f", str(folder / "slurm.conf"))
        for node in NODES:
            self.start_node(node)

    def run(self, *command: str) -> str:
        """Run a program of Slurm that must succeed; what it prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def start_node(self, node: str) -> None:
        """Start the daemon of a node and wait until the node takes jobs."""
        self.run("slurmd", "-N", node, "-f", str(self.folder / "slurm.conf"))
        deadline = time.monotonic() + 60
        while self.run("sinfo", "-h", "-N", "-n", node, "-o", "%T").strip() not in ("idle", "mixed", "allocated"):
            assert time.monotonic() < deadline, (self.folder / f"slurmd-{node}.log").read_text()[-2000:]
            time.sleep(0.5)

    def cut_node(self, node: str) -> None:
        """Kill the daemon of a node and everything that runs on it, as a power cut would."""
        log = str(self.folder / f"slurmd-{node}.log")
        for pid, environment in self._processes():
            try:
                files = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
            except (FileNotFoundError, PermissionError):
                files = set()
            if log in files or f"SLURMD_NODENAME={node}".encode() in environment:
                _kill(pid)

    def states(self, job: str) -> list[str]:
        """Return the state of each task of a job that Slurm still knows."""
        return self.run("squeue", "-h", "-a", "-r", "-t", "all", "-j", job, "-o", "%T").split()

    def wait(self, job: str, seconds: float = 400) -> list[str]:
        """Wait for the end of all tasks of a job; their last states."""
        deadline = time.monotonic() + seconds
        while True:
            states = self.states(job)
            if not {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED"} & set(states):
                return states
            assert time.monotonic() < deadline, f"job {job}: {states}"
            time.sleep(0.5)

    def processes(self, word: str) -> list[int]:
        """Return the processes of jobs of this cluster that have a word in their command line."""
        return [pid for pid, _ in self._processes() if word.encode() in _read(pid, "cmdline")]

    def _processes(self) -> Iterator[tuple[int, bytes]]:
        own = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        daemons = {_pid(path) for path in self.folder.glob("slurmd-*.pid")}
        for path in Path("/proc").glob("[0-9]*"):
            pid = int(path.name)
            environment = _read(pid, "environ")
            step = _read(pid, "comm").startswith(b"slurmstepd")  # its environment is overwritten
            if pid != os.getpid() and (own in environment or pid in daemons or step):
                yield pid, environment

    def stop(self) -> None:
        """End all jobs and daemons."""
        for job in self.run("squeue", "-h", "-o", "%A").split():
            self.run("scancel", job)
        for path in (self.folder / "slurmctld.pid", self.folder / "munged.pid"):
            _kill(_pid(path))
        for node in NODES:
            self.cut_node(node)


@contextmanager
def slurm_cluster() -> Iterator[Cluster]:
    """Start a cluster; skips the test where Slurm is not installed."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=_PATH)]
    if missing:
        pytest.skip(f"needs a Slurm, and there is no {', '.join(missing)} (apt-get install slurm-wlm munge)")
    folder = Path(tempfile.mkdtemp(prefix="vidatt-slurm-", dir="/tmp"))  # short: it holds a socket
    folder.chmod(0o755)
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)  # a daemon may write its last line


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return b""


def _pid(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text().strip() else 0


def _kill(pid: int) -> None:
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
