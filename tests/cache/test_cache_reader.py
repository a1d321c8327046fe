"""The reader: the same rows as zarr-python, and an error that names the file for each kind of damage."""

import json
import logging
import os
import tempfile
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from testkit.stores import filled_store

from vidatt.cache.shards import OPEN_FILES
from vidatt.cache.store import Store
from vidatt.cache.stream import Stream
from vidatt.cache.synthetic import synthetic_shard, synthetic_store
from vidatt.errors import CorruptStoreError, ShardMissingError, UsageError


def filled(
    path: Path, length: list[int], views: int = 1, cube: tuple[int, int, int] = (2, 2, 4), size: int = 4
) -> Stream:
    filled_store(path, length, {"rgb": cube}, views=views, videos_per_shard=size)
    return Store.open(path).stream("rgb")


LENGTHS = st.one_of(
    st.builds(lambda T, n: [T] * n, st.integers(1, 7), st.integers(1, 12)),
    st.lists(st.integers(0, 25), min_size=1, max_size=12).filter(any),
)


@pytest.mark.long
@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(LENGTHS, st.integers(1, 3), st.sampled_from([1, 2, 3]), st.sampled_from([1, 4, 7]), st.integers(1, 5), st.data())
def test_reader_equals_zarr_python(length, views, K, D, videos_per_shard, data):
    with tempfile.TemporaryDirectory() as folder:
        stream = filled(Path(folder) / "s.zarr", length, views, (K, K, D), videos_per_shard)
        group = zarr.open_group(str(stream.path), mode="r")
        wanted = {name: group[name][...] for name in ("cubes", "frames", "seconds")}
        rows, reader = stream.store.rows, stream.reader()
        assert reader.direct
        for _ in range(4):  # parts of chunks, then chunks that were checked or not
            start, stop = sorted((data.draw(st.integers(0, rows)), data.draw(st.integers(0, rows))))
            np.testing.assert_array_equal(reader.read_rows(start, stop), wanted["cubes"][start:stop])
        np.testing.assert_array_equal(reader.read_rows(0, rows), wanted["cubes"])
        for position in range(len(length)):
            for view in range(views):
                rows_of = slice(*reader.row_range(position, view))
                assert rows_of.start == stream.store.index.offset[position] + view * length[position]
                out = np.full((length[position], K, K, D), np.nan, np.float16)
                assert reader.read_video(position, view=view, out=out) is out
                np.testing.assert_array_equal(out, wanted["cubes"][rows_of])
                np.testing.assert_array_equal(reader.frames(position, view), wanted["frames"][rows_of])
                np.testing.assert_array_equal(reader.seconds(position, view), wanted["seconds"][rows_of])
                reader.will_need(position, view)
        reader.close()
        np.testing.assert_array_equal(reader.read_rows(0, rows), wanted["cubes"])
        reader.close()


def test_reader_reads_shards_of_any_chunk_order(tmp_path):
    stream = filled(tmp_path / "s.zarr", [3] * 4)
    wanted = stream.reader().read_rows(0, 12)
    path = stream.path / "cubes" / "c.0.0.0.0"
    content = path.read_bytes()
    size = 3 * 32 + 4
    entries = np.frombuffer(content[4 * size : -4], "<u8").reshape(4, 2).copy()
    chunks = [content[offset : offset + size] for offset in entries[:, 0]]
    entries[:, 0] = np.array([2, 0, 1, 3]) * size
    footer = entries.tobytes()
    body = chunks[1] + chunks[2] + chunks[0] + chunks[3]
    path.write_bytes(body + footer + np.uint32(google_crc32c.value(footer)).tobytes())
    np.testing.assert_array_equal(zarr.open_array(str(stream.path / "cubes"), mode="r")[...], wanted)
    np.testing.assert_array_equal(stream.reader().read_rows(0, 12), wanted)


def damage_file(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "bit in a chunk":
        content[50] ^= 4
    elif kind == "bit in a crc32c":
        content[3 * 32] ^= 1
    elif kind == "bit in the index":
        content[-30] ^= 1
    elif kind == "truncated":
        del content[-7:]
    elif kind == "empty":
        content.clear()
    elif kind == "appended":
        content += b"x"
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("bit in a chunk", r"Chunk 0 of .*rgb/cubes/c\.1\.0\.0\.0 fails its crc32c"),
        ("bit in a crc32c", r"Chunk 0 of .*rgb/cubes/c\.1\.0\.0\.0 fails its crc32c"),
        ("bit in the index", r"shard index of .*rgb/cubes/c\.1\.0\.0\.0 fails its crc32c"),
        ("truncated", r"rgb/cubes/c\.1\.0\.0\.0 has 461 bytes, its commit marker says 468"),
        ("empty", r"rgb/cubes/c\.1\.0\.0\.0 has 0 bytes, its commit marker says 468"),
        ("appended", r"rgb/cubes/c\.1\.0\.0\.0 has 469 bytes, its commit marker says 468"),
    ],
)
@pytest.mark.parametrize("rows", [(12, 15), (13, 14), (0, 24)], ids=["a chunk", "part of one", "all"])
def test_reader_names_the_damaged_file(tmp_path, kind, words, rows):
    stream = filled(tmp_path / "s.zarr", [3] * 8)
    good = stream.reader().read_rows(0, 12)
    damage_file(stream.path / "cubes" / "c.1.0.0.0", kind)
    reader = stream.reader()
    with pytest.raises(CorruptStoreError, match=words):
        reader.read_rows(*rows)
    np.testing.assert_array_equal(reader.read_rows(0, 12), good)  # the other shard is as good as before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bit in a chunk", "truncated", "gone"])
def test_damage_names_the_command_that_mends_it(tmp_path, kind):
    stream = filled(tmp_path / "s.zarr", [3] * 8)
    path = stream.path / "cubes" / "c.1.0.0.0"
    path.unlink() if kind == "gone" else damage_file(path, kind)
    with pytest.raises(CorruptStoreError, match=rf"; mend it with `vidatt cache repair {stream.store.path}`\.$"):
        stream.reader().read_rows(0, 24)


def test_damage_of_an_imported_stream_sends_to_the_import(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", [3] * 4)
    stream = store.add_stream("rgb", cube_shape=(1, 1, 4), recipe={"imported": {"from": "x.h5"}})
    stream.publish(0, **synthetic_shard(stream, 0))
    (stream.path / "cubes" / "c.0.0.0.0").unlink()
    with pytest.raises(CorruptStoreError, match="import it again into a new store with `vidatt cache import`"):
        stream.reader().read_video(0)


def test_reader_checks_the_checksum_of_a_chunk_once(tmp_path):
    stream = filled(tmp_path / "s.zarr", [3] * 8)
    reader = stream.reader()
    before = reader.read_rows(12, 24)
    damage_file(stream.path / "cubes" / "c.1.0.0.0", "bit in a chunk")
    assert (reader.read_rows(12, 24) != before).sum() == 1
    with pytest.raises(CorruptStoreError):
        stream.reader().read_rows(12, 24)


def test_reader_refuses_missing_files_and_markers(tmp_path):
    stream = filled(tmp_path / "s.zarr", [3] * 8)
    (stream.path / "cubes" / "c.1.0.0.0").unlink()
    with pytest.raises(CorruptStoreError, match=r"rgb/cubes/c\.1\.0\.0\.0 is missing though its shard is marked done"):
        stream.reader().read_video(5)
    marker = stream.path / ".done" / "0.json"
    marker.write_text("{}")
    with pytest.raises(CorruptStoreError, match=r"rgb/\.done/0\.json is not the commit marker of its shard"):
        stream.reader().read_video(0)
    marker.unlink()
    with pytest.raises(ShardMissingError, match=r"Shard 0 of stream 'rgb' .* never extracted; run `vidatt extract"):
        stream.reader().read_video(0)
    with pytest.raises(ShardMissingError):
        stream.reader().frames(0)


def test_reader_notices_a_file_that_shrinks_while_open(tmp_path):
    stream = filled(tmp_path / "s.zarr", [3] * 8)
    reader = stream.reader()
    reader.read_video(5)
    os.truncate(stream.path / "cubes" / "c.1.0.0.0", 50)
    with pytest.raises(CorruptStoreError, match=r"c\.1\.0\.0\.0 ended early while being read"):
        reader.read_video(5)


def test_reader_refuses_rows_videos_and_buffers_that_do_not_fit(tmp_path):
    reader = filled(tmp_path / "s.zarr", [3] * 8).reader()
    with pytest.raises(UsageError, match=r"has rows 0\.\.24, not 20\.\.25"):
        reader.read_rows(20, 25)
    with pytest.raises(UsageError, match=r"videos 0\.\.7 and views 0\.\.0, not video 8, view 0"):
        reader.read_video(8)
    with pytest.raises(UsageError, match="view 1"):
        reader.frames(0, 1)
    for out in (np.empty((3, 2, 2, 4)), np.empty((2, 2, 2, 4), np.float16), np.empty((6, 2, 2, 4), np.float16)[::2]):
        with pytest.raises(UsageError, match=r"need a contiguous float16 buffer \(3, 2, 2, 4\)"):
            reader.read_video(0, out=out)


@pytest.mark.slow
def test_reader_keeps_a_bounded_number_of_files_open(tmp_path):
    stream = filled(tmp_path / "s.zarr", [1] * (OPEN_FILES + 20), size=1)
    before = len(os.listdir("/proc/self/fd"))
    reader = stream.reader()
    whole = [reader.read_video(position) for position in range(OPEN_FILES + 20)]
    assert len(os.listdir("/proc/self/fd")) == before + OPEN_FILES
    np.testing.assert_array_equal(reader.read_video(0), whole[0])  # opened again
    del reader
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.slow
@pytest.mark.parametrize("length", [[3] * 6, [3, 8, 1, 20, 6]], ids=["trimmed", "untrimmed"])
def test_reader_falls_back_to_zarr_for_other_codecs(tmp_path, caplog, length):
    """A store whose cubes another tool has compressed: metadata, shards and markers all say so."""
    stream = filled(tmp_path / "s.zarr", length)
    store, wanted = stream.store, stream.reader().read_rows(0, stream.store.rows)
    metadata = json.loads((stream.path / "cubes" / "zarr.json").read_text())
    zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    metadata["codecs"][0]["configuration"]["codecs"].insert(1, zstd)
    (stream.path / "cubes" / "zarr.json").write_text(json.dumps(metadata))
    for shard in range(store.shard_count):
        (stream.path / ".done" / f"{shard}.json").unlink()
        assert stream.publish(shard, **synthetic_shard(stream, shard))
    stream = store.stream("rgb")
    with caplog.at_level(logging.INFO, logger="vidatt.cache"):
        reader = stream.reader()
    assert "rgb/cubes through zarr-python, for its codecs are others." in caplog.text
    assert not reader.direct
    np.testing.assert_array_equal(reader.read_rows(0, store.rows), wanted)
    np.testing.assert_array_equal(reader.read_video(2), wanted[slice(*reader.row_range(2))])
    (stream.path / ".done" / "0.json").unlink()
    with pytest.raises(ShardMissingError):  # zarr itself would give zeros
        stream.reader().read_video(0)


def test_reader_says_which_way_it_reads(tmp_path, caplog):
    stream = filled(tmp_path / "s.zarr", [3] * 6)
    with caplog.at_level(logging.DEBUG, logger="vidatt.cache"):
        reader = stream.reader()
        reader.frames(0)
    assert f"Reading {stream.path}/cubes directly from its shards." in caplog.messages
    assert all(record.levelno == logging.DEBUG for record in caplog.records)  # the ordinary way is no news
