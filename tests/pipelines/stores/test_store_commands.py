"""`vidatt status` and `vidatt cache rm`, `diff`, `merge`, as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from testkit.commands import start_program, vidatt
from testkit.stores import content, filled_store

from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_shard, synthetic_store
from vidatt.errors import CorruptStoreError, FingerprintMismatchError, RefusedError, UsageError
from vidatt.pipelines.stores.compare import compare_stores
from vidatt.pipelines.stores.merge import merge_stores
from vidatt.pipelines.stores.remove import remove_stream
from vidatt.pipelines.stores.status import store_status
from vidatt.pipelines.stores.verify import verify_store

MIXED = [7, 1, 0, 12, 40, 3, 3, 3]
EQUAL = [3] * 14  # seven shards of two


def part(path: Path, shards: list[int], seed: int = 0, recipe: str = "hog", names: tuple[str, ...] = ("rgb",)) -> Store:
    """A store of the one plan with some shards done."""
    store = synthetic_store(path, EQUAL, videos_per_shard=2)
    for name in names:
        stream = store.add_stream(name, cube_shape=(2, 2, 4), recipe={"backbone": recipe})
        for shard in shards:
            stream.publish(shard, **synthetic_shard(stream, shard, seed))
    return store


@pytest.mark.slow
def test_status_counts_shards_outcomes_and_what_could_be_retried(tmp_path):
    store = filled_store(tmp_path / "s.zarr", MIXED, {"rgb": (2, 2, 4), "flow": (1, 1, 4)}, videos_per_shard=2)
    status = store_status(store.path)
    assert status.complete
    assert status.command is None
    outcomes = [outcome.outcome for outcome in store.stream("rgb").outcomes()]
    assert status.streams["rgb"].outcomes == {name: outcomes.count(name) for name in set(outcomes)}
    assert status.retryable == sum(outcome != "ok" for outcome in outcomes)
    files = [p for p in store.path.glob("rgb/*/c.*") if p.is_file()]
    assert status.streams["rgb"].bytes == sum(p.stat().st_size for p in files)
    done = vidatt("status", store.path, "--check", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == status.to_dict()

    (store.path / "flow" / ".done" / "1.json").unlink()
    (store.path / ".tmp").mkdir()
    (store.path / ".tmp" / f"{os.uname().nodename}-{os.getpid()}-a1").mkdir()
    partly = vidatt("status", store.path, "--check")
    assert partly.returncode == 1
    assert "not complete" in partly.stdout
    assert f"flow: {store.shard_count - 1} of {store.shard_count} shards" in partly.stdout
    assert "1 writers at work" in partly.stdout
    assert f"continue with `vidatt extract --dataset synthetic --store {store.path}`" in partly.stdout
    assert vidatt("status", store.path).returncode == 0


@pytest.mark.slow
def test_status_says_what_is_damaged(tmp_path):
    store = filled_store(tmp_path / "s.zarr", MIXED, {"rgb": (2, 2, 4), "flow": (1, 1, 4)}, videos_per_shard=2)
    done = store.path / "rgb" / ".done"
    shutil.copy(done / "1.json", done / "0.json")
    (done / "2.json").write_text("{")
    (done / "99.json").write_bytes((done / "1.json").read_bytes())
    shutil.rmtree(store.path / "flow" / ".done")
    status = store_status(store.path)
    assert status.streams["rgb"].damaged == tuple(f"rgb/.done/{n}.json" for n in (0, 2, 99))
    assert status.streams["rgb"].shards_done == store.shard_count - 2
    assert status.streams["flow"].damaged == ("flow",)
    assert not status.complete
    assert status.command == f"vidatt cache repair {store.path}"
    assert store_status(synthetic_store(tmp_path / "none.zarr", [3]).path).complete is False  # nothing is extracted


@pytest.mark.slow
def test_rm_takes_one_stream_away_and_nothing_else(tmp_path):
    store = filled_store(tmp_path / "s.zarr", MIXED, {"rgb": (2, 2, 4)}, videos_per_shard=2)
    before = content(store.path)
    flow = store.add_stream("flow", cube_shape=(1, 1, 4), recipe={})
    for shard in range(store.shard_count):
        flow.publish(shard, **synthetic_shard(flow, shard))
    with_flow = content(store.path)
    told = remove_stream(store.path, "flow", dry_run=True)
    assert told.shards == store.shard_count
    assert told.files == len(with_flow) - len(before)
    assert content(store.path) == with_flow
    done = vidatt("cache", "rm", store.path, "flow")
    assert done.returncode == 0
    assert f"stream flow is removed, {store.shard_count} shards" in done.stdout
    assert content(store.path) == before
    assert not (store.path / ".tmp").exists()
    again = vidatt("cache", "rm", store.path, "flow")
    assert again.returncode == 2
    assert again.stderr == f"vidatt: The store {store.path} has no stream 'flow'; it has rgb.\n"
    for name in ("index", ".", "../s.zarr", ""):
        with pytest.raises(UsageError, match="no stream"):
            remove_stream(store.path, name)
    assert content(store.path) == before


KILLED = """
import os, signal, sys
changes = 0
def count(event, args):
    global changes
    if event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
        changes += 1
        if changes == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
from pathlib import Path
from vidatt.pipelines.stores.remove import remove_stream
sys.addaudithook(count)
remove_stream(Path(sys.argv[1]), "flow")
"""


@pytest.mark.slow
def test_rm_killed_anywhere_leaves_the_stream_or_none(tmp_path):
    for step in (1, 2, 3, 4, 6, 9):
        store = filled_store(tmp_path / f"{step}.zarr", [3] * 4, {"rgb": (1, 1, 4), "flow": (1, 1, 4)})
        assert start_program(KILLED, store.path, step).wait() == -signal.SIGKILL
        names = Store.open(store.path).stream_names
        assert names in (["rgb"], ["rgb", "flow"])
        if "flow" in names:
            assert len(store.stream("flow").outcomes()) == 4
            remove_stream(store.path, "flow")
        store.sweep()
        assert sorted(p.name for p in store.path.iterdir()) == ["index", "rgb", "zarr.json"]


def test_a_damaged_stream_can_be_removed(tmp_path):
    store = filled_store(tmp_path / "s.zarr", [3] * 4, {"rgb": (1, 1, 4), "flow": (1, 1, 4)})
    (store.path / "flow" / "zarr.json").write_text("{")
    with pytest.raises(CorruptStoreError, match=f"remove the stream with `vidatt cache rm {store.path} flow`"):
        store.stream("flow")
    remove_stream(store.path, "flow")
    assert Store.open(store.path).stream_names == ["rgb"]


@pytest.mark.slow
def test_diff_finds_nothing_between_equal_stores_of_other_shards(tmp_path):
    one = part(tmp_path / "one.zarr", list(range(7)))
    two = synthetic_store(tmp_path / "two.zarr", EQUAL, videos_per_shard=7)
    stream = two.add_stream("rgb", cube_shape=(2, 2, 4), recipe={"backbone": "hog"})
    for shard in range(two.shard_count):
        videos = [one.stream("rgb").video(v) for v in two.shard_videos(shard)]
        rows = {name: np.concatenate([getattr(v, name) for v in videos]) for name in ("cubes", "frames", "seconds")}
        told = [one.stream("rgb").outcome(v) for v in two.shard_videos(shard)]
        stream.publish(shard, **rows, outcomes=told)
    assert (one.shard_count, two.shard_count) == (7, 2)
    result = compare_stores(one.path, two.path)
    assert result.equal
    assert result.streams["rgb"].compared == 14
    done = vidatt("cache", "diff", one.path, two.path, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["equal"] is True


@pytest.mark.slow
def test_diff_names_videos_and_the_largest_difference(tmp_path):
    one, two = part(tmp_path / "one.zarr", [0, 1, 2]), synthetic_store(tmp_path / "two.zarr", EQUAL, videos_per_shard=2)
    stream = two.add_stream("rgb", cube_shape=(2, 2, 4), recipe={"backbone": "hof"})
    for shard in (1, 2, 3):
        rows = synthetic_shard(stream, shard)
        if shard == 1:
            rows["cubes"][0, 0, 0, 0] += 0.5
        if shard == 2:
            rows["seconds"][0] += 1
        stream.publish(shard, **rows)
    result = compare_stores(one.path, two.path)
    told = result.streams["rgb"]
    assert not result.equal
    assert told.recipe == ("backbone: 'hog' in the first, 'hof' in the second",)
    both = sorted({video for shard in (1, 2) for video in one.shard_videos(shard)})
    assert told.compared == len(both)
    assert told.only_first == len(one.shard_videos(0))
    assert {video.id for video in told.different} == {one.index.ids[one.shard_videos(s)[0]] for s in (1, 2)}
    cubes, times = told.different
    assert (cubes.frames, times.frames, times.max_abs) == (False, True, 0.0)
    assert cubes.max_abs == told.max_abs == pytest.approx(0.5, abs=1e-2)
    done = vidatt("cache", "diff", one.path, two.path)
    assert done.returncode == 1
    assert f"rgb: 2 of {len(both)} videos differ, by 0.5 at most" in done.stdout


@pytest.mark.slow
def test_diff_of_other_videos_and_streams(tmp_path):
    one = filled_store(tmp_path / "one.zarr", [3] * 4, {"rgb": (1, 1, 4)})
    two = filled_store(tmp_path / "two.zarr", [3] * 6, {"rgb": (1, 1, 4), "flow": (1, 1, 4)})
    result = compare_stores(one.path, two.path)
    assert (result.only_first, result.only_second) == ((), ("v0004.avi", "v0005.avi"))
    assert (result.streams_only_first, result.streams_only_second) == ((), ("flow",))
    assert not result.equal
    nan = tmp_path / "nan.zarr"
    store = synthetic_store(nan, [3] * 4)
    stream = store.add_stream("rgb", cube_shape=(1, 1, 4), recipe={})
    rows = synthetic_shard(stream, 0)
    rows["cubes"][0] = np.nan
    stream.publish(0, **rows)
    (video,) = compare_stores(one.path, nan).streams["rgb"].different
    assert video.max_abs is None
    assert compare_stores(nan, nan).equal  # the same NaN is no difference


@pytest.mark.slow
def test_merge_gathers_slices_to_what_one_machine_makes(tmp_path):
    whole = part(tmp_path / "whole.zarr", list(range(7)))
    slices = [part(tmp_path / f"{i}.zarr", list(range(i, 7, 3))) for i in range(3)]
    before = [content(s.path) for s in slices]
    into = tmp_path / "gathered" / "all.zarr"
    plan = merge_stores([s.path for s in slices], into, dry_run=True)
    assert plan.streams["rgb"].taken == 7
    assert not into.exists()
    first = merge_stores([s.path for s in slices[:2]], into)
    assert (first.new, first.streams["rgb"].taken, first.streams["rgb"].missing) == (True, 5, 2)
    assert Store.open(into).stream("rgb").missing_shards() == [2, 5]
    done = vidatt("cache", "merge", *(s.path for s in slices), "--into", into)
    assert done.returncode == 0, done.stderr
    assert "rgb: 2 shards, 5 were there, 0 of 7 are missing" in done.stdout
    assert content(into) == content(whole.path)
    assert [content(s.path) for s in slices] == before
    assert verify_store(into).bad == ()
    again = merge_stores([s.path for s in slices], into)
    assert (again.new, again.streams["rgb"].taken, again.bytes) == (False, 0, 0)


@pytest.mark.slow
def test_merge_takes_streams_and_equal_shards_once(tmp_path):
    one, two = part(tmp_path / "1.zarr", [0, 1]), part(tmp_path / "2.zarr", [1, 2], names=("rgb", "flow"))
    result = merge_stores([one.path, two.path], tmp_path / "all.zarr")
    assert {name: s.taken for name, s in result.streams.items()} == {"rgb": 3, "flow": 2}
    into = part(tmp_path / "into.zarr", [0])
    assert merge_stores([one.path, two.path], into.path).streams["rgb"].there == 1
    assert content(into.path) == content(tmp_path / "all.zarr")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        (lambda p: part(p, [1], seed=5), RefusedError, "Shard 1 of stream 'rgb' has one content in"),
        (lambda p: part(p, [2], recipe="hof"), FingerprintMismatchError, "backbone: 'hog' in .*'hof' in"),
        (lambda p: synthetic_store(p, [*EQUAL, 3], videos_per_shard=2), RefusedError, "of different plans: .*rows: "),
    ],
    ids=["content", "recipe", "plan"],
)
def test_merge_refuses_contradictions_before_anything_is_written(tmp_path, other, error, words):
    one = part(tmp_path / "1.zarr", [0, 1])
    other(tmp_path / "2.zarr")
    with pytest.raises(error, match=words):
        merge_stores([one.path, tmp_path / "2.zarr"], tmp_path / "all.zarr")
    assert not (tmp_path / "all.zarr").exists()
    done = vidatt("cache", "merge", one.path, tmp_path / "2.zarr", "--into", tmp_path / "all.zarr")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1


def test_merge_takes_no_damaged_file(tmp_path):
    one = part(tmp_path / "1.zarr", [0, 1])
    path = one.path / "rgb" / "cubes" / "c.1.0.0.0"
    damaged = bytearray(path.read_bytes())
    damaged[7] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptStoreError, match=rf"c\.1\.0\.0\.0 is not what .* says; mend .* repair {one.path}"):
        merge_stores([one.path], tmp_path / "all.zarr")
    assert Store.open(tmp_path / "all.zarr").stream("rgb").missing_shards() == [1, 2, 3, 4, 5, 6]
    assert verify_store(tmp_path / "all.zarr").bad == ()
    path.unlink()
    with pytest.raises(CorruptStoreError, match=r"c\.1\.0\.0\.0 is missing"):
        merge_stores([one.path], tmp_path / "all.zarr")
