"""Adaptively weighted learning against SciPy and the oracles of the specification: section 7.5."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from vidatt.errors import UsageError
from vidatt.heads.fusion.awl import (
    entropic,
    evidence,
    fit_temperature,
    gains,
    learn_weights,
    lp,
    lp_bounded,
    one_hot_share,
    predict,
    quadratic,
    temper,
)

SOLVERS = ("lp", "lp_bounded", "entropic", "quadratic")


def scores_and_labels(videos: int = 120, classes: int = 6, streams: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Stream m knows the classes that are m modulo the number of streams well, and the others hardly."""
    generator = np.random.default_rng(3)
    labels = np.arange(videos) % classes
    logits = generator.standard_normal((streams, videos, classes))
    for m in range(streams):
        logits[m, np.arange(videos), labels] += np.where(labels % streams == m, 3.0, 0.3)
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True), labels


def test_specified_values():
    c = gains(np.array([[8.0, 7.0]]), np.array([[30.0, 10.0]]), penalty=0.005)
    np.testing.assert_allclose(c, [[7.85, 6.95]])
    np.testing.assert_array_equal(lp(c), [[1, 0]])
    np.testing.assert_allclose(entropic(c, np.array([10]), tau=0.1), [[0.71095, 0.28905]], atol=5e-6)
    np.testing.assert_allclose(entropic(c, np.array([10]), tau=1e9), [[0.5, 0.5]], atol=1e-9)  # late fusion
    np.testing.assert_allclose(quadratic(c, np.array([10]), rho=1e9), [[0.5, 0.5]], atol=1e-9)
    np.testing.assert_allclose(entropic(c, np.array([10]), tau=1e-4), [[1, 0]])
    np.testing.assert_allclose(lp_bounded(c), [[0.9, 0.1]])


def test_evidence_is_the_double_sum_of_the_paper():
    scores, labels = scores_and_labels(videos=20, classes=4, streams=3)
    seen = evidence(scores, labels)
    for j in range(4):
        for m in range(3):
            own = sum(scores[m, i, j] for i in range(20) if labels[i] == j)
            others = sum(scores[m, i, j] for i in range(20) if labels[i] != j)
            assert (seen.a[j, m], seen.b[j, m]) == pytest.approx((own, others))
    assert seen.counts.tolist() == [5] * 4
    hot = np.eye(4, dtype=bool)[labels]
    np.testing.assert_array_equal(evidence(scores, hot).b, seen.b)
    hot[3] = True  # a video of all classes counts for each
    every = evidence(scores, hot)
    np.testing.assert_allclose(every.a + every.b, seen.a + seen.b)
    assert every.counts.tolist() == [5 + (j != labels[3]) for j in range(4)]
    j = (labels[3] + 1) % 4
    assert every.a[j, 0] == pytest.approx(seen.a[j, 0] + scores[0, 3, j])


@pytest.mark.parametrize("streams", [2, 3])
def test_lp_solvers_reach_the_optimum_that_scipy_finds(streams):
    c = np.random.default_rng(0).standard_normal((40, streams))
    for least, weights in ((0.0, lp(c)), (0.1, lp_bounded(c, least=0.1))):
        for row, found in zip(c, weights, strict=True):
            best = linprog(-row, A_eq=np.ones((1, streams)), b_eq=[1], bounds=[(least, 1 - least)] * streams)
            assert found @ row == pytest.approx(-best.fun)
            np.testing.assert_allclose(found, best.x, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Values in x were outside bounds:RuntimeWarning")  # of SLSQP before scipy 1.16
@pytest.mark.parametrize("streams", [2, 3])
@pytest.mark.parametrize("kind", ["entropic", "quadratic"])
def test_smooth_solvers_reach_the_optimum_that_scipy_finds(streams, kind):
    generator = np.random.default_rng(1)
    c, counts = 10 + generator.standard_normal((12, streams)), generator.integers(5, 15, 12)
    weights = entropic(c, counts, tau=0.2) if kind == "entropic" else quadratic(c, counts, rho=0.2)

    def cost(w: np.ndarray, row: np.ndarray, count: int) -> float:
        price = 0.2 * (w * np.log(w)).sum() if kind == "entropic" else 0.1 * (w**2).sum()
        return -(row @ w) / count + price

    for row, count, found in zip(c, counts, weights, strict=True):
        best = minimize(
            cost,
            np.full(streams, 1 / streams),
            (row, count),
            method="SLSQP",
            bounds=[(1e-9, 1)] * streams,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-12},
        )
        np.testing.assert_allclose(found, best.x, atol=1e-4)


def test_lp_shares_the_weight_of_a_tie():
    np.testing.assert_array_equal(lp(np.array([[2.0, 2.0], [-1.0, -1.0], [0, 0]])), [[0.5, 0.5]] * 3)
    np.testing.assert_array_equal(lp(np.array([[2.0, 2.0, 1.0]])), [[0.5, 0.5, 0]])
    assert one_hot_share(lp(np.array([[2.0, 2.0], [3.0, 1.0]]))) == 0.5


@pytest.mark.parametrize("streams", [2, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_weights_lie_on_the_simplex_and_prefer_the_stream_that_knows(solver, streams):
    scores, labels = scores_and_labels(streams=streams)
    learned = learn_weights(scores, labels, solver=solver)
    assert learned.weights.shape == (6, streams)
    np.testing.assert_allclose(learned.weights.sum(1), 1)
    assert (learned.weights >= 0).all()
    assert (learned.weights.argmax(1) == np.arange(6) % streams).all()
    assert (predict(learned, scores).argmax(1) == labels).mean() > (scores.mean(0).argmax(1) == labels).mean()


def test_printed_objective_selects_a_stream_for_every_class_and_its_penalty_hardly_counts():
    """Linear in the weights: the optimum is a vertex, that is, no fusion; lambda = 0.005 moves no choice here."""
    scores, labels = scores_and_labels()
    learned = learn_weights(scores, labels, solver="lp")
    assert learned.one_hot_share == 1
    np.testing.assert_array_equal(learned.weights, learn_weights(scores, labels, solver="lp", penalty=0).weights)
    assert learn_weights(scores, labels, solver="entropic").one_hot_share == 0
    assert learn_weights(scores, labels, solver="lp_bounded").one_hot_share == 0


def test_prediction_weights_each_class_by_its_own_row():
    scores, labels = scores_and_labels(videos=30)
    learned = learn_weights(scores, labels)
    fused = predict(learned, scores)
    for i in range(30):
        for j in range(6):
            assert fused[i, j] == pytest.approx(learned.weights[j] @ scores[:, i, j])  # Eq (14): W_j S J_j


def test_class_without_videos_gets_equal_weights():
    scores, labels = scores_and_labels()
    few = labels != 2
    for solver in SOLVERS:
        weights = learn_weights(scores[:, few], labels[few], solver=solver).weights
        np.testing.assert_allclose(weights[2], [0.5, 0.5])


def test_temperature_undoes_an_overconfident_stream():
    """Labels are drawn from one set of probabilities; the stream reports sharper ones."""
    generator = np.random.default_rng(5)
    logits = generator.standard_normal((4000, 5))
    honest = temper(np.exp(logits), 1.0)
    labels = (honest.cumsum(1) < generator.random((4000, 1))).sum(1)
    sharp = temper(honest, 1 / 3)
    assert fit_temperature(sharp, labels) == pytest.approx(3, rel=0.1)
    np.testing.assert_allclose(temper(sharp, 3.0), honest, rtol=1e-9)
    learned = learn_weights(np.stack([honest, sharp]), labels, calibrate=True)
    np.testing.assert_allclose(learned.weights, 0.5, atol=0.02)  # the same stream twice, once it is tempered
    fused = predict(learned, np.stack([honest, sharp]))
    np.testing.assert_allclose(fused, honest, atol=0.03)
    assert abs(learn_weights(np.stack([honest, sharp]), labels).weights - 0.5).max() > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.zeros((2, 5))}, r"must be \[M, n, N\]"),
        ({"scores": np.full((2, 3, 4), np.nan)}, "finite"),
        ({"labels": np.array([0, 1])}, r"labels \[n\] or"),
        ({"labels": np.array([0, 1, 4])}, r"Labels 0\.\.4: must be 0\.\.3"),
        ({"solver": "simplex"}, "'simplex': must be one of lp"),
        ({"strength": 0.0}, "more than 0"),
        ({"solver": "lp_bounded", "strength": 0.6}, "Least weight 0.6: must be 0 to 0.5"),
    ],
    ids=["shape", "nan", "labels", "class", "solver", "strength", "bound"],
)
def test_wrong_input_is_refused(change, message):
    good = {"scores": np.full((2, 3, 4), 0.25), "labels": np.array([0, 1, 2])}
    with pytest.raises(UsageError, match=message):
        learn_weights(**(good | change))


def test_scores_of_other_streams_are_refused():
    learned = learn_weights(*scores_and_labels())
    with pytest.raises(UsageError, match=r"must be \[2, n, 6\]"):
        predict(learned, np.zeros((3, 5, 6)))
