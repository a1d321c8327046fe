"""A process of our own with a pipe to it, watched: decoders and extraction workers live in such children.

A child is started as a fresh interpreter (not forked: threads and CUDA do not survive a fork, and no `__main__` of the
user's is imported twice), talks over a socket, ignores Ctrl-C and SIGTERM (its parent decides) and dies with
its parent, whatever C code it hangs in. The kernel ties that to the *thread* that started it, so one thread that lives
as long as the process starts them all.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

_START = (
    "import sys; from vidatt.extract.child import run_child; run_child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))"
)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ChildBugError(RuntimeError):
    """Our own code failed in a child; the message ends with the traceback from there. Never a fault of a video."""


@dataclass(frozen=True)
class Bug:
    """What a child sends of an error that nobody raised on purpose, before it ends."""

    traceback: str


def die_with_parent() -> None:
    """Have Linux kill this process when its parent ends; elsewhere nothing does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run_child(entry: str, descriptor: int, parent: int) -> None:
    """Run `module:function` of the package with the connection at `descriptor`; the child's whole life."""
    import importlib
    import traceback

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # a scheduler signals whole process groups
        signal.signal(number, signal.SIG_IGN)
    die_with_parent()
    if os.getppid() != parent:  # the parent died before the line above
        os._exit(0)
    module, _, function = entry.partition(":")
    connection: Connection = Connection(descriptor)
    try:
        getattr(importlib.import_module(module), function)(connection)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the parent is gone: nobody to tell
    except Exception:  # noqa: BLE001 - a bug: its traceback travels to the parent, which stops with it
        connection.send(Bug(traceback.format_exc()))
        os._exit(1)


_CRASHES = frozenset(
    (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP)
)
"""Signals that a process brings upon itself; whatever else kills one comes from outside."""
_starting = ThreadPoolExecutor(1, thread_name_prefix="children")


def _new_starter() -> None:
    global _starting  # noqa: PLW0603 - threads do not survive a fork
    _starting = ThreadPoolExecutor(1, thread_name_prefix="children")


os.register_at_fork(after_in_child=_new_starter)


class Child:
    """A running child; `connection` sends and receives picklable objects.

    Parameters
    ----------
    entry : "package.module:function", called in the child with its end of the connection
    environment : variables to set in the child beside the parent's own
    """

    def __init__(self, entry: str, environment: dict[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        # the interpreter starts anywhere: a module named like one of ours in the working directory must not win
        command = [sys.executable, "-P", "-c", _START, entry, str(theirs.fileno()), str(os.getpid())]
        path = os.pathsep.join(p for p in sys.path if p)
        with theirs:
            self.process = _starting.submit(
                subprocess.Popen[bytes],
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            ).result()
        self.connection: Connection[Any, Any] = Connection(ours.detach())

    def receive(self) -> Any:
        """Return the child's next message.

        Raises
        ------
        EOFError
            If the child is gone.
        ChildBugError
            If its own code failed.
        """
        try:
            message = self.connection.recv()
        except OSError as error:  # reset, or its end came in the middle of a message
            raise EOFError(str(error)) from error
        if isinstance(message, Bug):
            self.kill()
            raise ChildBugError(f"vidatt failed in a child process:\n{message.traceback}")
        return message

    def kill(self) -> None:
        """End the child now and reap it."""
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def died_of(self) -> str:
        """Reap a child that closed its connection and return what ended it."""
        self.connection.close()
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "closed its pipe without ending"
        if code < 0:
            return f"killed by signal {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    @property
    def killed_from_outside(self) -> bool:
        """Whether a reaped child was killed by the system or by somebody, and did not crash by itself."""
        code = self.process.returncode
        return code is not None and code < 0 and -code not in _CRASHES
