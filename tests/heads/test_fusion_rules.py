"""Fixed rules, grid weights, temperatures and kernel weights, on arrays."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score
from sklearn.svm import SVC

from vidatt.errors import UsageError
from vidatt.heads.fusion.mkl import learn_kernel_weights
from vidatt.heads.fusion.score_rules import (
    decision_temperature,
    grid_weights,
    max_rule,
    mean_rule,
    product_rule,
    to_probabilities,
)

ONE = np.array([[[0.6, 0.3, 0.1]], [[0.2, 0.7, 0.1]]])  # [2, 1, 3]


def test_rules_by_hand():
    np.testing.assert_allclose(mean_rule(ONE), [[0.4, 0.5, 0.1]])
    np.testing.assert_allclose(mean_rule(ONE, np.array([0.75, 0.25])), [[0.5, 0.4, 0.1]])
    np.testing.assert_allclose(product_rule(ONE, multi_label=False), [[0.12 / 0.34, 0.21 / 0.34, 0.01 / 0.34]])
    np.testing.assert_allclose(max_rule(ONE, multi_label=False), [[0.6 / 1.4, 0.7 / 1.4, 0.1 / 1.4]])


def test_rules_of_several_labels_scale_over_yes_and_no():
    scores = np.array([[[0.9, 0.5]], [[0.6, 0.2]]])
    np.testing.assert_allclose(product_rule(scores, multi_label=True), [[0.54 / 0.58, 0.1 / 0.5]])
    np.testing.assert_allclose(max_rule(scores, multi_label=True), [[0.9 / 1.3, 0.5 / 1.3]])


@pytest.mark.parametrize("multi_label", [False, True])
def test_product_of_certainties_is_finite(multi_label):
    scores = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # they exclude each other
    fused = product_rule(scores, multi_label=multi_label)
    assert np.isfinite(fused).all()
    assert fused[0, 0] == fused[0, 1]
    np.testing.assert_allclose(product_rule(np.array([[[1e-300, 1.0]]] * 3), multi_label=multi_label)[0, 1], 1)


def test_equal_parts_fuse_to_themselves():
    part = softmax(np.random.randn(5, 4), 1)
    parts = np.stack([part, part])
    np.testing.assert_allclose(mean_rule(parts), part)
    np.testing.assert_allclose(max_rule(parts, multi_label=False), part)
    assert (product_rule(parts, multi_label=False).argmax(1) == part.argmax(1)).all()


def test_grid_weights_find_the_better_part_and_prefer_equal_ones_in_a_tie():
    labels = np.arange(60) % 3
    good = 0.1 + 0.7 * np.eye(3)[labels]
    bad = softmax(np.random.randn(60, 3), 1) ** 4
    bad /= bad.sum(1, keepdims=True)

    def accuracy(scores: np.ndarray) -> float:
        return accuracy_score(labels, scores.argmax(1))

    weights, best = grid_weights(np.stack([good, bad]), accuracy)
    assert best == 1.0
    assert weights[0] >= 0.5
    assert accuracy(mean_rule(np.stack([good, bad]), weights)) == best
    np.testing.assert_allclose(grid_weights(np.stack([good, good]), accuracy)[0], [0.5, 0.5])
    np.testing.assert_allclose(grid_weights(np.stack([good] * 4), accuracy, step=0.25)[0], [0.25] * 4)


def test_grid_weights_visit_the_whole_simplex():
    seen = []
    grid_weights(np.stack([np.eye(3)] * 3), lambda scores: seen.append(1) or 0.0, step=0.5)  # type: ignore[func-returns-value]
    assert len(seen) == 6


@pytest.mark.parametrize(("step", "parts"), [(0.3, 2), (0.0, 2), (0.01, 6)])
def test_grid_weights_refuse_a_senseless_step(step, parts):
    with pytest.raises(UsageError, match="Grid step"):
        grid_weights(np.ones((parts, 2, 2)), lambda scores: 0.0, step=step)


@pytest.mark.parametrize("multi_label", [False, True])
def test_temperature_is_found_again(multi_label):
    random = np.random.default_rng(0)
    decisions = random.standard_normal((6000, 4))
    truth = to_probabilities(decisions, 0.4, multi_label=multi_label)
    if multi_label:
        hot = random.random(truth.shape) < truth
    else:
        hot = np.eye(4, dtype=bool)[(truth.cumsum(1) > random.random((6000, 1))).argmax(1)]
    assert decision_temperature(decisions, hot, multi_label=multi_label) == pytest.approx(0.4, rel=0.1)
    assert (truth.argmax(1) == decisions.argmax(1)).all()


def kernels_of(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % 3
    good = np.eye(3)[labels] + 0.3 * np.random.randn(n, 3)
    noise = np.random.randn(n, 3)
    return np.stack([good @ good.T, noise @ noise.T]), np.eye(3, dtype=bool)[labels]


def test_mkl_identical_kernels_get_equal_weights():
    kernels, hot = kernels_of()
    learned = learn_kernel_weights(np.stack([kernels[0]] * 3), hot)
    np.testing.assert_allclose(learned.weights, [3**-0.5] * 3, rtol=1e-9)
    assert learned.converged
    scaled = learn_kernel_weights(np.stack([kernels[0], 100 * kernels[0]]), hot)  # the scale of scores says nothing
    np.testing.assert_allclose(scaled.weights, [2**-0.5] * 2, rtol=1e-6)


@pytest.mark.parametrize("p", [1.1, 2.0, 8.0])
def test_mkl_prefers_the_kernel_that_tells_classes_apart(p):
    kernels, hot = kernels_of()
    learned = learn_kernel_weights(kernels, hot, p=p)
    assert learned.converged
    assert learned.weights[0] > 1.2 * learned.weights[1]
    np.testing.assert_allclose((learned.weights**p).sum(), 1)
    assert (learned.decide(kernels).argmax(1) == hot.argmax(1)).mean() > 0.95


def test_mkl_weights_are_a_fixed_point_of_their_equation():
    kernels, hot = kernels_of()
    learned = learn_kernel_weights(kernels, hot, tolerance=1e-8)
    scaled = kernels / learned.scales[:, None, None]
    combined = np.tensordot(learned.weights, scaled, 1)
    lengths = np.zeros(2)
    for label in range(3):  # the machines anew, by scikit-learn alone: squared hinge, C = 1
        signs = np.where(hot[:, label], 1, -1)
        machine = SVC(kernel="precomputed", C=1e10, tol=1e-6).fit(combined + np.eye(60) / 2, signs)
        dual = np.zeros(60)
        dual[machine.support_] = machine.dual_coef_[0]
        lengths += [weight**2 * dual @ kernel @ dual for weight, kernel in zip(learned.weights, scaled, strict=True)]
    expected = lengths ** (1 / 3)  # |w|^(2 / (p + 1)), p = 2
    np.testing.assert_allclose(learned.weights, expected / np.sqrt((expected**2).sum()), atol=2e-3)


def test_mkl_refuses_what_cannot_be():
    kernels, hot = kernels_of()
    with pytest.raises(UsageError, match=r"p=0\.5: must be 1 or more"):
        learn_kernel_weights(kernels, hot, p=0.5)
    with pytest.raises(UsageError, match="Kernel 1 is zero everywhere"):
        learn_kernel_weights(kernels * [[[1]], [[0]]], hot)
    with pytest.raises(UsageError, match=r"must be \[M, n, n\]"):
        learn_kernel_weights(kernels, hot[:5])
