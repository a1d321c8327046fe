"""One plan: `--dry-run`, the run and the store's creation make the same choices; of a store that is there, its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_store
from vidatt.errors import RefusedError
from vidatt.extract.datasets.generator import generate
from vidatt.extract.kinds import CLIP, FLOW, RGB
from vidatt.extract.streams import StreamConfig
from vidatt.pipelines.extraction.config import ExtractConfig
from vidatt.pipelines.extraction.estimate import estimate
from vidatt.pipelines.extraction.plan import plan_extraction, shard_size
from vidatt.pipelines.runs.signals import StopRequest

HOG = StreamConfig(name="rgb", backbone="hog", resize="short:28", crop_px=28)
HOF = StreamConfig(name="flow", backbone="hof", resize="short:28", crop_px=28)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "videos"
    generate(folder, videos=6, shapes=2, motions=1, frames=12, n_jobs=1)
    return folder


@pytest.fixture
def config(videos: Path, tmp_path: Path) -> ExtractConfig:
    return ExtractConfig(
        dataset="actionshapes", videos=videos, store=tmp_path / "s.zarr", streams=(HOG,), device="cpu", workers=1
    )


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_a_store_is_made_by_its_plan_and_gives_it_back(config: ExtractConfig) -> None:
    plan = plan_extraction(replace(config, sampler="every:5", shard_videos=2, views="10crop", seed=4))
    assert not config.store.exists()
    assert plan.store is None
    store = plan.open_store()
    assert store.plan == plan.recorded
    recorded = store.plan.to_attributes()
    assert {key: recorded[key] for key in ("sampler", "window_frames", "view_rule", "seed", "shard_videos")} == {
        "sampler": "every:5", "window_frames": 1, "view_rule": "10crop", "seed": 4, "shard_videos": 2,
    }  # fmt: skip
    again = plan_extraction(replace(config, views="10crop", seed=4))
    assert again.store is not None
    assert again.recorded == plan.recorded
    assert (again.sampler, again.window_frames, again.views) == (plan.sampler, plan.window_frames, plan.views)
    assert again.shards == plan.shards
    assert np.array_equal(again.layout.offset, plan.layout.offset)
    assert [again.job(p) for p in range(6)] == [plan.job(p) for p in range(6)]
    assert plan.job(0).segments == 3


@pytest.mark.usefixtures("_threads")
@pytest.mark.slow
def test_dry_run_on_a_store_tells_of_the_stores_own_segments(config: ExtractConfig) -> None:
    plan_extraction(replace(config, sampler="uniform:2", shard_videos=2)).open_store()
    found = estimate(config)  # asks for no sampler: alone it would be uniform:25
    assert (found.exists, found.segments, found.shards, found.shards_to_do) == (True, 6 * 2, 3, 3)
    assert found.streams["rgb"].bytes == 6 * 2 * (2 * 7 * 7 * 36 + 20)
    assert found.sampled_videos == 6
    assert estimate(replace(config, slice="1/3")).shards_to_do == 1
    printed = json.loads(json.dumps(found.to_dict()))
    assert set(printed) - {"shards_to_do"} == {
        "store", "exists", "videos", "missing", "segments", "shards", "files", "streams", "free_bytes", "workers",
        "device", "sampled_videos", "estimated_seconds", "decode_timeout_seconds", "decode_memory_bytes", "added",
        "retried", "longer", "reusable",
    }  # fmt: skip
    assert printed["streams"] == {"rgb": {"cube": [7, 7, 36], "bytes": found.streams["rgb"].bytes}}


@pytest.mark.slow
@pytest.mark.usefixtures("_threads")
def test_a_full_disk_refuses_only_what_is_still_to_be_written(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidatt.pipelines.extraction.estimate.free_bytes", lambda path: 10)
    with pytest.raises(RefusedError, match=r"The store needs 0\.0 GB"):
        estimate(replace(config, sampler="uniform:1"))
    store = plan_extraction(replace(config, sampler="uniform:1", shard_videos=6)).open_store()
    stream = store.add_stream("rgb", cube_shape=(7, 7, 36), recipe={"precision": "float32"})
    zeros = np.zeros((6, 7, 7, 36), np.float16)
    stream.publish(0, cubes=zeros, frames=np.zeros((6, 3), np.int32), seconds=np.zeros(6), outcomes=_outcomes(store))
    found = estimate(config)
    assert (found.shards_to_do, found.estimated_seconds, found.sampled_videos) == (0, 0.0, 0)


def _outcomes(store: Store) -> list[Any]:
    from vidatt.cache.ledger import VideoOutcome

    return [VideoOutcome(id=str(id), outcome="ok", segments=1) for id in store.index.ids]


@pytest.mark.slow
def test_auto_means_what_the_store_was_begun_with(config: ExtractConfig) -> None:
    store = plan_extraction(replace(config, streams=(HOG, HOF))).open_store()
    store.add_stream("rgb", cube_shape=(1, 1, 2), recipe={"precision": "bfloat16"})
    store.add_stream("flow", cube_shape=(1, 1, 2), recipe={"precision": "float32", "flow": {"engine": "opencv"}})
    rgb, flow = plan_extraction(replace(config, streams=(HOG, HOF))).streams
    assert (rgb.precision, flow.precision, flow.flow_engine) == ("bfloat16", "float32", "opencv")
    asked = plan_extraction(replace(config, streams=(replace(HOG, precision="float32"),))).streams
    assert asked[0].precision == "float32"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "named"),
    [({"sampler": "uniform:3"}, "sampler: 'uniform:3' here, 'uniform:25' in the store"), ({"seed": 1}, "seed: 1 here"),
     ({"views": "10crop"}, "view_rule: '10crop' here"), ({"window_frames": 9}, "window_frames: 9 here, 1 in")],
)  # fmt: skip
def test_another_plan_is_refused_with_the_difference(config: ExtractConfig, other: dict[str, Any], named: str) -> None:
    plan_extraction(config).open_store()
    with pytest.raises(RefusedError, match=named):
        plan_extraction(replace(config, **other))


def test_a_store_that_no_extraction_planned_is_refused(config: ExtractConfig) -> None:
    synthetic_store(config.store, [2] * 6)
    with pytest.raises(RefusedError, match="does not say how its segments were placed"):
        plan_extraction(config)


def test_shards_are_as_small_as_the_slowest_stream_needs() -> None:
    assert shard_size(6400, [RGB, CLIP]) == shard_size(6400, []) == 64
    assert shard_size(6400, [RGB, FLOW]) == 16
    assert shard_size(96, [RGB]) == 3
    assert shard_size(6, [FLOW]) == 1


def test_one_stop_request_counts_signals_and_gives_them_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with StopRequest("the shards in work", keep=True) as stop:
        for count in (1, 2):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert (stop.name, stop.count) == ("SIGUSR1", count)
    assert signal.getsignal(signal.SIGUSR1) is before
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.count == 1
        assert signal.getsignal(signal.SIGUSR1) is before
