"""Classification measures against scikit-learn and against small tables counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, top_k_accuracy_score

from vidatt.pipelines.metrics import classification
from vidatt.pipelines.metrics.classification import (
    Denominators,
    average_precisions,
    class_mean,
    class_table,
    confusion_matrix,
    label_ranks,
    mean_average_precision,
    measured,
    multi_hot,
    summary,
    top_k,
)

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]], np.float32)
LABELS = np.array([0, 2, 2, 1])


def hot(labels, classes=3):
    return multi_hot(np.asarray(labels).reshape(len(labels), -1), classes)


def test_multi_hot_reads_padded_labels():
    made = multi_hot(np.array([[0, 2], [1, -1], [-1, -1]], np.int32), 3)
    assert made.tolist() == [[True, False, True], [False, True, False], [False] * 3]


def test_measures_agree_with_scikit_learn():
    generator = np.random.default_rng(0)
    scores, labels = generator.random((200, 7)), generator.integers(0, 7, 200)
    assert top_k(scores, hot(labels, 7), 1) == pytest.approx(accuracy_score(labels, scores.argmax(1)))
    assert top_k(scores, hot(labels, 7), 5) == pytest.approx(top_k_accuracy_score(labels, scores, k=5))
    assert class_mean(scores, labels) == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))


def test_measures_counted_by_hand():
    assert top_k(SCORES, hot(LABELS), 1) == 0.5
    assert top_k(SCORES, hot(LABELS), 2) == 1.0
    assert top_k(SCORES, hot(LABELS), 9) == 1.0
    assert class_mean(SCORES, LABELS) == pytest.approx((1 + 0 + 0.5) / 3)
    assert confusion_matrix(SCORES, LABELS).tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]


def test_ties_go_to_the_lower_class_as_in_argmax():
    tied = np.array([[0.5, 0.5, 0.0]])
    assert top_k(tied, hot([0]), 1) == 1.0
    assert top_k(tied, hot([1]), 1) == 0.0
    assert top_k(np.zeros((1, 3)), hot([2]), 2) == 0.0


def test_hit_at_k_counts_any_true_label_of_the_labelled():
    truth = multi_hot(np.array([[0, 1], [0, 1], [-1, -1], [2, -1]]), 3)
    assert top_k(SCORES, truth, 1) == pytest.approx(2 / 3)


def test_average_precision_is_non_interpolated_and_counts_background_as_negative():
    """One positive of class 0 at rank 2, behind a video without labels: AP = 1/2."""
    scores = np.array([[0.9, 0.1], [0.8, 0.3], [0.1, 0.2]])
    truth = multi_hot(np.array([[-1, -1], [0, -1], [1, -1]]), 2)
    assert average_precisions(scores, truth).tolist() == [0.5, 0.5]
    assert mean_average_precision(scores, truth) == 0.5


def test_average_precision_equals_the_sum_over_ranks():
    generator = np.random.default_rng(1)
    scores, truth = generator.random((50, 1)), generator.random((50, 1)) < 0.3
    ranked = truth[np.argsort(-scores[:, 0]), 0]
    precision = np.cumsum(ranked) / np.arange(1, 51)
    assert average_precisions(scores, truth)[0] == pytest.approx(precision[ranked].mean())


def test_classes_without_videos_leave_the_means():
    labels = np.array([0, 0, 1, 1])
    assert class_mean(SCORES, labels) == pytest.approx((0.5 + 0.0) / 2)
    assert np.isnan(average_precisions(SCORES, hot(labels))[2])
    assert 0 < mean_average_precision(SCORES, hot(labels)) <= 1
    row = class_table(SCORES, hot(labels), ("a", "b", "c"))[2]
    assert (row.name, row.videos, row.accuracy, row.average_precision) == ("c", 0, None, None)


def test_class_table_holds_accuracy_and_average_precision():
    rows = class_table(SCORES, hot(LABELS), ("a", "b", "c"))
    assert [(r.videos, r.accuracy) for r in rows] == [(1, 1.0), (1, 0.0), (2, 0.5)]
    assert rows[0].average_precision == 1.0
    several = class_table(SCORES, hot([[0, 1], [1, -1], [2, -1], [0, -1]]), ("a", "b", "c"))
    assert [r.accuracy for r in several] == [None] * 3


def test_summary_has_the_four_keys_and_says_none_where_undefined():
    single = summary(SCORES, hot(LABELS), multi_label=False)
    assert list(single.to_dict()) == ["top1", "top5", "class_mean", "map"]
    assert (single.top1, single.top5) == (0.5, 1.0)
    assert summary(SCORES, hot(LABELS), multi_label=True).class_mean is None
    nothing = np.zeros((4, 3), bool)
    assert set(summary(SCORES, nothing, multi_label=True).to_dict().values()) == {None}
    assert set(summary(SCORES, nothing, multi_label=False).to_dict().values()) == {None}


@pytest.mark.parametrize("levels", [0, 2, 5, 40])
def test_average_precisions_are_scikit_learns_with_and_without_ties(levels):
    """`levels` different scores; 0 = all different."""
    generator = np.random.default_rng(levels)
    scores = generator.integers(0, levels, (300, 6)) / 7 if levels else generator.permutation(1800).reshape(300, 6)
    truth = generator.random((300, 6)) < [0.0, 0.01, 0.1, 0.5, 0.9, 1.0]
    truth[0, 1] = True
    ours = average_precisions(scores, truth)
    assert np.isnan(ours[0])
    expected = [average_precision_score(truth[:, n], scores[:, n]) for n in range(1, 6)]
    assert ours[1:] == pytest.approx(expected, abs=1e-12)


def test_average_precision_does_not_depend_on_the_order_of_tied_videos():
    generator = np.random.default_rng(0)
    scores, truth = generator.integers(0, 4, (60, 2)), generator.random((60, 2)) < 0.4
    order = generator.permutation(60)
    assert (average_precisions(scores, truth) == average_precisions(scores[order], truth[order])).all()


@pytest.mark.parametrize("pairs", [1, 7, 1 << 20])
def test_label_ranks_are_places_in_a_stable_sort_whatever_the_block(pairs, monkeypatch):
    monkeypatch.setattr(classification, "_PAIRS_AT_ONCE", pairs)
    generator = np.random.default_rng(0)
    scores, truth = generator.integers(0, 3, (50, 6)), generator.random((50, 6)) < 0.3
    order = np.argsort(-scores, axis=1, kind="stable")
    expected = [next((k for k, n in enumerate(row) if hot[n]), 6) for row, hot in zip(order, truth, strict=True)]
    assert 6 in expected
    assert label_ranks(scores, truth).tolist() == expected


def test_measured_says_its_denominators():
    truth = multi_hot(np.array([[0, 1], [0, -1], [-1, -1], [-1, -1]]), 3)
    result = measured(SCORES, truth, ("a", "b", "c"), multi_label=True)
    assert result.denominators == Denominators(top=2, map=4, classes=2)
    assert result.metrics == summary(SCORES, truth, multi_label=True)
    assert result.confusion is None
