"""Stores: made once however many try, read by any Zarr library, and errors that say what is wrong with which file."""

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from testkit.stores import content, filled_store

from vidatt.cache.index import Index
from vidatt.cache.layout import plan_layout
from vidatt.cache.ledger import VideoOutcome
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_index, synthetic_shard, synthetic_store
from vidatt.errors import (
    CorruptStoreError,
    FingerprintMismatchError,
    RefusedError,
    ShardMissingError,
    StoreNotFoundError,
    UsageError,
)

MIXED = [7, 1, 0, 12, 40, 3, 3, 3, 90, 8, 2, 2]
RECIPE = {"backbone": "hog", "mean": [0.5, 0.25], "view": {"kind": "center"}}


def filled(path: Path, length: list[int] = MIXED, names: tuple[str, ...] = ("rgb",), **options: int) -> Store:
    cubes, recipes = dict.fromkeys(names, (2, 2, 4)), dict.fromkeys(names, RECIPE)
    return filled_store(path, length, cubes, recipes=recipes, **{"videos_per_shard": 4, **options})


def rich_index() -> Index:
    return Index(
        ids=["b/ü.avi", "a.avi", "c.avi"],
        paths=["b/ü.avi", "a.avi", "a.avi"],
        groups=["g1", "", "g1"],
        labels=[[1, 0], [0, -1], [-1, -1]],
        classes=("walk", "run"),
        multi_label=True,
        splits={"val.1": [1, 2, 0], "official": [2, 2, 1]},
        length=[4, 4, 4],
        span_seconds=[[np.nan, np.nan], [0, 2.5], [2.5, np.nan]],
        interval_video=[0, 2],
        interval_seconds=[[0, 1.5], [1, 2]],
        interval_label=[1, -1],  # -1: unclear what happens there
        box_video=[1],
        box_frame=[12],
        box_xyxy=[[0.1, 0.2, 0.3, 0.4]],
        box_label=[1],
    )


def test_index_survives_the_store(tmp_path):
    index = rich_index()
    layout = plan_layout(index.length, 2, 2)
    Store.create(tmp_path / "s.zarr", index=index, views=2, layout=layout, attributes={"dataset": "x"})
    read = Store.open(tmp_path / "s.zarr").index
    for field in dataclasses.fields(Index):
        if field.name in ("classes", "multi_label"):
            assert getattr(read, field.name) == getattr(index, field.name)
        elif field.name == "splits":
            assert {k: v.tolist() for k, v in read.splits.items()} == {"official": [2, 2, 1], "val.1": [1, 2, 0]}
        elif field.name == "offset":
            assert read.offset.tolist() == [0, 8, 16]
        else:
            np.testing.assert_array_equal(getattr(read, field.name), getattr(index, field.name))
            assert getattr(read, field.name).dtype == getattr(index, field.name).dtype
    assert read.position("c.avi") == 2
    assert [type(name) for name in read.ids] == [str] * 3
    assert read.boxes(1).tolist() == [0]
    with pytest.raises(UsageError, match=r"no video 'd.avi'; its ids are like 'b/ü.avi'"):
        read.position("d.avi")
    with pytest.raises(UsageError, match=r"no split '2'; it has official, val\.1"):
        read.split("2")


def test_index_digest_covers_what_rows_depend_on():
    index = rich_index()
    same = dataclasses.replace(index, span_seconds=-index.span_seconds * -1, labels=index.labels[::-1])
    assert same.digest() == index.digest()
    assert same.content_digest() != index.content_digest()
    for change in ({"ids": ["x", "y", "z"]}, {"length": [4, 4, 5]}, {"offset": [0, 8, 17]}, {"span_seconds": []}):
        assert dataclasses.replace(index, **change).digest() != index.digest()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": ["a", "b", "a"]}, "lists the video 'a' twice"),
        ({"paths": ["a"]}, "3 videos but 1 rows of paths"),
        ({"labels": [[2], [0], [0]]}, "labels outside the 2 classes"),
        ({"labels": [0, 1, 0]}, "labels of shape"),
        ({"interval_video": [0, 3]}, r"interval_video outside 0\.\.2"),
        ({"box_label": []}, "of different lengths"),
        ({"interval_label": [1, -2]}, "interval_label outside the 2 classes"),
        ({"interval_label": [2, 0]}, "interval_label outside the 2 classes"),
        ({"length": [1, 2, -3]}, "length below 0"),
        ({"length": [1, 2, 2**40]}, "length that do not fit int32"),
        ({"splits": {"../x": [0, 0, 0]}}, "cannot be a file name"),
        ({"splits": {"1": [0, 0, 3]}}, "roles other than"),
        ({"ids": [], "paths": []}, "holds no videos"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_index_refuses_what_does_not_fit(change, words):
    with pytest.raises(UsageError, match=words):
        dataclasses.replace(rich_index(), **change)


@pytest.mark.slow
@pytest.mark.parametrize("length", [[3] * 9, MIXED], ids=["trimmed", "untrimmed"])
def test_store_is_readable_by_zarr(tmp_path, length):
    store = filled(tmp_path / "s.zarr", length, views=2)
    group = zarr.open_group(str(store.path), mode="r")
    assert group.attrs["schema"] == 1
    assert group.attrs["plan_digest"] == store.index.digest()
    assert list(group["index/id"][...]) == list(store.index.ids)
    cubes, frames, seconds = (group[f"rgb/{name}"][...] for name in ("cubes", "frames", "seconds"))
    for shard in range(store.shard_count):
        start, stop = store.shard_row_range(shard)
        wanted = synthetic_shard(store.stream("rgb"), shard)
        np.testing.assert_array_equal(cubes[start:stop], wanted["cubes"])
        np.testing.assert_array_equal(frames[start:stop], wanted["frames"])
        np.testing.assert_array_equal(seconds[start:stop], wanted["seconds"])
    assert dict(group["rgb"].attrs)["recipe"] == RECIPE


@pytest.mark.slow
@pytest.mark.parametrize("length", [[3] * 9, MIXED], ids=["trimmed", "untrimmed"])
def test_shards_are_the_bytes_zarr_writes_itself(tmp_path, length):
    store = filled(tmp_path / "s.zarr", length)
    stream = store.stream("rgb")
    for name in ("cubes", "frames", "seconds"):
        (tmp_path / name).mkdir()
        shutil.copy(stream.path / name / "zarr.json", tmp_path / name)
        with zarr.config.set({"array.write_empty_chunks": len(set(length)) == 1}):
            array = zarr.open_array(str(tmp_path / name), mode="r+")
        for shard in range(store.shard_count):
            start, stop = store.shard_row_range(shard)
            array[start:stop] = synthetic_shard(stream, shard)[name]
        assert content(tmp_path / name) == content(stream.path / name)


@pytest.mark.slow
def test_store_is_byte_identical_between_runs(tmp_path):
    one, two = filled(tmp_path / "one.zarr"), synthetic_store(tmp_path / "two.zarr", MIXED, videos_per_shard=4)
    stream = two.add_stream("rgb", cube_shape=(2, 2, 4), recipe=dict(reversed(RECIPE.items())))
    for shard in reversed(range(two.shard_count)):
        stream.publish(shard, **synthetic_shard(stream, shard))
    assert content(one.path) == content(two.path)
    assert not (one.path / ".tmp").exists()


@pytest.mark.slow
def test_shard_videos_and_rows_cover_the_store(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", MIXED, videos_per_shard=4)
    seen = [list(store.shard_videos(shard)) for shard in range(store.shard_count)]
    assert seen == [[0, 1, 2], [3], [4], [4], [5, 6, 7], [8], [8], [8], [8], [8], [9, 10, 11]]
    ranges = [store.shard_row_range(shard) for shard in range(store.shard_count)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == store.rows
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
    with pytest.raises(UsageError, match=r"has shards 0\.\.10, not 11"):
        store.shard_videos(11)


RACE = """
import os, pathlib, sys
from vidatt.cache.synthetic import synthetic_store
ready = pathlib.Path(sys.argv[2])
(ready / str(os.getpid())).touch()
while len(list(ready.iterdir())) < 4:
    pass
store = synthetic_store(sys.argv[1], [3] * 40)
print(store.attributes["plan_digest"], store.add_stream("rgb", cube_shape=(1, 1, 2), recipe={"a": 1}).fingerprint)
"""


@pytest.mark.slow
def test_four_processes_create_one_store_at_once(tmp_path):
    # Each waits for the others' files, so that all create at the same moment whatever their start took.
    command = [sys.executable, "-c", RACE, str(tmp_path / "s.zarr"), str(tmp_path / "ready")]
    (tmp_path / "ready").mkdir()
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [racer.communicate(timeout=300)[0] for racer in racers]
    shutil.rmtree(tmp_path / "ready")
    assert [racer.returncode for racer in racers] == [0] * 4
    assert len(set(answers)) == 1
    assert len(answers[0].split()) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.zarr"]
    assert sorted(p.name for p in (tmp_path / "s.zarr").iterdir()) == ["index", "rgb", "zarr.json"]


def test_create_refuses_another_plan_and_tells_the_difference(tmp_path):
    synthetic_store(tmp_path / "s.zarr", [3] * 4)
    before = content(tmp_path)
    index = synthetic_index([4] * 4)
    layout = plan_layout(index.length, 1, 64)
    with pytest.raises(RefusedError, match=r"planned otherwise: chunk_rows: 4 here, 3 in the store; .*seed: 1 here, 0"):
        Store.create(
            tmp_path / "s.zarr", index=index, views=1, layout=layout, attributes={"dataset": "synthetic", "seed": 1}
        )
    assert content(tmp_path) == before


@pytest.mark.slow
def test_create_refuses_a_folder_that_is_no_store(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is no vidatt store"):
        synthetic_store(tmp_path, [3])
    with pytest.raises(UsageError, match="exists and is no vidatt store"):
        synthetic_store(tmp_path / "notes.txt", [3])
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    assert [p.name for p in tmp_path.parent.iterdir() if ".tmp-" in p.name] == []


def test_create_refuses_a_layout_of_other_videos(tmp_path):
    index = synthetic_index([3, 3])
    options = {"index": index, "views": 1, "attributes": {}}
    with pytest.raises(UsageError, match="layout is not that of the index"):
        Store.create(tmp_path / "s", layout=plan_layout(np.array([2, 2]), 1, 4), **options)
    with pytest.raises(UsageError, match="attributes rows are the store's own"):
        Store.create(tmp_path / "s", layout=plan_layout(index.length, 1, 4), **{**options, "attributes": {"rows": 5}})


def test_open_tells_what_is_wrong(tmp_path):
    with pytest.raises(StoreNotFoundError, match=r"No vidatt store at .*s\.zarr; make one with `vidatt extract`\."):
        Store.open(tmp_path / "s.zarr")
    store = synthetic_store(tmp_path / "s.zarr", [3] * 4)
    metadata = store.path / "zarr.json"
    text = metadata.read_text()
    metadata.write_text(text.replace('"schema": 1', '"schema": 3'))
    with pytest.raises(RefusedError, match="has schema version 3, this vidatt reads 1"):
        Store.open(store.path)
    metadata.write_text(text[:100])
    with pytest.raises(CorruptStoreError, match=r"s\.zarr/zarr\.json is not that of a vidatt store"):
        Store.open(store.path)
    metadata.write_text(text)
    labels = store.path / "index" / "label" / "c.0.0"
    for damage in (labels.unlink, lambda: labels.write_bytes(b"xxxxxxxxxxxxxxxxxxxx")):
        damage()
        with pytest.raises(CorruptStoreError, match=r"The index .*s\.zarr/index"):
            Store.open(store.path)


@pytest.mark.slow
def test_stream_names_are_listed_and_unknown_ones_refused(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", [3] * 4)
    with pytest.raises(UsageError, match="has no stream 'rgb'; it has none yet"):
        store.stream("rgb")
    for name in ("hof", "clip", "rgb", "audio", "flow"):
        store.add_stream(name, cube_shape=(1, 1, 2), recipe={})
    assert store.stream_names == ["rgb", "flow", "clip", "audio", "hof"]
    with pytest.raises(UsageError, match="has no stream 'rbg'; it has rgb, flow, clip, audio, hof"):
        store.stream("rbg")
    for bad in ("index", "a/b", ".x"):
        with pytest.raises(UsageError, match="cannot name a stream"):
            store.add_stream(bad, cube_shape=(1, 1, 2), recipe={})
    with pytest.raises(UsageError, match=r"should be \(K, K, D\)"):
        store.add_stream("odd", cube_shape=(1, 2, 2), recipe={})


@pytest.mark.slow
def test_add_stream_refuses_another_recipe_and_changes_nothing(tmp_path):
    store = filled(tmp_path / "s.zarr")
    before = content(tmp_path)
    again = store.add_stream("rgb", cube_shape=(2, 2, 4), recipe=RECIPE)
    assert again.recipe == RECIPE
    other = {**RECIPE, "backbone": "vgg16", "view": {"kind": "10crop"}}
    with pytest.raises(
        FingerprintMismatchError,
        match=r"another recipe: backbone: 'vgg16' here, 'hog' in the store; view\.kind: '10crop' here, 'center' in",
    ):
        store.add_stream("rgb", cube_shape=(2, 2, 4), recipe=other)
    with pytest.raises(FingerprintMismatchError, match=r"cube_shape: \[2, 2, 8\] here, \[2, 2, 4\] in the store"):
        store.add_stream("rgb", cube_shape=(2, 2, 8), recipe=RECIPE)
    assert content(tmp_path) == before


@pytest.mark.slow
def test_stream_whose_recipe_was_edited_is_refused(tmp_path):
    store = filled(tmp_path / "s.zarr")
    path = store.path / "rgb" / "zarr.json"
    path.write_text(path.read_text().replace('"hog"', '"hof"'))
    with pytest.raises(CorruptStoreError, match=r"rgb/zarr\.json .*its recipe does not match its fingerprint"):
        store.stream("rgb")


@pytest.mark.slow
def test_outcomes_and_usable_follow_the_ledger(tmp_path):
    store = filled(tmp_path / "s.zarr", names=("rgb", "flow"))
    outcomes = store.stream("rgb").outcomes()
    assert [o.id for o in outcomes] == list(store.index.ids)
    assert {o.id: o.outcome for o in outcomes if o.outcome != "ok"} == {
        "v0002.avi": "missing",
        "v0006.avi": "truncated",
        "v0010.avi": "missing",
    }
    good = np.ones(12, bool)
    good[[2, 10]] = False
    np.testing.assert_array_equal(store.usable(["rgb", "flow"]), good)
    good[6] = False
    np.testing.assert_array_equal(store.usable(["rgb"], allow_truncated=False), good)
    for shard in (0, 7):
        (store.path / "flow" / ".done" / f"{shard}.json").unlink()
    assert store.stream("flow").missing_shards() == [0, 7]
    with pytest.raises(
        ShardMissingError,
        match=r"Stream 'flow' .* 2 of 11 shards not done; continue with `vidatt extract --dataset synthetic --store /",
    ):
        store.usable(["rgb", "flow"])
    good[[0, 1, 8]] = False
    np.testing.assert_array_equal(store.usable(["rgb", "flow"], allow_truncated=False, partial=True), good)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["cubes"].astype(np.float32), r"takes cubes \(24, 2, 2, 4\) float16, not \(24, 2, 2, 4\) float32"),
        (lambda c: c["cubes"][1:], r"takes cubes \(24, 2, 2, 4\) float16, not \(23,"),
    ],
    ids=["dtype", "rows"],
)
def test_publish_refuses_other_arrays(tmp_path, change, words):
    store = synthetic_store(tmp_path / "s.zarr", [3] * 8)
    stream = store.add_stream("rgb", cube_shape=(2, 2, 4), recipe={})
    given = synthetic_shard(stream, 0)
    with pytest.raises(UsageError, match=words):
        stream.publish(0, **{**given, "cubes": change(given)})


def test_publish_refuses_a_ledger_that_does_not_fit_the_rows(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", [3, 4, 3])
    stream = store.add_stream("rgb", cube_shape=(2, 2, 4), recipe={})
    given = synthetic_shard(stream, 0)
    outcomes = given["outcomes"]
    with pytest.raises(UsageError, match="needs the outcomes of its 3 videos in order"):
        stream.publish(0, **{**given, "outcomes": outcomes[::-1]})
    short = [VideoOutcome(id="v0000.avi", outcome="ok", segments=2), *outcomes[1:]]
    with pytest.raises(UsageError, match=r"'v0000\.avi' .* has \[3\] rows with frames .* says 2 segments"):
        stream.publish(0, **{**given, "outcomes": short})
    given["frames"][4] = 0
    with pytest.raises(UsageError, match="frames in rows that belong to no video"):
        stream.publish(0, **given)
    assert stream.missing_shards() == [0]


def test_marker_names_stream_versions_and_files_and_nothing_of_the_job(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    marker = filled(tmp_path / "s.zarr", [3] * 4).stream("rgb").marker(0)
    assert "4711" not in json.dumps(marker["versions"])
    assert "job" not in marker
    assert marker["stream"] == "rgb"
    assert marker["versions"]["zarr"] == zarr.__version__
    assert set(marker["files"]) == {"cubes/c.0.0.0.0", "frames/c.0.0", "seconds/c.0"}
    assert marker["rows"] == 12
    assert str(os.getpid()) not in json.dumps(marker)


def test_store_gives_streams_by_name_and_videos_by_id_or_position(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", [3] * 12, views=2)
    stream = store.add_stream("rgb", cube_shape=(2, 2, 4), recipe={})
    stream.publish(0, **synthetic_shard(stream, 0))
    assert list(store) == ["rgb"]
    assert "rgb" in store
    with pytest.raises(UsageError, match=r"no stream 'flow'; it has rgb"):
        store["flow"]
    rgb, reader = store["rgb"], store.stream("rgb").reader()
    for position in (0, 6, np.int64(10)):  # ok; truncated after 1 of 3 segments; missing
        video, same = rgb[position], rgb[str(store.index.ids[position])]
        assert video.id == same.id == store.index.ids[position]
        np.testing.assert_array_equal(video.cubes, reader.read_video(position))
        np.testing.assert_array_equal(same.cubes, video.cubes)
        np.testing.assert_array_equal(video.frames, reader.frames(position))
        np.testing.assert_array_equal(video.seconds, reader.seconds(position))
        assert video.valid.tolist() == [[True] * 3, [True, False, False], [False] * 3][(0, 6, 10).index(position)]
    np.testing.assert_array_equal(rgb.video(5, view=1).cubes, reader.read_video(5, view=1))
    assert [video.id for video in rgb] == store.index.ids.tolist()
    assert len(rgb) == 12
    assert repr(video).startswith("VideoCubes('v0010.avi', cubes=[3, 2, 2, 4], frames=[3, 3], seconds=[3], valid=[3]")
    for wrong, words in (("x.avi", "no video 'x.avi'"), (12, "videos 0..11"), (-1, "videos 0..11")):
        with pytest.raises(UsageError, match=words):
            rgb[wrong]
    with pytest.raises(ValueError, match="contradict each other"):
        dataclasses.replace(video, valid=video.valid[:1])
