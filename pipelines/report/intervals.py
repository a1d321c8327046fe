"""Confidence intervals of the measures of an evaluation: how far chance in the choice of the videos reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

LEVEL = 0.95
SAMPLES = 500
"""Bootstrap samples: enough for the second digit of a 95 % interval."""
_MOST_SCORES = 1 << 21
"""Scores (videos times classes) up to which average precisions are resampled: half a minute of one core."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A confidence interval of a share, 0..1."""

    low: float
    high: float


def of_share(right: int, videos: int) -> Interval:
    """Return Wilson's 95 % interval of `right` out of `videos` (1 or more) independent videos."""
    found = binomtest(right, videos).proportion_ci(LEVEL, method="wilson")
    return Interval(low=float(found.low), high=float(found.high))


def of_class_mean(right: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> Interval:
    """Return the bootstrap's 95 % interval (percentiles) of the mean over classes of the accuracy within the class.

    Parameters
    ----------
    right : [videos] bool
    labels : [videos] class indices
    """
    N = int(labels.max()) + 1
    means = []
    for weights in _samples(len(labels), seed):
        there = np.bincount(labels, weights=weights, minlength=N)
        found = np.bincount(labels, weights=weights * right, minlength=N)
        means.append((found[there > 0] / there[there > 0]).mean())
    return _percentiles(means)


def of_map(scores: np.ndarray, hot: np.ndarray, *, seed: int = 0) -> Interval | None:
    """Return the bootstrap's 95 % interval (percentiles) of mAP; None if there are too many scores to resample.

    Parameters
    ----------
    scores : [videos, N] floating
    hot : [videos, N] bool, with a true label somewhere
    """
    if scores.size > _MOST_SCORES:
        return None
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    positive = np.take_along_axis(hot, order, axis=0)
    # equal scores share the rank of the last of them, as in `average_precisions`
    places = np.arange(len(scores))[:, None]
    ends = np.where(
        np.append(ranked[1:] != ranked[:-1], np.ones((1, scores.shape[1]), bool), axis=0), places, len(scores)
    )
    last = np.minimum.accumulate(ends[::-1], axis=0)[::-1]
    means = []
    for weights in _samples(len(scores), seed):
        drawn = weights[order]
        found = drawn * positive
        seen = np.take_along_axis(np.cumsum(drawn, axis=0), last, axis=0)
        hits = np.take_along_axis(np.cumsum(found, axis=0), last, axis=0)
        total = found.sum(0)
        precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
        defined = total > 0
        if defined.any():
            means.append(((found * precision).sum(0)[defined] / total[defined]).mean())
    return _percentiles(means)


def _samples(videos: int, seed: int) -> np.ndarray:
    """How often each video is drawn in each sample, [SAMPLES, videos] float64."""
    return np.random.default_rng(seed).multinomial(videos, np.full(videos, 1 / videos), size=SAMPLES).astype(np.float64)


def _percentiles(values: Sequence[float]) -> Interval:
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(low=float(low), high=float(high))
