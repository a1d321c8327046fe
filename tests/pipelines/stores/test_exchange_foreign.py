"""Arrays of other programs become stores: matched by path, checked whole, refused without a trace."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from testkit.commands import vidatt
from testkit.stores import content

from vidatt.cache.interchange.foreign import TimeMap
from vidatt.cache.store import Store
from vidatt.errors import FingerprintMismatchError, MissingFileError, RefusedError, UsageError
from vidatt.pipelines.stores.exchange import ImportConfig, import_store

CLIPS = ("walk/a", "walk/b", "run/a", "run/b.avi")


def cubes(seed: int, T: int = 3, K: int = 2, D: int = 4, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((T, K, K, D)).astype(dtype)


def folder(path: Path, **changes: np.ndarray | None) -> Path:
    """A folder of `.npy`; `changes` by clip number, None = no file."""
    for number, clip in enumerate(CLIPS):
        array = changes.get(f"clip{number}", cubes(number))
        if array is not None:
            (path / clip).parent.mkdir(parents=True, exist_ok=True)
            np.save(f"{path / clip}.npy", array)
    return path


def manifest(path: Path, *rows: str, header: str = "path,label,group,split") -> Path:
    standard = [
        f"{clip}.npy,{clip.split('/')[0]},g{i % 2},{'train' if i % 2 else 'test'}" for i, clip in enumerate(CLIPS)
    ]
    path.write_text("\n".join([header, *(rows or standard)]) + "\n")
    return path


def run(source: Path, store: Path, **changes) -> Store:
    import_store(ImportConfig(sources=((None, source),), store=store, **changes))
    return Store.open(store)


def video(store: Store, id: str, stream: str = "features") -> np.ndarray:
    return store.stream(stream).reader().read_video(store.index.position(id))


def test_folder_of_npy_with_a_manifest(tmp_path):
    store = run(folder(tmp_path / "in"), tmp_path / "s.zarr", manifest=manifest(tmp_path / "m.csv"))
    assert sorted(store.index.ids) == sorted(f"{clip}.npy" for clip in CLIPS)
    assert store.index.classes == ("run", "walk")
    for number, clip in enumerate(CLIPS):
        place = store.index.position(f"{clip}.npy")
        assert store.index.classes[store.index.labels[place, 0]] == clip.split("/")[0]
        assert (store.index.groups[place], store.index.splits["1"][place]) == (f"g{number % 2}", 1 if number % 2 else 2)
        np.testing.assert_array_equal(video(store, f"{clip}.npy"), cubes(number).astype(np.float16))
    told = store.stream("features").recipe
    assert (told["imported"]["from"], told["imported"]["dtypes"]) == ("npy: in", ["float32"])
    assert told["time_map"] == {
        "known": False, "rule": "frames are the places 0..T-1 of the segments, seconds are unknown",
    }  # fmt: skip
    reader = store.stream("features").reader()
    assert reader.frames(0).tolist() == [[0, 0, 1], [1, 1, 2], [2, 2, 3]]
    assert np.isnan(reader.seconds(0)).all()


def test_manifest_matches_whole_paths_with_or_without_the_suffix_and_counts_the_rest(tmp_path):
    rows = ["one,walk/a,x", "two,run/a.npy,y"]
    listed = manifest(tmp_path / "m.csv", *rows, header="id,path,label")
    source = folder(tmp_path / "in")
    result = import_store(ImportConfig(sources=((None, source),), store=tmp_path / "s.zarr", manifest=listed))
    assert result.not_listed == 2
    store = Store.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(video(store, "one"), cubes(0).astype(np.float16))
    np.testing.assert_array_equal(video(store, "two"), cubes(2).astype(np.float16))
    with pytest.raises(UsageError, match=r"m\.csv: video 'a\.npy': 'a\.npy' is not in .*in\. Nothing was imported"):
        run(source, tmp_path / "t.zarr", manifest=manifest(tmp_path / "m.csv", "a.npy,x", header="path,label"))


@pytest.mark.slow
def test_axes_tchw_and_vectors_become_channels_last(tmp_path):
    source = folder(tmp_path / "in", **{f"clip{i}": cubes(i, D=5).transpose(0, 3, 1, 2) for i in range(4)})
    store = run(source, tmp_path / "s.zarr", axes="tchw")
    assert store.stream("features").cube_shape == (2, 2, 5)
    np.testing.assert_array_equal(video(store, "run/b.avi"), cubes(3, D=5).astype(np.float16))
    with pytest.raises(UsageError, match=r"'run/a\.npy' has shape \(3, 5, 2, 2\): a grid of 5 x 2 .*--axes tchw\?"):
        run(source, tmp_path / "t.zarr")
    flat = folder(tmp_path / "flat", **{f"clip{i}": cubes(i)[:, 0, 0] for i in range(4)})
    store = run(flat, tmp_path / "f.zarr", streams=("fc6",))
    assert store.stream("fc6").cube_shape == (1, 1, 4)
    np.testing.assert_array_equal(video(store, "walk/a", "fc6")[:, 0, 0], cubes(0)[:, 0, 0].astype(np.float16))


def test_videos_of_different_lengths_keep_them(tmp_path):
    source = folder(tmp_path / "in", **{f"clip{i}": cubes(i, T=2 + 3 * i) for i in range(4)})
    store = run(source, tmp_path / "s.zarr")
    for i, clip in enumerate(CLIPS):
        np.testing.assert_array_equal(video(store, clip), cubes(i, T=2 + 3 * i).astype(np.float16))
    assert store.index.splits == {}
    assert (store.index.labels == -1).all()


def test_npz_folder_needs_a_key_where_an_archive_holds_several(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(2):
        np.savez(tmp_path / "in" / f"v{i}.npz", x=cubes(i), note=np.zeros(1))
    store = run(tmp_path / "in", tmp_path / "s.zarr", form="npz", key="x")
    np.testing.assert_array_equal(video(store, "v1"), cubes(1).astype(np.float16))
    with pytest.raises(UsageError, match=r"v0\.npz holds the arrays x, note; say which one by --key"):
        run(tmp_path / "in", tmp_path / "t.zarr", form="npz")
    with pytest.raises(UsageError, match=r"v0\.npz has no array 'y'; it has x, note"):
        run(tmp_path / "in", tmp_path / "t.zarr", form="npz", key="y")


@pytest.mark.slow
def test_hdf5_datasets_and_groups_are_videos_by_their_paths(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        for i, clip in enumerate(CLIPS):
            file[clip] = cubes(i, dtype="float64")
    with h5py.File(tmp_path / "groups.h5", "w") as file:
        for i, clip in enumerate(CLIPS):
            file[f"{clip}/pool5"] = cubes(i)
            file[f"{clip}/other"] = np.zeros(3)
    one = run(tmp_path / "in.h5", tmp_path / "s.zarr")
    other = run(tmp_path / "groups.h5", tmp_path / "g.zarr", key="pool5")
    for i, clip in enumerate(CLIPS):
        for store in (one, other):
            np.testing.assert_array_equal(video(store, clip), cubes(i).astype(np.float16))
    with pytest.raises(UsageError, match=r"groups\.h5 holds no dataset 'pool4' in a group"):
        run(tmp_path / "groups.h5", tmp_path / "t.zarr", key="pool4")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["npz", "hdf5"])
def test_packed_arrays_bring_ids_labels_and_roles(tmp_path, form):
    for role, first in (("train", 0), ("test", 3)):
        values = {
            "x": np.stack([cubes(first + i) for i in range(3)]),
            "clip": np.array([f"v_{'ab'[i % 2]}_g{i}_c{first}" for i in range(3)]),
            "label": np.array([2, 10, 2]),
        }
        if form == "npz":
            np.savez(tmp_path / f"{role}.npz", **values)
        else:
            with h5py.File(tmp_path / f"{role}.h5", "w") as file:
                for name, value in values.items():
                    file[name] = value.astype("S") if name == "clip" else value
    suffix = "npz" if form == "npz" else "h5"
    import_store(
        ImportConfig(
            sources=tuple((role, tmp_path / f"{role}.{suffix}") for role in ("train", "test")),
            store=tmp_path / "s.zarr", key="x", ids="clip", labels="label", group_pattern=r"^v_(.)_(g\d)", split="3",
            recipe={"backbone": "vgg16"},
        )
    )  # fmt: skip
    store = Store.open(tmp_path / "s.zarr")
    assert store.index.classes == ("2", "10")
    place = store.index.position("v_b_g1_c3")
    assert (store.index.labels[place, 0], store.index.splits["3"][place], store.index.groups[place]) == (1, 2, "b_g1")
    np.testing.assert_array_equal(video(store, "v_b_g1_c3"), cubes(4).astype(np.float16))
    assert store.stream("features").recipe["backbone"] == "vgg16"


def test_packed_arrays_that_do_not_fit_are_refused(tmp_path):
    file = tmp_path / "x.npz"
    np.savez(file, x=np.zeros((3, 2, 4), np.float32), clip=["a", "b", "a"], few=["a", "b"], grid=np.zeros((3, 2)))
    for ids, words in (
        ("clip", "'clip' names the video 'a' twice"),
        ("few", r"'x' has shape \(3, 2, 4\), but 'few' names 2 videos"),
        ("grid", "'grid' should be one text or whole number per video"),
        ("id", "has no array 'id'; it has x, clip, few, grid"),
    ):
        with pytest.raises(UsageError, match=words):
            run(file, tmp_path / "s.zarr", key="x", ids=ids)
    with pytest.raises(UsageError, match=r"x\.npz is one file: name the array of all videos by --key"):
        run(file, tmp_path / "s.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (cubes(1, D=5), "holds cubes 2 x 2 x 5, the first video has 2 x 2 x 4"),
        (cubes(1, K=3), "holds cubes 3 x 3 x 4"),
        (cubes(1)[:, :, 0], r"has shape \(3, 2, 4\); it should be \[T, D\]"),
        (cubes(1)[:0], r"has shape \(0, 2, 2, 4\): it holds nothing"),
        (np.where(np.arange(4) == 2, np.nan, cubes(1)), r"holds nan at \(0, 0, 0, 2\)"),
        (cubes(1) * -np.inf, "holds -?inf at"),
        (cubes(1).astype(np.float64) * 0 + 65520.0, "holds 65520, more than float16 can"),
        (cubes(1).astype(np.int64), "has dtype int64; features are float"),
        (cubes(1).astype(np.complex64), "has dtype complex64"),
        (np.array([[{}]], object), "is no array of numbers"),
    ],
    ids=["D", "K", "axes", "empty", "nan", "inf", "large", "integers", "complex", "pickle"],
)
def test_misshaped_arrays_are_refused_by_name_without_a_trace(tmp_path, clip, words):
    source = folder(tmp_path / "in", clip1=clip)
    store = run(folder(tmp_path / "good"), tmp_path / "old.zarr", streams=("rgb",))
    before = content(tmp_path)
    for target in (tmp_path / "new.zarr", store.path):
        with pytest.raises(UsageError, match=rf"walk/b\.npy'? {words}"):
            run(source, target)
    assert content(tmp_path) == before


def test_float16_keeps_its_largest_number(tmp_path):
    source = folder(tmp_path / "in", clip1=np.full((3, 2, 2, 4), 65519.0))
    store = run(source, tmp_path / "s.zarr")
    assert video(store, "walk/b").max() == 65504


def test_duplicates_are_refused_without_a_trace(tmp_path):
    folder(tmp_path / "in")
    folder(tmp_path / "again", clip0=None, clip1=None, clip3=None)
    before = content(tmp_path)
    sources = ((None, tmp_path / "in"), ("test", tmp_path / "again"))
    with pytest.raises(UsageError, match=r"video 'run/a' is in .*in and in .*again; ids must be unique"):
        import_store(ImportConfig(sources=sources, store=tmp_path / "s.zarr"))
    assert content(tmp_path) == before
    twice = manifest(tmp_path / "m.csv", "a,walk/a,x", "b,walk/a.npy,x", header="id,path,label")
    with pytest.raises(UsageError, match=r"'walk/a\.npy' is both video 'a' and video 'b'"):
        run(tmp_path / "in", tmp_path / "s.zarr", manifest=twice)
    twice = manifest(tmp_path / "m.csv", "a,walk/a,x", "a,walk/b,x", header="id,path,label")
    with pytest.raises(UsageError, match=r"m\.csv:3: 'a' stands in line 2 already"):
        run(tmp_path / "in", tmp_path / "s.zarr", manifest=twice)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.slow
def test_a_stream_is_added_to_a_store_with_the_same_ids_and_lengths_only(tmp_path):
    first = folder(tmp_path / "in")
    store = run(first, tmp_path / "s.zarr", streams=("rgb",))
    second = folder(tmp_path / "two", **{f"clip{i}": cubes(9 + i)[:, 0, 0] for i in range(4)})
    result = import_store(ImportConfig(sources=((None, second),), store=store.path, streams=("fc6",)))
    assert (result.new, store.stream_names) == (False, ["rgb", "fc6"])
    for i, clip in enumerate(CLIPS):
        np.testing.assert_array_equal(video(store, clip, "fc6")[:, 0, 0], cubes(9 + i)[:, 0, 0].astype(np.float16))
    before = content(tmp_path / "s.zarr")
    missing = folder(tmp_path / "three", clip2=None)
    with pytest.raises(RefusedError, match="three has no video 'run/a'; a stream must have the ids of its store"):
        run(missing, store.path, streams=("c",))
    longer = folder(tmp_path / "four", clip2=cubes(2, T=4))
    with pytest.raises(RefusedError, match="Video 'run/a' has segments 4 in four, 3 in"):
        run(longer, store.path, streams=("c",))
    with pytest.raises(FingerprintMismatchError, match=r"'fc6' .* was made with another recipe"):
        run(first, store.path, streams=("fc6",))
    rows = [f"{clip},{clip},x" for clip in CLIPS]
    listed = manifest(tmp_path / "m.csv", *rows, header="id,path,label")
    with pytest.raises(RefusedError, match=r"Video '.*' has labels \['x'\] in in, none in"):
        run(first, store.path, streams=("c",), manifest=listed)
    assert content(tmp_path / "s.zarr") == before


@pytest.mark.slow
def test_time_map_gives_frames_and_seconds(tmp_path):
    time_map = TimeMap(stride_frames=16, window_frames=16, fps=25.0)
    store = run(folder(tmp_path / "in"), tmp_path / "s.zarr", time_map=time_map)
    reader = store.stream("features").reader()
    assert reader.frames(0).tolist() == [[0, 8, 16], [16, 24, 32], [32, 40, 48]]
    assert reader.seconds(0).tolist() == [8 / 25, 24 / 25, 40 / 25]
    assert store.stream("features").recipe["time_map"]["known"] is True
    rows = [f"{clip},x,{fps}" for clip, fps in zip(CLIPS, ("25", "", "30", "12.5"), strict=True)]
    listed = manifest(tmp_path / "m.csv", *rows, header="path,label,fps")
    store = run(
        tmp_path / "in", tmp_path / "t.zarr", time_map=TimeMap(stride_frames=5, first_centre=10), manifest=listed
    )
    reader = store.stream("features").reader()
    for clip, fps in zip(CLIPS, (25, np.nan, 30, 12.5), strict=True):
        np.testing.assert_array_equal(reader.seconds(store.index.position(clip)), np.array([10, 15, 20]) / fps)
    with pytest.raises(UsageError, match="has a column fps; a time map needs --stride-frames"):
        run(tmp_path / "in", tmp_path / "u.zarr", manifest=listed)
    listed = manifest(tmp_path / "m.csv", "walk/a,x,zero", header="path,label,fps")
    with pytest.raises(UsageError, match=r"m\.csv:2: fps 'zero' must be more than 0"):
        run(tmp_path / "in", tmp_path / "u.zarr", manifest=listed, time_map=TimeMap(stride_frames=5))


@given(
    stride=st.integers(1, 100), window=st.integers(1, 64), extra=st.integers(0, 50), T=st.integers(1, 40),
    fps=st.floats(1, 120),
)  # fmt: skip
def test_time_map_is_evenly_spaced_and_starts_at_its_first_centre(stride, window, extra, T, fps):
    first = window // 2 + extra
    made = TimeMap(stride_frames=stride, first_centre=first, window_frames=window, fps=fps)
    frames = made.frames(T)
    assert frames.min() >= 0
    assert (frames[:, 2] - frames[:, 0] == window).all()
    assert (frames[:, 1] == first + stride * np.arange(T)).all()
    np.testing.assert_allclose(made.seconds(frames, fps), frames[:, 1] / fps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fps": 25.0}, "needs --stride-frames beside --fps"),
        ({"stride_frames": 0}, "must be 1 or more"),
        ({"stride_frames": 4, "window_frames": 16, "first_centre": 7}, "--first-centre 7: a window of 16"),
        ({"stride_frames": 4, "fps": -1.0}, "--fps -1.0: must be"),
    ],
)
def test_time_map_that_contradicts_itself_is_refused(options, words):
    with pytest.raises(UsageError, match=words):
        TimeMap(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"manifest": Path("m.csv"), "labels": "y", "ids": "i", "key": "x"},
            "--manifest says labels and splits itself",
        ),
        ({"labels": "y"}, "--labels names an array beside --ids"),
        ({"ids": "i"}, "--ids needs --key too"),
        ({"axes": "tcwh"}, "Unknown order of axes 'tcwh'. Did you mean 'tchw'"),
        ({"form": "h5"}, "Unknown format 'h5'"),
        ({"sources": (("tes", Path("x")),)}, "Unknown role of a source 'tes'. Did you mean 'test'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        ImportConfig(**{"sources": ((None, Path("x")),), "store": Path("s"), **options})


def test_sources_that_are_not_there_are_named(tmp_path):
    for name, words in (("in", "no folder .*in with .npy files"), ("in.h5", r"no HDF5 file .*in\.h5")):
        with pytest.raises(MissingFileError, match=words):
            run(tmp_path / name, tmp_path / "s.zarr")
    (tmp_path / "bad.h5").write_bytes(b"no")
    with pytest.raises(UsageError, match=r"bad\.h5: it cannot be read"):
        run(tmp_path / "bad.h5", tmp_path / "s.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty holds no \.npy file"):
        run(tmp_path / "empty", tmp_path / "s.zarr")
    with pytest.raises(UsageError, match=r"--group-pattern '\(' is no regular expression"):
        run(folder(tmp_path / "in"), tmp_path / "s.zarr", group_pattern="(")
    with pytest.raises(UsageError, match="--group-pattern 'x' finds nothing in the id 'run/a'"):
        run(tmp_path / "in", tmp_path / "s.zarr", group_pattern="x")


@pytest.mark.slow
def test_fingerprint_follows_the_content_and_not_the_order(tmp_path):
    prints = {
        seed: run(folder(tmp_path / "in"), tmp_path / f"{seed}.zarr", seed=seed).stream("features").fingerprint
        for seed in (0, 1)
    }
    assert prints[0] == prints[1]
    changed = folder(tmp_path / "in", clip3=cubes(77))
    assert run(changed, tmp_path / "other.zarr").stream("features").fingerprint != prints[0]


def test_dry_run_checks_everything_and_writes_nothing(tmp_path):
    config = ImportConfig(sources=((None, folder(tmp_path / "in")),), store=tmp_path / "s.zarr", dry_run=True)
    before = content(tmp_path)
    result = import_store(config)
    assert (result.videos, result.streams["features"].cube, result.dry_run) == (4, (2, 2, 4), True)
    assert content(tmp_path) == before
    folder(tmp_path / "in", clip1=cubes(1) * np.nan)
    with pytest.raises(UsageError, match="holds nan"):
        import_store(config)


@pytest.mark.slow
def test_command_imports_the_real_fc6_features_as_documented(tmp_path, shared_data):
    source = shared_data / "features" / "ucf101_vgg16_fc6"
    done = vidatt(
        "cache", "import", f"train={source / 'train.npz'}", f"test={source / 'test.npz'}", tmp_path / "fc6.zarr",
        "--key", "x", "--ids", "clip", "--labels", "class_name", "--group-pattern", r"^v_(.+_g\d+)_c\d+$",
        "--streams", "fc6", "--recipe", "backbone=vgg16", "--recipe", "layer=fc6", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["videos"], told["classes"], told["splits"]) == (252, 14, {"1": {"train": 168, "test": 84}})
    store = Store.open(tmp_path / "fc6.zarr")
    with np.load(source / "test.npz") as archive:
        names, x, label, text = (archive[key] for key in ("clip", "x", "label", "class_name"))
    order = np.unique(label)  # official, 1-based: alphabetical, as ours
    for i in range(0, 84, 7):
        place = store.index.position(names[i])
        assert store.index.splits["1"][place] == 2
        assert store.index.classes[store.index.labels[place, 0]] == text[i]
        assert order[store.index.labels[place, 0]] == label[i]
        assert store.index.groups[place] == names[i].removeprefix("v_").rpartition("_")[0]
        np.testing.assert_array_equal(video(store, names[i], "fc6")[:, 0, 0], x[i])
    train = store.index.splits["1"] == 1
    assert not set(store.index.groups[train]) & set(store.index.groups[~train])


@pytest.mark.slow
def test_command_refuses_in_one_line_with_exit_code_2(tmp_path):
    folder(tmp_path / "in", clip1=cubes(1) * np.nan)
    done = vidatt("cache", "import", tmp_path / "in", tmp_path / "s.zarr")
    assert done.returncode == 2
    assert "'walk/b.npy' holds nan at (0, 0, 0, 0)" in done.stderr.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
