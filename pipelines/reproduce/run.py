"""Running the commands of a plan: several at a time, each a process of its own, stopped and continued at will."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from joblib import cpu_count

from ...cache.scratch import write_atomically
from ...errors import InterruptedRunError
from ...extract.child import die_with_parent
from ..runs.progress import Progress
from ..runs.signals import StopRequest
from .plan import Key, Plan, Task

log = logging.getLogger(__name__)

_PACKAGE = __name__.rpartition(".pipelines.")[0]
_PRELOADED = ("pipelines.fitting.fit", "pipelines.results.evaluate", "pipelines.results.fusion")
"""What the server of processes imports once, so that a command begins at once."""
_LOOK_SECONDS = 0.5
"""How long a signal may wait."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a task ended: with the JSON object of its last command, or an error."""

    result: Mapping[str, Any] | None = None
    error: str = ""
    kept: bool = False  # whether it was finished before


@dataclass
class _Running:
    """A task at work."""

    task: Task
    command: int  # which of its commands
    process: ForkServerProcess


def run_tasks(plan: Plan) -> dict[Key, Outcome]:
    """Run what is not finished; a task that fails takes those that need it with it, the others go on.

    Raises
    ------
    InterruptedRunError
        After SIGTERM, SIGUSR1 or Ctrl-C, when the commands in work have stopped in good order; the same call continues.
    """
    desk = _Desk(plan)
    try:
        bar = Progress("reproduce", len(plan.tasks), unit="step")
        with StopRequest("the commands in work", keep=True) as stop, bar:
            while not desk.finished:
                if not stop.count and not desk.interrupted:
                    desk.begin()
                desk.look()
                for key in desk.new():
                    bar.advance(key[0])
                if stop.count > 1:
                    raise KeyboardInterrupt(stop.name)
                if stop.count or desk.interrupted:
                    desk.stop()
                    if not desk.running:
                        break
    finally:
        desk.kill()
    if not desk.finished or desk.interrupted:
        done = sum(outcome.result is not None for outcome in desk.outcomes.values())
        raise InterruptedRunError(
            f"Stopped: {done} of {len(plan.tasks)} steps are finished in {plan.config.out}; the same command continues."
        )
    return desk.outcomes


class _Desk:
    """Which tasks wait, run and are done."""

    def __init__(self, plan: Plan) -> None:
        self.outcomes: dict[Key, Outcome] = {}
        self.running: list[_Running] = []
        self.interrupted = False  # a command was stopped by a signal of its own
        self._waiting = list(plan.tasks)
        self._told: set[Key] = set()
        self._stopped = False
        self._jobs = plan.config.jobs
        self._threads = max(1, cpu_count() // self._jobs)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["torch", *(f"{_PACKAGE}.{name}" for name in _PRELOADED)])

    @property
    def finished(self) -> bool:
        return not self._waiting and not self.running

    def new(self) -> list[Key]:
        """Return what is done since the last call."""
        fresh = [key for key in self.outcomes if key not in self._told]
        self._told.update(fresh)
        return fresh

    def begin(self) -> None:
        """Begin tasks whose needs are done, as many as may run at a time."""
        for task in list(self._waiting):
            needs = [self.outcomes.get(need) for need in task.needs]
            if any(need is None for need in needs):
                continue
            if failed := next((n for n, o in zip(task.needs, needs, strict=True) if o and o.result is None), None):
                self._end(task, Outcome(error=f"{failed[0]} failed, on which it stands"))
            elif (kept := _kept(task)) is not None and all(need and need.kept for need in needs):
                self._end(task, Outcome(result=kept, kept=True))
            elif len(self.running) < self._jobs:
                self._waiting.remove(task)
                task.document.parent.mkdir(parents=True, exist_ok=True)
                _log(task).unlink(missing_ok=True)
                self.running.append(self._start(task, 0))

    def _end(self, task: Task, outcome: Outcome) -> None:
        if task in self._waiting:
            self._waiting.remove(task)
        self.outcomes[task.key] = outcome
        if outcome.error:
            log.error("%s failed: %s", task.name, outcome.error)

    def _start(self, task: Task, number: int) -> _Running:
        arguments = [*task.commands[number], "--json"]
        given = (arguments, _said(task), _log(task), self._threads)
        process = self._context.Process(target=_be, args=given)
        process.start()
        log.debug("%s", " ".join(("vidatt", *task.commands[number])))
        return _Running(task=task, command=number, process=process)

    def look(self) -> None:
        """Wait a moment for a command to end, and take up what ended."""
        if self.running:
            wait([one.process.sentinel for one in self.running], timeout=_LOOK_SECONDS)
        for one in [one for one in self.running if not one.process.is_alive()]:
            self.running.remove(one)
            one.process.join()
            code = one.process.exitcode or 0
            if code == 0 and one.command + 1 < len(one.task.commands) and not self._stopped:
                self.running.append(self._start(one.task, one.command + 1))
            elif code == 0 and one.command + 1 == len(one.task.commands):
                self._end(one.task, _finish(one.task))
            elif code == InterruptedRunError.exit_code or self._stopped:
                self._waiting.append(one.task)
                self.interrupted = True
            else:
                self._end(one.task, Outcome(error=_why(one.task, code)))

    def stop(self) -> None:
        """Ask the commands in work to stop in good order."""
        for one in self.running if not self._stopped else ():
            one.process.terminate()
        self._stopped = True

    def kill(self) -> None:
        """Leave no process behind."""
        for one in self.running:
            one.process.kill()
            one.process.join()


def _said(task: Task) -> Path:
    return task.document.with_name(f".{task.document.name}.part")


def _log(task: Task) -> Path:
    return task.document.with_suffix(".log")


def _be(arguments: Sequence[str], out: Path, err: Path, threads: int) -> None:
    """Be `python -m vidatt` with these arguments: the whole life of a process.

    In a session of its own, so that Ctrl-C reaches the one who started it only, who passes one signal on.
    """
    os.setsid()
    die_with_parent()  # a second one would fit into the same folder
    for number, path, how in ((1, out, os.O_TRUNC), (2, err, os.O_APPEND)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o666), number)
    import torch

    torch.set_num_threads(threads)
    sys.argv[:] = ["vidatt", *arguments]
    runpy.run_module(_PACKAGE, run_name="__main__")


def _identity(task: Task) -> dict[str, Any]:
    return {"commands": [list(command) for command in task.commands], "store": dict(task.state)}


def _kept(task: Task) -> Mapping[str, Any] | None:
    """Return the result of a task that was finished by the same commands on the same store."""
    try:
        content = json.loads(task.document.read_text())
    except (FileNotFoundError, ValueError):  # damaged: made again
        return None
    if not isinstance(content, dict) or not isinstance(content.get("result"), dict):
        return None
    return content["result"] if {k: content.get(k) for k in ("commands", "store")} == _identity(task) else None


def _finish(task: Task) -> Outcome:
    """Keep the result of a task."""
    result = json.loads(_said(task).read_text())
    write_atomically(task.document, json.dumps({**_identity(task), "result": result}, indent=1).encode())
    _said(task).unlink()
    return Outcome(result=result)


def _why(task: Task, code: int) -> str:
    """Return why a command failed, by its last line and exit code."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}, out of memory perhaps; try fewer --jobs ({_log(task)})"
    lines = [line for line in _log(task).read_text(errors="replace").splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith("vidatt: ")), lines[-1] if lines else "no message")
    return f"{said.removeprefix('vidatt: ')} (exit code {code}, {_log(task)})"
