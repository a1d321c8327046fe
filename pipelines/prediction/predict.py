"""`vidatt predict`: what fitted heads say of videos that no store has, or of the videos of a store without labels."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from ...cache.scratch import write_atomically
from ...errors import UsageError
from ..record import OPTIONAL, Record
from ..runs.measured import Sampled
from ..runs.progress import Progress
from ..runs.run import CONFIG
from .clips import find_clips
from .predictor import Prediction, Predictor, PredictorConfig, mean_of_windows
from .stored import predict_store

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What `predict` is asked for.

    Raises
    ------
    UsageError
        Without runs, without videos and without a store, with both, and for a number of classes below 1.
    """

    runs: tuple[Path, ...]
    videos: tuple[Path, ...] = ()  # files, folders and CSV files
    store: Path | None = None  # instead of videos: whose cubes are read
    folder: Path | None = None  # that the paths of a CSV are relative to
    follow_links: bool = False
    how: PredictorConfig = field(default_factory=PredictorConfig)
    top: int = 5  # classes that are told of each video
    csv: Path | None = None  # file for the scores of all classes

    def __post_init__(self) -> None:
        if not self.runs:
            raise UsageError("Name a run: `vidatt predict RUN... VIDEO...`; runs come from fit-head.")
        if bool(self.videos) == (self.store is not None):
            raise UsageError("Name videos (files, folders, a CSV) behind the runs, or else a store with --store.")
        if self.top < 1:
            raise UsageError(f"--top {self.top}: must be 1 or more.")
        if self.csv is not None and self.csv.suffix != ".csv":
            raise UsageError(f"--csv {self.csv}: the name of the file must end with .csv.")


@dataclass(frozen=True, kw_only=True)
class PredictedClass(Record):
    """A class with its score."""

    name: str
    score: float


@dataclass(frozen=True, kw_only=True)
class PredictedWindow(Record):
    """What is said of one window of a video."""

    start: float  # seconds from the file's first frame
    stop: float
    classes: tuple[PredictedClass, ...]  # best first


@dataclass(frozen=True, kw_only=True)
class PredictedInterval(Record):
    """A stretch of a video in which a class is seen."""

    name: str
    start: float  # seconds from the file's first frame
    stop: float
    score: float  # of the rule


@dataclass(frozen=True, kw_only=True)
class PredictedVideo(Record):
    """What is said of one video."""

    id: str
    outcome: str  # of decoding it: ok, truncated, unreadable, ...
    detail: str
    segments: int  # that were looked at
    classes: tuple[PredictedClass, ...]  # best first; none if nothing could be read
    windows: tuple[PredictedWindow, ...] | None = field(default=None, metadata=OPTIONAL)  # in order of time
    intervals: tuple[PredictedInterval, ...] | None = field(default=None, metadata=OPTIONAL)  # in order of time


@dataclass(frozen=True, kw_only=True)
class PredictionResult(Record):
    """What `predict` says."""

    runs: tuple[str, ...]
    store: str | None = field(default=None, metadata=OPTIONAL)
    videos: int
    outcomes: Mapping[str, int]
    scores: str  # what they are
    fusion: str | None = field(default=None, metadata=OPTIONAL)  # how those of several runs become one
    sampled: tuple[Sampled, ...]  # where each run looked
    predictions: tuple[PredictedVideo, ...]  # in the order in which the videos are named
    csv: str | None = field(default=None, metadata=OPTIONAL)
    notes: tuple[str, ...]
    seconds: float


def split_arguments(named: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Part `RUN... VIDEO...`: the first is a run, and so are those behind it that hold a run's `config.json`."""
    count = next((n for n, path in enumerate(named) if n and not (path / CONFIG).is_file()), len(named))
    return tuple(named[:count]), tuple(named[count:])


def predict(config: PredictConfig) -> PredictionResult:
    """Put fitted heads on videos.

    Raises
    ------
    MissingFileError, UsageError
        If a run, a folder or a CSV is not there or cannot be read.
    WeightsError
        If weights of a network are not found.
    RefusedError
        If runs cannot be fused, or a stream or a store is none that can be made or read for them.
    """
    started = time.monotonic()
    if config.store is not None:
        found = predict_store(config.runs, config.store, config.how)
        predictions, about = found.predictions, found.about
    else:
        clips = find_clips(config.videos, folder=config.folder, follow_links=config.follow_links)
        with Predictor(config.runs, config.how) as predictor:
            plan = predictor.plan(clips)
            with Progress("predict", plan.inputs, unit="segment") as progress:
                predictions = list(predictor.run(plan, computed=lambda count: progress.advance(count=count)))
            about = predictor.about()
    videos = [list(group) for _, group in groupby(predictions, key=lambda one: one.clip.id)]
    whole = [windows[0] if len(windows) == 1 else mean_of_windows(windows) for windows in videos]
    if config.csv is not None:
        write_scores_csv(config.csv, whole)
    return PredictionResult(
        runs=tuple(map(str, config.runs)),
        store=None if config.store is None else str(config.store),
        videos=len(whole),
        outcomes=dict(sorted(Counter(one.report.outcome for one in whole).items())),
        scores=about.score_kind,
        fusion=about.fusion,
        sampled=about.sampled,
        predictions=tuple(_told(one, windows, config.top) for one, windows in zip(whole, videos, strict=True)),
        csv=None if config.csv is None else str(config.csv),
        notes=about.notes,
        seconds=round(time.monotonic() - started, 3),
    )


def write_scores_csv(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write the scores of all classes, a row for each video that could be read, as `fuse` and `evaluate` read them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *predictions[0].classes])
    for one in predictions:
        if one.scores is not None:
            writer.writerow([one.clip.id, *(format(float(score), ".9g") for score in one.scores)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue().encode())


def _told(whole: Prediction, windows: Sequence[Prediction], top: int) -> PredictedVideo:
    intervals = whole.intervals
    return PredictedVideo(
        id=whole.clip.id,
        outcome=whole.report.outcome,
        detail=whole.report.detail,
        segments=whole.segments,
        classes=_classes(whole, top),
        windows=tuple(_windows(windows, top)) if whole.span is not None or len(windows) > 1 else None,
        intervals=None
        if intervals is None
        else tuple(
            PredictedInterval(name=whole.classes[one.label], start=one.start, stop=one.stop, score=one.score)
            for one in intervals
        ),
    )


def _classes(prediction: Prediction, top: int) -> tuple[PredictedClass, ...]:
    return tuple(PredictedClass(name=name, score=score) for name, score in prediction.top(top))


def _windows(windows: Sequence[Prediction], top: int) -> Iterator[PredictedWindow]:
    for one in windows:
        if one.span is not None and one.scores is not None:
            yield PredictedWindow(start=one.span[0], stop=one.span[1], classes=_classes(one, top))
