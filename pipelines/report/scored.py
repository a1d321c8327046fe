"""The scores of a run on one part of a split, with what was measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...errors import UsageError
from ...heads.contract import Head
from ...heads.registry import HEADS
from ..metrics.classification import label_ranks, multi_hot
from ..results.score_files import read_scores
from ..runs.identity import FusionIdentity
from ..runs.measured import Evaluation
from ..runs.places import Place
from ..runs.run import Run
from .intervals import Interval, of_class_mean, of_map, of_share


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores by video, with their evaluation."""

    evaluation: Evaluation
    classes: tuple[str, ...]
    ids: np.ndarray  # [n] str
    scores: np.ndarray  # [n, N] float64
    hot: np.ndarray  # [n, N] bool
    kind: str  # what the scores are, such as "class probabilities"

    @cached_property
    def right(self) -> np.ndarray:
        """Whether the best class is a true one, [n] bool."""
        return self.hot[np.arange(len(self.ids)), self.scores.argmax(1)]

    @cached_property
    def margins(self) -> np.ndarray:
        """Score of the best true class less that of the best wrong one, [n]; -inf without a label."""
        true = np.where(self.hot, self.scores, -np.inf).max(1)
        wrong = np.where(self.hot, -np.inf, self.scores).max(1, initial=-np.inf)
        return np.where(np.isfinite(true) & np.isfinite(wrong), true - wrong, true)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measure with its interval and what it is taken over."""

    key: str
    name: str
    value: float
    interval: Interval | None  # 95 %
    over: str  # the denominator, in words
    how: str  # where the interval comes from; "" without one


def read_scored(run: Run, split: str, part: str) -> Scored | None:
    """Return a run's scores on a part of a split, None if it was not evaluated on it.

    Raises
    ------
    MissingFileError, UsageError
        If the run was evaluated, and its file of scores is missing, damaged or of something else.
    """
    place = Place(split=split, part=part)
    evaluation = run.evaluation(place.name)
    if evaluation is None:
        return None
    identity, path = run.identity, run.verified(place.scores)
    table = read_scores(path, identity.classes)
    if table.labels is None or len(table.ids) != evaluation.videos:
        raise UsageError(
            f"{path} is not what `vidatt evaluate {run.quoted}` measured ({len(table.ids)} videos, measured "
            f"{evaluation.videos}); evaluate again."
        )
    if isinstance(identity, FusionIdentity):
        kind = identity.scores
    else:
        kind = HEADS[identity.head].head.score_kind if identity.head in HEADS else Head.score_kind
    return Scored(
        evaluation=evaluation,
        classes=identity.classes,
        ids=np.array(table.ids),
        scores=table.scores.astype(np.float64),
        hot=multi_hot(table.labels.reshape(len(table.ids), -1), len(identity.classes)),
        kind=kind,
    )


def figures(scored: Scored, *, multi_label: bool) -> tuple[Figure, ...]:
    """Return the measures that are defined, each with its denominator and 95 % interval."""
    found, metrics, over = [], scored.evaluation.metrics, scored.evaluation.denominators
    labelled = scored.hot.any(1)
    ranks = label_ranks(scored.scores, scored.hot)[labelled]
    for key, k in (("top1", 1), ("top5", 5)):
        value = getattr(metrics, key)
        if value is None or (k > 1 and k >= len(scored.classes)):  # nothing can be missed among all classes
            continue
        right = int((ranks < k).sum())
        found.append(
            Figure(
                key=key,
                name=f"{'hit@' if multi_label else 'top-'}{k}",
                value=value,
                interval=of_share(right, len(ranks)),
                over=f"{right} of {over.top} videos",
                how="Wilson",
            )
        )
    if metrics.class_mean is not None:
        labels = scored.hot[labelled].argmax(1)
        found.append(
            Figure(
                key="class_mean",
                name="class mean",
                value=metrics.class_mean,
                interval=of_class_mean(scored.right[labelled], labels),
                over=f"{over.classes} classes, {over.top} videos",
                how="bootstrap over videos",
            )
        )
    if metrics.map is not None:
        interval = of_map(scored.scores, scored.hot)
        found.append(
            Figure(
                key="map",
                name="mAP",
                value=metrics.map,
                interval=interval,
                over=f"{over.classes} classes, {over.map} videos ranked",
                how="bootstrap over videos" if interval else "",
            )
        )
    return tuple(found)
