"""Where the command begins: from here on every stop signal is an interruption, while modules are imported too.

A pipeline that can finish a step in good order catches the signals for that long (`StopRequest`); anywhere else they
end the command at once, in one line, with the exit code that says: the same command continues.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

from ..errors import InterruptedRunError
from ..pipelines.runs.signals import NUMBERS


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def run() -> None:
    """Be the command `vidatt`."""
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and shells' background jobs mean it
            signal.signal(number, _interrupt)
    try:
        from .main import main

        main()
    except KeyboardInterrupt:  # before or after the command itself
        sys.stderr.write("vidatt: stopped; the same command continues.\n")
        sys.exit(InterruptedRunError.exit_code)
