"""A store proves what it holds: files swapped, markers copied and layouts edited are refused, never read."""

from __future__ import annotations

import atexit
import functools
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from testkit.stores import filled_store

from vidatt.cache.marker import marker_line, parse_marker
from vidatt.cache.root import sealed
from vidatt.cache.shard_index import ABSENT, parse_index, stored_sums
from vidatt.cache.store import Store
from vidatt.cache.stream import Stream
from vidatt.cache.synthetic import synthetic_index, synthetic_shard, synthetic_store
from vidatt.errors import CorruptStoreError, UsageError

pytestmark = pytest.mark.slow

MIXED = [7, 1, 0, 12, 40, 3, 3, 3, 8, 2, 2]


@functools.cache
def template() -> Path:
    """Six shards of four videos, none of which is missing: shard files of one size."""
    folder = tempfile.mkdtemp(prefix="vidatt-proof-")
    atexit.register(shutil.rmtree, folder)
    store = synthetic_store(Path(folder) / "s.zarr", [3] * 24, videos_per_shard=4)
    stream = store.add_stream("rgb", cube_shape=(2, 2, 4), recipe={"backbone": "hog"})
    for shard in range(store.shard_count):
        stream.publish(shard, **every_video(stream, shard))
    return store.path


def whole(path: Path) -> Store:
    shutil.copytree(template(), path)
    return Store.open(path)


def every_video(stream: Stream, shard: int) -> dict[str, Any]:
    content = synthetic_shard(stream, shard)
    start, _ = stream.store.shard_row_range(shard)
    row = np.arange(start, start + len(content["frames"]))
    content["frames"] = np.stack([row * 8, row * 8 + 4, row * 8 + 8], axis=1).astype(np.int32)
    content["seconds"] = row / 25
    content["cubes"] = np.random.default_rng(shard).random(content["cubes"].shape, np.float32).astype(np.float16)
    videos = stream.store.shard_videos(shard)
    content["outcomes"] = [
        type(o)(id=o.id, outcome="ok", decoded_frames=1000, segments=int(stream.store.index.length[p]))
        for p, o in zip(videos, content["outcomes"], strict=True)
    ]
    return content


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def as_before(store: Path) -> None:
    """Take away what earlier versions did not write."""
    edit(store / "zarr.json", lambda root: root["attributes"].pop("layout_digest"))
    for path in store.glob("*/.done/*.json"):
        marker = json.loads(path.read_bytes())
        for key in ("stream", "fingerprint", "plan", "seal"):
            del marker[key]
        for told in marker["files"].values():
            told.pop("chunks", None)
        path.write_text(json.dumps({**marker, "job": "4711"}))


def swap(a: Path, b: Path) -> None:
    assert a.stat().st_size == b.stat().st_size
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


@pytest.mark.parametrize("array", ["cubes/c.{}.0.0.0", "frames/c.{}.0", "seconds/c.{}"])
def test_swapped_shard_files_are_refused_when_they_are_read(tmp_path, array):
    store = whole(tmp_path / "s.zarr")
    swap(*(store.path / "rgb" / array.format(shard) for shard in (1, 2)))
    with pytest.raises(CorruptStoreError, match=r"Chunk 0 of .*1.* is not the one that was committed; mend it with"):
        store.stream("rgb").video(4)
    assert store.stream("rgb").video(0).valid.all()


def test_another_shards_marker_is_refused(tmp_path):
    store = whole(tmp_path / "s.zarr")
    done = store.path / "rgb" / ".done"
    shutil.copy(done / "2.json", done / "1.json")
    with pytest.raises(
        CorruptStoreError, match=r"rgb/\.done/1\.json is not .* \(it says shard 2, not 1\); mend it with"
    ):
        store.stream("rgb").outcomes()
    edit(done / "1.json", lambda marker: marker.update(shard=1))  # sealed, so that does not help
    with pytest.raises(CorruptStoreError, match=r"edited or damaged: it does not match its seal"):
        store.stream("rgb").video(4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["videos"][1].update(outcome="missing"), "does not match its seal"),
        (lambda m: m["videos"][1].update(segments=1), "does not match its seal"),
        (lambda m: m["files"].pop("cubes/c.1.0.0.0"), "does not match its seal"),
        (lambda m: m.update(seal=5), "does not match its seal"),
        (lambda m: m.update(videos=5), "its videos are not told"),
        (lambda m: m.update(files=[]), "its files are not told"),
        (lambda m: m["files"].update(x={}), "its files are not told"),
        (lambda m: m.pop("rows"), "keys are missing"),
    ],
    ids=["outcome", "segments", "file", "seal", "videos", "files", "a file", "rows"],
)
def test_an_edited_marker_is_refused(tmp_path, change, words):
    store = whole(tmp_path / "s.zarr")
    edit(store.path / "rgb" / ".done" / "1.json", change)
    for read in (Stream.outcomes, lambda s: s.video(4), lambda s: s.outcome(4)):
        with pytest.raises(CorruptStoreError, match=words):
            read(store.stream("rgb"))


def test_the_marker_of_another_stream_or_plan_is_refused(tmp_path):
    one, two = whole(tmp_path / "one.zarr"), synthetic_store(tmp_path / "two.zarr", [3] * 24, videos_per_shard=4)
    for name, recipe in (("flow", {"backbone": "hog"}), ("rgb", {"backbone": "hof"})):
        stream = two.add_stream(name, cube_shape=(2, 2, 4), recipe=recipe)
        stream.publish(1, **every_video(stream, 1))
        shutil.copytree(stream.path, one.path / "rgb", dirs_exist_ok=True, ignore=lambda *_: ["zarr.json"])
        words = "it says stream 'flow', not 'rgb'" if name == "flow" else "it says fingerprint '"
        with pytest.raises(CorruptStoreError, match=words):
            one.stream("rgb").video(4)


def test_each_marker_names_the_plan_of_its_own_shard(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", MIXED, videos_per_shard=4)
    plans = [store.shard_plan(shard) for shard in range(store.shard_count)]
    assert len(set(plans)) == len(plans)
    longer = synthetic_store(tmp_path / "t.zarr", [*MIXED, 9, 9], videos_per_shard=4)
    if longer.shard_row_range(0) == store.shard_row_range(0):
        assert longer.shard_plan(0) == plans[0]  # what comes after a shard is not in it
    index = synthetic_index([3] * 24)
    assert index.digest(slice(0, 4)) != index.digest(slice(4, 8))


LAYOUT_EDITS = [("shard_rows", 6), ("shard_rows", 24), ("chunk_rows", 1), ("views", 2), ("rows", 48), ("rows", 96),
                ("rows", "72"), ("shard_rows", 0), ("chunk_rows", 7)]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "earlier"),
    [(*edited, earlier) for edited in LAYOUT_EDITS for earlier in (False, True)]
    + [("seed", 7, False), ("plan_digest", 5, False)],  # nothing but the digest of today's stores tells these
)
def test_an_edited_layout_is_refused(tmp_path, key, value, earlier):
    store = whole(tmp_path / "s.zarr")
    if earlier:
        as_before(store.path)
    edit(store.path / "zarr.json", lambda root: root["attributes"].update({key: value}))
    with pytest.raises(CorruptStoreError, match=r"s\.zarr/(zarr|rgb/\w+/zarr)\.json .*`vidatt cache repair"):
        Store.open(store.path).stream("rgb").video(4)


def test_a_store_of_an_earlier_version_is_read_and_continued(tmp_path):
    store = whole(tmp_path / "s.zarr")
    wanted = store.stream("rgb").video(5)
    as_before(store.path)
    (store.path / "rgb" / ".done" / "3.json").unlink()
    again = synthetic_store(store.path, [3] * 24, videos_per_shard=4)  # the same plan: what a rerun does
    stream = again.stream("rgb")
    assert "layout_digest" not in again.attributes
    np.testing.assert_array_equal(stream.video(5).cubes, wanted.cubes)
    assert stream.missing_shards() == [3]
    assert stream.publish(3, **every_video(stream, 3))
    assert len(stream.outcomes()) == 24
    # Its markers are compared with their names and ids all the same.
    done = store.path / "rgb" / ".done"
    shutil.copy(done / "2.json", done / "1.json")
    with pytest.raises(CorruptStoreError, match="it says shard 2, not 1"):
        stream.marker(1)
    edit(done / "1.json", lambda marker: marker.update(shard=1))
    with pytest.raises(CorruptStoreError, match="its videos are others"):
        stream.marker(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["shape"].__setitem__(0, 71), "71 rows, where the store has 72"),
        (lambda m: m["shape"].__setitem__(1, 3), "cubes of shape|rows of shape"),
        (lambda m: m.update(fill_value=1.0), "filled with 1.0"),
        (lambda m: m.update(data_type="float32"), "float32"),
        (lambda m: m["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(0, 6), "its chunk_grid is"),
        (lambda m: m["chunk_key_encoding"].update(name="v2"), "its chunk_key_encoding is"),
        (lambda m: m["codecs"][0]["configuration"]["chunk_shape"].__setitem__(0, 1), "its chunk_shape is"),
        (lambda m: m["codecs"][0]["configuration"].update(index_location="start"), "its index_location is"),
        (lambda m: m["codecs"][0]["configuration"]["index_codecs"].pop(), "its index_codecs is"),
        (lambda m: m["codecs"][0]["configuration"]["codecs"][0]["configuration"].update(endian="big"), "written by"),
        (lambda m: m["codecs"][0]["configuration"]["codecs"].insert(0, {"name": "transpose"}), "written by"),
        (lambda m: m.update(codecs=[]), "it has no shards"),
        (lambda m: m.pop("shape"), "'shape'"),
        (lambda m: m.update(shape=5), "cannot unpack"),
    ],
)  # fmt: skip
def test_an_array_that_does_not_fit_its_store_is_refused(tmp_path, change, words):
    store = whole(tmp_path / "s.zarr")
    edit(store.path / "rgb" / "cubes" / "zarr.json", change)
    with pytest.raises(CorruptStoreError, match=rf"rgb/cubes/zarr\.json does not fit its store .*(?:{words}).*repair"):
        store.stream("rgb")


def test_arrays_that_have_grown_before_the_store_are_taken(tmp_path):
    """An extension resizes them first; killed there, the store stays what it was."""
    store = whole(tmp_path / "s.zarr")
    wanted = store.stream("rgb").video(23)
    for name in ("cubes", "frames", "seconds"):
        edit(store.path / "rgb" / name / "zarr.json", lambda m: m["shape"].__setitem__(0, 96))
    np.testing.assert_array_equal(store.stream("rgb").video(23).cubes, wanted.cubes)


def test_damage_around_the_shards_names_the_command_that_mends_it(tmp_path):
    store = whole(tmp_path / "s.zarr")
    (store.path / "rgb" / ".done").rename(tmp_path / "done")
    with pytest.raises(
        CorruptStoreError, match=rf"rgb/\.done, .*gone; mend it with `vidatt cache repair {store.path}`"
    ):
        store.stream("rgb")
    (tmp_path / "done").rename(store.path / "rgb" / ".done")
    (store.path / "rgb" / "zarr.json").rename(tmp_path / "zarr.json")
    assert store.stream_names == ["rgb"]  # damaged, not gone
    with pytest.raises(
        CorruptStoreError, match=rf"rgb/zarr\.json is not that of a stream .*cache rm {store.path} rgb`"
    ):
        store.stream("rgb")
    (tmp_path / "zarr.json").rename(store.path / "rgb" / "zarr.json")
    (store.path / "zarr.json").rename(tmp_path / "zarr.json")
    with pytest.raises(CorruptStoreError, match=r"s\.zarr/zarr\.json is missing; mend it with `vidatt cache repair"):
        Store.open(store.path)


@pytest.mark.parametrize("deep", ["zarr.json", "rgb/zarr.json", "rgb/cubes/zarr.json", "rgb/.done/1.json"])
def test_json_that_is_nested_a_million_times_is_one_line(tmp_path, deep):
    store = whole(tmp_path / "s.zarr")
    (store.path / deep).write_text("[" * 1_000_000)
    with pytest.raises(CorruptStoreError, match=re.escape(deep)):
        Store.open(store.path).stream("rgb").video(4)


def test_an_index_that_states_an_absurd_shape_allocates_nothing(tmp_path):
    store = whole(tmp_path / "s.zarr")
    for name, values in (("length", [2**45]), ("id", [2**45]), ("label", [2**40, 8])):
        path = store.path / "index" / name / "zarr.json"
        before = path.read_bytes()
        edit(path, lambda m, values=values: m.update(shape=values, chunk_grid={
            "name": "regular", "configuration": {"chunk_shape": values}}))  # fmt: skip
        with pytest.raises(CorruptStoreError, match=rf"index cannot be read .*{name} states \d+ values in \d+ bytes"):
            Store.open(store.path)
        path.write_bytes(before)


def test_missing_videos_take_no_chunks_and_whole_shards_stay_dense(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", [3] * 16, videos_per_shard=4)
    stream = store.add_stream("rgb", cube_shape=(4, 4, 32), recipe={})
    whole_one = every_video(stream, 0)
    whole_one["cubes"][:3] = 0  # dead features of a video that is there
    stream.publish(0, **whole_one)
    some = every_video(stream, 1)
    nothing = synthetic_shard(stream, 2)
    for content, lost in ((some, [0, 2, 3]), (nothing, [0, 1, 2, 3])):
        for video in lost:
            rows = slice(3 * video, 3 * video + 3)
            content["cubes"][rows], content["frames"][rows], content["seconds"][rows] = 0, -1, np.nan
            id = content["outcomes"][video].id
            content["outcomes"][video] = type(content["outcomes"][video])(id=id, outcome="missing")
    stream.publish(1, **some)
    stream.publish(2, **nothing)
    chunk = 3 * 4 * 4 * 32 * 2 + 4
    index = 4 * 16 + 4
    sizes = [stream.marker(s)["files"].get(f"cubes/c.{s}.0.0.0", {}).get("bytes") for s in range(3)]
    assert sizes == [4 * chunk + index, chunk + index, None]
    assert stream.marker(2)["files"] == {}
    assert not list(stream.path.glob("*/c.2*"))
    words = stream.marker(1)["files"]["cubes/c.1.0.0.0"]["chunks"]
    assert [words[i : i + 8] == ABSENT for i in range(0, 32, 8)] == [True, False, True, True]
    fresh = Store.open(store.path).stream("rgb")
    for shard, content in ((0, whole_one), (1, some), (2, nothing)):
        reader = fresh.reader()
        start, stop = store.shard_row_range(shard)
        np.testing.assert_array_equal(reader.read_rows(start, stop), content["cubes"])
        for video in store.shard_videos(shard):
            rows = slice(3 * video - start, 3 * video - start + 3)
            np.testing.assert_array_equal(fresh.video(video).frames, content["frames"][rows])
            np.testing.assert_array_equal(fresh.video(video).seconds, content["seconds"][rows])


def test_a_store_path_with_a_colon_is_a_path(tmp_path):
    store = filled_store(tmp_path / "uniform:25.zarr", [3] * 4, {"rgb": (1, 1, 4)})
    assert Store.open(store.path).stream("rgb").video(0).valid.all()


def test_a_seal_holds_whatever_a_text_says():
    marker = {"shard": 0, "rows": 1, "files": {}, "stream": "rgb", "videos": [{"id": 'a","seal":"x","é'}]}
    line = marker_line(marker)
    assert parse_marker(line)["videos"] == marker["videos"]
    for at in range(len(line) - 1):
        with pytest.raises(ValueError):
            parse_marker(line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :])


def test_a_root_is_sealed_over_all_that_it_states():
    root = sealed({"views": 1, "sampler": "uniform:3"})
    assert sealed(root) == root
    assert sealed({**root, "sampler": "uniform:4"})["layout_digest"] != root["layout_digest"]


def test_stored_sums_are_those_in_the_file(tmp_path):
    store = whole(tmp_path / "s.zarr")
    path = store.path / "rgb" / "cubes" / "c.0.0.0.0"
    content = path.read_bytes()
    entries = parse_index(np.frombuffer(content[-68:], np.uint8), len(content) - 68)
    sums = [content[offset + size - 4 : offset + size].hex() for offset, size in entries.tolist()]
    assert stored_sums(path, 4) == "".join(sums)
    beyond = parse_index(np.frombuffer(content[-68:], np.uint8), 500)
    assert beyond[:, 0].tolist() == [0, 100, 200, 300]
    assert parse_index(np.frombuffer(content[-68:], np.uint8), 399)[:, 0].tolist() == [0, 100, 200, -2]


def test_publish_refuses_nothing_less_for_shards_without_content(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", [3] * 4)
    stream = store.add_stream("rgb", cube_shape=(1, 1, 4), recipe={})
    content = synthetic_shard(stream, 0)
    content["frames"][:] = -1
    with pytest.raises(UsageError, match="its outcome says 3 segments"):
        stream.publish(0, **content)
