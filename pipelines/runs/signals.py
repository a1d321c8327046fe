"""Stopping in good order: the first signal asks, the second one stops at once."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

log = logging.getLogger(__name__)

NUMBERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""What a batch system sends before it kills, what a user may ask it to send earlier, and Ctrl-C."""


class StopRequest:
    """A context manager that remembers the first stop signal in `name`; the ones after it act as they did before.

    Outside the main thread it catches nothing: Python delivers signals to the main thread only.

    Parameters
    ----------
    work : what is finished before the stop, for the message
    keep : go on catching; whoever asks looks at `count`
    """

    def __init__(self, work: str = "the step in work", *, keep: bool = False) -> None:
        self.name: str | None = None  # such as "SIGTERM"
        self.count = 0
        self._work, self._keep = work, keep
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.count += 1
        if self.name is None:
            self.name = signal.Signals(number).name
            log.warning("%s: finishing %s, then stopping; once more stops at once", self.name, self._work)
        if not self._keep:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
