"""The commit under real SIGKILLs, real races and real damage: a shard is one writer's, whole, or not there."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from testkit.commits import Writers, check, litter, new_store

from vidatt.cache.publish import complete
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_shard, synthetic_store
from vidatt.errors import UsageError


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    server = Writers()
    yield server
    server.close()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("untrimmed", [False, True], ids=["trimmed", "untrimmed"])
def test_publish_killed_before_each_change_leaves_a_shard_whole_or_absent(tmp_path, writers, untrimmed):
    store = new_store(tmp_path / "s.zarr", 200, untrimmed)
    assert writers.run(store, [0], seed=1) == 0
    steps = writers.changes(store)
    assert steps > 30
    seeds = check(store, {0})
    for step in range(1, steps + 1):
        assert writers.run(store, [step], seed=1, kill_at=step) == -signal.SIGKILL
        killed = check(store, only=step)
        if step % 2:  # a sweep, then the rerun; else a rerun with other content at once
            store.sweep()
            assert litter(store) == []
            killed |= check(store, only=step)
        assert writers.run(store, [step], seed=2) == 0
        seeds |= check(store, only=step)
        assert seeds.items() >= killed.items()
    store.sweep()
    assert litter(store) == []
    assert check(store, set(range(steps + 1))) == seeds
    # From the intent on the killed writer's content stands; before it, the next one's.
    intent = min(step for step, seed in seeds.items() if step and seed == 1)
    assert seeds == {step: 1 if step == 0 or step >= intent else 2 for step in range(steps + 1)}
    assert 10 < intent < steps


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("sweeps", [False, True], ids=["by a rerun", "by a sweep"])
def test_completion_killed_before_each_change_is_completed_by_the_next(tmp_path, writers, sweeps):
    store = new_store(tmp_path / "s.zarr", 200)
    assert writers.run(store, [0], seed=1) == 0
    steps = writers.changes(store)
    shard = 0
    for first in range(steps - 16, steps, 5):  # around the intent and the marker
        status, second = -signal.SIGKILL, 0
        while status == -signal.SIGKILL:
            shard, second = shard + 1, second + 1
            assert writers.run(store, [shard], seed=1, kill_at=first) == -signal.SIGKILL
            before = check(store, only=shard)
            status = writers.run(store, [] if sweeps else [shard], seed=2, kill_at=second)
            between = check(store, only=shard)
            assert between.items() >= before.items()
            assert writers.run(store, [shard], seed=3) == 0
            assert check(store, only=shard).items() >= between.items()
        assert status == 0
        assert second > 1
    store.sweep()
    assert litter(store) == []
    check(store, set(range(shard + 1)))


@pytest.mark.slow
@pytest.mark.long
def test_two_racing_writers_killed_at_random_never_mix(tmp_path, writers):
    store = new_store(tmp_path / "s.zarr", 150)
    chance = random.Random(7)
    done: set[int] = set()
    kills = 0
    for round_ in range(20):
        shards = list(range(7 * round_, 7 * round_ + 7))
        racers = [writers.start(store, shards, seed=10 * round_ + i) for i in range(3)]
        for racer in racers[:2]:
            time.sleep(chance.uniform(0, 0.12))
            os.kill(racer, signal.SIGKILL)
        statuses = [writers.ask(wait=racer) for racer in racers]
        kills += statuses.count(-signal.SIGKILL)
        assert statuses[2] == 0
        done |= set(shards)
        assert set(check(store, done).values()) <= set(range(10 * round_ + 3))
    assert kills >= 10
    store.sweep()
    assert litter(store) == []
    check(store, done)


def test_first_writer_wins_and_the_second_is_told(tmp_path):
    store = new_store(tmp_path / "s.zarr", 2)
    stream = store.stream("rgb")
    first, second = synthetic_shard(stream, 0, seed=1), synthetic_shard(stream, 0, seed=2)
    assert stream.publish(0, **first) is True
    marker = stream.marker(0)
    assert stream.publish(0, **second) is False
    assert stream.marker(0) == marker
    np.testing.assert_array_equal(stream.reader().read_rows(0, 6), first["cubes"])
    assert litter(store) == []


def killed_at_intent(store: Store, writers: Writers, shard: int) -> tuple[Path, Path]:
    """Kill a writer just after its intent; its scratch and the intent."""
    for step in range(1, 100):
        assert writers.run(store, [shard], seed=1, kill_at=step) == -signal.SIGKILL
        intents = list(store.path.glob(f"rgb/.done/{shard}.intent-*.json"))
        if intents:
            head = json.loads(intents[0].read_bytes().split(b"\n")[0])
            return store.path / ".tmp" / head["scratch"], intents[0]
        store.sweep()
    raise AssertionError("no step left an intent")


@pytest.mark.parametrize("damage", ["gone", "truncated", "bit", "marker"])
@pytest.mark.slow
@pytest.mark.long
def test_intent_whose_scratch_is_damaged_counts_as_never_made(tmp_path, writers, damage):
    store = new_store(tmp_path / "s.zarr", 3)
    scratch, _ = killed_at_intent(store, writers, 1)
    cubes = scratch / "cubes" / "c.1.0.0.0"
    if damage == "gone":
        subprocess.run(["rm", "-r", str(scratch)], check=True)
    elif damage == "truncated":
        os.truncate(cubes, 10)
    elif damage == "bit":
        content = bytearray(cubes.read_bytes())
        content[5] ^= 1
        cubes.write_bytes(content)
    else:
        (scratch / "marker.json").write_text("{}")
    assert complete(store.path / "rgb", 1) is False
    store.sweep()
    assert store.stream("rgb").missing_shards() == [0, 1, 2]
    assert writers.run(store, [1], seed=2) == 0
    assert check(store, {1}) == {1: 2}
    store.sweep()
    assert litter(store) == []


@pytest.mark.slow
def test_unmarked_files_at_the_keys_are_replaced(tmp_path, writers):
    store = new_store(tmp_path / "s.zarr", 2)
    array = zarr.open_array(str(store.path / "rgb" / "cubes"), mode="r+")
    array[:6] = 99  # zarr-python used as an editor
    assert store.stream("rgb").missing_shards() == [0, 1]
    assert writers.run(store, [0], seed=3) == 0
    assert check(store, {0}) == {0: 3}


def test_unmarked_files_of_an_empty_shard_are_removed(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", [1, 2] * 6, videos_per_shard=1)
    stream = store.add_stream("rgb", cube_shape=(1, 1, 4), recipe={})
    assert list(store.shard_videos(10)) == [10]  # a missing one
    array = zarr.open_array(str(stream.path / "cubes"), mode="r+")
    array[slice(*store.shard_row_range(10))] = 99
    assert stream.publish(10, **synthetic_shard(stream, 10)) is True
    assert stream.marker(10)["files"] == {}
    assert not array[slice(*store.shard_row_range(10))].any()
    assert not stream.reader().read_video(10).any()
    assert stream.reader().frames(10).tolist() == [[-1, -1, -1]]


@pytest.mark.slow
def test_sweep_spares_the_living_and_removes_the_dead(tmp_path, writers):
    store = new_store(tmp_path / "s.zarr", 2)
    host = os.uname().nodename
    assert writers.run(store, [0], seed=1, kill_at=12) == -signal.SIGKILL
    dead = next((store.path / ".tmp").iterdir())
    living, other, old, foreign = (
        store.path / ".tmp" / name for name in (f"{host}-{os.getpid()}-a1", "far-1-a2", "far-away-1-a3", "notes")
    )
    sibling = tmp_path / f"s.zarr.tmp-{dead.name}"
    for folder in (living, other, old, foreign, sibling):
        folder.mkdir()
    os.utime(old, times=(time.time() - 90000,) * 2)
    assert store.sweep() == 3
    assert sorted((store.path / ".tmp").iterdir()) == sorted([living, other, foreign])
    assert not sibling.exists()


def test_publish_without_hard_links_says_so(tmp_path):
    store = new_store(tmp_path / "s.zarr", 2)
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    target = elsewhere / f"vidatt-test-{os.getpid()}"
    target.mkdir()
    try:
        (store.path / ".tmp").symlink_to(target)
        stream = store.stream("rgb")
        with pytest.raises(UsageError, match=r"rgb/\.done cannot take hard links .* put the store on one file system"):
            stream.publish(0, **synthetic_shard(stream, 0))
        assert stream.missing_shards() == [0, 1]
    finally:
        subprocess.run(["rm", "-r", str(target)], check=True)
