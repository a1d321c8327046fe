"""Which frames of a video its segments stand on: the samplers of the four papers."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..errors import UsageError

RULES = {"uniform": 1, "centre": 1, "every": 1, "fps": 1, "windows": 3, "random": 2}
"""Rules, and how many numbers each takes."""

MOST_PER_FRAME = 100
"""Segments of one frame: a video that states so low a rate that `fps:R` would take more states nonsense."""

_SEGMENTS = 2**32 - 1
"""Of the random draws of segments: those of crops have the segment's number here."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A sampling rule; `str(sampler)` is its canonical spelling, `Sampler.parse` reads it back.

    `uniform:T`
        The TSN rule (Wang et al. 2016): step = floor((n - window) / (T - 1)), segment t starts at step * t; all at
        frame 0 when the video is too short for a step. T segments whatever the length.
    `centre:T`
        The centre of each of T equal parts: floor((t + 1/2) * n / T), moved back where its window would overrun.
    `every:N`
        One segment every N frames, starting at frame 0; the number of segments follows the length.
    `fps:R`
        R segments a second by the video's own frame rate; R may be fractional.
    `windows:L:S:M`
        Every frame of windows of L frames with stride S, at most M of them, evenly spaced over those there are; one
        window after the other (GLKA's clips: 30:15:20). Frames that two windows share are segments of both.

    Raises
    ------
    UsageError
        For an unknown rule or a value that is not positive.
    """

    rule: str
    values: tuple[Fraction, ...]
    seed: int = 0  # of `random`; not in the spelling

    def __post_init__(self) -> None:
        if self.rule not in RULES or len(self.values) != RULES[self.rule]:
            raise UsageError(
                f"Unknown sampler {self}; write one of uniform:T, centre:T, every:N, fps:R, "
                "windows:LENGTH:STRIDE:MOST, random:PARTS:FRAMES."
            )
        if min(self.values) <= 0 or (self.rule != "fps" and any(v.denominator != 1 for v in self.values)):
            raise UsageError(f"Sampler {self}: the numbers must be positive and whole (fps may be 2.5).")

    @classmethod
    def parse(cls, text: str, *, seed: int = 0) -> Sampler:
        """Read `rule:number`, or `rule:number:number:number`."""
        rule, *values = text.split(":")
        try:
            return cls(rule=rule, values=tuple(Fraction(value) for value in values), seed=seed)
        except (ValueError, ZeroDivisionError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"Sampler {text!r}: write a rule and a number, such as uniform:25 or every:30.") from None

    def __str__(self) -> str:
        return ":".join([self.rule, *(str(v.numerator if v.denominator == 1 else float(v)) for v in self.values)])

    @property
    def fixed_segments(self) -> int | None:
        """T if every video gets the same number of segments, else None."""
        if self.rule == "random":
            return int(self.values[0] * self.values[1])
        return int(self.values[0]) if self.rule in ("uniform", "centre") else None

    @property
    def window_segments(self) -> int | None:
        """Segments per window of `windows`, None of other rules."""
        return int(self.values[0]) if self.rule == "windows" else None

    @property
    def random(self) -> bool:
        """Whether the segments are drawn from a seed."""
        return self.rule == "random"

    @property
    def needs_rate(self) -> bool:
        """Whether a video must state its frame rate."""
        return self.rule == "fps"

    def segments(self, frame_count: int, frames_per_second: float) -> int:
        """Return the number of segments of a video with `frame_count` frames (at least 1, a short video is clamped)."""
        if self.fixed_segments is not None:
            return self.fixed_segments
        return len(self.first_frames(frame_count, frames_per_second, window=1))

    def first_frames(self, frame_count: int, frames_per_second: float, *, window: int, video: str = "") -> np.ndarray:
        """First frame of each segment.

        Parameters
        ----------
        frame_count : decoded frames of the video, >= 1
        frames_per_second : average rate; used by `fps:R` only
        window : frames that the longest stream of a segment spans; segments are placed so that it fits where it can
        video : its id, from which `random` draws

        Returns
        -------
        (T,) int64, in [0, max(0, frame_count - window)] for `uniform`, `centre` and `random`, in [0, frame_count - 1]
        for the others (what overruns is clamped at the last frame); non-decreasing, within each window for `windows`.

        Raises
        ------
        UsageError
            If `fps:R` meets a video whose frame rate is unknown, or so low that it cannot be true.
        """
        if frame_count < 1:
            raise ValueError(f"a video without frames has no segments (frame_count={frame_count})")
        last = max(0, frame_count - window)
        value = self.values[0]
        if self.rule == "uniform":
            T = int(value)
            step = (frame_count - window) // (T - 1) if T > 1 else 0
            return np.arange(T, dtype=np.int64) * max(0, step)
        if self.rule == "centre":
            T = int(value)
            centres = (2 * np.arange(T, dtype=np.int64) + 1) * frame_count // (2 * T)
            return np.minimum(centres, last)
        if self.rule == "random":
            return self._draw(last + 1, video)
        if self.rule == "every":
            return np.arange(0, frame_count, int(value), dtype=np.int64)
        if self.rule == "windows":
            length, stride, most = (int(v) for v in self.values)
            starts = np.arange(0, max(1, frame_count - length + 1), stride, dtype=np.int64)
            if len(starts) > most:
                starts = starts[np.linspace(0, len(starts) - 1, most).round().astype(np.int64)]
            return np.minimum(starts[:, None] + np.arange(length), frame_count - 1).ravel()
        if frames_per_second <= 0:
            raise UsageError(f"Sampler {self}: this video states no frame rate; use every:N or uniform:T.")
        if float(value) > MOST_PER_FRAME * frames_per_second:
            raise UsageError(
                f"Sampler {self}: this video states {frames_per_second:g} frames a second, which would give each frame "
                f"over {MOST_PER_FRAME} segments; use every:N or uniform:T."
            )
        count = max(1, int(np.ceil(frame_count * float(value) / frames_per_second - 1e-9)))
        firsts = np.floor(np.arange(count) * (frames_per_second / float(value)) + 1e-9).astype(np.int64)
        return np.minimum(firsts, frame_count - 1)

    def _draw(self, places: int, video: str) -> np.ndarray:
        """Draw from the frames 0..places - 1 of a video; (T,) int64."""
        parts, each = (int(value) for value in self.values)
        random = np.random.default_rng([self.seed, zlib.crc32(video.encode()), _SEGMENTS])
        drawn = np.empty((parts, each), np.int64)
        for part in range(parts):
            start = part * places // parts
            stop = max(start + 1, (part + 1) * places // parts)  # a video of fewer frames than parts repeats some
            enough = stop - start >= each
            drawn[part] = start + np.sort(random.choice(stop - start, each, replace=not enough))
        return drawn.ravel()
