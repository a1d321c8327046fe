"""The breaker: tells a machine or an installation that crashes the decoder from videos that do."""

from __future__ import annotations

from ...errors import VidattError
from ...extract.video import VideoReport

CRASHES = {
    "decoder_crash": "See `vidatt doctor`, and whether something kills processes here",
    "decoder_hang": "See whether the folder of the videos answers, or give more time with --decode-timeout",
    "out_of_memory": "Give a decoder more with --decode-memory, or run fewer --workers and --decoders",
}
"""Outcomes that a machine can cause, and what to do then."""
CRASHES_IN_A_ROW = 8
"""As many videos at the start that all end in the same crash stop the extraction."""
FEWEST_CRASHES = 3
"""In a run of fewer videos a crash on every one is taken for theirs."""


class Breaker:
    """Counts the videos of a run; `only_crashes` holds until one has not ended in the same crash as those before.

    Parameters
    ----------
    off : never judge: of videos that crashed before it says nothing if they do again
    """

    def __init__(self, *, off: bool = False) -> None:
        self.videos = 0
        self.only_crashes = not off
        self._last: VideoReport | None = None

    def count(self, report: VideoReport) -> None:
        """Take note of a video.

        Raises
        ------
        VidattError
            If eight have come, and all of them ended in the same crash.
        """
        same = self._last is None or report.outcome == self._last.outcome
        self.only_crashes = self.only_crashes and same and report.outcome in CRASHES
        self.videos += 1
        self._last = report
        if self.videos >= CRASHES_IN_A_ROW:
            self.judge()

    def judge(self) -> None:
        """Stop the extraction if there were some videos, and all of them ended in the same crash.

        Raises
        ------
        VidattError
        """
        if self.only_crashes and self._last is not None and self.videos >= FEWEST_CRASHES:
            raise VidattError(
                f"The first {self.videos} videos all ended as {self._last.outcome} ({self._last.detail}): the cause is "
                f"this machine or installation, hardly the videos. Nothing of them is committed. "
                f"{CRASHES[self._last.outcome]}; then run the same command again."
            )
