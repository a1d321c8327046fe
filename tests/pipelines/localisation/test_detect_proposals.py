"""Temporal proposals against the oracles of the specification (3.4, 6.5) and numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vidatt.cache.index import Index
from vidatt.cache.layout import plan_layout
from vidatt.cache.store import Store
from vidatt.errors import UnknownNameError, UsageError
from vidatt.pipelines.localisation.proposals import (
    PROPOSAL_RULES,
    Proposals,
    StanRule,
    UntrimmedNetRule,
    WhereAndWhenRule,
    groups,
    normalised,
    proposal_seconds,
    segment_bounds,
    smoothed,
    stan_proposals,
    untrimmednet_proposals,
    where_and_when_proposals,
)
from vidatt.pipelines.localisation.rules import read_rule
from vidatt.pipelines.localisation.segment_scores import learn
from vidatt.pipelines.localisation.submission import THUMOS14_IDS, submission_classes

NAN = float("nan")


def rows(found: Proposals) -> list[tuple[int, int, int, float]]:
    return [
        (int(a), int(b), int(c), round(float(s), 9))
        for a, b, c, s in zip(found.first, found.last, found.labels, found.scores, strict=True)
    ]


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_stan_rule_has_the_specified_value() -> None:
    found = stan_proposals(np.array([1.0, 1, 0, 1]), column(0.9, 0.5, 0.9, 0.3), StanRule())
    assert [(a, b, c) for a, b, c, _ in rows(found)] == [(0, 1, 0)]
    assert found.scores == pytest.approx([1.4])


@pytest.mark.parametrize(
    ("k", "s", "settings", "expected"),
    [
        pytest.param([1, 1, 0, 1], [0.9, 0.5, 0.9, 0.3], {"divide_by_k": True}, [(0, 1, 0.7)], id="mean"),
        pytest.param([2, 1, 0, 1], [0.9, 0.6, 0.9, 0.3], {"divide_by_k": True}, [(0, 1, 2.4 / 3)], id="weighted mean"),
        pytest.param([0.01, 0.0099], [0.9, 0.9], {}, [(0, 0, 0.009)], id="k is dropped below the limit only"),
        pytest.param([1, 1], [0.5, 0.75], {"score_threshold": 0.5}, [(1, 1, 0.75)], id="score must be above"),
        pytest.param([1, -1, 1, 3], [0.5, 0.5, 0.5, 1], {}, [(0, 0, 0.5), (2, 3, 3.5)], id="no gap is bridged"),
        pytest.param([-3, -1, -2], [1, 1, 1], {}, [], id="raw scores below the limit"),
        pytest.param([-3, -1, -2], [1, 1, 1], {"normalise_k": "minmax"}, [(1, 2, 1.5)], id="minmax"),
        pytest.param(
            [-3, -1, -2, -1], [1, 1, 1, 1], {"normalise_k": "quantile", "k_threshold": 0.5},
            [(1, 1, 0.75), (3, 3, 0.75)], id="quantile",
        ),
        pytest.param([7, 7], [1, 1], {"normalise_k": "minmax"}, [(0, 1, 2.0)], id="minmax of a flat track"),
        pytest.param([1, -1, 1, 3], [0.5, 0.5, 0.5, 1], {"bridge": 1}, [(0, 3, 4.0)], id="a bridged gap has no score"),
        pytest.param([1, -1, -1, 3], [0.5, 0.5, 0.5, 1], {"bridge": 1}, [(0, 0, 0.5), (3, 3, 3.0)], id="too wide"),
        # k: 0 1 3, each with its neighbours 0.5 4/3 2; s: 0.6 0.5 0.2 -> 0.55 1.3/3 0.35
        pytest.param([0, 1, 3], [0.6, 0.5, 0.2], {"smooth": 3}, [(0, 1, 0.275 + 4 / 3 * 1.3 / 3)], id="smooth"),
    ],
)  # fmt: skip
def test_stan_rule_by_hand(k: list[float], s: list[float], settings: dict, expected: list) -> None:
    found = stan_proposals(np.array(k, np.float64), column(*s), StanRule(**settings))
    assert [(a, b) for a, b, _, _ in rows(found)] == [(a, b) for a, b, _ in expected]
    assert found.scores == pytest.approx([score for *_, score in expected], rel=1e-6)


def test_stan_rule_groups_each_class_by_itself_and_keeps_overlaps() -> None:
    scores = np.array([[0.5, 0.1], [0.45, 0.45], [0.1, 0.5]])
    found = stan_proposals(np.array([1.0, 2, 3]), scores, StanRule())
    assert rows(found) == [(0, 1, 0, 1.4), (1, 2, 1, 2.4)]


def test_normalised_scores_are_not_moved_by_a_constant() -> None:
    k = np.array([0.3, -2, 5, 5, 0.1])
    for how in ("minmax", "quantile"):
        np.testing.assert_allclose(normalised(k, how), normalised(k + 100, how), atol=1e-12)
    np.testing.assert_allclose(normalised(k, "quantile"), [0.5, 0.1, 0.8, 0.8, 0.3])
    np.testing.assert_allclose(normalised(np.zeros(4), "quantile"), 0.5)


def test_where_and_when_rule_by_hand() -> None:
    w = np.array([0.1, 0.2, 0.4, 0.05, 0.25])
    found = where_and_when_proposals(w, np.array([0.2, 0.7, 0.1]), WhereAndWhenRule())
    assert rows(found) == [(1, 2, 1, 0.21), (4, 4, 1, 0.175)]
    assert rows(where_and_when_proposals(np.full(4, 0.25), np.array([0.6, 0.4]), WhereAndWhenRule())) == [
        (0, 3, 0, 0.15)
    ]


def test_untrimmednet_rule_by_hand() -> None:
    # smoothed with the next: .5 .8 .45 .1 .3 (the last is left); above half of .8: segments 0-2
    scores = np.stack([np.array([0.3, 0.7, 0.9, 0.0, 0.2, 0.3]), np.full(6, 0.9)], axis=1)
    found = untrimmednet_proposals(scores, np.array([0.6, 0.1]), UntrimmedNetRule())
    assert rows(found) == [(0, 2, 0, round((0.5 + 0.8 + 0.45) / 3 + 0.2 * 0.6, 9))]
    assert UntrimmedNetRule().annotated_only
    assert not StanRule().annotated_only


def test_bridge_and_smooth_of_the_other_rules_by_hand() -> None:
    w = np.array([0.1, 0.2, 0.4, 0.05, 0.25])
    found = where_and_when_proposals(w, np.array([0.2, 0.7, 0.1]), WhereAndWhenRule(bridge=1))
    assert rows(found) == [(1, 4, 1, round(0.7 * (0.2 + 0.4 + 0.25) / 3, 9))]
    # with the next: .15 .3 .225 .15 .25, of which half the largest is .15
    found = where_and_when_proposals(w, np.array([0.2, 0.7, 0.1]), WhereAndWhenRule(smooth=2, threshold=0.6))
    assert rows(found) == [(1, 2, 1, round(0.7 * 0.2625, 9)), (4, 4, 1, round(0.7 * 0.25, 9))]
    scores = np.array([0.9, 0.1, 0.8, 0.0, 0.0])[:, None]
    found = untrimmednet_proposals(scores, np.array([0.5]), UntrimmedNetRule(smooth=1, bridge=1))
    assert rows(found) == [(0, 2, 0, round(0.85 + 0.2 * 0.5, 9))]


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(-9, 9)), st.integers(1, 70))
def test_smoothed_is_the_mean_of_the_neighbours_that_there_are(track: np.ndarray, segments: int) -> None:
    before, behind = (segments - 1) // 2, segments // 2
    wanted = [track[max(0, t - before) : t + behind + 1].mean() for t in range(len(track))]
    np.testing.assert_allclose(smoothed(track, segments), wanted, atol=1e-9)
    both = smoothed(np.stack([track, -track], axis=1), segments)
    np.testing.assert_allclose(both, np.stack([wanted, np.negative(wanted)], axis=1), atol=1e-9)
    assert np.array_equal(smoothed(track, 1), track)


@given(arrays(bool, st.integers(1, 40)), st.integers(0, 5))
def test_bridged_groups_are_the_groups_with_the_gaps_between_closed(kept: np.ndarray, bridge: int) -> None:
    closed = kept.copy()
    inner = groups(~kept)
    for first, last in inner:
        if first > 0 and last < len(kept) - 1 and last - first + 1 <= bridge:
            closed[first : last + 1] = True
    assert np.array_equal(groups(kept, bridge), groups(closed))


@pytest.mark.slow
@given(arrays(bool, st.integers(1, 40)))
def test_groups_are_the_kept_segments_and_no_two_touch(kept: np.ndarray) -> None:
    found = groups(kept)
    again = np.zeros(len(kept), bool)
    for first, last in found:
        assert first <= last
        again[first : last + 1] = True
    assert np.array_equal(again, kept)
    assert (found[1:, 0] > found[:-1, 1] + 1).all()


def frames(first: list[int], centre: int = 0, length: int = 1) -> np.ndarray:
    start = np.array(first)
    return np.stack([start, start + centre, start + length], axis=1)


def test_a_segment_every_five_frames_spans_five_frames() -> None:
    first = [0, 5, 10, 15]
    seen = frames(first, centre=8, length=16)
    bounds = segment_bounds(seen, (seen[:, 1]) / 30, fps=30.0, frame_count=18, stop=NAN)
    np.testing.assert_allclose(bounds, np.array([[0, 5], [5, 10], [10, 15], [15, 18]]) / 30)
    found = Proposals(np.array([1]), np.array([2]), np.array([0]), np.array([1.0]))
    np.testing.assert_allclose(proposal_seconds(found, bounds), [[5 / 30, 15 / 30]])  # [5a, 5(b + 1)) / fps


def test_bounds_of_a_stretch_of_a_file_and_of_an_unknown_length() -> None:
    seen = frames([100, 110, 120])
    times = seen[:, 1] / 10
    assert segment_bounds(seen, times, fps=10, frame_count=500, stop=13.0)[-1].tolist() == [12.0, 13.0]
    assert segment_bounds(seen, times, fps=10, frame_count=0, stop=NAN)[-1].tolist() == [12.0, 13.0]
    one = segment_bounds(frames([0]), np.zeros(1), fps=10, frame_count=40, stop=NAN)
    assert one.tolist() == [[0.0, 4.0]]


def test_segments_that_start_together_own_no_time_but_the_last() -> None:
    bounds = segment_bounds(frames([0, 0, 0]), np.zeros(3), fps=10, frame_count=7, stop=NAN)
    assert bounds.tolist() == [[0, 0], [0, 0], [0, 0.7]]


@pytest.mark.parametrize(
    ("seen", "seconds", "fps", "count", "message"),
    [
        (frames([0, 5]), [NAN, NAN], 10.0, 0, "imported without a time map"),
        (frames([0, 5]), [0.0, 0.5], 0.0, 10, "imported without a time map or a frame rate"),
        (frames([0, 10, 5]), [0.0, 1.0, 0.5], 10.0, 20, "go back in time"),
        (frames([3]), [0.3], 10.0, 0, "one segment, and its length is unknown"),
    ],
)
def test_bounds_are_refused_where_times_are_unknown(
    seen: np.ndarray, seconds: list[float], fps: float, count: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        segment_bounds(seen, np.array(seconds), fps=fps, frame_count=count, stop=NAN)


@pytest.mark.parametrize(
    ("rule", "texts", "error", "message"),
    [
        ("stan", {"k_treshold": "1"}, UnknownNameError, "Did you mean 'k_threshold'"),
        ("stan", {"normalise_k": "max"}, UsageError, "normalise_k='max': must be one of none, minmax, quantile"),
        ("stan", {"divide_by_k": "yes", "k_threshold": "0"}, UsageError, "needs k_threshold above 0"),
        ("stan", {"score_threshold": "1"}, UsageError, "score_threshold=1.0: must be at least 0 and less than 1"),
        ("where-and-when", {"threshold": "0"}, UsageError, "threshold=0.0: must be more than 0"),
        ("untrimmednet", {"video_weight": "-1"}, UsageError, "video_weight=-1.0: must be at least 0"),
    ],
)
def test_settings_of_a_rule_are_checked(rule: str, texts: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_rule(PROPOSAL_RULES, rule, texts)
    assert read_rule(PROPOSAL_RULES, "stan", {"k_threshold": "-1.5"}) == StanRule(k_threshold=-1.5)


def test_official_class_ids_are_those_of_the_class_list(shared_data: Path) -> None:
    lines = (shared_data / "annotations/thumos14/test/annotation/detclasslist.txt").read_text().split("\n")
    assert {name: int(id) for id, name in (line.split() for line in lines if line.strip())} == THUMOS14_IDS


def named(path: Path, classes: list[str]) -> Store:
    """A store of THUMOS14 with these classes and nothing in it."""
    length = np.array([2])
    index = Index(
        ids=np.array(["video_test_0000004"]), paths=np.array(["a.mp4"]), groups=np.array([""]), labels=np.array([[0]]),
        classes=tuple(classes), length=length,
    )  # fmt: skip
    attributes = {"dataset": "thumos14"}
    return Store.create(path, index=index, views=1, layout=plan_layout(length, 1, 4), attributes=attributes)


def test_thumos14_has_its_official_ids_in_both_tasks(shared_data: Path, tmp_path: Path) -> None:
    ids, emitted = submission_classes("thumos14", named(tmp_path / "20.zarr", list(THUMOS14_IDS)).index)
    assert (ids, emitted.tolist()) == (list(THUMOS14_IDS.values()), list(range(20)))
    lines = (shared_data / "annotations/ucf101/classInd.txt").read_text().split("\n")
    names = [line.split()[1] for line in lines if line.strip()]
    ids, emitted = submission_classes("thumos14", named(tmp_path / "101.zarr", names).index)
    assert ids == list(range(1, 102))
    assert {names[label]: ids[label] for label in emitted} == THUMOS14_IDS


def test_segment_classifier_is_the_softmax_regression_of_standardised_features() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    features = (random.standard_normal((200, 6)) + 2 * np.eye(6)[labels]).astype(np.float32) * [1, 100, 0.01, 1, 1, 0]
    ours = learn(features, labels[:, None], ("a", "b", "c", "never"), C=0.1)
    scaler = StandardScaler().fit(features[:, :5])
    theirs = LogisticRegression(C=0.1, max_iter=1000).fit(scaler.transform(features[:, :5]), labels)
    found = ours.probabilities(features)
    np.testing.assert_allclose(found[:, :3], theirs.predict_proba(scaler.transform(features[:, :5])), atol=2e-3)
    assert not found[:, 3].any()
    np.testing.assert_allclose(found.sum(1), 1)


def test_segment_classifier_of_two_classes_and_of_several_labels() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 100)
    features = random.standard_normal((100, 2)) + 3 * np.eye(2)[labels]
    two = learn(features, labels[:, None], ("a", "b"), C=1.0)
    assert (two.probabilities(features).argmax(1) == labels).mean() > 0.95
    both = np.stack([labels, np.where(np.arange(100) % 4 == 0, 1 - labels, -1)], axis=1)
    shared = learn(features, both, ("a", "b"), C=1.0).probabilities(features)
    assert two.probabilities(features).max(1).mean() > shared.max(1).mean() > 0.6
    with pytest.raises(UsageError, match="are all of b; it needs two classes"):
        learn(features, np.ones((100, 1), int), ("a", "b"), C=1.0)
