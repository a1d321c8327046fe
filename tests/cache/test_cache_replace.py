"""The replacement of a committed shard under real SIGKILLs, stops and races: the old content or the new, no mix."""

import os
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from testkit.commits import Writers, check, litter, new_store

from vidatt.cache.publish import marker_digest
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_shard, synthetic_store
from vidatt.errors import CorruptStoreError


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    server = Writers()
    yield server
    server.close()


def read_while_torn(store: Store, shard: int) -> set[int]:
    """The seeds of a shard's rows as a reader that opens it now sees them; nothing if it refuses."""
    start, stop = store.shard_row_range(shard)
    stream = store.stream("rgb")
    try:
        cubes = stream.reader().read_rows(start, stop)
        stream.outcome(store.shard_videos(shard).start)
    except CorruptStoreError:
        return set()
    return {int(value) for value in np.unique(cubes) if value}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("untrimmed", [False, True], ids=["trimmed", "untrimmed"])
def test_replacement_killed_before_each_change_is_the_old_or_the_new(tmp_path, writers, untrimmed):
    store = new_store(tmp_path / "s.zarr", 200, untrimmed)
    assert writers.run(store, list(range(60)), seed=1) == 0
    assert writers.run(store, [0], seed=2, replace=True) == 0
    steps = writers.changes(store)
    assert 30 < steps < 60
    assert check(store, only=0) == {0: 2}
    seeds = {}
    for step in range(1, steps + 1):
        assert writers.run(store, [step], seed=2, kill_at=step, replace=True) == -signal.SIGKILL
        assert read_while_torn(store, step) <= {1, 2}
        if step % 2:  # a sweep, then another replacement; else that at once
            store.sweep()
            assert litter(store) == []
        else:
            assert writers.run(store, [], seed=0) == 0
        seeds |= check(store, only=step)
        assert writers.run(store, [step], seed=3, replace=True) == 0
        assert check(store, only=step) == {step: 3}
    store.sweep()
    assert litter(store) == []
    # From the intent on the killed writer's content stands; before it, the old one.
    intent = min(step for step, seed in seeds.items() if seed == 2)
    assert seeds == {step: 2 if step >= intent else 1 for step in range(1, steps + 1)}
    assert 10 < intent < steps - 4


@pytest.mark.slow
@pytest.mark.long
def test_completion_of_a_replacement_killed_before_each_change_is_completed_by_the_next(tmp_path, writers):
    store = new_store(tmp_path / "s.zarr", 200)
    assert writers.run(store, list(range(150)), seed=1) == 0
    assert writers.run(store, [0], seed=2, replace=True) == 0
    steps = writers.changes(store)
    shard = kills = 0
    for first in range(steps - 18, steps, 4):  # from the intent on
        status, second = -signal.SIGKILL, 0
        while status == -signal.SIGKILL:
            shard, second = shard + 1, second + 1
            assert writers.run(store, [shard], seed=2, kill_at=first, replace=True) == -signal.SIGKILL
            status = writers.run(store, [], kill_at=second)
            kills += status == -signal.SIGKILL
            assert writers.run(store, []) == 0
            seed = check(store, only=shard)[shard]
            assert seed in (1, 2)
        assert status == 0
    assert kills > 20
    store.sweep()
    assert litter(store) == []
    check(store, set(range(150)))


@pytest.mark.slow
@pytest.mark.long
def test_a_writer_that_was_asleep_takes_nothing_back(tmp_path, writers):
    store = new_store(tmp_path / "s.zarr", 200)
    assert writers.run(store, list(range(100)), seed=1) == 0
    assert writers.run(store, [0], seed=2, replace=True) == 0
    steps = writers.changes(store)
    for step in range(1, steps + 1):
        sleeper = writers.start(store, [step], seed=2, stop_at=step, replace=True)
        assert writers.ask(wait=sleeper) == -signal.SIGSTOP
        assert writers.run(store, [step], seed=3, replace=True) == 0
        assert writers.run(store, [step], seed=4, replace=True) == 0
        assert check(store, only=step) == {step: 4}
        os.kill(sleeper, signal.SIGCONT)
        assert writers.ask(wait=sleeper) == 0
        assert check(store, only=step) == {step: 4}
    store.sweep()
    assert litter(store) == []


@pytest.mark.slow
@pytest.mark.long
def test_a_first_writer_that_was_asleep_takes_nothing_back_either(tmp_path, writers):
    store = new_store(tmp_path / "s.zarr", 200)
    assert writers.run(store, [0], seed=1) == 0
    steps = writers.changes(store)
    for step in range(1, steps + 1):
        sleeper = writers.start(store, [step], seed=1, stop_at=step)
        assert writers.ask(wait=sleeper) == -signal.SIGSTOP
        assert writers.run(store, [step], seed=2) == 0
        assert writers.run(store, [step], seed=3, replace=True) == 0
        os.kill(sleeper, signal.SIGCONT)
        assert writers.ask(wait=sleeper) == 0
        assert check(store, only=step) == {step: 3}
    store.sweep()
    assert litter(store) == []


@pytest.mark.slow
@pytest.mark.long
def test_racing_replacers_never_mix(tmp_path, writers):
    store = new_store(tmp_path / "s.zarr", 40)
    shards = list(range(40))
    assert writers.run(store, shards, seed=1) == 0
    for round_ in range(6):
        racers = [writers.start(store, shards, seed=10 * round_ + i + 2, replace=True) for i in range(3)]
        os.kill(racers[0], signal.SIGKILL)
        assert [writers.ask(wait=racer) for racer in racers[1:]] == [0, 0]
        assert writers.ask(wait=racers[0]) == -signal.SIGKILL
        store.sweep()
        assert set(check(store, set(shards)).values()) <= {10 * round_ + i + 2 for i in range(3)}
    assert litter(store) == []


def test_a_replacement_of_what_is_no_longer_there_is_dropped(tmp_path):
    store = new_store(tmp_path / "s.zarr", 2)
    stream = store.stream("rgb")
    assert stream.publish(0, **synthetic_shard(stream, 0, seed=1))
    before = marker_digest(stream.path, 0)
    assert stream.publish(0, **synthetic_shard(stream, 0, seed=2), replaces=before)
    assert not stream.publish(0, **synthetic_shard(stream, 0, seed=3), replaces=before)
    assert not stream.publish(1, **synthetic_shard(stream, 1, seed=3), replaces=before)
    np.testing.assert_array_equal(stream.reader().read_rows(0, 6), synthetic_shard(stream, 0, seed=2)["cubes"])
    assert stream.missing_shards() == [1]
    assert litter(store) == []


def test_files_that_the_new_content_lacks_go(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", [1, 2] * 6, videos_per_shard=1)
    stream = store.add_stream("rgb", cube_shape=(1, 1, 4), recipe={})
    full, empty = synthetic_shard(stream, 1), synthetic_shard(stream, 1)
    for name, fill in (("cubes", 0), ("frames", -1), ("seconds", np.nan)):
        empty[name][...] = fill
    (outcome,) = empty["outcomes"]
    empty["outcomes"] = [type(outcome)(id=outcome.id, outcome="missing")]
    assert stream.publish(1, **full)
    assert stream.publish(1, **empty, replaces=marker_digest(stream.path, 1))
    assert stream.marker(1)["files"] == {}
    assert not list(stream.path.glob("*/c.1*"))
    assert not stream.reader().read_video(1).any()
    assert stream.publish(1, **full, replaces=marker_digest(stream.path, 1))
    np.testing.assert_array_equal(stream.reader().read_video(1), full["cubes"][: store.index.length[1]])
    assert litter(store) == []


@pytest.mark.slow
@pytest.mark.long
def test_damaged_files_come_back_under_the_same_marker_whoever_is_killed(tmp_path, writers):
    store = new_store(tmp_path / "s.zarr", 70)
    stream = store.stream("rgb")
    assert writers.run(store, list(range(70)), seed=1) == 0
    for step in range(70):  # step 0 is not killed
        whole = marker_digest(stream.path, step)
        for key in stream.marker(step)["files"]:
            with (stream.path / key).open("r+b") as file:
                file.write(b"damage")
        status = writers.run(store, [step], seed=1, kill_at=step, replace=True)
        assert status in (0, -signal.SIGKILL)
        assert step or status == 0
        if step % 2:
            store.sweep()
        if status:
            assert writers.run(store, [step], seed=1, replace=True) == 0
        assert check(store, only=step) == {step: 1}
        assert marker_digest(stream.path, step) == whole
        assert writers.run(store, [step], seed=2, replace=True) == 0
        assert check(store, only=step) == {step: 2}
        if status == 0 and step:
            break
    assert 30 < step < 69
    store.sweep()
    assert litter(store) == []


def test_a_marker_of_garbage_is_replaced(tmp_path):
    store = new_store(tmp_path / "s.zarr", 1)
    stream = store.stream("rgb")
    assert stream.publish(0, **synthetic_shard(stream, 0, seed=1))
    (stream.path / ".done" / "0.json").write_bytes(b"\xff garbage")
    assert stream.publish(0, **synthetic_shard(stream, 0, seed=2), replaces=marker_digest(stream.path, 0))
    assert stream.outcome(0).outcome == "ok"


def test_a_reader_that_is_open_keeps_the_rows_that_it_began_with(tmp_path):
    store = new_store(tmp_path / "s.zarr", 1)
    stream = store.stream("rgb")
    old, new = synthetic_shard(stream, 0, seed=1), synthetic_shard(stream, 0, seed=2)
    assert stream.publish(0, **old)
    reader = stream.reader()
    reader.read_rows(0, 1)
    assert stream.publish(0, **new, replaces=marker_digest(stream.path, 0))
    np.testing.assert_array_equal(reader.read_rows(0, 6), old["cubes"])
    np.testing.assert_array_equal(stream.reader().read_rows(0, 6), new["cubes"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "garbage", [b"", b"\xff\xfe", b"[]\n{}", b'{"scratch": 5}\n{}', b'{"scratch": ""}\n{}', b'{"scratch": ".."}\n{}']
)
def test_an_intent_of_garbage_stops_nobody(tmp_path, garbage):
    store = new_store(tmp_path / "s.zarr", 2)
    stream = store.stream("rgb")
    (stream.path / ".done" / "0.intent-0.json").write_bytes(garbage)
    store.sweep()
    assert stream.missing_shards() == [0, 1]
    assert stream.publish(0, **synthetic_shard(stream, 0, seed=1))
    (stream.path / ".done" / f"0.replace-{marker_digest(stream.path, 0)}-0.json").write_bytes(garbage)
    store.sweep()
    assert stream.publish(0, **synthetic_shard(stream, 0, seed=2), replaces=marker_digest(stream.path, 0))
    assert litter(store) == []


def test_a_reader_that_opens_a_file_again_after_a_replacement_reads_the_new_rows(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", [1, 2] * 6, videos_per_shard=4)
    stream = store.add_stream("rgb", cube_shape=(1, 1, 4), recipe={})
    old, new = synthetic_shard(stream, 0, seed=1), synthetic_shard(stream, 0, seed=2)
    # as many chunks in either, but others: what is where in a file must be read anew with it
    for content, position in ((old, 0), (new, 1)):
        first = int(store.index.offset[position])
        for name, fill in (("cubes", 0), ("frames", -1), ("seconds", np.nan)):
            content[name][first : first + 5] = fill
        outcomes = content["outcomes"]
        outcomes[position] = type(outcomes[0])(id=str(store.index.ids[position]), outcome="missing")
    assert stream.publish(0, **old)
    reader = stream.reader()
    rows = store.shard_row_range(0)
    np.testing.assert_array_equal(reader.read_rows(*rows), old["cubes"])
    assert stream.publish(0, **new, replaces=marker_digest(stream.path, 0))
    reader.close()  # as one does that has 64 other files open
    reader.will_need(0)
    np.testing.assert_array_equal(reader.read_rows(*rows), new["cubes"])


@pytest.mark.slow
@pytest.mark.long
def test_a_reader_that_meets_a_replacement_half_way_waits_for_it(tmp_path, writers):
    store = new_store(tmp_path / "s.zarr", 2, untrimmed=True)
    assert writers.run(store, [0], seed=1) == 0
    rows = store.shard_row_range(0)
    assert writers.run(store, [0], seed=3, replace=True) == 0
    steps, cubes = writers.changes(store), store.path / "rgb/cubes/c.0.0.0.0"
    for step in range(steps - 18, steps):  # until the cubes are new and the marker is not
        before = cubes.stat().st_ino
        sleeper = writers.start(store, [0], seed=2 + step % 2, stop_at=step, replace=True)
        assert writers.ask(wait=sleeper) == -signal.SIGSTOP
        if cubes.stat().st_ino != before:
            break
        os.kill(sleeper, signal.SIGCONT)
        assert writers.ask(wait=sleeper) == 0
    with pytest.raises(CorruptStoreError, match="is not the one that was committed"):
        store.stream("rgb").reader().read_rows(*rows)  # after a second: this replacement goes nowhere
    threading.Timer(0.3, os.kill, (sleeper, signal.SIGCONT)).start()
    assert set(np.unique(store.stream("rgb").reader().read_rows(*rows)).tolist()) - {0} == {2 + step % 2}
    assert writers.ask(wait=sleeper) == 0


def test_an_intent_never_reaches_outside_its_stream(tmp_path):
    store = new_store(tmp_path / "s.zarr", 1)
    scratch = store.path / ".tmp" / "evil-1-a"
    (scratch / "cubes").mkdir(parents=True)
    content = b'{"files": {"../../stolen": {"bytes": 0, "sha256": "%s"}}}\n' % (b"e3b0c442" * 8)
    (scratch / "marker.json").write_bytes(content)
    (store.path / "rgb/.done/0.intent-0.json").write_bytes(b'{"scratch": "evil-1-a"}\n' + content)
    store.sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr"]
    assert store.stream("rgb").missing_shards() == [0]
