"""Class scores of several models made one, on plain arrays: fixed rules, and one weight per model by a grid."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import comb

import numpy as np
from scipy.special import expit, log_expit, log_softmax, logsumexp, softmax

from ...errors import UsageError

_MOST_POINTS = 100_000
"""Of a grid of weights: at 9,537 videos and 101 classes some minutes."""


def mean_rule(scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Average probabilities [M, n, N] with weights [M] of sum 1 (None = all alike) -> [n, N]."""
    return scores.mean(0) if weights is None else np.tensordot(weights, scores, 1)


def product_rule(scores: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Multiply probabilities [M, n, N] and scale to sum 1: over the classes, or over yes and no of each class."""
    with np.errstate(divide="ignore"):  # a probability of 0 is a veto, unless all classes have one
        yes, no = np.log(scores).sum(0), np.log1p(-np.minimum(scores, 1)).sum(0)
    if multi_label:
        total = np.logaddexp(yes, no)
        return np.exp(yes - np.where(np.isneginf(total), 0, total))
    total = logsumexp(yes, axis=1, keepdims=True)
    return np.where(np.isneginf(total), 1 / scores.shape[2], np.exp(yes - np.where(np.isneginf(total), 0, total)))


def max_rule(scores: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Largest probability per class of [M, n, N], scaled to sum 1: over the classes, or over yes and no."""
    most = scores.max(0)
    total = most + (1 - scores).max(0) if multi_label else most.sum(1, keepdims=True)
    return most / total


def grid_weights(
    scores: np.ndarray, measure: Callable[[np.ndarray], float], *, step: float = 0.1
) -> tuple[np.ndarray, float]:
    """Choose one weight per model from a grid of the simplex.

    Parameters
    ----------
    scores : [M, n, N] probabilities, of videos that the models were not fitted on
    measure : of fused scores [n, N], higher = better; of equals the weights nearest to equal ones are taken
    step : of the grid; 1 / step is a whole number

    Returns
    -------
    [M] weights of sum 1, and their measure

    Raises
    ------
    UsageError
        If the step is no such fraction, or the grid too large.
    """
    M, parts = len(scores), round(1 / step) if 0 < step <= 1 else 0
    if abs(parts * step - 1) > 1e-9:
        raise UsageError(f"Grid step {step}: must be 1 divided by a whole number, such as 0.1.")
    points = comb(parts + M - 1, M - 1)
    if points > _MOST_POINTS:
        raise UsageError(f"Grid step {step} of {M} weights makes {points} points; take a larger step, or fewer parts.")
    best, found = (-np.inf, -np.inf), np.full(M, 1 / M)
    for bars in combinations(range(parts + M - 1), M - 1):
        weights = (np.diff([-1, *bars, parts + M - 1]) - 1) / parts
        key = (measure(mean_rule(scores, weights)), -float(np.round(((weights - 1 / M) ** 2).sum(), 9)))
        if key > best:
            best, found = key, weights
    return found, best[0]


def to_probabilities(decisions: np.ndarray, temperature: float, *, multi_label: bool) -> np.ndarray:
    """Decision values [n, N] -> probabilities: softmax over the classes, or sigmoid per class, of d / temperature."""
    return expit(decisions / temperature) if multi_label else softmax(decisions / temperature, axis=1)


def decision_temperature(decisions: np.ndarray, hot: np.ndarray, *, multi_label: bool) -> float:
    """Temperature from 0.001 to 100 that makes the labels most likely; see `to_probabilities`.

    Parameters
    ----------
    decisions : [n, N] of videos that the machine was not fitted on
    hot : [n, N] bool
    """

    def surprise(log_temperature: float) -> float:
        x = decisions / np.exp(log_temperature)
        if multi_label:
            return -float(np.where(hot, log_expit(x), log_expit(-x)).mean())
        return -float(log_softmax(x, axis=1)[hot].mean())

    from scipy.optimize import minimize_scalar

    return float(np.exp(minimize_scalar(surprise, bounds=(np.log(1e-3), np.log(100)), method="bounded").x))
