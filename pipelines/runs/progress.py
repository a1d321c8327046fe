"""Progress for people and for logs: a bar on a terminal, a plain line a minute elsewhere."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

from ..durations import rough_text

log = logging.getLogger(__name__)

FIRST_SECONDS, LOG_SECONDS = 10.0, 60.0
"""After which a log gets its first line and each one that follows: what is done sooner needs none."""


class Progress:
    """Counts `total` units; a context manager.

    On a terminal this is tqdm's bar on standard error. Elsewhere a line with count, rate and time left goes to the
    log after ten seconds (or `first_seconds`), then every minute, and at the end of what got one.
    """

    def __init__(self, what: str, total: int, *, unit: str, first_seconds: float = FIRST_SECONDS) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done, self._told = 0, False
        self._start = time.monotonic()
        self._next = self._start + first_seconds
        quiet = not log.isEnabledFor(logging.INFO)
        self._bar = tqdm(total=total, desc=what, unit=unit, file=sys.stderr, disable=quiet or not sys.stderr.isatty())

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._bar.disable and self._told:
            self._tell()

    def advance(self, note: str = "", *, count: int = 1) -> None:
        """Count more units; `note` (a loss, say) is shown beside them."""
        self._done += count
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        if self._bar.disable and time.monotonic() > self._next:
            self._tell(note)
            self._told, self._next = True, time.monotonic() + LOG_SECONDS

    def _tell(self, note: str = "") -> None:
        seconds = max(1e-9, time.monotonic() - self._start)
        rest = self._total - self._done
        left = f"about {rough_text(rest * seconds / self._done)} left" if rest > 0 else rough_text(seconds)
        log.info(
            "%s: %d of %d %ss, %.2f/s, %s%s",
            self._what, self._done, self._total, self._unit, self._done / seconds, left, f", {note}" if note else "",
        )  # fmt: skip
