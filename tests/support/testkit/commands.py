"""`vidatt ...` and other programs as real processes, without waiting for their imports.

Starting an interpreter and importing torch costs seconds of a core; a fork of a server that has imported it costs
nothing. What the program sees is a process of its own: arguments, environment, working directory, files of output,
signals and exit status.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import weakref
from pathlib import Path
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["torch", "zarr", "h5py", "google_crc32c", "safetensors.torch"])  # not vidatt itself

# It ends as an interpreter does: multiprocessing's own end waits for joblib's workers before anybody dismisses them.
_PROCESS = """
import atexit, os, signal, sys, threading, traceback
os.chdir(folder)
os.environ.clear()
os.environ.update(environment)
for number, path in ((1, out), (2, err)):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
sys.path[:0] = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
sys.argv[:] = arguments
signal.signal(signal.SIGINT, signal.default_int_handler)
code = 0
try:
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
except SystemExit as ending:
    code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
except BaseException:
    traceback.print_exc()
    code = 1
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""
_VIDATT = "import sys; sys.argv[0] = 'vidatt'; from vidatt.cli.entry import run; run()"


class Running:
    """A process that was started; `stdout` and `stderr` are what it has said so far."""

    def __init__(self, program: str, arguments: list[str], cwd: Path | None, env: dict[str, str] | None) -> None:
        self._said = Path(tempfile.mkdtemp(prefix="vidatt-said-"))
        weakref.finalize(self, shutil.rmtree, self._said)
        given = {
            "folder": str(cwd or Path.cwd()), "environment": dict(os.environ if env is None else env),
            "out": self._said / "out", "err": self._said / "err",
            "arguments": arguments, "program": program,
        }  # fmt: skip
        self.arguments = arguments
        self._process = _FORKS.Process(target=exec, args=(_PROCESS, given))
        self._process.start()
        self.pid: int = self._process.pid or 0

    def _read(self, name: str) -> str:
        path = self._said / name
        return path.read_text() if path.exists() else ""

    @property
    def stdout(self) -> str:
        return self._read("out")

    @property
    def stderr(self) -> str:
        return self._read("err")

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float = 300) -> int:
        """Wait for its end and return the exit status."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired(self.arguments, timeout, self.stdout, self.stderr)
        return self._process.exitcode

    def children(self) -> list[int]:
        """Process ids of its children now, whichever of its threads started them."""
        lists = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for one in lists for pid in one.read_text().split()]

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


def start_program(program: str, *arguments: object, env: dict[str, str] | None = None) -> Running:
    """Start a Python program, given as text, as a process of its own."""
    return Running(program, ["-c", *map(str, arguments)], None, env)


def run_program(program: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Run a Python program that must succeed; what it prints."""
    running = start_program(program, *arguments, env=env)
    assert running.wait() == 0, running.stderr
    return running.stdout


def start_vidatt(*arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Running:
    """Start a command of vidatt."""
    return Running(_VIDATT, ["vidatt", *map(str, arguments)], cwd, env)


def vidatt(
    *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a command of vidatt to its end."""
    running = start_vidatt(*arguments, cwd=cwd, env=env)
    code = running.wait(timeout)
    return subprocess.CompletedProcess(running.arguments, code, running.stdout, running.stderr)


def run(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    """Run `vidatt ... --json` to an exit code; its object, or the last line of its error."""
    done = vidatt(*arguments, "--json")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout) if done.stdout else {"error": done.stderr.strip().splitlines()[-1]}
