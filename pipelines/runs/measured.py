"""What a run's `metrics.json` says: how the fit ended, and every evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..metrics.classification import ClassResult, Denominators, Measures
from ..record import OPTIONAL, Record


@dataclass(frozen=True, kw_only=True)
class CrossValidation(Record):
    """The measure of the out-of-fold scores for one strength of a support vector machine."""

    C: float
    measure: float


@dataclass(frozen=True, kw_only=True)
class FitMeasures(Record):
    """What was measured at the end of a fit."""

    validation: Measures | None  # over all views; None without a validation part


@dataclass(frozen=True, kw_only=True)
class FitResult(Record):
    """The end of a fit."""

    run: str
    head: str
    streams: tuple[str, ...]
    metrics: FitMeasures
    seconds: float
    steps: int | None = field(default=None, metadata=OPTIONAL)  # done, of a head that is trained
    best_step: int | None = field(default=None, metadata=OPTIONAL)  # whose weights are kept
    selected_by: str
    C: float | None = field(default=None, metadata=OPTIONAL)  # of support vector machines
    cross_validation: tuple[CrossValidation, ...] | None = field(
        default=None, metadata={"beside": "C"}
    )  # None: C was given
    classes: int | None = field(default=None, metadata=OPTIONAL)  # runs of before do not say
    train_videos: int
    validation_videos: int
    notes: tuple[str, ...]
    finished_before: bool | None = field(
        default=None, metadata=OPTIONAL
    )  # whether the run was finished when the fit was asked for
    svm: FitResult | None = field(default=None, metadata=OPTIONAL)  # of `--classifier svm`: the machine on top


@dataclass(frozen=True, kw_only=True)
class OfficialFigures(Measures):
    """The metrics of an evaluation and the mean of top-1 and top-5."""

    average: float | None


@dataclass(frozen=True, kw_only=True)
class Official(Record):
    """The official number of a dataset; None where undefined."""

    dataset: str
    protocol: str
    text: str  # what the protocol counts
    primary: str  # which of the figures is the number
    value: float | None
    spread: float | None  # sample standard deviation over splits; None for one
    splits: Mapping[str, float | None]  # the number by split
    listed: int  # videos, all splits together; so the two that follow
    scored: int
    missing: int
    caveats: tuple[str, ...]  # what keeps it from being the official number
    figures: OfficialFigures  # means over the splits


@dataclass(frozen=True, kw_only=True)
class Sampled(Record):
    """Where in its videos a store has the features that were read; None = it does not say."""

    views: str | None  # that were averaged over, such as 10crop
    sampler: str | None  # the rule that placed the segments, such as uniform:25
    window_frames: int | None  # kept free behind a segment's first frame
    seed: int | None  # of random crops and segments; None: none is random


@dataclass(frozen=True, kw_only=True)
class Evaluation(Record):
    """Class scores on a part of a split, measured."""

    run: str  # or the file of scores
    split: str | None  # None: a file measured by its own labels; so `part`
    part: str | None
    videos: int  # scored
    listed: int
    missing: int  # listed, not scored
    unlisted: int | None = field(default=None, metadata=OPTIONAL)  # of a file of scores: scored, not listed, left out
    truth: str | None = field(default=None, metadata=OPTIONAL)  # of a file of scores: who says its labels
    protocol: str  # how the numbers were made, in one line
    sampled: Sampled | None = field(default=None, metadata=OPTIONAL)  # of a run
    metrics: Measures
    denominators: Denominators
    confusion: (
        tuple[tuple[int, ...], ...] | None
    )  # row = true, column = best class; None: several labels, 2,000 classes
    per_class: tuple[ClassResult, ...]
    store: str | None = field(default=None, metadata=OPTIONAL)  # in `metrics.json`: the store that was read
    scores: str | None = field(default=None, metadata=OPTIONAL)  # of a run: the file in which it keeps the scores
    seen: int | None = field(
        default=None, metadata=OPTIONAL
    )  # with `--allow-seen`: scored videos that the run was fitted or selected on
    seen_note: str | None = field(default=None, metadata=OPTIONAL)  # the same in words, or why nobody knows
    official: Official | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class FusionResult(Evaluation):
    """The evaluation of a fusion's test scores, and how it was made."""

    method: str
    parts: tuple[str, ...]
    learned: Mapping[str, Any]  # weights and the like, as the method has them
    seconds: float


@dataclass(frozen=True, kw_only=True)
class FusionMeasures(Record):
    """The end of a fusion in `metrics.json`, where a fit has its own."""

    run: str
    head: str
    streams: tuple[str, ...]
    metrics: FitMeasures
    seconds: float
    parts: tuple[str, ...]
    learned: Mapping[str, Any]
    validation_videos: int
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OfficialEvaluation(Record):
    """Evaluations of several runs, one per split, and the official number that they make; means over the runs."""

    run: str
    split: str
    videos: int
    listed: int
    missing: int
    metrics: Measures
    protocol: str
    official: Official
    runs: tuple[Evaluation, ...]
