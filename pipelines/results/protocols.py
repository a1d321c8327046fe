"""The official protocol of a dataset: which of the numbers is its own, and over which splits it is averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import RefusedError, UsageError
from ...extract.datasets.registry import DATASETS, describe
from ..metrics.classification import Measures
from ..runs.measured import Evaluation, Official, OfficialFigures


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a kind of protocol counts."""

    primary: str  # which of the `OfficialFigures`
    text: str  # one line
    over_splits: bool = False  # whether the number is the mean over all splits, one run each


OFFICIAL = {
    "accuracy-mean-of-splits": Protocol(
        primary="top1", text="accuracy over all test videos of a split, mean of the splits", over_splits=True
    ),
    "class-accuracy-mean-of-folds": Protocol(
        primary="class_mean",
        text="mean of the classes' accuracies within a fold, mean of the folds",
        over_splits=True,
    ),
    "map": Protocol(
        primary="map",
        text="non-interpolated average precision of each class, videos of no class being negatives; mean of classes",
    ),
    "hit": Protocol(
        primary="top1", text="Hit@1, the share of labelled videos whose best class is one of theirs; top5 is Hit@5"
    ),
    "top1-top5-average": Protocol(primary="average", text="mean of top-1 and top-5 accuracy"),
}
"""Protocols of classification by the names that datasets give them."""


def find_protocol(dataset: str | None, what: str) -> Protocol:
    """Return the official protocol of a dataset.

    Parameters
    ----------
    dataset : its name as a store keeps it
    what : the run or file that is evaluated, for messages

    Raises
    ------
    UsageError
        If it has none, or one that is no matter of class scores.
    """
    name = describe(dataset).protocol if dataset is not None and dataset in DATASETS else ""
    if name == "detection-map":
        raise UsageError(
            f"{what}: the official protocol of {dataset!r} is detection; run `vidatt detect RUN`, then "
            "`vidatt evaluate-detections`."
        )
    if name not in OFFICIAL:
        having = ", ".join(sorted(known for known in DATASETS if describe(known).protocol))
        raise UsageError(
            f"{what}: dataset {dataset!r} has no official protocol (those that have: {having}); leave out --protocol."
        )
    return OFFICIAL[name]


def official_splits(
    dataset: str, given: Sequence[str], splits: Sequence[str], what: str
) -> tuple[Protocol, tuple[str, ...]]:
    """Return the protocol of a dataset and its splits; arguments as `official`, `given` are the splits to use.

    Raises
    ------
    UsageError
        See `find_protocol`.
    RefusedError
        If a split is not an official one, is there twice, or is one too many.
    """
    protocol = find_protocol(dataset, what)
    expected = tuple(describe(dataset).splits) or tuple(splits)
    if len(given) > 1 and not protocol.over_splits:
        raise RefusedError(f"{what}: the official protocol of {dataset!r} has one test list; give one run.")
    for split in given:
        if split not in expected:
            raise RefusedError(f"{what}: split {split!r} is none of the official ones ({', '.join(expected)}).")
        if given.count(split) > 1:
            raise RefusedError(f"{what}: split {split!r} is there twice; give one run per split.")
    return protocol, expected


def official(dataset: str, evaluations: Sequence[Evaluation], splits: Sequence[str], what: str) -> Official:
    """Make the official number from evaluations on test lists.

    Parameters
    ----------
    dataset : name of a dataset with an official protocol
    evaluations : what `evaluate` returned, one per split
    splits : those of the store; used where the dataset's description names none
    what : see `find_protocol`

    Raises
    ------
    UsageError, RefusedError
        See `official_splits`.
    """
    given = [str(evaluation.split) for evaluation in evaluations]
    protocol, expected = official_splits(dataset, given, splits, what)
    figures = [_figures(evaluation.metrics) for evaluation in evaluations]
    values: list[float | None] = [getattr(own, protocol.primary) for own in figures]
    defined = [value for value in values if value is not None]
    return Official(
        dataset=dataset,
        protocol=describe(dataset).protocol,
        text=protocol.text,
        primary=protocol.primary,
        value=_mean(values),
        spread=float(np.std(defined, ddof=1)) if len(defined) == len(values) > 1 else None,
        splits=dict(zip(given, values, strict=True)),
        listed=sum(evaluation.listed for evaluation in evaluations),
        scored=sum(evaluation.videos for evaluation in evaluations),
        missing=sum(evaluation.missing for evaluation in evaluations),
        caveats=tuple(_caveats(dataset, protocol, evaluations, expected)),
        figures=OfficialFigures(**{key: _mean([getattr(own, key) for own in figures]) for key in figures[0].to_dict()}),
    )


def _caveats(dataset: str, protocol: Protocol, evaluations: Sequence[Evaluation], expected: Sequence[str]) -> list[str]:
    """Say what keeps a number from being the official one, one line each."""
    info = describe(dataset)
    caveats: list[str] = []
    given = [str(evaluation.split) for evaluation in evaluations]
    absent = [split for split in expected if split not in given]
    if absent and protocol.over_splits:
        caveats.append(f"{len(absent)} of {len(expected)} splits have no run: {', '.join(absent)}")
    for evaluation in evaluations:
        split, listed, missing = str(evaluation.split), evaluation.listed, evaluation.missing
        if evaluation.seen_note:
            caveats.append(f"split {split}: {evaluation.seen_note}")
        if missing:
            caveats.append(f"split {split}: {missing} of {listed} listed test videos are missing")
        if split in info.splits and info.splits[split][1] != listed:
            caveats.append(f"split {split} lists {listed} test videos, officially {info.splits[split][1]}")
    classes = len(evaluations[0].per_class)
    if info.classes not in (None, classes):
        caveats.append(f"there are {classes} classes, officially {info.classes}")
    return caveats


def measures_text(hot: np.ndarray, *, multi_label: bool) -> str:
    """Say what the denominators of an evaluation's metrics are.

    Parameters
    ----------
    hot : [videos, N] bool, true labels of the scored videos
    multi_label : whether a video may have several labels or none
    """
    N, labelled, present = hot.shape[1], int(hot.any(1).sum()), int(hot.any(0).sum())
    if multi_label:
        parts = [
            f"top1 and top5 are Hit@k over the {labelled} labelled videos; the other {len(hot) - labelled} are "
            "negatives in AP"
        ]
    else:
        parts = [f"top1 over all videos, class_mean the mean of the accuracies of {present} classes"]
    if N < 5:
        parts.append(f"top5 of {N} classes is always 1")
    parts.append(f"map non-interpolated, mean of {present} classes with positives of {N}")
    return "; ".join(parts)


def _figures(metrics: Measures) -> OfficialFigures:
    return OfficialFigures(**metrics.to_dict(), average=_mean([metrics.top1, metrics.top5]))


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if len(defined) == len(values) else None
