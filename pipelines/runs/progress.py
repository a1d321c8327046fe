"""Progress for people and for logs: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

log = logging.getLogger(__name__)

LOG_SECONDS = 15.0


class Progress:
    """Counts `total` units; a context manager.

    On a terminal this is tqdm's bar on standard error. Elsewhere a line with count, rate and time left goes to the
    log every 15 seconds and at the end.
    """

    def __init__(self, what: str, total: int, *, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._start = self._told = time.monotonic()
        quiet = not log.isEnabledFor(logging.INFO)
        self._bar = tqdm(total=total, desc=what, unit=unit, file=sys.stderr, disable=quiet or not sys.stderr.isatty())

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._bar.disable and self._done:
            self._tell()

    def advance(self, note: str = "", *, count: int = 1) -> None:
        """Count more units; `note` (a loss, say) is shown beside them."""
        self._done += count
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        if self._bar.disable and time.monotonic() - self._told > LOG_SECONDS:
            self._tell(note)

    def _tell(self, note: str = "") -> None:
        self._told = time.monotonic()
        rate = self._done / max(1e-9, self._told - self._start)
        left = (self._total - self._done) / rate
        log.info(
            "%s: %d of %d %ss, %.2f/s, %.0f s left%s",
            self._what, self._done, self._total, self._unit, rate, left, f", {note}" if note else "",
        )  # fmt: skip
