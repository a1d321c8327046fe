"""The same tasks as processes of this machine, for workstations with several GPUs and for trying a job out."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ...errors import InterruptedRunError, UsageError
from ..extraction.supervisor import devices
from ..record import Record
from ..runs.signals import StopRequest
from .allotment import given_cores
from .work import PROGRAM, Work

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LocalTask(Record):
    """One task of a local job."""

    index: int
    exit_code: int  # negative: the signal that ended it
    log: str
    last: str  # line of its log


@dataclass(frozen=True, kw_only=True)
class LocalRun(Record):
    """A job of this machine that has ended."""

    name: str
    work: str  # its store, or the folder of its runs
    unit: str  # "shards" or "fits"
    parts: int
    tasks: tuple[LocalTask, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 if that of all tasks is, the one that all others have, else 1."""
        codes = {task.exit_code for task in self.tasks} - {0}
        return 0 if not codes else codes.pop() if len(codes) == 1 and min(codes) > 0 else 1


def run(work: Work, *, tasks: int, logs: Path) -> LocalRun:
    """Run the tasks side by side, each with its share of the cores and GPUs, and wait for all of them.

    Parameters
    ----------
    tasks : at most as many as there are parts
    logs : folder; what a task says is added to its file

    Raises
    ------
    InterruptedRunError
        After SIGTERM, SIGUSR1 or Ctrl-C, when the tasks have stopped in good order; the same call continues.
    UsageError
        For no tasks.
    """
    if tasks < 1:
        raise UsageError(f"--tasks {tasks}: must be 1 or more.")
    count = min(tasks, work.parts)
    started = time.monotonic()
    logs.mkdir(parents=True, exist_ok=True)
    files = [logs / f"{work.name}-{index}.log" for index in range(count)]
    with ExitStack() as stack, StopRequest("the tasks", keep=True) as stop:
        processes = []
        for index, file in enumerate(files):
            said = stack.enter_context(file.open("ab"))
            command = [*PROGRAM, *work.command, "--shard", f"{index}/{count}"]
            environment = {**os.environ, **_share(index, count)}
            # in a session of its own: Ctrl-C reaches it once, through this process
            processes.append(
                subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True)
            )
        try:
            _wait(processes, stop)
        finally:
            for process in processes:  # none of them outlives an error here
                process.kill()
                process.wait()
    codes = [process.returncode for process in processes]
    if stop.count:
        raise InterruptedRunError(
            f"Interrupted: {codes.count(0)} of {count} tasks are finished, what they committed stays; see {logs}. Run "
            "the same command again."
        )
    return LocalRun(
        name=work.name,
        work=str(work.subject),
        unit=work.unit,
        parts=work.parts,
        tasks=tuple(
            LocalTask(index=index, exit_code=code, log=str(file), last=_last_line(file))
            for index, (code, file) in enumerate(zip(codes, files, strict=True))
        ),
        seconds=round(time.monotonic() - started, 3),
    )


def _wait(processes: Sequence[subprocess.Popen[bytes]], stop: StopRequest) -> None:
    """Wait for the end of all processes; a stop signal, and a second one, are passed on."""
    passed_on = 0
    told: set[int] = set()
    while len(told) < len(processes):
        if stop.count > passed_on:
            passed_on = stop.count
            for process in processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
        for index, process in enumerate(processes):
            if process.poll() is not None and index not in told:
                told.add(index)
                log.info("task %d of %d ended with %s", index, len(processes), _words(process.returncode))
        time.sleep(0.1)


def _words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _share(index: int, count: int) -> dict[str, str]:
    """Return what a task is told of this machine: fewer cores, and GPUs of its own where there are enough."""
    share = {"LOKY_MAX_CPU_COUNT": str(max(1, given_cores(os.environ) // count))}
    cards = [int(device.removeprefix("cuda:")) for device in devices("auto", None) if device != "cpu"]
    if not cards:
        return share
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, cards))).split(",")
    mine = visible[index::count] or [visible[index % len(visible)]]
    return share | {"CUDA_VISIBLE_DEVICES": ",".join(mine)}


def _last_line(file: Path) -> str:
    with file.open("rb") as said:
        said.seek(max(0, file.stat().st_size - 4096))
        lines = [line for line in said.read().decode(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
