"""`vidatt window-recall`: how much of the true intervals attention keeps, in windows that are cut around them.

This is what Table 4 of "Where and When to Look?" shows. It is no mAP: the truth says where the windows are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...errors import UsageError
from ...heads.contract import require_range
from ..metrics.detection import AMBIGUOUS, window_recall
from ..runs.attention import Window, attention_in_windows
from ..runs.views import central_view
from .reading import Reading, ReadingConfig, ReadingResult, open_reading
from .times import Times

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of the annotated segments, as in the paper's table."""


@dataclass(frozen=True, kw_only=True)
class WindowsConfig(ReadingConfig):
    """What `window-recall` is asked for; the defaults are those of the authors' code for THUMOS14 at 10 frames/s."""

    window: int = 50  # segments
    limit: float = 0.023  # segments whose weight is above it are kept; all alike they weigh 1 / window
    single_label: bool = False  # only videos of one class

    def __post_init__(self) -> None:
        require_range(self, "window", least=5)
        require_range(self, "limit", least=0.0, below=1.0)


@dataclass(frozen=True, kw_only=True)
class WindowRecall(ReadingResult):
    """What `window-recall` measured."""

    window: int
    limit: float
    single_label: bool
    windows: int  # one around each true interval of the videos
    outside: int  # true intervals that begin behind the last segment, which have no window
    accuracy: float  # share of the windows whose class is said right
    kept: float  # share of all segments of windows whose weight is above the limit
    thresholds: tuple[float, ...]
    window_recall: tuple[float, ...]  # share of windows said right of whose annotated segments more than that is kept


@dataclass(frozen=True, eq=False, kw_only=True)
class TrueWindow(Window):
    """A window around a true interval."""

    annotated: np.ndarray  # [W] bool, which of its segments are of the interval
    label: int


def measure_windows(config: WindowsConfig) -> WindowRecall:
    """Let a head see windows around the true intervals, and count the annotated segments that its attention keeps.

    Raises
    ------
    UsageError
        If the run is unfinished, the store has no times, or no true interval of the videos is known.
    RefusedError
        As `evaluate`.
    """
    reading = open_reading(config)
    store, videos = reading.store, reading.chosen.videos
    if config.single_label:
        videos = videos[(store.index.labels[videos] >= 0).sum(1) == 1]
    windows, outside = _windows(reading, videos, config.window)
    if not windows:
        only = " of a single label" if config.single_label else ""
        raise UsageError(
            f"{store.path} knows no true interval of these {len(videos)} videos{only}, around which windows are cut; "
            "extract a dataset that has some, such as thumos14."
        )
    kept = np.zeros((len(windows), config.window), bool)
    right = np.zeros(len(windows), bool)
    looks = attention_in_windows(reading.run, store, windows, view=central_view(store), device=config.device)
    for n, (window, seen) in enumerate(zip(windows, looks, strict=True)):
        of_window = f"{seen.id}#{window.segments[0]}-{window.segments[-1]}"  # random attention is another in each
        looked = reading.substitute(replace(seen, id=of_window))
        kept[n] = looked.temporal > config.limit
        right[n] = int(looked.probabilities.argmax()) == window.label
    annotated = np.stack([window.annotated for window in windows])
    result = WindowRecall(
        **vars(reading.said(len({window.video for window in windows}))),
        window=config.window,
        limit=config.limit,
        single_label=config.single_label,
        windows=len(windows),
        outside=outside,
        accuracy=float(right.mean()),
        kept=float(kept.mean()),
        thresholds=THRESHOLDS,
        window_recall=tuple(window_recall(kept, annotated, right, thresholds=THRESHOLDS).tolist()),
    )
    rule = f"{config.window}-above-{config.limit:g}{'-single-label' if config.single_label else ''}"
    return reading.keep("window-recall", rule, result)


def cut_window(first: int, last: int, *, segments: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a window around a true interval, as the authors' code does with 50 frames.

    An interval that lasts up to three fifths of the window is in its middle. Of a longer one every n-th segment is
    taken, so that three fifths of the window are of it, and a fifth lies on each side in the same steps; what of it
    lies behind is not seen, and not annotated. At both ends of the video the window is filled from behind; behind the
    last segment, the last one is repeated.

    Parameters
    ----------
    first, last : segments in which the interval begins and ends
    segments : T, those of the video
    window : W

    Returns
    -------
    segments of the window, [W] int64; which of them are annotated, [W] bool
    """
    inside = window * 3 // 5
    lasts = last - first
    step = max(1, lasts // inside)
    own = np.arange(first, last + 1, step)
    if lasts > inside:
        own, margin = own[:inside], step * ((window - inside) // 2)
    else:
        margin = (window - lasts) // 2
    before = np.arange(max(0, first - margin), first, step)
    after = np.arange(last + 1, last + margin + 1, step)
    chosen = np.concatenate([before, own, after])
    more = np.arange(last + margin + 1, last + margin + 1 + window - len(chosen))
    chosen = np.concatenate([chosen, more])[:window]
    annotated = np.isin(np.arange(window), np.arange(len(before), len(before) + len(own)))
    return np.minimum(chosen, segments - 1), annotated


def _windows(reading: Reading, videos: np.ndarray, window: int) -> tuple[list[TrueWindow], int]:
    """Return a window around each true interval of videos, in their order, and how many lie behind their video."""
    store, names = reading.store, reading.identity.stream_names
    times = Times(store, names[0])
    readers = [store.stream(name).reader() for name in names]
    found: list[TrueWindow] = []
    outside = 0
    for video in videos.tolist():
        spans = list(_intervals(reading, video))
        if not spans:
            continue
        real = np.all([reader.frames(video)[:, 0] >= 0 for reader in readers], axis=0)
        T = int(real.sum())  # what a video has not lies behind what it has
        bounds = times.bounds(video, T)
        for start, stop, label in spans:
            if start >= bounds[-1, 1]:
                outside += 1
                continue
            first, last = (max(0, int(np.searchsorted(bounds[:, 0], t, side="right")) - 1) for t in (start, stop))
            chosen, annotated = cut_window(first, last, segments=T, window=window)
            found.append(TrueWindow(video=video, segments=chosen, annotated=annotated, label=label))
    return found, outside


def _intervals(reading: Reading, video: int) -> Iterator[tuple[float, float, int]]:
    """Yield start and stop in seconds and class of each true interval of a video."""
    index = reading.store.index
    for row in np.flatnonzero((index.interval_video == video) & (index.interval_label != AMBIGUOUS)):
        start, stop = index.interval_seconds[row].tolist()
        yield start, stop, int(index.interval_label[row])
