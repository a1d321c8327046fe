"""Exports come back exactly, are described in themselves, and refuse what they cannot hold."""

from __future__ import annotations

import csv
import json
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from testkit.commands import vidatt
from testkit.stores import content

from vidatt.cache.index import Index
from vidatt.cache.layout import plan_layout
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_index, synthetic_shard, synthetic_store
from vidatt.errors import (
    CorruptStoreError,
    FingerprintMismatchError,
    RefusedError,
    ShardMissingError,
    UnknownNameError,
    UsageError,
)
from vidatt.pipelines.stores.exchange import EXPORTS, ImportConfig, export_store, import_store

pytestmark = pytest.mark.slow

RECIPE = {"backbone": "hog", "mean": [0.5, 0.25], "view": {"kind": "center"}}
MIXED = [7, 1, 0, 30, 12, 3, 8, 2]  # one is longer than a shard


def rich(
    path: Path, length: list[int], *, views: int = 1, ids: list[str] | None = None, shard_videos: int = 4
) -> Store:
    """A store with two streams, all outcomes, several labels, intervals, boxes and odd ids."""
    plain, N = synthetic_index(length), len(length)
    index = replace(
        plain,
        ids=ids or [f"klass {i % 2}/ü{i}.avi" for i in range(N)],
        paths=[f"p{i}" for i in range(N)],
        labels=np.stack([np.arange(N) % 3, np.where(np.arange(N) % 2, -1, (np.arange(N) + 1) % 3)], 1),
        classes=("run; jump", "wälk", "7"),
        multi_label=True,
        splits={"1": np.arange(N) % 3, "odd.one": np.ones(N)},
        span_seconds=np.where(np.arange(N)[:, None] % 2, np.nan, [0.1, 2.5]),
        interval_video=[0, N - 1],
        interval_seconds=[[0.1, 0.3], [1, 2]],
        interval_label=[2, 0],
        box_video=[N - 1],
        box_frame=[3],
        box_xyxy=[[0.1, 0.2, 0.3, 0.4]],
        box_label=[1],
    )
    layout = plan_layout(index.length, views, shard_videos)
    attributes = {"dataset": "rich", "catalogue_sha256": "0" * 64, "seed": 3, "sampler": "every:8"}
    store = Store.create(path, index=index, views=views, layout=layout, attributes=attributes)
    for seed, name in enumerate(("rgb", "flow")):
        stream = store.add_stream(name, cube_shape=(2, 2, 3 + seed), recipe={**RECIPE, "stream": name})
        for shard in range(store.shard_count):
            content = synthetic_shard(stream, shard, seed)
            content["outcomes"] = [replace(o, detail="ä, b", fps=29.97, width=4, height=3) for o in content["outcomes"]]
            stream.publish(shard, **content)
    return store


def back(source: Path, store: Path, **changes) -> Store:
    import_store(ImportConfig(sources=((None, source),), store=store, **changes))
    return Store.open(store)


def same(ours: Store, theirs: Store, ids: list[str] | None = None) -> None:
    """Everything equal for the given ids, arrays bit by bit."""
    for id in ids or list(ours.index.ids):
        a, b = ours.index.position(id), theirs.index.position(id)
        for name in ours.stream_names:
            one, other = ours.stream(name).reader(), theirs.stream(name).reader()
            for view in range(ours.views):
                assert one.read_video(a, view=view).tobytes() == other.read_video(b, view=view).tobytes()
                assert one.frames(a, view).tobytes() == other.frames(b, view).tobytes()
                assert one.seconds(a, view).tobytes() == other.seconds(b, view).tobytes()
            assert ours.stream(name).outcome(a) == theirs.stream(name).outcome(b)


def index_columns(index: Index) -> dict[str, object]:
    return {f.name: np.asarray(getattr(index, f.name)).tolist() for f in fields(Index) if f.name != "splits"} | {
        "splits": {name: roles.tolist() for name, roles in index.splits.items()}
    }


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("form", EXPORTS)
@pytest.mark.slow
def test_export_and_import_give_the_store_again(tmp_path, form, views):
    store = rich(tmp_path / "s.zarr", MIXED, views=views)
    out = tmp_path / ("out" if form == "npy" else "out.h5")
    result = export_store(store.path, out, form=form)
    assert (result.videos, result.missing) == (8, ())
    copy = back(out, tmp_path / "copy.zarr")
    same(store, copy)
    assert copy.index.content_digest() == store.index.content_digest()
    assert (copy.rows, copy.chunk_rows, copy.shard_rows, copy.views) == (
        store.rows, store.chunk_rows, store.shard_rows, views,
    )  # fmt: skip
    own = {k: v for k, v in copy.attributes.items() if not k.startswith("imported") and k != "layout_digest"}
    assert own | {"layout_digest": store.attributes["layout_digest"]} == store.attributes
    for name in ("rgb", "flow"):
        recipe = dict(copy.stream(name).recipe)
        told = recipe.pop("imported")
        assert recipe == store.stream(name).recipe
        assert told["fingerprint"] == store.stream(name).fingerprint != copy.stream(name).fingerprint
        assert told["from"] == f"{'npy' if form == 'npy' else 'hdf5'}: {out.name}"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["s.zarr", out.name, "copy.zarr"])


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(
    length=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    views=st.integers(1, 2),
    form=st.sampled_from(EXPORTS),
    shard_videos=st.integers(1, 3),
)
def test_export_and_import_give_any_store_again(length, views, form, shard_videos):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = rich(root / "s.zarr", length, views=views, shard_videos=shard_videos)
        out = root / ("out" if form == "npy" else "out.h5")
        export_store(store.path, out, form=form)
        copy = back(out, root / "copy.zarr")
        same(store, copy)
        assert copy.index.content_digest() == store.index.content_digest()


@pytest.mark.slow
def test_exports_of_one_store_have_one_content_digest(tmp_path):
    store = rich(tmp_path / "s.zarr", [3] * 5)
    digests = set()
    for form in EXPORTS:
        out = tmp_path / (form if form == "npy" else f"{form}.h5")
        export_store(store.path, out, form=form)
        digests.add(back(out, tmp_path / f"{form}.zarr").stream("rgb").recipe["imported"]["content_sha256"])
    assert len(digests) == 1


@pytest.mark.slow
def test_export_leaves_out_what_is_not_extracted_and_says_so(tmp_path):
    store = rich(tmp_path / "s.zarr", MIXED)
    absent = store.shard_videos(1)
    (store.path / "flow" / ".done" / "1.json").unlink()
    result = export_store(store.path, tmp_path / "out.h5", form="hdf5")
    assert list(result.missing) == [str(store.index.ids[p]) for p in absent]
    assert result.videos == 8 - len(absent) < 8
    copy = back(tmp_path / "out.h5", tmp_path / "copy.zarr")
    kept = [id for p, id in enumerate(store.index.ids) if p not in absent]
    assert list(copy.index.ids) == kept
    same(store, copy, kept)
    # A part must not pass for the whole plan, or an extraction would take its videos for all there are.
    assert "catalogue_sha256" not in copy.attributes
    whole = export_store(store.path, tmp_path / "rgb.h5", form="hdf5", streams=["rgb"])
    assert (whole.missing, list(whole.streams)) == ((), ["rgb"])


def test_export_of_parts_keeps_intervals_and_boxes_with_their_videos(tmp_path):
    store = rich(tmp_path / "s.zarr", [3] * 8)
    (store.path / "rgb" / ".done" / "0.json").unlink()
    export_store(store.path, tmp_path / "out", form="npy")
    index = back(tmp_path / "out", tmp_path / "copy.zarr").index
    assert [index.ids[p] for p in index.interval_video] == [store.index.ids[7]]
    assert index.interval_seconds.tolist() == [[1, 2]]
    assert [index.ids[p] for p in index.box_video] == [store.index.ids[7]]
    assert index.box_xyxy.dtype == np.float32
    np.testing.assert_array_equal(index.box_xyxy, store.index.box_xyxy)


@pytest.mark.parametrize("form", EXPORTS)
def test_export_writes_over_nothing_and_leaves_nothing_behind(tmp_path, form):
    store = synthetic_store(tmp_path / "s.zarr", [3] * 4)
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UsageError, match="taken exists already; name another place"):
        export_store(store.path, tmp_path / "taken", form=form)
    with pytest.raises(ShardMissingError, match="no video that is done in any stream; run `vidatt extract"):
        export_store(store.path, tmp_path / "out", form=form)
    stream = store.add_stream("rgb", cube_shape=(1, 1, 2), recipe={})
    stream.publish(0, **synthetic_shard(stream, 0))
    path = store.path / "rgb" / "cubes" / "c.0.0.0.0"
    damaged = bytearray(path.read_bytes())
    damaged[3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptStoreError, match="crc32c"):
        export_store(store.path, tmp_path / "out", form=form)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.zarr", "taken"]


def test_export_refuses_unknown_choices_by_the_nearest_name(tmp_path):
    store = rich(tmp_path / "s.zarr", [3])
    with pytest.raises(UnknownNameError, match=r"Unknown format 'hdf'\. Did you mean 'hdf5'"):
        export_store(store.path, tmp_path / "o", form="hdf")
    with pytest.raises(UnknownNameError, match=r"Unknown compression 'gzi'\. Did you mean 'gzip'"):
        export_store(store.path, tmp_path / "o", form="hdf5", compression="gzi")
    with pytest.raises(UsageError, match="has no stream 'rbg'; it has rgb, flow"):
        export_store(store.path, tmp_path / "o", form="hdf5", streams=["rbg"])


@pytest.mark.parametrize(
    ("ids", "form", "words"),
    [
        (["a", "../b"], "npy", r"'\.\./b\.npy' cannot be a file"),
        (["a", "/b"], "npy", r"'/b\.npy' cannot be a file"),
        (["a", "x//b"], "hdf5", "'x//b/flow' cannot be a group"),
        (["a", "a.npy/b"], "npy", r"'a\.npy' would be a file and the folder of 'a\.npy/b\.npy'"),
        (["a", "a/rgb"], "hdf5", "'a/rgb' would be a group of HDF5 and the folder of 'a/rgb/"),
    ],
)
def test_export_refuses_ids_that_are_no_paths_and_packed_takes_them(tmp_path, ids, form, words):
    store = rich(tmp_path / "s.zarr", [2, 2], ids=ids)
    with pytest.raises(UsageError, match=words):
        export_store(store.path, tmp_path / "out", form=form)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]
    export_store(store.path, tmp_path / "out.h5", form="hdf5-packed")
    same(store, back(tmp_path / "out.h5", tmp_path / "copy.zarr"))


def test_hdf5_describes_itself(tmp_path):
    store = rich(tmp_path / "s.zarr", [3, 4, 2])
    export_store(store.path, tmp_path / "out.h5", form="hdf5")
    with h5py.File(tmp_path / "out.h5") as file:
        group = file["videos/klass 1/ü1.avi"]
        assert file.attrs["axes"] == "segment, row, column, channel"
        assert group.attrs["classes"].tolist() == ["wälk"]
        assert (group.attrs["split:1"], group.attrs["split:odd.one"], group.attrs["group"]) == ("train", "train", "g0")
        cubes = group["rgb/cubes"]
        assert (cubes.shape, cubes.chunks, cubes.dtype) == ((4, 2, 2, 3), (4, 2, 2, 3), np.float16)
        assert (cubes.compression, cubes.fletcher32) == ("gzip", True)
        np.testing.assert_array_equal(cubes[...], store.stream("rgb").reader().read_video(1))
        assert (group["rgb"].attrs["outcome"], group["rgb"].attrs["fps"]) == ("ok", 29.97)
        assert json.loads(file["streams/rgb"].attrs["recipe"])["backbone"] == "hog"
        assert file["streams/rgb"].attrs["fingerprint"] == store.stream("rgb").fingerprint
        assert file["index/class"].asstr()[...].tolist() == ["run; jump", "wälk", "7"]


@pytest.mark.parametrize("compression", ["gzip", "lzf", "none"])
def test_packed_hdf5_is_chunked_and_compressed_without_loss(tmp_path, compression):
    store = rich(tmp_path / "s.zarr", [4] * 3)
    export_store(store.path, tmp_path / "out.h5", form="hdf5-packed", compression=compression)
    with h5py.File(tmp_path / "out.h5") as file:
        cubes = file["streams/flow/cubes"]
        assert (cubes.shape, cubes.chunks) == ((12, 2, 2, 4), (4, 2, 2, 4))
        assert cubes.compression == (None if compression == "none" else compression)
        start = file["index/start"][1]
        np.testing.assert_array_equal(cubes[start : start + 4], store.stream("flow").reader().read_video(1))
    same(store, back(tmp_path / "out.h5", tmp_path / "copy.zarr"))


def test_npy_export_can_be_read_as_foreign_material_by_its_own_manifest(tmp_path):
    store = synthetic_store(tmp_path / "s.zarr", [3] * 9)
    stream = store.add_stream("rgb", cube_shape=(2, 2, 3), recipe=RECIPE)
    stream.publish(0, **synthetic_shard(stream, 0))
    export_store(store.path, tmp_path / "out", form="npy")
    with (tmp_path / "out" / "videos.csv").open() as file:
        assert next(csv.DictReader(file)) == {
            "id": "v0000.avi", "path": "v0000.avi.npy", "label": "class 0", "group": "g0", "split:1": "test",
        }  # fmt: skip
    copy = back(
        tmp_path / "out" / "rgb", tmp_path / "f.zarr", manifest=tmp_path / "out" / "videos.csv", streams=("pool",)
    )
    assert copy.index.classes == store.index.classes
    for position, id in enumerate(store.index.ids):
        place = copy.index.position(id)
        assert copy.index.labels[place] == store.index.labels[position]
        assert copy.index.splits["1"][place] == store.index.splits["1"][position]
        np.testing.assert_array_equal(
            copy.stream("pool").reader().read_video(place), stream.reader().read_video(position)
        )


def test_import_adds_streams_to_a_store_of_the_same_videos(tmp_path):
    store = rich(tmp_path / "s.zarr", MIXED)
    export_store(store.path, tmp_path / "flow.h5", form="hdf5", streams=["flow"])
    export_store(store.path, tmp_path / "rgb.h5", form="hdf5-packed", streams=["rgb"])
    copy = back(tmp_path / "rgb.h5", tmp_path / "copy.zarr")
    before = content(copy.path)
    copy = back(tmp_path / "flow.h5", copy.path)
    assert copy.stream_names == ["rgb", "flow"]
    same(store, copy)
    assert {k: v for k, v in content(copy.path).items() if not k.startswith("flow/")} == before
    after = content(copy.path)
    back(tmp_path / "flow.h5", copy.path)  # once more: nothing left to do
    assert content(copy.path) == after


@pytest.mark.slow
def test_import_that_was_killed_continues(tmp_path):
    store = rich(tmp_path / "s.zarr", MIXED)
    export_store(store.path, tmp_path / "flow.h5", form="hdf5", streams=["flow"])
    export_store(store.path, tmp_path / "rgb.h5", form="hdf5", streams=["rgb"])
    copy = back(tmp_path / "rgb.h5", tmp_path / "copy.zarr")
    back(tmp_path / "flow.h5", copy.path)
    whole = content(copy.path)
    for name in (".done/2.json", "cubes/c.2.0.0.0", "frames/c.2.0", "seconds/c.2"):
        (copy.path / "flow" / name).unlink(missing_ok=True)
    assert copy.stream("flow").missing_shards() == [2]
    back(tmp_path / "flow.h5", copy.path)
    assert content(copy.path) == whole


def test_import_refuses_another_stream_of_the_same_name(tmp_path):
    store = rich(tmp_path / "s.zarr", [3] * 4)
    export_store(store.path, tmp_path / "out.h5", form="hdf5")
    before = content(store.path)
    with pytest.raises(FingerprintMismatchError, match=r"'rgb' .* was made with another recipe: imported"):
        back(tmp_path / "out.h5", store.path)
    assert content(store.path) == before


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"length": [3, 3, 3]}, "out.h5 has no video 'klass 1/ü3.avi'; a stream must have the ids of its store"),
        ({"length": [3] * 5}, r"s\.zarr has no video 'klass 0/ü4.avi'"),
        ({"length": [3, 4, 3, 3]}, "Video 'klass 1/ü1.avi' has segments 4 in out.h5, 3 in"),
        ({"length": [3] * 4, "views": 2}, "out.h5 has 2 views, .* has 1"),
    ],
    ids=["fewer", "more", "longer", "views"],
)
def test_import_refuses_other_videos_and_touches_nothing(tmp_path, other, words):
    store = rich(tmp_path / "s.zarr", [3] * 4)
    export_store(rich(tmp_path / "o.zarr", **other).path, tmp_path / "out.h5", form="hdf5")
    before = content(store.path)
    with pytest.raises(RefusedError, match=words):
        back(tmp_path / "out.h5", store.path)
    assert content(store.path) == before


@pytest.mark.parametrize("kind", ["video", "frames", "cubes", "nan", "outcomes", "version", "bit", "cut"])
def test_import_refuses_a_damaged_hdf5_export_and_leaves_no_trace(tmp_path, kind):
    store = rich(tmp_path / "s.zarr", [3] * 4)
    path = tmp_path / "out.h5"
    export_store(store.path, path, form="hdf5", compression="none")
    target = "videos/klass 1/ü3.avi/flow"
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "bit":
        with h5py.File(path) as file:
            offset = file[target]["cubes"].id.get_chunk_info(0).byte_offset
        damaged = bytearray(path.read_bytes())
        damaged[offset] ^= 1
        path.write_bytes(damaged)
    else:
        with h5py.File(path, "r+") as file:
            if kind == "video":
                del file["videos/klass 1/ü3.avi"]
            elif kind == "frames":
                file[f"{target}/frames"][0] = -1
            elif kind == "nan":
                file[f"{target}/cubes"][0, 0, 0, 0] = np.nan
            elif kind == "cubes":
                del file[f"{target}/cubes"]
                file[f"{target}/cubes"] = np.zeros((3, 2, 2, 3), np.float16)
            elif kind == "outcomes":
                del file["streams/flow/outcomes"]
            else:
                file.attrs["version"] = 9
    words = {
        "cut": "out.h5", "outcomes": "out.h5.*outcomes", "version": r"out.h5 .*vidatt-hdf5 1",
        "frames": "'klass 1/ü3.avi' of stream 'flow' has .* its outcome says 3 segments",
        "nan": "'klass 1/ü3.avi' of stream 'flow' holds NaN",
        "cubes": r"'klass 1/ü3.avi' of stream 'flow' has cubes \(3, 2, 2, 3\) float16; they should be \(3, 2, 2, 4\)",
    }.get(kind, r"out\.h5: video 'klass 1/ü3.avi' of stream '\w+' cannot be read")  # fmt: skip
    with pytest.raises(UsageError, match=words):
        back(path, tmp_path / "copy.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5", "s.zarr"]


@pytest.mark.parametrize("kind", ["video", "times", "pickle", "index"])
def test_import_refuses_a_damaged_npy_export_and_leaves_no_trace(tmp_path, kind):
    out = tmp_path / "out"
    export_store(rich(tmp_path / "s.zarr", [3] * 4).path, out, form="npy")
    victim = {
        "video": out / "rgb" / "klass 1" / "ü3.avi.npy", "times": out / "flow.times" / "klass 0" / "ü2.avi.npz",
        "pickle": out / "rgb" / "klass 0" / "ü0.avi.npy", "index": out / "index.json",
    }[kind]  # fmt: skip
    if kind in ("video", "times"):
        victim.unlink()
    elif kind == "pickle":
        np.save(victim, np.array([{}], object), allow_pickle=True)
    else:
        victim.write_text(victim.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(UsageError, match=f"{victim.name}.*(missing|no array)|no .npy export of this version"):
        back(out, tmp_path / "copy.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "s.zarr"]


def test_import_of_an_export_refuses_options_for_foreign_material(tmp_path):
    export_store(rich(tmp_path / "s.zarr", [3]).path, tmp_path / "out.h5", form="hdf5")
    with pytest.raises(UsageError, match="is an export of vidatt, which says everything itself; leave out --key"):
        back(tmp_path / "out.h5", tmp_path / "c.zarr", key="x")


@pytest.mark.slow
def test_commands_export_and_import_end_to_end(tmp_path):
    store = rich(tmp_path / "s.zarr", MIXED)
    done = vidatt("cache", "export", store.path, tmp_path / "out.h5", "--format", "hdf5", "--json")
    assert (done.returncode, json.loads(done.stdout)["videos"]) == (0, 8), done.stderr
    done = vidatt("cache", "import", tmp_path / "out.h5", tmp_path / "copy.zarr", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["new"], told["streams"]["rgb"]["cube"]) == (0, True, [2, 2, 3]), done.stderr
    same(store, Store.open(tmp_path / "copy.zarr"))
    (store.path / "rgb" / ".done" / "0.json").unlink()
    done = vidatt("cache", "export", store.path, tmp_path / "part.h5", "--format", "hdf5")
    assert (done.returncode, "videos that are not extracted yet, such as" in done.stdout) == (1, True)
