"""Measures of classification; all fractions are in 0..1, all scores higher = more likely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..record import Record

MOST_CONFUSED = 2_000
"""Classes of a confusion matrix: of more it would fill gigabytes, and nobody reads it."""

_PAIRS_AT_ONCE = 1 << 22
"""Scores that `label_ranks` compares at a time: a few tens of megabytes whatever the file's size."""


@dataclass(frozen=True, kw_only=True)
class ClassResult(Record):
    """One row of the per-class table; None where the measure is undefined."""

    name: str
    videos: int  # with this label among the scored
    accuracy: float | None  # share of them whose best class this is; None without videos, or with several labels each
    average_precision: float | None  # non-interpolated; None without videos


@dataclass(frozen=True, kw_only=True)
class Measures(Record):
    """The four numbers that every evaluation reports, fractions in 0..1; None where undefined."""

    top1: float | None
    top5: float | None
    class_mean: float | None  # None for several labels each
    map: float | None  # non-interpolated


@dataclass(frozen=True, kw_only=True)
class Denominators(Record):
    """Over how many each measure is taken."""

    top: int  # labelled videos: of top1, top5
    map: int  # videos ranked, those without a label included
    classes: int  # with positives: of map and class_mean


@dataclass(frozen=True, kw_only=True)
class Measured(Record):
    """All that an evaluation reports."""

    metrics: Measures
    denominators: Denominators
    confusion: (
        tuple[tuple[int, ...], ...] | None
    )  # row = true, column = best class; None: several labels, 2,000 classes
    per_class: tuple[ClassResult, ...]


def label_ranks(scores: np.ndarray, hot: np.ndarray) -> np.ndarray:
    """Rank of the best-scored true label of each video, 0 = the best class of all; N for a video without labels.

    Parameters
    ----------
    scores : [videos, N] floating; ties go to the lower class index, as in argmax
    hot : [videos, N] bool

    Returns
    -------
    [videos] int64
    """
    N = scores.shape[1]
    ranks = np.full(len(scores), N)
    videos, classes = np.nonzero(hot)
    step = max(1, _PAIRS_AT_ONCE // max(1, N))
    for start in range(0, len(videos), step):
        rows, labels = videos[start : start + step], classes[start : start + step, None]
        given = scores[rows]
        own = np.take_along_axis(given, labels, axis=1)
        before = (given > own) | ((given == own) & (np.arange(N) < labels))
        np.minimum.at(ranks, rows, before.sum(1))
    return ranks


def top_k(scores: np.ndarray, hot: np.ndarray, k: int) -> float:
    """Share of videos with a true label among the k best classes (Hit@k; with one label each: top-k accuracy).

    Parameters
    ----------
    scores : [videos, N] floating; ties go to the lower class index, as in argmax
    hot : [videos, N] bool; videos without any label are left out of the denominator
    k : 1 or more; more than N counts as N

    Returns
    -------
    0..1; NaN if no video has a label
    """
    return _hits(label_ranks(scores, hot), hot, k)


def class_accuracies(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Accuracy within each class.

    Parameters
    ----------
    scores : [videos, N] floating
    labels : [videos] class indices

    Returns
    -------
    [N] float64; NaN for classes without videos
    """
    N = scores.shape[1]
    right = np.bincount(labels, weights=scores.argmax(1) == labels, minlength=N)
    videos = np.bincount(labels, minlength=N)
    return np.divide(right, videos, out=np.full(N, np.nan), where=videos > 0)


def class_mean(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over classes of the accuracy within the class; classes without videos are left out. NaN without videos."""
    return _mean_of_defined(class_accuracies(scores, labels))


def average_precisions(scores: np.ndarray, hot: np.ndarray) -> np.ndarray:
    """Non-interpolated average precision of each class; videos without any label are negatives everywhere.

    Equal scores share the rank of the last of them, as in scikit-learn: the order of the videos does not matter.

    Parameters
    ----------
    scores : [videos, N] floating, without NaN
    hot : [videos, N] bool

    Returns
    -------
    [N] float64; NaN for classes without positives
    """
    return np.array([_average_precision(scores[:, n], hot[:, n]) for n in range(scores.shape[1])])


def _average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """[videos] and [videos] bool -> the mean over positives of the precision at their rank."""
    if not positive.any():
        return float("nan")
    everything, found = np.sort(scores), np.sort(scores[positive])
    ranks = len(everything) - np.searchsorted(everything, found)  # how many are scored at least as high
    right = len(found) - np.searchsorted(found, found)  # how many of these are positive
    return float((right / ranks).mean())


def mean_average_precision(scores: np.ndarray, hot: np.ndarray) -> float:
    """Mean over classes of `average_precisions`; classes without positives are left out. NaN if there are none."""
    return _mean_of_defined(average_precisions(scores, hot))


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N, N] int64 counts: row = true class, column = best-scored class."""
    N = scores.shape[1]
    return np.bincount(labels * N + scores.argmax(1), minlength=N * N).reshape(N, N)


def multi_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """[videos, L] class indices padded with -1 -> [videos, N] bool."""
    hot = np.zeros((len(labels), classes + 1), bool)
    np.put_along_axis(hot, np.where(labels < 0, classes, labels), True, axis=1)
    return hot[:, :classes]


def class_table(
    scores: np.ndarray, hot: np.ndarray, names: tuple[str, ...], precisions: np.ndarray | None = None
) -> list[ClassResult]:
    """Per-class results in the order of the classes.

    Parameters
    ----------
    scores : [videos, N] floating
    hot : [videos, N] bool
    names : of the N classes
    precisions : what `average_precisions` returned, if it is known
    """
    precisions = average_precisions(scores, hot) if precisions is None else precisions
    N = scores.shape[1]
    one_each = bool((hot.sum(1) == 1).all())
    accuracies = class_accuracies(scores, hot.argmax(1)) if one_each else np.full(N, np.nan)
    return [
        ClassResult(name=name, videos=int(videos), accuracy=_or_none(accuracy), average_precision=_or_none(precision))
        for name, videos, accuracy, precision in zip(names, hot.sum(0), accuracies, precisions, strict=True)
    ]


def summary(
    scores: np.ndarray, hot: np.ndarray, *, multi_label: bool, precisions: np.ndarray | None = None
) -> Measures:
    """Compute the four numbers that every evaluation reports.

    Parameters
    ----------
    scores : [videos, N] floating
    hot : [videos, N] bool
    multi_label : whether a video may have several labels or none; then top-k is Hit@k over the labelled videos and
        `class_mean` is None
    precisions : what `average_precisions` returned, if it is known
    """
    labelled = hot.any(1)
    ranks = label_ranks(scores, hot)
    mean = None if multi_label else class_mean(scores[labelled], hot[labelled].argmax(1))
    precisions = average_precisions(scores, hot) if precisions is None else precisions
    return Measures(
        top1=_or_none(_hits(ranks, hot, 1)),
        top5=_or_none(_hits(ranks, hot, 5)),
        class_mean=None if mean is None else _or_none(mean),
        map=_or_none(_mean_of_defined(precisions)),
    )


def measured(scores: np.ndarray, hot: np.ndarray, names: tuple[str, ...], *, multi_label: bool) -> Measured:
    """Compute all that an evaluation reports; arguments as `summary` and `class_table`."""
    labelled = hot.any(1)
    large = hot.shape[1] > MOST_CONFUSED
    confusion = None if multi_label or large else confusion_matrix(scores[labelled], hot[labelled].argmax(1)).tolist()
    precisions = average_precisions(scores, hot)
    return Measured(
        metrics=summary(scores, hot, multi_label=multi_label, precisions=precisions),
        denominators=Denominators(top=int(labelled.sum()), map=len(hot), classes=int(hot.any(0).sum())),
        confusion=None if confusion is None else tuple(map(tuple, confusion)),
        per_class=tuple(class_table(scores, hot, names, precisions)),
    )


def _hits(ranks: np.ndarray, hot: np.ndarray, k: int) -> float:
    """Share of the labelled videos whose rank is below k; NaN if there are none."""
    labelled = hot.any(1)
    return float((ranks[labelled] < k).mean()) if labelled.any() else float("nan")


def _mean_of_defined(values: np.ndarray) -> float:
    """Mean without the NaN; NaN if nothing is left."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _or_none(value: float) -> float | None:
    """NaN, which JSON has not, -> None."""
    return None if np.isnan(value) else float(value)
