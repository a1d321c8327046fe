"""Fingerprints, the ledger's entries, and the layout of rows."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidatt.cache.fingerprint import canonical_json, differences, fingerprint, plain
from vidatt.cache.layout import plan_layout
from vidatt.cache.ledger import OUTCOMES, VideoOutcome
from vidatt.errors import CorruptStoreError, UnknownNameError, UsageError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
RECIPES = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)


def test_canonical_json_is_one_known_form():
    recipe = {"mean": (0.1, 1e-7), "backbone": "vgg16", "view": {"flip": False, "crop": None}, "segments": 25}
    text = '{"backbone":"vgg16","mean":[0.1,1e-07],"segments":25,"view":{"crop":null,"flip":false}}'
    assert canonical_json(recipe) == text
    assert fingerprint(recipe) == hashlib.sha256(text.encode()).hexdigest()


@given(RECIPES)
def test_fingerprint_survives_json(recipe):
    assert fingerprint(plain(recipe)) == fingerprint(recipe)
    assert differences(recipe, plain(recipe)) == []


@pytest.mark.slow
@given(RECIPES, RECIPES)
def test_differences_are_empty_only_for_equal_fingerprints(ours, theirs):
    assert (not differences(ours, theirs)) == (fingerprint(ours) == fingerprint(theirs))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"flow": {"bound": float("nan")}}, "flow.bound is nan"),
        ({"scale": [1.0, float("inf")]}, r"scale\[1\] is inf"),
        ({"view": {3: "x"}}, "view has the key 3"),
        ({"mean": np.float32(0.5)}, "mean is of type float32"),
        ({"sizes": {1, 2}}, "sizes is of type set"),
    ],
    ids=["nan", "infinity", "key", "numpy", "set"],
)
def test_canonical_json_refuses_what_json_cannot_say(recipe, words):
    with pytest.raises(UsageError, match=words):
        canonical_json(recipe)


def test_differences_names_dotted_keys():
    ours = {"backbone": "hog", "view": {"kind": "center", "size": 224}, "flow": {"bound": 20}}
    theirs = {"backbone": "vgg16", "view": {"kind": "center", "size": 256}, "seed": 0, "flow": {"bound": 20.0}}
    assert differences(ours, theirs) == [
        "backbone: 'hog' here, 'vgg16' in the store",
        "flow.bound: 20 here, 20.0 in the store",
        "seed: absent here, 0 in the store",
        "view.size: 224 here, 256 in the store",
    ]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_video_outcome_round_trips(outcome):
    entry = VideoOutcome(id="a/b.avi", outcome=outcome, decoded_frames=np.int64(7), fps=np.float32(12.5), segments=3)
    values = entry.to_dict()
    assert VideoOutcome.from_dict(values) == entry
    assert type(values["decoded_frames"]) is int
    assert type(values["fps"]) is float


def test_video_outcome_refuses_unknown_outcomes():
    with pytest.raises(UnknownNameError, match=r"Unknown outcome 'truncate'. Did you mean 'truncated'\?"):
        VideoOutcome(id="a", outcome="truncate")
    with pytest.raises(UsageError, match="segments -1"):
        VideoOutcome(id="a", outcome="ok", segments=-1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v | {"note": ""}, "unknown fields: note"),
        (lambda v: {k: x for k, x in v.items() if k != "fps"}, "fields: fps"),
        (lambda v: v | {"segments": "3"}, "segments '3'; it should be int"),
        (lambda v: v | {"id": None}, "id None; it should be str"),
    ],
    ids=["unknown", "absent", "text for a count", "no id"],
)
def test_video_outcome_from_dict_is_strict(change, words):
    with pytest.raises(CorruptStoreError, match=words):
        VideoOutcome.from_dict(change(VideoOutcome(id="a", outcome="ok").to_dict()))


def test_plan_layout_of_equal_lengths_is_dense():
    layout = plan_layout(np.full(10, 25), 3, 4)
    assert (layout.chunk_rows, layout.shard_rows, layout.rows, layout.shard_count) == (25, 300, 750, 3)
    np.testing.assert_array_equal(layout.offset, np.arange(10) * 75)


def test_plan_layout_gives_a_long_video_shards_of_its_own():
    layout = plan_layout(np.array([10, 10, 10, 12, 47, 10, 0, 8]), 1, 2)
    assert (layout.chunk_rows, layout.shard_rows) == (5, 20)
    np.testing.assert_array_equal(layout.offset, [0, 10, 20, 40, 60, 120, 130, 140])
    assert layout.rows == 150


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.integers(1, 3), st.integers(1, 9))
def test_plan_layout_keeps_its_rules(lengths, views, videos_per_shard):
    length = np.array(lengths)
    if not length.max():
        with pytest.raises(UsageError, match="one above 0"):
            plan_layout(length, views, videos_per_shard)
        return
    layout = plan_layout(length, views, videos_per_shard)
    start, stop = layout.offset, layout.offset + views * length
    assert not (start % layout.chunk_rows).any()
    assert layout.rows % layout.chunk_rows == layout.shard_rows % layout.chunk_rows == 0
    assert (stop[:-1] <= start[1:]).all()
    assert (np.diff(start) > 0).all()
    assert stop[-1] <= layout.rows
    first, last = start // layout.shard_rows, (np.maximum(stop, start + 1) - 1) // layout.shard_rows
    crosses = first != last
    assert (views * length[crosses] > layout.shard_rows).all()
    assert not (start[crosses] % layout.shard_rows).any()
    assert (first[1:] > last[:-1])[crosses[:-1]].all()  # the video after a long one has another shard
    assert set(range(layout.shard_count)) == {s for a, b in zip(first, last, strict=True) for s in range(a, b + 1)}


@pytest.mark.parametrize(("views", "videos_per_shard"), [(0, 1), (1, 0)])
def test_plan_layout_refuses_counts_below_one(views, videos_per_shard):
    with pytest.raises(UsageError, match="at least 1 view and 1 video"):
        plan_layout(np.array([3]), views, videos_per_shard)
