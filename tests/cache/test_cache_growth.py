"""The extension of a store: old rows stay what they are, and killed at any moment it is the old store or the new."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from testkit.stores import content, fill

from vidatt.cache import growth
from vidatt.cache.batches import Batches
from vidatt.cache.layout import extend_layout, plan_layout
from vidatt.cache.ledger import VideoOutcome
from vidatt.cache.publish import marker_digest
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_index, synthetic_shard, synthetic_store
from vidatt.errors import CorruptStoreError, RefusedError, UsageError

pytestmark = pytest.mark.slow

CUBES = {"rgb": (1, 1, 4), "flow": (2, 2, 3)}


def extend(store: Store, length: Sequence[int], **given: Any) -> Store:
    """Extend a synthetic store by videos of these lengths."""
    layout = extend_layout(store.layout, np.asarray(length), store.views)
    index = synthetic_index([*store.index.length.tolist(), *length])
    return store.extend(index=index, layout=layout, attributes=given)


def rows_of(store: Store, videos: int | None = None) -> dict[str, list[bytes]]:
    """Cubes and frames of every video of each stream, or of the first ones."""
    found: dict[str, list[bytes]] = {}
    for name in store.stream_names:
        read = map(store[name].video, range(len(store.index) if videos is None else videos))
        found[name] = [video.cubes.tobytes() + video.frames.tobytes() for video in read]
    return found


@pytest.mark.parametrize("lengths", [[3] * 5, [4, 6, 1, 9, 2], [4, 30, 1]], ids=["trimmed", "untrimmed", "long"])
@pytest.mark.parametrize("views", [1, 2])
def test_old_rows_and_files_stay_and_new_videos_come_behind(tmp_path, lengths, views):
    store = fill(synthetic_store(tmp_path / "s.zarr", lengths, views=views, videos_per_shard=2), CUBES)
    old, files, ranges = (
        rows_of(store),
        content(store.path),
        [store.shard_row_range(s) for s in range(store.shard_count)],
    )
    wider = extend(store, lengths[:3], note="second")
    assert (len(wider.index), wider.attributes["note"], wider.attributes["dataset"]) == (
        len(lengths) + 3,
        "second",
        "synthetic",
    )
    assert [wider.shard_row_range(s) for s in range(store.shard_count)] == ranges
    assert wider["rgb"].missing_shards() == list(range(store.shard_count, wider.shard_count))
    now = content(wider.path)
    assert all(
        now[name] == data for name, data in files.items() if not name.startswith("index") and "zarr.json" not in name
    )
    for name in CUBES:
        stream = wider[name]
        for shard in stream.missing_shards():
            assert stream.publish(shard, **synthetic_shard(stream, shard))
    assert {name: videos[: len(lengths)] for name, videos in rows_of(wider).items()} == old
    videos = np.flatnonzero(wider.usable(CUBES))
    assert videos.max() >= len(lengths)
    for shuffle in (True, False):
        batches = Batches(wider, list(CUBES), videos, batch_videos=2, shuffle=shuffle, residency="stream")
        seen = {
            int(v): c.numpy()[b].copy()
            for batch in batches.epoch(0)
            for b, v in enumerate(batch.videos)
            for c in batch.cubes[:1]
        }
        assert sorted(seen) == videos.tolist()
        for position, cubes in seen.items():
            expected = wider["rgb"].video(position).cubes
            np.testing.assert_array_equal(cubes[: len(expected)], expected)


def test_a_shard_of_before_that_is_made_after_has_the_same_bytes(tmp_path):
    stores = {}
    for when in ("before", "after"):
        store = synthetic_store(tmp_path / when / "s.zarr", [3] * 5, videos_per_shard=2)
        store.add_stream("rgb", cube_shape=(1, 1, 4), recipe={})
        stream = store["rgb"]
        last = synthetic_shard(stream, 2)
        if when == "before":
            stream.publish(2, **last)
        wider = extend(store, [5, 7])
        if when == "after":
            stream.publish(2, **last)  # of an extraction that began before the extension
        stores[when] = content(wider.path)
    assert stores["before"] == stores["after"]
    wider = Store.open(tmp_path / "after" / "s.zarr")
    last["cubes"] *= 2
    assert wider["rgb"].publish(2, **last, replaces=marker_digest(wider.path / "rgb", 2))
    np.testing.assert_array_equal(wider["rgb"].reader().read_rows(12, 15), last["cubes"])


def test_several_extensions_in_a_row_and_one_of_labels_alone(tmp_path):
    store = fill(synthetic_store(tmp_path / "s.zarr", [3] * 5, videos_per_shard=2), CUBES)
    first = extend(store, [3])
    second = extend(first, [3, 3, 3])
    third = extend(second, [])
    assert third.attributes["earlier_rows"] == [15, 21]
    assert [third.shard_row_range(s) for s in range(6)] == [(0, 6), (6, 12), (12, 15), (18, 21), (24, 30), (30, 33)]
    assert [list(third.shard_videos(s)) for s in range(6)] == [[0, 1], [2, 3], [4], [5], [6, 7], [8]]
    assert third.equal_lengths
    assert third.attributes["index"] == "index-4"
    assert [p.name for p in third.path.glob("index*")] == ["index-4"]
    assert third.stream_names == ["rgb", "flow"]
    group: Any = zarr.open_group(str(third.path), mode="r")
    assert group["rgb/cubes"].shape[0] == third.rows == 33
    np.testing.assert_array_equal(group["rgb/cubes"][12:15], store["rgb"].video(4).cubes)
    with pytest.raises(UsageError, match="cannot name a stream"):
        third.add_stream("index-9", cube_shape=(1, 1, 1), recipe={})


def test_videos_of_before_may_not_change(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", [3] * 4, videos_per_shard=2)
    layout = extend_layout(store.layout, np.array([3]), 1)
    index = synthetic_index([3] * 5)
    for wrong in (
        replace(index, ids=np.array(["other.avi", *index.ids[1:]])),
        replace(index, paths=np.array(["other.avi", *index.paths[1:]])),
        replace(index, span_seconds=np.zeros((5, 2))),
    ):
        with pytest.raises(UsageError, match="only add to them"):
            store.extend(index=wrong, layout=layout, attributes={})
    with pytest.raises(UsageError, match="only add to them"):
        store.extend(index=synthetic_index([3] * 3), layout=plan_layout(np.array([3] * 3), 1, 2), attributes={})
    assert Store.open(store.path).attributes == store.attributes


def test_an_earlier_vidatt_refuses_an_extended_store(tmp_path):
    store = extend(synthetic_store(tmp_path / "s.zarr", [3] * 4), [3])
    assert store.attributes["schema"] == 2
    text = json.loads((store.path / "zarr.json").read_text())
    text["attributes"]["schema"] = 3
    (store.path / "zarr.json").write_text(json.dumps(text))
    with pytest.raises(RefusedError, match="schema version 3, this vidatt reads 1 and 2"):
        Store.open(store.path)


def fork(work: Any) -> int:
    """Run something in a fork; its exit status."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_before(step: int, work: Any) -> int:
    """Run something in a fork that kills itself right before its nth change to the file system."""

    def run() -> None:
        seen = 0

        def count(event: str, args: tuple[Any, ...]) -> None:
            nonlocal seen
            writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            if writes or event in {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}:
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()

    return fork(run)


@pytest.mark.slow
@pytest.mark.long
def test_killed_before_each_change_it_is_the_old_store_or_the_new(tmp_path):
    made = fill(synthetic_store(tmp_path / "made.zarr", [3] * 5, videos_per_shard=2), {"rgb": (1, 1, 4)})
    before = content(made.path)
    new = {}
    for step in range(1, 200):
        path = tmp_path / f"{step}.zarr"
        for name, data in before.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        status = killed_before(step, lambda path=path: extend(Store.open(path), [3, 3]))
        seen = Store.open(path)
        assert len(seen.index) in (5, 7)
        assert (
            rows_of(seen)["rgb"][:5] == rows_of(made)["rgb"]
            if len(seen.index) == 5
            else seen["rgb"].missing_shards() == [3]
        )
        new[step] = len(seen.index) == 7
        if step % 3 == 0:
            growth.finish(path)  # also of one that was not begun
        store = Store.open(path)
        extend(store, [3, 3] if len(store.index) == 5 else [])
        store = Store.open(path)
        assert len(store.index) == 7
        store.sweep()
        assert not [p for p in path.rglob("*") if ".tmp" in p.name]
        assert len(list(path.glob("index*"))) == 1
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert step > 40
    assert sorted(new.values()) == list(new.values()), "once it is the new one, it stays so"


@pytest.mark.slow
@pytest.mark.long
def test_of_two_at_once_one_wins_and_the_other_sees_it(tmp_path):
    for turn in range(8):
        store = fill(synthetic_store(tmp_path / f"{turn}.zarr", [3] * 5, videos_per_shard=2), {"rgb": (1, 1, 4)})
        lengths = [[3], [3, 3], [3, 3, 3]]
        together = threading.Barrier(3)
        seen: list[int] = []

        def work(mine: list[int], store: Store = store, together: Any = together, seen: list[int] = seen) -> None:
            together.wait()
            seen.append(len(extend(store, mine).index))

        threads = [threading.Thread(target=work, args=(mine,)) for mine in lengths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(seen)) == 1
        assert len(seen) == 3
        assert seen[0] == len(Store.open(store.path).index) in (6, 7, 8)
        assert Store.open(store.path)["rgb"].missing_shards()[0] == 3
        assert [p.name for p in store.path.glob("index*")] == ["index-2"]


def test_a_stream_added_by_one_who_knew_the_old_store_fits_the_new(tmp_path):
    old = synthetic_store(tmp_path / "s.zarr", [3] * 5, videos_per_shard=2)
    wider = extend(Store.open(old.path), [3, 3])
    old.add_stream("rgb", cube_shape=(1, 1, 4), recipe={})
    assert wider["rgb"].missing_shards() == [0, 1, 2, 3]


def test_a_store_that_is_extended_while_it_is_opened_is_the_new_one(tmp_path, monkeypatch):
    store = synthetic_store(tmp_path / "s.zarr", [3] * 5, videos_per_shard=2)
    from vidatt.cache import store as module

    real, calls = module.read_root, []

    def read_then_extend(path: Path) -> dict[str, Any]:
        root = real(path)
        if not calls:
            calls.append(path)
            extend(store, [3])
        return root

    monkeypatch.setattr(module, "read_root", read_then_extend)
    assert len(Store.open(store.path).index) == 6


def test_a_begun_extension_with_a_damaged_index_says_so(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", [3] * 5, videos_per_shard=2)
    (store.path / "index-2").mkdir()
    (store.path / "index-2" / "zarr.json").write_text("{}")
    with pytest.raises(CorruptStoreError, match=r"index-2/zarr\.json does not tell"):
        growth.finish(store.path)
    assert len(Store.open(store.path).index) == 5


def test_a_store_of_an_earlier_version_is_extended_and_its_shards_are_replaced(tmp_path):
    with zipfile.ZipFile(Path(__file__).parents[1] / "pipelines/runs/made_by_0_1_0.zip") as archive:
        archive.extractall(tmp_path)
    store = Store.open(tmp_path / "shapes.zarr")
    stream, old, N = store["rgb"], rows_of(store), len(store.index)
    (outcome,) = (VideoOutcome.from_dict(values) for values in stream.marker(0)["videos"])
    video, (start, stop) = stream.video(0), store.shard_row_range(0)
    assert stop - start == len(video.cubes)
    content = {"cubes": video.cubes, "frames": video.frames, "seconds": video.seconds, "outcomes": [outcome]}
    assert "seal" not in stream.marker(0)
    assert stream.publish(0, **content, replaces=marker_digest(stream.path, 0))
    assert "seal" in stream.marker(0)
    layout = extend_layout(store.layout, np.array([2, 2]), store.views)
    index = synthetic_index([2] * (N + 2))
    ids, paths = ([*array, "x.avi", "y.avi"] for array in (store.index.ids, store.index.paths))
    wider = store.extend(index=replace(index, ids=np.array(ids), paths=np.array(paths)), layout=layout, attributes={})
    assert rows_of(wider, N) == old
    assert wider["clip"].missing_shards() == [N, N + 1]
