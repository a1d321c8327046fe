"""Confidence intervals of the measures of an evaluation: how far chance in the choice of the videos reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm

LEVEL = 0.95
SAMPLES = 500
"""Bootstrap samples: enough for the second digit of a 95 % interval; of mAP on many scores fewer, at least 200."""
_SCORES_IN_ALL = 1 << 26
_MOST_SCORES = 1 << 21
"""Scores (videos times classes) up to which average precisions are resampled: 20 seconds of one core."""


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
    """Return the bootstrap's 95 % interval of the mean over classes of the accuracy within the class.

    Parameters
    ----------
    right : [videos] bool
    labels : [videos] class indices
    """
    N = int(labels.max()) + 1

    def measure(weights: np.ndarray) -> float:
        there = np.bincount(labels, weights=weights, minlength=N)
        found = np.bincount(labels, weights=weights * right, minlength=N)
        return float((found[there > 0] / there[there > 0]).mean())

    return _bootstrap(measure, len(labels), seed)


def of_map(scores: np.ndarray, hot: np.ndarray, *, seed: int = 0) -> Interval | None:
    """Return the bootstrap's 95 % interval of mAP; None if there are too many scores to resample.

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
    ends = np.append(ranked[1:] != ranked[:-1], np.ones((1, scores.shape[1]), bool), axis=0)
    places = np.where(ends, np.arange(len(scores))[:, None], len(scores))
    last = np.minimum.accumulate(places[::-1], axis=0)[::-1]

    def measure(weights: np.ndarray) -> float:
        drawn = weights[order]
        found = drawn * positive
        seen = np.take_along_axis(np.cumsum(drawn, axis=0), last, axis=0)
        hits = np.take_along_axis(np.cumsum(found, axis=0), last, axis=0)
        precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
        total = found.sum(0)
        there = total > 0
        return float(((found * precision).sum(0)[there] / total[there]).mean()) if there.any() else float("nan")

    samples = min(SAMPLES, max(200, _SCORES_IN_ALL // scores.size))
    return _bootstrap(measure, len(scores), seed, samples)


def _bootstrap(measure: Callable[[np.ndarray], float], videos: int, seed: int, samples: int = SAMPLES) -> Interval:
    """Return the bias-corrected percentile interval (Efron 1981) of a measure of weighted videos.

    The correction matters for mAP: a video drawn twice stands beside itself in the ranking, and samples come out high.
    """
    drawn = np.random.default_rng(seed).multinomial(videos, np.full(videos, 1 / videos), size=samples)
    values = np.array([measure(weights.astype(np.float64)) for weights in drawn])
    values = values[~np.isnan(values)]  # of samples without any label
    found = measure(np.ones(videos))
    below = ((values < found).sum() + 0.5 * (values == found).sum()) / len(values)
    bias = norm.ppf(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
    edge = norm.ppf(0.5 + LEVEL / 2)
    low, high = np.quantile(values, norm.cdf([2 * bias - edge, 2 * bias + edge]))
    return Interval(low=float(min(low, found)), high=float(max(high, found)))
