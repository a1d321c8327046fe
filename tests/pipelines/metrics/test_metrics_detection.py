"""Both rules of temporal detection: the spec's oracles, a plain second implementation, and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from vidatt.errors import UnknownNameError
from vidatt.pipelines.metrics.detection import (
    MEASURES,
    THRESHOLDS,
    Intervals,
    detection_ap,
    detection_summary,
    segment_overlap,
    window_recall,
)

BOTH = sorted(MEASURES)
TENTHS = [k / 10 for k in range(1, 10)]


def segments(rows: list[tuple], *, scored: bool = False) -> Intervals:
    """Intervals of rows (video, start, stop, label[, score])."""
    return Intervals(
        videos=np.array([row[0] for row in rows], dtype=str),
        seconds=np.array([row[1:3] for row in rows], np.float64).reshape(-1, 2),
        labels=np.array([row[3] for row in rows], np.int64),
        scores=np.array([row[4] for row in rows], np.float64) if scored else None,
    )


def ap(truth: list[tuple], found: list[tuple], rule: str, threshold: float = 0.5) -> float:
    table = detection_ap(segments(truth), segments(found, scored=True), labels=[0], thresholds=[threshold], rule=rule)
    assert table.shape == (1, 1)
    return float(table[0, 0])


@pytest.mark.parametrize(("rule", "expected"), [("thumos14", 0.5), ("activitynet", 1.0)])
def test_two_detections_of_one_segment_tell_the_rules_apart(rule, expected):
    """THUMOS14 gives the segment to the larger overlap, ActivityNet to the higher score."""
    assert ap([("a", 0, 10, 0)], [("a", 0, 9, 0, 0.2), ("a", 0, 8, 0, 0.9)], rule) == expected


def test_unmatched_detections_on_ambiguous_segments_are_dropped():
    truth, found = [("a", 0, 10, 0)], [("a", 0, 9, 0, 0.9), ("a", 20, 30, 0, 0.95)]
    assert ap(truth, found, "thumos14") == 0.5
    assert ap([*truth, ("a", 29, 40, -1)], found, "thumos14") == 1.0
    assert ap([*truth, ("a", 30, 40, -1)], found, "thumos14") == 0.5, "touching is not overlapping"
    assert ap([*truth, ("b", 29, 40, -1)], found, "thumos14") == 0.5, "ambiguous in another video"
    assert ap([*truth, ("a", 29, 40, -1)], found, "activitynet") == 0.5, "ActivityNet knows no ambiguous segments"


def test_a_match_on_an_ambiguous_segment_counts():
    assert ap([("a", 0, 10, 0), ("a", 0, 10, -1)], [("a", 0, 9, 0, 0.9), ("a", 1, 3, 0, 0.99)], "thumos14") == 1.0


@pytest.mark.parametrize(("rule", "expected"), [("thumos14", 0.0), ("activitynet", 1.0)])
def test_threshold_is_strict_only_in_thumos14(rule, expected):
    assert ap([("a", 0, 10, 0)], [("a", 0, 5, 0, 0.9)], rule) == expected
    assert ap([("a", 0, 10, 0)], [("a", 0, 5.01, 0, 0.9)], rule) == 1.0


def test_true_segments_take_detections_in_the_order_of_the_file():
    """The first segment takes the detection that the second needs: no best assignment."""
    found = [("a", 2, 12, 0, 0.9), ("a", 30, 31, 0, 0.1)]
    first, second = ("a", 0, 10, 0), ("a", 2, 12, 0)
    assert ap([first, second], found, "thumos14", 0.1) == 0.5
    both = [("a", 2, 12, 0, 0.9), ("a", 4, 14, 0, 0.8)]
    assert ap([first, second], both, "thumos14", 0.6) == 1.0
    assert ap([second, first], both, "thumos14", 0.6) == 0.5, "now the second gets an overlap of 6 / 14 only"


def test_equal_overlaps_go_to_the_higher_score():
    found = [("a", 0, 8, 0, 0.3), ("a", 2, 10, 0, 0.8)]
    assert ap([("a", 0, 10, 0)], found, "thumos14") == 1.0


def test_ap_is_interpolated_in_activitynet_only():
    truth = [("a", 0, 10, 0), ("a", 20, 30, 0)]
    found = [("a", 0, 10, 0, 0.9), ("a", 50, 60, 0, 0.8), ("b", 0, 9, 0, 0.7), ("a", 20, 30, 0, 0.6)]
    assert ap(truth, found, "thumos14") == pytest.approx((1 + 2 / 4) / 2)
    assert ap(truth, found, "activitynet") == pytest.approx((1 + 2 / 4) / 2)
    worse_first = [("a", 50, 60, 0, 0.95), *found[:1], ("a", 20, 30, 0, 0.6)]
    assert ap(truth, worse_first, "thumos14") == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert ap(truth, worse_first, "activitynet") == pytest.approx(2 / 3)


@pytest.mark.parametrize("rule", BOTH)
def test_classes_without_detections_or_truth(rule):
    truth = segments([("a", 0, 10, 0), ("a", 0, 10, 1)])
    found = segments([("a", 0, 10, 0, 0.5), ("a", 0, 10, 2, 0.5), ("a", 0, 10, 9, 0.99)], scored=True)
    table = detection_ap(truth, found, labels=[0, 1, 2], thresholds=[0.5], rule=rule)[0]
    assert table[:2].tolist() == [1.0, 0.0]
    assert np.isnan(table[2])
    result = detection_summary(truth, found, classes=[(0, "x"), (1, "y"), (2, "z")], thresholds=[0.5], rule=rule)
    assert (result.map, result.average_map, result.classes) == ((0.5,), 0.5, 2)
    assert [row.ap for row in result.per_class] == [(1.0,), (0.0,), (None,)]


@pytest.mark.parametrize("rule", BOTH)
def test_summary_names_its_rule_and_what_was_counted(rule):
    truth = segments([("a", 0, 10, 0), ("b", 0, 10, -1)])
    found = segments([("a", 0, 9.9, 0, 0.5), ("c", 0, 10, 0, 0.9)], scored=True)
    result = detection_summary(truth, found, classes=[(0, "x")], rule=rule)
    assert result.rule == rule
    assert result.rule_text.lower().startswith(rule)
    counted = {
        key: getattr(result, key) for key in ("videos", "instances", "ambiguous", "detections", "detections_elsewhere")
    }
    assert counted == {"videos": 2, "instances": 1, "ambiguous": 1, "detections": 2, "detections_elsewhere": 1}
    assert result.thresholds == tuple(THRESHOLDS[rule])
    assert result.map == (0.5,) * len(THRESHOLDS[rule])


@pytest.mark.parametrize("rule", BOTH)
def test_no_detections_at_all_give_zero(rule):
    assert ap([("a", 0, 10, 0)], [], rule) == 0.0


def test_what_cannot_be_measured_is_refused():
    truth = segments([("a", 0, 10, 0)])
    with pytest.raises(UnknownNameError, match=r"Unknown rule of detection 'thumos'\. Did you mean 'thumos14'"):
        detection_ap(truth, truth, labels=[0], thresholds=[0.5], rule="thumos")
    with pytest.raises(ValueError, match="have no scores"):
        detection_ap(truth, truth, labels=[0], thresholds=[0.5], rule="thumos14")
    with pytest.raises(ValueError, match="stops before it starts"):
        segments([("a", 10, 0, 0)])
    with pytest.raises(ValueError, match="not finite"):
        segments([("a", 0, np.nan, 0)])
    with pytest.raises(ValueError, match="arrays of shapes"):
        Intervals(videos=np.array(["a"]), seconds=np.zeros((2, 2)), labels=np.zeros(1, int))


def test_overlap_counted_by_hand():
    a, b = np.array([[0, 10], [5, 5]]), np.array([[5, 15], [10, 20], [2, 4]])
    assert segment_overlap(a, b).tolist() == [[5 / 15, 0, 2 / 10], [0, 0, 0]]


# A second implementation, as slow and as near to the words of the rules as possible.


def _iou(a, b):
    shared = min(a[2], b[2]) - max(a[1], b[1])
    return shared / (max(a[2], b[2]) - min(a[1], b[1])) if shared > 0 else 0.0


def plain_thumos14(truth, found, threshold):
    judged = []
    for video in sorted({row[0] for row in found}):
        own = sorted((row for row in found if row[0] == video), key=lambda row: -row[4])
        free = list(own)
        for true in (row for row in truth if row[0] == video and row[3] == 0):
            if free and _iou(true, max(free, key=lambda row: _iou(true, row))) > threshold:
                free.remove(max(free, key=lambda row: _iou(true, row)))
        for row in own:
            unclear = any(_iou(row, other) > 0 for other in truth if other[0] == video and other[3] == -1)
            if row not in free or not unclear:
                judged.append((row[4], row not in free))
    total, right = 0.0, 0
    for rank, (_, hit) in enumerate(sorted(judged, key=lambda pair: -pair[0]), 1):
        right += hit
        total += hit * right / rank
    return total / sum(row[3] == 0 for row in truth)


def plain_activitynet(truth, found, threshold):
    taken, hits = set(), []
    for row in sorted(found, key=lambda row: -row[4]):
        order = sorted((-_iou(row, true), place) for place, true in enumerate(truth) if true[:1] == row[:1])
        free = [place for overlap, place in order if -overlap >= threshold and place not in taken]
        free = [place for place in free if truth[place][3] == 0]
        taken |= set(free[:1])
        hits.append(bool(free))
    precision = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
    area = sum(max(precision[n:]) for n, hit in enumerate(hits) if hit)
    return area / sum(row[3] == 0 for row in truth)


PLAIN = {"thumos14": plain_thumos14, "activitynet": plain_activitynet}
spans = st.tuples(st.integers(0, 40), st.integers(1, 15)).map(lambda pair: (pair[0], pair[0] + pair[1]))
placed = st.tuples(st.sampled_from("abc"), spans).map(lambda pair: (pair[0], *pair[1]))
truths = st.tuples(placed, st.lists(st.tuples(placed, st.sampled_from([0, 0, -1])), max_size=7)).map(
    lambda drawn: [(*drawn[0], 0), *((*place, label) for place, label in drawn[1])]
)


@st.composite
def tasks(draw):
    """A truth of at least one segment, and detections of distinct scores."""
    places = draw(st.lists(placed, max_size=10))
    ranks = draw(st.permutations(range(len(places))))
    return draw(truths), [(*place, 0, (rank + 1) / 16) for place, rank in zip(places, ranks, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("rule", BOTH)
@settings(max_examples=150, deadline=None)
@given(task=tasks(), threshold=st.sampled_from(TENTHS))
def test_agrees_with_a_plain_reading_of_the_rule(rule, task, threshold):
    truth, found = task
    assert ap(truth, found, rule, threshold) == pytest.approx(PLAIN[rule](truth, found, threshold))


@pytest.mark.slow
@pytest.mark.parametrize("rule", BOTH)
@settings(max_examples=60, deadline=None)
@given(task=tasks(), threshold=st.sampled_from(TENTHS), data=st.data())
def test_the_order_of_detections_with_distinct_scores_does_not_matter(rule, task, threshold, data):
    truth, found = task
    shuffled = data.draw(st.permutations(found))
    assert ap(truth, shuffled, rule, threshold) == ap(truth, found, rule, threshold)


@pytest.mark.slow
@pytest.mark.parametrize("rule", BOTH)
@settings(max_examples=60, deadline=None)
@given(truth=truths, threshold=st.sampled_from(TENTHS), data=st.data())
def test_a_perfect_submission_scores_one(rule, truth, threshold, data):
    true = [row for row in truth if row[3] == 0]
    ranks = data.draw(st.permutations(range(len(true))))
    found = [(*row, (rank + 1) / 16) for row, rank in zip(true, ranks, strict=True)]
    assert ap(truth, found, rule, threshold) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("rule", BOTH)
@settings(max_examples=60, deadline=None)
@given(task=tasks(), threshold=st.sampled_from(TENTHS), score=st.integers(0, 16))
def test_a_false_detection_more_never_raises_ap(rule, task, threshold, score):
    truth, found = task
    false = ("z", 0.0, 1.0, 0, (score + 0.5) / 16)  # in a video without truth
    worse = ap(truth, [*found, false], rule, threshold)
    before = ap(truth, found, rule, threshold)
    assert 0 <= worse <= before <= 1
    if score == 0:
        assert worse == before, "below all others it costs nothing"


@pytest.mark.slow
@pytest.mark.parametrize("rule", BOTH)
@settings(max_examples=40, deadline=None)
@given(task=tasks())
def test_at_almost_full_overlap_only_exact_detections_count(rule, task):
    truth, found = task
    table = detection_ap(
        segments(truth), segments(found, scored=True), labels=[0], thresholds=[0.05, 0.999], rule=rule
    )[:, 0]
    exact = {row[:3] for row in truth if row[3] == 0} & {row[:3] for row in found}
    assert (table[1] > 0) == bool(exact)
    assert (table >= 0).all()
    assert (table <= 1).all()


def test_thumos14_ap_is_scikit_learns_where_every_instance_is_found():
    """One-second segments, hit or missed whole: what remains is the ranking."""
    generator = np.random.default_rng(0)
    hit = generator.random(400) < 0.3
    scores = generator.permutation(400) / 400
    truth = segments([("a", 2 * i, 2 * i + 1, 0) for i in np.flatnonzero(hit)])
    found = segments([("a", 2 * i, 2 * i + 1, 0, scores[i]) for i in range(400)], scored=True)
    ours = detection_ap(truth, found, labels=[0], thresholds=[0.5], rule="thumos14")[0, 0]
    assert ours == pytest.approx(average_precision_score(hit, scores), abs=1e-12)


def test_window_recall_counts_kept_annotated_frames_of_windows_classified_right():
    annotated = np.zeros((4, 10), bool)
    annotated[:, :4] = True
    kept = np.zeros((4, 10), bool)
    kept[0, :4] = True  # all kept
    kept[1, 2:] = True  # half of them, and all others: a union would show it
    kept[2] = True  # all, of the wrong class
    right = np.array([True, True, False, True])
    assert window_recall(kept, annotated, right, thresholds=[0.1, 0.4, 0.5, 0.6, 1.0]).tolist() == [
        0.5,
        0.5,
        0.25,
        0.25,
        0,
    ]
    everything = window_recall(np.ones((4, 10), bool), annotated, right, thresholds=[0.9])
    assert everything[0] == right.mean(), "keeping every frame reaches the accuracy"
    assert np.isnan(window_recall(kept[:0], annotated[:0], right[:0], thresholds=[0.5])).all()
    with pytest.raises(ValueError, match="no annotated frame"):
        window_recall(kept, np.zeros_like(annotated), right, thresholds=[0.5])
    with pytest.raises(ValueError, match="Windows of shapes"):
        window_recall(kept, annotated[:, :5], right, thresholds=[0.5])
