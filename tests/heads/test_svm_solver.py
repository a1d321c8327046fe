"""The machines against scikit-learn's own on the vectors themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import SVC, LinearSVC

from vidatt.errors import UsageError
from vidatt.heads.svm.machines import votes
from vidatt.heads.svm.solver import gram_matrix, machine_count, solve
from vidatt.pipelines.fitting.folds import deal_folds

N = 4


def data(n: int = 120, length: int = 10) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % N
    x = np.random.randn(N, length)[labels] + np.random.randn(n, length)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(N, dtype=bool)[labels]


@pytest.mark.parametrize("C", [0.1, 1.0, 100.0])
def test_one_vs_rest_equals_linear_svc_with_squared_hinge(C):
    x, labels = data()
    kernel = gram_matrix(x)
    machines = solve(kernel, hot(labels), form="one-vs-rest", C=C)
    # liblinear regularises the intercept too; a large scale makes that count for nothing
    reference = LinearSVC(C=C, dual=False, tol=1e-9, max_iter=100_000, intercept_scaling=300).fit(x, labels)
    np.testing.assert_allclose(machines.coefficients(x), reference.coef_, atol=5e-3 * np.abs(reference.coef_).max())
    np.testing.assert_allclose(machines.intercepts, reference.intercept_, atol=1e-2)


def test_one_vs_one_equals_libsvm():
    x, labels = data()
    machines = solve(gram_matrix(x), hot(labels), form="one-vs-one", C=1.0)
    pairs = SVC(C=1.0, kernel="linear", decision_function_shape="ovo").fit(x.astype(np.float64), labels)
    fresh = data(40)[0]
    decisions = fresh @ machines.coefficients(x).T + machines.intercepts
    np.testing.assert_allclose(decisions, pairs.decision_function(fresh), atol=5e-3)
    scores = votes(torch.from_numpy(decisions), N).numpy()
    pairs.set_params(decision_function_shape="ovr", break_ties=True)
    np.testing.assert_array_equal(scores.argmax(1), pairs.predict(fresh))
    np.testing.assert_allclose(scores, pairs.decision_function(fresh), atol=5e-3)


def test_votes_count_wins_and_break_ties_by_confidence():
    decisions = torch.tensor([[2.0, -1.0, 0.5]])  # 0 beats 1, 2 beats 0, 1 beats 2: a tie
    np.testing.assert_allclose(votes(decisions, 3), [[1 + 1 / 6, 1 - 1.5 / 7.5, 1 + 0.5 / 4.5]], atol=1e-6)


@pytest.mark.parametrize("form", ["one-vs-rest", "one-vs-one"])
def test_decisions_by_kernel_equal_those_by_weights(form):
    x, labels = data()
    kernel = gram_matrix(x)
    before = kernel.copy()
    machines = solve(kernel, hot(labels), form=form, C=10.0, jobs=2)
    assert np.array_equal(kernel, before)
    fresh = data(7)[0]
    by_weights = fresh @ machines.coefficients(x).T + machines.intercepts
    assert by_weights.shape == (7, machine_count(N, form))
    np.testing.assert_allclose(machines.decide((fresh @ x.T).astype(np.float64)), by_weights, atol=1e-4)


def test_class_without_videos_is_never_decided_for():
    x, labels = data()
    seen = labels != 2
    for form in ("one-vs-rest", "one-vs-one"):
        machines = solve(gram_matrix(x[seen]), hot(labels[seen]), form=form, C=10.0)
        decisions = torch.from_numpy(machines.decide(x @ x[seen].T))
        scores = decisions if form == "one-vs-rest" else votes(decisions, N)
        assert not (scores.argmax(1) == 2).any()


def test_several_labels_are_one_machine_each_and_refused_in_pairs():
    x, labels = data()
    both = hot(labels) | hot((labels + 1) % N)
    machines = solve(gram_matrix(x), both, form="one-vs-rest", C=100.0)
    agreement = (machines.decide(gram_matrix(x)) > 0) == both
    assert agreement.mean() > 0.9
    with pytest.raises(UsageError, match="exactly one label per video; use form=one-vs-rest"):
        solve(gram_matrix(x), both, form="one-vs-one", C=1.0)


def test_solve_tells_each_machine_and_stops_when_told():
    x, labels = data()
    count = 0

    def stop() -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt

    kernel = gram_matrix(x)
    before = kernel.copy()
    with pytest.raises(KeyboardInterrupt):
        solve(kernel, hot(labels), form="one-vs-rest", C=1.0, solved=stop)
    assert count == 2
    assert np.array_equal(kernel, before)


def test_folds_keep_groups_whole_and_classes_in_proportion():
    labels = np.repeat(np.arange(N), 30)
    groups = np.array([f"g{label}-{i // 5}" for label in range(N) for i in range(30)])
    fold_of, note = deal_folds(hot(labels), groups, folds=3, seed=0)
    assert all(len(set(fold_of[groups == group])) == 1 for group in np.unique(groups))
    assert [np.bincount(labels[fold_of == fold]).tolist() for fold in range(3)] == [[10] * N] * 3
    assert note == "3 folds of whole groups"
    assert np.array_equal(fold_of, deal_folds(hot(labels), groups, folds=3, seed=0)[0])


def test_folds_of_ungrouped_videos_and_of_one_group():
    fold_of, _ = deal_folds(hot(np.arange(40) % N), np.full(40, ""), folds=5, seed=1)
    assert np.bincount(fold_of).tolist() == [8] * 5
    fold_of, note = deal_folds(hot(np.arange(40) % N), np.full(40, "one"), folds=5, seed=1)
    assert np.bincount(fold_of).tolist() == [8] * 5
    assert "too few groups" in note
