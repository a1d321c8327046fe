"""Windows that slide over a long video, each sampled as a video of its own, all in one decoding pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UsageError
from .sampling import Sampler


@dataclass(frozen=True, kw_only=True)
class SlidingSampler:
    """Places the segments of each window as `base` would if the window were the whole video; a sampler of a `VideoJob`.

    Windows have one length and begin `stride_seconds` apart; the last one ends where the video ends. A video that is
    shorter than a window is one window.

    Raises
    ------
    UsageError
        If a window or a stride is not above 0, or windows would leave gaps.
    """

    base: Sampler
    window_seconds: float
    stride_seconds: float
    first: int = 0  # number of the first window that is sampled
    stop: int | None = None  # and of the one behind the last; None = all

    def __post_init__(self) -> None:
        if not 0 < self.stride_seconds <= self.window_seconds < float("inf"):
            raise UsageError(
                f"Windows of {self.window_seconds:g} s every {self.stride_seconds:g} s: both must be above 0, and the "
                "stride no longer than the window."
            )

    def windows(self, frame_count: int, frames_per_second: float) -> np.ndarray:
        """Return start and stop frame [start, stop) of every window of a video, (n, 2) int64.

        Raises
        ------
        UsageError
            If the video states no frame rate.
        """
        if frames_per_second <= 0:
            raise UsageError("windows in seconds: this video states no frame rate; leave --window out")
        length = min(frame_count, max(1, round(self.window_seconds * frames_per_second)))
        stride = max(1, round(self.stride_seconds * frames_per_second))
        starts = np.arange(0, frame_count - length + 1, stride, dtype=np.int64)
        if starts[-1] + length < frame_count:
            starts = np.append(starts, frame_count - length)
        return np.stack([starts, starts + length], axis=1)

    def segments(self, frame_count: int, frames_per_second: float) -> int:
        """Return the number of segments of the windows that are sampled, each as many as the others."""
        windows = self.windows(frame_count, frames_per_second)[self.first : self.stop]
        return sum(self.base.segments(int(stop - start), frames_per_second) for start, stop in windows)

    def first_frames(self, frame_count: int, frames_per_second: float, *, window: int, video: str = "") -> np.ndarray:
        """First frame of each segment, one window after the other; see `Sampler.first_frames`."""
        windows = self.windows(frame_count, frames_per_second)[self.first : self.stop]
        parts = [
            start + self.base.first_frames(int(stop - start), frames_per_second, window=window, video=video)
            for start, stop in windows
        ]
        return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)
