"""Measures of classification; all fractions are in 0..1, all scores higher = more likely."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """One row of the per-class table; None where the measure is undefined."""

    name: str
    videos: int  # with this label among the scored
    accuracy: float | None  # share of them whose best class this is; None without videos, or with several labels each
    average_precision: float | None  # non-interpolated; None without videos


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
    labelled = hot.any(1)
    if not labelled.any():
        return float("nan")
    best = np.argsort(-scores[labelled], axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(hot[labelled], best, axis=1).any(1).mean())


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
    accuracies = class_accuracies(scores, labels)
    present = ~np.isnan(accuracies)
    return float(accuracies[present].mean()) if present.any() else float("nan")


def average_precisions(scores: np.ndarray, hot: np.ndarray) -> np.ndarray:
    """Non-interpolated average precision of each class; videos without any label are negatives everywhere.

    Parameters
    ----------
    scores : [videos, N] floating
    hot : [videos, N] bool

    Returns
    -------
    [N] float64; NaN for classes without positives
    """
    return np.array(
        [
            average_precision_score(hot[:, n], scores[:, n]) if hot[:, n].any() else np.nan
            for n in range(scores.shape[1])
        ]
    )


def mean_average_precision(scores: np.ndarray, hot: np.ndarray) -> float:
    """Mean over classes of `average_precisions`; classes without positives are left out. NaN if there are none."""
    precisions = average_precisions(scores, hot)
    present = ~np.isnan(precisions)
    return float(precisions[present].mean()) if present.any() else float("nan")


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N, N] int64 counts: row = true class, column = best-scored class."""
    return sklearn_confusion_matrix(labels, scores.argmax(1), labels=np.arange(scores.shape[1]))


def multi_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """[videos, L] class indices padded with -1 -> [videos, N] bool."""
    hot = np.zeros((len(labels), classes + 1), bool)
    np.put_along_axis(hot, np.where(labels < 0, classes, labels), True, axis=1)
    return hot[:, :classes]


def class_table(scores: np.ndarray, hot: np.ndarray, names: tuple[str, ...]) -> list[ClassResult]:
    """Per-class results in the order of the classes.

    Parameters
    ----------
    scores : [videos, N] floating
    hot : [videos, N] bool
    names : of the N classes
    """
    N = scores.shape[1]
    one_each = bool((hot.sum(1) == 1).all())
    accuracies = class_accuracies(scores, hot.argmax(1)) if one_each else np.full(N, np.nan)
    return [
        ClassResult(
            name=name, videos=int(videos), accuracy=_or_none(accuracy), average_precision=_or_none(precision)
        )
        for name, videos, accuracy, precision in zip(
            names, hot.sum(0), accuracies, average_precisions(scores, hot), strict=True
        )
    ]  # fmt: skip


def summary(scores: np.ndarray, hot: np.ndarray, *, multi_label: bool) -> dict[str, float | None]:
    """Compute the four numbers that every evaluation reports: `top1`, `top5`, `class_mean`, `map`.

    Parameters
    ----------
    scores : [videos, N] floating
    hot : [videos, N] bool
    multi_label : whether a video may have several labels or none; then top-k is Hit@k over the labelled videos and
        `class_mean` is None

    Returns
    -------
    dict of fractions; None where a measure is undefined
    """
    labelled = hot.any(1)
    mean = None if multi_label else class_mean(scores[labelled], hot[labelled].argmax(1))
    return {
        "top1": _or_none(top_k(scores, hot, 1)),
        "top5": _or_none(top_k(scores, hot, 5)),
        "class_mean": None if mean is None else _or_none(mean),
        "map": _or_none(mean_average_precision(scores, hot)),
    }


def measured(
    scores: np.ndarray, hot: np.ndarray, names: tuple[str, ...], *, multi_label: bool
) -> dict[str, dict[str, float | None] | list[Any] | None]:
    """Compute all that an evaluation reports, as JSON values; arguments as `summary` and `class_table`.

    Returns
    -------
    `{"metrics": summary, "confusion": [N][N] counts (None for several labels each), "per_class": class_table}`
    """
    labelled = hot.any(1)
    confusion = None if multi_label else confusion_matrix(scores[labelled], hot[labelled].argmax(1)).tolist()
    return {
        "metrics": summary(scores, hot, multi_label=multi_label),
        "confusion": confusion,
        "per_class": [asdict(row) for row in class_table(scores, hot, names)],
    }


def _or_none(value: float) -> float | None:
    """NaN, which JSON has not, -> None."""
    return None if np.isnan(value) else float(value)
