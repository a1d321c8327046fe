"""The plan that a store hands out is typed, and is what its attributes say."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidatt.cache.plan import StorePlan
from vidatt.cache.synthetic import synthetic_store
from vidatt.errors import CorruptStoreError

ATTRIBUTES = {
    "dataset": "ucf101", "catalogue_sha256": "0f", "sampler": "uniform:25", "window_frames": 16, "view_rule": "center",
    "seed": 0, "shard_videos": 64,
}  # fmt: skip


def test_plan_and_attributes_are_one_thing_in_two_forms() -> None:
    plan = StorePlan.of({**ATTRIBUTES, "rows": 25, "imported": "elsewhere"})
    assert (plan.sampler, plan.window_frames, plan.seed) == ("uniform:25", 16, 0)
    assert plan.to_attributes() == ATTRIBUTES


def test_a_store_that_was_made_otherwise_says_what_it_knows(tmp_path: Path) -> None:
    plan = synthetic_store(tmp_path / "s.zarr", [2, 2]).plan
    assert plan == StorePlan(dataset="synthetic", seed=0)
    assert plan.to_attributes() == {"dataset": "synthetic", "seed": 0}


@pytest.mark.parametrize(("key", "value"), [("sampler", 25), ("window_frames", "16"), ("seed", True)])
def test_damaged_values_are_named(key: str, value: object) -> None:
    with pytest.raises(CorruptStoreError, match=f"The store's attribute {key} is {value!r}; restore"):
        StorePlan.of({**ATTRIBUTES, key: value})
