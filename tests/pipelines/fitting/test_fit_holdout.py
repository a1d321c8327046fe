"""The validation part: whole groups, classes in proportion, and honest notes when that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidatt.errors import UsageError
from vidatt.pipelines.fitting.holdout import hold_out


def one_hot(labels, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=bool)[np.asarray(labels)]


def test_holdout_of_ungrouped_videos_is_stratified_exactly():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    held = hold_out(one_hot(labels, 3), np.full(100, ""), share=0.2, seed=0).validation
    assert np.bincount(labels[held]).tolist() == [10, 6, 4]


def test_holdout_of_ucf_like_groups_keeps_them_whole_and_covers_every_class():
    labels = np.repeat(np.arange(20), 25 * 4)
    groups = np.array([f"c{n}g{g}" for n in range(20) for g in range(25) for _ in range(4)])
    made = hold_out(one_hot(labels, 20), groups, share=0.2, seed=0)
    assert not set(groups[made.validation]) & set(groups[~made.validation])
    assert np.bincount(labels[made.validation]).tolist() == [20] * 20
    assert made.note == "validation: 400 of 2000 training videos, 100 groups"


def test_holdout_depends_on_the_seed_only():
    hot, groups = one_hot(np.arange(60) % 3, 3), np.array([f"g{i // 2}" for i in range(60)])
    first = hold_out(hot, groups, share=0.2, seed=0).validation
    assert (hold_out(hot, groups, share=0.2, seed=0).validation == first).all()
    assert any((hold_out(hot, groups, share=0.2, seed=seed).validation != first).any() for seed in range(1, 5))


def test_holdout_gives_a_class_of_two_groups_one_of_them():
    labels = np.repeat([0, 1], 10)
    groups = np.array(["a"] * 5 + ["b"] * 5 + ["c"] * 5 + ["d"] * 5)
    held = hold_out(one_hot(labels, 2), groups, share=0.2, seed=0).validation
    assert np.bincount(labels[held]).tolist() == [5, 5]


def test_holdout_says_which_classes_have_too_few_groups():
    labels = np.array([0] * 10 + [1] * 20)
    groups = np.array(["only"] * 10 + [f"g{i}" for i in range(20)])
    made = hold_out(one_hot(labels, 2), groups, share=0.2, seed=0)
    assert np.bincount(labels[made.validation], minlength=2).tolist() == [0, 4]
    assert "1 classes have too few groups" in made.note


def test_holdout_of_one_group_falls_back_to_videos_and_says_so():
    made = hold_out(one_hot([0, 1] * 10, 2), np.full(20, "g"), share=0.2, seed=0)
    assert made.validation.sum() == 4
    assert "the figures will flatter" in made.note


@pytest.mark.parametrize(("n", "share"), [(2, 0.2), (50, 0.0)], ids=["too-few", "unwanted"])
def test_holdout_may_be_empty_and_says_so(n, share):
    made = hold_out(one_hot(np.arange(n) % 2, 2), np.full(n, ""), share=share, seed=0)
    assert not made.validation.any()
    assert "no validation part" in made.note


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan")])
def test_holdout_refuses_a_senseless_share(share):
    with pytest.raises(UsageError, match="Validation share"):
        hold_out(one_hot([0, 1], 2), np.full(2, ""), share=share, seed=0)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    groups=st.integers(1, 30),
    seed=st.integers(0, 5),
)
def test_holdout_never_splits_a_group_or_takes_all_of_a_class(labels, groups, seed):
    names = np.array([f"g{i % groups}" for i in range(len(labels))])
    made = hold_out(one_hot(labels, 5), names, share=0.2, seed=seed)
    if "flatter" not in made.note:
        assert not set(names[made.validation]) & set(names[~made.validation])
    trained = set(np.asarray(labels)[~made.validation])
    assert trained == set(labels)
