"""Batches: every video once an epoch, in an order the seed alone decides, equal from device, RAM and store."""

import itertools
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from testkit.stores import filled_store

from vidatt.cache.batches import Batches
from vidatt.cache.memory import available_ram_bytes, size_text
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_store
from vidatt.errors import CorruptStoreError, ShardMissingError, UsageError

pytestmark = pytest.mark.slow

RESIDENCIES = ("device", "ram", "stream")
TRIMMED, UNTRIMMED = [3] * 90, [4, 1, 9, 2, 30, 6, 5, 5, 3, 2] * 9


def filled(path: Path, length: list[int], views: int = 1) -> Store:
    filled_store(path, length, {"rgb": (2, 2, 4), "flow": (1, 1, 3)}, views=views, videos_per_shard=4)
    return Store.open(path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("batches")
    return {
        "trimmed": filled(folder / "t.zarr", TRIMMED, views=3),
        "untrimmed": filled(folder / "u.zarr", UNTRIMMED, views=2),
    }


def usable(store: Store) -> np.ndarray:
    return np.flatnonzero(store.usable(["rgb", "flow"]))


@pytest.mark.parametrize("kind", ["trimmed", "untrimmed"])
@pytest.mark.parametrize("residency", RESIDENCIES)
@pytest.mark.parametrize("view", [0, 1, "random"])
def test_batches_hold_what_the_reader_reads(stores, kind, residency, view):
    store = stores[kind]
    videos = usable(store)
    batches = Batches(store, ["rgb", "flow"], videos, batch_videos=7, seed=3, view=view, residency=residency)
    assert batches.residency == residency
    assert len(batches) == -(-len(videos) // 7)
    readers = [store.stream(name).reader() for name in ("rgb", "flow")]
    seen, views = [], set()
    for batch in batches.epoch(2):
        T = max(int(store.index.length[v]) for v in batch.videos)
        assert [tuple(c.shape[:2]) for c in batch.cubes] == [(len(batch.videos), T)] * 2
        assert all(c.dtype == torch.float16 for c in batch.cubes)
        for i, position in enumerate(batch.videos):
            length = int(store.index.length[position])
            real = readers[0].frames(position)[:, 0] >= 0
            np.testing.assert_array_equal(batch.valid[i].numpy(), np.pad(real, (0, T - length)))
            candidates = range(store.views) if view == "random" else [view]
            for cubes, reader in zip(batch.cubes, readers, strict=True):
                got = cubes[i].numpy()
                fits = [v for v in candidates if np.array_equal(got[:length], reader.read_video(position, view=v))]
                assert fits
                assert not got[length:].any()
                views.add(fits[0])
        seen += batch.videos.tolist()
    assert sorted(seen) == videos.tolist()
    assert seen != sorted(seen)
    assert views == (set(range(store.views)) if view == "random" else {view})


@pytest.mark.parametrize("kind", ["trimmed", "untrimmed"])
def test_batches_are_equal_from_all_residencies(stores, kind):
    store = stores[kind]
    options = {"batch_videos": 8, "seed": 5, "view": "random"}
    sets = [Batches(store, ["flow", "rgb"], usable(store), residency=r, **options) for r in RESIDENCIES]
    for epoch in range(2):
        for one, two, three in zip(*(batches.epoch(epoch) for batches in sets), strict=True):
            for other in (two, three):
                np.testing.assert_array_equal(one.videos, other.videos)
                assert torch.equal(one.valid, other.valid)
                assert all(torch.equal(a, b) for a, b in zip(one.cubes, other.cubes, strict=True))


def order(batches: Batches, epoch: int) -> list[int]:
    return [video for batch in batches.epoch(epoch) for video in batch.videos.tolist()]


def test_batches_order_depends_on_seed_and_epoch_only(stores):
    store, videos = stores["trimmed"], usable(stores["trimmed"])
    batches = Batches(store, ["rgb"], videos, batch_videos=8, seed=1)
    other = Batches(store, ["flow"], np.random.permutation(videos), batch_videos=8, seed=1, residency="stream")
    late = order(other, 4)
    assert order(other, 3) == order(batches, 3)
    assert late == order(batches, 4)
    assert order(batches, 3) != order(batches, 4)
    assert order(Batches(store, ["rgb"], videos, batch_videos=8, seed=2), 3) != order(batches, 3)


def test_batches_shuffle_windows_of_shards(stores):
    """A batch draws on few shards, so that a store larger than RAM is read almost in sequence."""
    store = stores["trimmed"]
    batches = Batches(store, ["rgb"], usable(store), batch_videos=8)
    shards = [set((batch.videos // 4).tolist()) for batch in batches.epoch(0)]
    assert max(map(len, shards)) <= 8
    assert set.union(*shards) == set(range(store.shard_count))


def test_batches_without_shuffling_keep_the_given_order(stores):
    videos = [5, 3, 3, 80, 0]
    for residency in RESIDENCIES:
        batches = Batches(stores["trimmed"], ["rgb"], videos, batch_videos=2, shuffle=False, residency=residency)
        assert order(batches, 0) == order(batches, 1) == videos
        assert [len(batch.videos) for batch in batches.epoch(0)] == [2, 2, 1]


@pytest.mark.parametrize("residency", ["ram", "stream"])
def test_batch_is_valid_until_the_next_but_one_is_drawn(stores, residency):
    store = stores["trimmed"]
    batches = Batches(store, ["rgb"], usable(store), batch_videos=4, residency=residency)
    epoch = batches.epoch(0)
    reader = store.stream("rgb").reader()
    previous = next(epoch)
    for batch in epoch:
        for kept in (previous, batch):
            for cubes, position in zip(kept.cubes[0], kept.videos, strict=True):
                np.testing.assert_array_equal(cubes.numpy(), reader.read_video(position))
        previous = batch
    rings = {batch.cubes[0].data_ptr() for number in range(3) for batch in batches.epoch(number)}
    assert len(rings) == 3  # kept from epoch to epoch


def test_two_epochs_at_once_do_not_share_buffers(stores):
    store = stores["trimmed"]
    batches = Batches(store, ["rgb"], usable(store), batch_videos=4, residency="stream")
    for one, two in zip(batches.epoch(0), batches.epoch(1), strict=True):
        assert one.cubes[0].data_ptr() != two.cubes[0].data_ptr()


def prefetch_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vidatt-prefetch")]


def test_leaving_an_epoch_early_stops_the_thread(stores):
    store = stores["trimmed"]
    batches = Batches(store, ["rgb"], usable(store), batch_videos=4, residency="stream")
    for _ in batches.epoch(0):
        assert prefetch_threads()
        break
    assert not prefetch_threads()
    list(itertools.islice(batches.epoch(1), 3))
    assert not prefetch_threads()


@pytest.mark.slow
def test_error_in_the_thread_reaches_the_loop(tmp_path):
    store = filled(tmp_path / "s.zarr", TRIMMED)
    batches = Batches(store, ["rgb"], usable(store), batch_videos=4, residency="stream", shuffle=False)
    os.truncate(store.path / "rgb" / "cubes" / "c.9.0.0.0", 40)
    with pytest.raises(CorruptStoreError, match=r"c\.9\.0\.0\.0 has 40 bytes"):
        order(batches, 0)
    assert not prefetch_threads()


def test_batches_choose_ram_and_say_so(stores):
    batches = Batches(stores["trimmed"], ["rgb", "flow"], [0, 1, 2], batch_videos=2)
    assert batches.residency == "ram"
    assert batches.bytes == 3 * 3 * (2 * 2 * 4 + 3) * 2
    assert batches.description.startswith("resident in RAM: 342 B of ")


@pytest.mark.slow
def test_batches_stream_what_memory_cannot_hold(tmp_path):
    """A store of twice the available RAM, in one shard whose chunks are all zero and so have no file."""
    T, K, D = 4, 8, 16384
    size = 2 * T * K * K * D
    count = 2 * available_ram_bytes() // size
    store = synthetic_store(tmp_path / "s.zarr", [T] * count, videos_per_shard=count)
    stream = store.add_stream("rgb", cube_shape=(K, K, D), recipe={})
    zarr.open_array(str(stream.path / "frames"), mode="r+")[...] = 0
    files = {"frames/c.0.0": {"bytes": (stream.path / "frames" / "c.0.0").stat().st_size, "sha256": ""}}
    videos = [{"id": str(id)} for id in store.index.ids]
    marker = {"shard": 0, "rows": store.rows, "videos": videos, "files": files}
    (stream.path / ".done" / "0.json").write_text(json.dumps(marker))
    batches = Batches(store, ["rgb"], np.arange(count), batch_videos=2)
    assert batches.residency == "stream"
    assert batches.description.startswith("streamed from the store: ")
    first = next(batches.epoch(0))
    assert first.cubes[0].shape == (2, T, K, K, D)
    assert not first.cubes[0].any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"streams": []}, "at least one stream"),
        ({"streams": ["clip"]}, "no stream 'clip'; it has rgb, flow"),
        ({"videos": []}, "at least one video"),
        ({"videos": [90]}, r"has videos 0\.\.89"),
        ({"videos": [0, 10, 21]}, r"Video 'v0010\.avi' and 1 others have no segment in all of rgb; choose"),
        ({"batch_videos": 0}, "at least 1 video, not 0"),
        ({"view": 3}, r"views 0\.\.2 or 'random', not 3"),
        ({"view": "all"}, "not 'all'"),
        ({"residency": "disk"}, "Unknown residency 'disk'; it is one of auto, device, ram, stream"),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_batches_refuse_what_does_not_fit(stores, change, words):
    options = {"streams": ["rgb"], "videos": [0, 1], "batch_videos": 2, **change}
    with pytest.raises(UsageError, match=words):
        Batches(stores["trimmed"], **options)


@pytest.mark.slow
def test_batches_refuse_shards_without_marker(tmp_path):
    store = filled(tmp_path / "s.zarr", TRIMMED)
    (store.path / "flow" / ".done" / "2.json").unlink()
    Batches(store, ["rgb", "flow"], [0, 1], batch_videos=2)
    with pytest.raises(ShardMissingError, match="Shard 2 of stream 'flow'"):
        Batches(store, ["rgb", "flow"], [0, 9], batch_videos=2)


@pytest.mark.cuda
@pytest.mark.parametrize("residency", ["auto", *RESIDENCIES])
def test_batches_on_a_gpu_equal_those_on_the_cpu(stores, residency):
    store = stores["untrimmed"]
    options = {"batch_videos": 8, "seed": 5, "view": "random"}
    here = Batches(store, ["rgb", "flow"], usable(store), residency="device", **options)
    there = Batches(store, ["rgb", "flow"], usable(store), residency=residency, device="cuda", **options)
    kept = list(there.epoch(0))  # on a device, batches stay valid
    for one, two in zip(here.epoch(0), kept, strict=True):
        assert two.valid.is_cuda
        assert torch.equal(one.valid, two.valid.cpu())
        assert all(torch.equal(a, b.cpu()) for a, b in zip(one.cubes, two.cubes, strict=True))


def test_available_ram_is_that_of_the_machine():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_ram_bytes() < total


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/job/step", "sys/fs/cgroup/job", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:cpu,memory:/job/step",
            "sys/fs/cgroup/memory/job",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
    ids=["v2", "v1"],
)
def test_available_ram_respects_the_jobs_control_group(tmp_path, line, folder, names):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    8000000 kB\n")
    assert available_ram_bytes(tmp_path) == 8_192_000_000
    (tmp_path / "proc/self/cgroup").write_text(f"9:pids:/x\n{line}\n")
    group = tmp_path / folder
    (group / "step").mkdir(parents=True)
    (group / "step" / "memory.max").write_text("max\n")
    (group / names[0]).write_text("1000000000\n")
    (group / names[1]).write_text("700000000\n")
    (group / "memory.stat").write_text(f"anon 100\n{names[2]} 200000000\n")
    assert available_ram_bytes(tmp_path) == 500_000_000


def test_sizes_are_written_in_powers_of_1000():
    texts = {
        0: "0 B",
        999: "999 B",
        1000: "1.0 kB",
        64_300: "64.3 kB",
        2_500_000: "2.5 MB",
        7e9: "7.0 GB",
        3e15: "3000.0 TB",
    }
    assert {size: size_text(size) for size in texts} == texts


@pytest.mark.parametrize("kind", ["trimmed", "untrimmed"])
@pytest.mark.parametrize("residency", RESIDENCIES)
def test_batches_draw_views_from_a_range_of_them_alone(stores, kind, residency):
    store = stores[kind]
    drawn = range(1, store.views)
    batches = Batches(store, ["rgb"], usable(store), batch_videos=7, seed=3, view=drawn, residency=residency)
    assert batches.bytes == 2 * 2 * 2 * 4 * len(drawn) * int(store.index.length[usable(store)].sum())
    reader, views = store.stream("rgb").reader(), set()
    for batch in (batch for epoch in range(4) for batch in batches.epoch(epoch)):
        for cubes, position in zip(batch.cubes[0], batch.videos, strict=True):
            got = cubes[: int(store.index.length[position])].numpy()
            fits = {v for v in range(store.views) if np.array_equal(got, reader.read_video(position, view=v))}
            assert fits & set(drawn)
            views |= fits
    assert views == set(drawn)


def test_random_views_are_all_of_them_drawn_as_ever(stores):
    store = stores["trimmed"]
    options = {"batch_videos": 8, "seed": 5, "residency": "ram"}
    every, ranged = (Batches(store, ["rgb"], usable(store), view=v, **options) for v in ("random", range(3)))
    for one, other in zip(every.epoch(1), ranged.epoch(1), strict=True):
        assert torch.equal(one.cubes[0], other.cubes[0])


@pytest.mark.parametrize("view", [-1, 3, range(2, 4), range(1, 1), range(0, 3, 2), "rnadom"])
def test_batches_refuse_views_that_are_not_there(stores, view):
    with pytest.raises(UsageError, match=r"The store has views 0\.\.2 or 'random', not"):
        Batches(stores["trimmed"], ["rgb"], usable(stores["trimmed"]), batch_videos=8, view=view)
