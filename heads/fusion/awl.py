"""Adaptively weighted learning of TCLSTA: how much each stream counts, class by class (spec 7.5).

Peng et al. (see tclsta.py), Eqs (10) to (14), on plain arrays of scores. The printed objective is linear in the
weights: with `a_j` the scores that the videos of class j give to j, per stream, and `b_j` those that all others give to
it, it is `(a_j - penalty b_j) . W_j` on the simplex, whose optimum picks one stream per class (`lp`). The other solvers
fuse.

The scores must come from videos that the streams were not fitted on (out of fold): on training scores, which are near
1 for both streams, the choice is noise. That is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...errors import UsageError

Solver = Literal["lp", "lp_bounded", "entropic", "quadratic"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the scores say about each stream and class; N classes, M streams."""

    a: np.ndarray  # [N, M] float64, scores for class j summed over the videos of class j
    b: np.ndarray  # [N, M] float64, scores for class j summed over the videos of all other classes
    counts: np.ndarray  # [N] int64, videos of class j


@dataclass(frozen=True, eq=False)
class AdaptiveWeights:
    """Weights of the streams per class, and how the solver came out."""

    weights: np.ndarray  # [N, M] float64, each row 0 and up with sum 1
    one_hot_share: float  # of the classes: those that one stream decides alone
    temperatures: np.ndarray  # [M] float64, what the streams' scores are tempered with before the weighting


def evidence(scores: np.ndarray, labels: np.ndarray) -> Evidence:
    """Add up what Eqs (10) to (12) need; a video of several classes counts for each of them.

    Parameters
    ----------
    scores : [M, n, N] floating, probabilities of each stream
    labels : [n] integer class indices, or [n, N] bool

    Raises
    ------
    UsageError
        If the shapes contradict each other, a score is not finite, or a label is none of the classes.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    fits = scores.ndim == 3 and labels.shape in (scores.shape[1:2], scores.shape[1:])
    if not fits or not np.isfinite(scores).all():
        raise UsageError(
            f"Scores must be [M, n, N] and finite, labels [n] or [n, N]; got {scores.shape} and {labels.shape}."
        )
    hot = _hot(labels, scores.shape[2])
    a = np.einsum("mnc,nc->cm", scores, hot.astype(np.float64))
    return Evidence(a, scores.sum(1).T - a, hot.sum(0))


def _hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return labels [n] or [n, N] as [n, N] bool."""
    if labels.ndim == 2:
        return labels.astype(bool)
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise UsageError(f"Labels {labels.min()}..{labels.max()}: must be 0..{classes - 1}.")
    return np.eye(classes, dtype=bool)[labels]


def gains(a: np.ndarray, b: np.ndarray, *, penalty: float = 5e-3) -> np.ndarray:
    """Eq (13) without the weights: `c_j = a_j - lambda b_j`, [N, M]; the objective is `c_j . W_j`."""
    return np.asarray(a, np.float64) - penalty * np.asarray(b, np.float64)


def lp(c: np.ndarray) -> np.ndarray:
    """The printed objective: all weight on the stream with the largest gain; streams that tie share it.

    Parameters
    ----------
    c : [N, M] gains
    """
    best = np.isclose(c, c.max(1, keepdims=True), rtol=1e-12, atol=0)
    return best / best.sum(1, keepdims=True)


def lp_bounded(c: np.ndarray, *, least: float = 0.1) -> np.ndarray:
    """The printed objective with every weight `least` or more: a vertex of the smaller simplex.

    Raises
    ------
    UsageError
        If that many times `least` exceeds 1.
    """
    streams = c.shape[1]
    if not 0 <= least <= 1 / streams:
        raise UsageError(f"Least weight {least}: must be 0 to {1 / streams:g} for {streams} streams.")
    return least + (1 - streams * least) * lp(c)


def entropic(c: np.ndarray, counts: np.ndarray, *, tau: float = 0.1) -> np.ndarray:
    """Maximise `c_j . w / n_j + tau H(w)`: `w = softmax(c_j / (n_j tau))`, inside the simplex and unique.

    Parameters
    ----------
    c : [N, M] gains
    counts : [N] n_j, 1 or more
    tau : towards 0 it is `lp`, towards infinity equal weights, that is late fusion
    """
    logits = c / (np.asarray(counts)[:, None] * tau)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def quadratic(c: np.ndarray, counts: np.ndarray, *, rho: float = 0.1) -> np.ndarray:
    """Maximise `c_j . w / n_j - rho/2 |w|^2`: the projection of `c_j / (n_j rho)` on the simplex; it can be one-hot.

    Parameters
    ----------
    c : [N, M] gains
    counts : [N] n_j, 1 or more
    rho : towards 0 it is `lp`, towards infinity equal weights
    """
    points = c / (np.asarray(counts)[:, None] * rho)
    falling = -np.sort(-points, 1)  # [N, M]
    ranks = np.arange(1, points.shape[1] + 1)
    levels = (np.cumsum(falling, 1) - 1) / ranks  # the level that leaves a sum of 1 if the first r stay positive
    stay = (falling > levels).sum(1, keepdims=True)  # 1 or more
    return np.maximum(points - np.take_along_axis(levels, stay - 1, 1), 0)


def one_hot_share(weights: np.ndarray) -> float:
    """Share of the classes whose largest weight is 1: streams selected, not fused."""
    return float((weights.max(1) > 1 - 1e-9).mean())


def temper(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [..., N] as if their logits had been divided by `temperature`."""
    logs = np.log(np.clip(scores, np.finfo(np.float64).tiny, None)) / temperature
    powers = np.exp(logs - logs.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """Temperature of one stream with the least negative log-likelihood, from 0.05 to 20.

    Parameters
    ----------
    scores : [n, N] probabilities, out of fold
    labels : [n] integer
    """
    rows = np.arange(len(labels))

    def surprise(log_temperature: float) -> float:
        own = temper(scores, float(np.exp(log_temperature)))[rows, labels]
        return float(-np.log(np.clip(own, np.finfo(np.float64).tiny, None)).mean())

    from scipy.optimize import minimize_scalar

    return float(np.exp(minimize_scalar(surprise, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def learn_weights(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    solver: Solver = "entropic",
    penalty: float = 5e-3,
    strength: float = 0.1,
    calibrate: bool = False,
) -> AdaptiveWeights:
    """Learn the weights of each class.

    Parameters
    ----------
    scores : [M, n, N] probabilities of each stream, out of fold
    labels : [n] integer class indices, or [n, N] bool, of videos of several classes
    solver : see the functions of these names
    penalty : the paper's lambda
    strength : tau of `entropic`, rho of `quadratic`, the least weight of `lp_bounded`; not read by `lp`
    calibrate : temper each stream first: Eq (14) compares classes whose streams may be differently sure of themselves

    Raises
    ------
    UsageError
        As `evidence`; for an unknown solver; or if a number cannot be.
    """
    if penalty < 0 or strength <= 0:
        raise UsageError(f"Penalty {penalty} must be 0 or more, and strength {strength} more than 0.")
    solvers: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "lp": lambda c, counts: lp(c),
        "lp_bounded": lambda c, counts: lp_bounded(c, least=strength),
        "entropic": lambda c, counts: entropic(c, counts, tau=strength),
        "quadratic": lambda c, counts: quadratic(c, counts, rho=strength),
    }
    if solver not in solvers:
        raise UsageError(f"Solver {solver!r}: must be one of {', '.join(solvers)}.")
    scores = np.asarray(scores, np.float64)
    temperatures = np.ones(len(scores))
    seen = evidence(scores, labels)
    if calibrate:
        single = labels.argmax(1) if labels.ndim == 2 else labels
        temperatures = np.array([fit_temperature(stream, single) for stream in scores])
        seen = evidence(np.stack([temper(s, t) for s, t in zip(scores, temperatures, strict=True)]), labels)
    c = gains(seen.a, seen.b, penalty=penalty)
    c[seen.counts == 0] = 0  # nothing is known of a class without videos: equal weights
    weights = solvers[solver](c, np.maximum(seen.counts, 1))
    return AdaptiveWeights(weights, one_hot_share(weights), temperatures)


def predict(learned: AdaptiveWeights, scores: np.ndarray) -> np.ndarray:
    """Eq (14) before its argmax: fused scores [n, N], which need not sum to 1; the class is the largest.

    Parameters
    ----------
    learned : of `learn_weights`
    scores : [M, n, N] probabilities of the streams, in the same order

    Raises
    ------
    UsageError
        If streams or classes are others than those of the weights.
    """
    scores = np.asarray(scores, np.float64)
    classes, streams = learned.weights.shape
    if scores.ndim != 3 or (scores.shape[0], scores.shape[2]) != (streams, classes):
        raise UsageError(f"Scores must be [{streams}, n, {classes}] for these weights, got {scores.shape}.")
    tempered = [s if t == 1 else temper(s, t) for s, t in zip(scores, learned.temperatures, strict=True)]
    return np.einsum("mnc,cm->nc", np.stack(tempered), learned.weights)
