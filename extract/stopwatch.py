"""Where the time of a video goes while it is decoded: laps by part, without the waiting for who takes the inputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

Message = TypeVar("Message")


@dataclass(eq=False)
class Stopwatch:
    """Adds up the seconds between laps, by the part that each lap names."""

    seconds: dict[str, float] = field(default_factory=dict)  # decode, flow, inputs
    _mark: float = field(default_factory=time.perf_counter)

    def lap(self, part: str) -> None:
        """Give the time since the last lap to a part."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._mark
        self._mark = now

    def start(self) -> None:
        """Forget the time since the last lap."""
        self._mark = time.perf_counter()

    def outside(self, emit: Callable[[Message], None]) -> Callable[[Message], None]:
        """Return `emit` so that its time is nobody's: it waits where messages are taken more slowly than made."""

        def timed(message: Message) -> None:
            began = time.perf_counter()
            emit(message)
            self._mark += time.perf_counter() - began

        return timed
