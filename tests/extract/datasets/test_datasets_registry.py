"""The dataset registry: names, descriptions, options, and the comparison with the files on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vidatt.errors import MissingFileError, UnknownNameError, UsageError
from vidatt.extract.datasets.catalogue import AMBIGUOUS, Box, Catalogue, Interval, Video
from vidatt.extract.datasets.dataset import DatasetInfo
from vidatt.extract.datasets.registry import DATASETS, check, dataset_names, describe, load_catalogue, register
from vidatt.extract.datasets.video_files import links_outside, refuse_links_outside, walk_videos


def touch(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def catalogue_of(*paths: str) -> Catalogue:
    videos = tuple(Video(id=path, path=path, labels=(0,)) for path in paths)
    return Catalogue(name="folder", classes=("a",), videos=videos, splits={})


def test_registry_names_are_sorted_and_complete() -> None:
    assert list(dataset_names()) == sorted(DATASETS)
    assert {"actionshapes", "folder", "list", "ucf101"} <= set(dataset_names())


def test_registry_names_the_official_protocols() -> None:
    assert {name: describe(name).protocol for name in dataset_names() if describe(name).protocol} == {
        "ucf101": "accuracy-mean-of-splits",
        "hmdb51": "accuracy-mean-of-splits",
        "ucf50": "class-accuracy-mean-of-folds",
        "ccv": "map",
        "thumos14": "map",
        "sports1m": "hit",
        "kinetics400": "top1-top5-average",
        "kinetics600": "top1-top5-average",
        "moments": "top1-top5-average",
    }
    with pytest.raises(ValueError, match="'x' has the protocol 'mapp'"):
        DatasetInfo(name="x", summary="", layout="", source="", protocol="mapp")


@pytest.mark.parametrize("name", dataset_names())
def test_registry_describes_every_dataset(name: str) -> None:
    info = describe(name)
    assert info.name == name
    assert "\n" not in info.summary
    assert "VIDEOS" in info.layout
    assert info.source


@pytest.mark.parametrize("name", dataset_names())
def test_registry_every_dataset_says_in_one_line_what_it_misses(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_catalogue(name, videos=tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value) or "--annotations" in str(caught.value)


def test_registry_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown dataset 'ucf-101'\. Did you mean 'ucf101'\?"):
        load_catalogue("ucf-101")
    with pytest.raises(UnknownNameError, match="Did you mean 'folder'"):
        describe("folders")


def test_registry_unknown_option_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'test_share'"):
        load_catalogue("folder", videos=tmp_path, options={"testshare": "0.2"})
    with pytest.raises(UnknownNameError, match="Did you mean 'task'"):
        load_catalogue("thumos14", videos=tmp_path, options={"tasks": "detection"})
    with pytest.raises(UsageError, match="'ucf101' takes no options; leave out seed"):
        load_catalogue("ucf101", videos=tmp_path, options={"seed": "1"})


def test_registry_refuses_a_name_twice() -> None:
    with pytest.raises(ValueError, match="'folder' is registered already"):
        register(DATASETS["folder"])


def test_check_finds_missing_surplus_and_misnamed(tmp_path: Path) -> None:
    touch(tmp_path, "A/v_Stand_1.avi", "A/V_PUSH_2.avi", "A/extra.MP4", "A/notes.txt", "A/.hidden.avi")
    found = check("folder", catalogue_of("A/v_Stand_1.avi", "A/v_push_2.avi", "A/gone.avi"), tmp_path)
    assert found.missing == ("A/gone.avi",)
    assert found.surplus == ("A/extra.MP4",)
    assert found.misnamed == (("A/V_PUSH_2.avi", "A/v_push_2.avi"),)


def test_check_accepts_listed_files_that_do_not_look_like_videos(tmp_path: Path) -> None:
    touch(tmp_path, "A/one.m2ts", ".cache/two.mp4")
    found = check("folder", catalogue_of("A/one.m2ts", ".cache/two.mp4", "A/three.m2ts"), tmp_path)
    assert found.missing == ("A/three.m2ts",)
    assert not found.surplus


def test_check_treats_composed_and_decomposed_accents_as_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "A/cafe\u0301.mp4")
    found = check("folder", catalogue_of("A/caf\u00e9.mp4"), tmp_path)
    assert found.misnamed == (("A/cafe\u0301.mp4", "A/caf\u00e9.mp4"),)


def test_check_without_a_video_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"There is no video folder .*nowhere"):
        check("folder", catalogue_of("A/a.avi"), tmp_path / "nowhere")


def test_walk_follows_links_but_not_loops_and_skips_dangling_ones(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "x.mp4")
    root = touch(tmp_path / "root", "A/a.mp4")
    os.symlink(tmp_path / "elsewhere", root / "B")
    os.symlink(root, root / "A" / "loop")
    os.symlink(root / "gone.mp4", root / "A" / "dangling.mp4")
    assert walk_videos(root, allow_links_outside=True) == ["A/a.mp4", "B/x.mp4"]


def test_catalogue_refuses_truth_outside_the_classes() -> None:
    def one(interval: int, box: int) -> Catalogue:
        video = Video(
            id="a.mp4", path="a.mp4", labels=(),
            intervals=(Interval(start_seconds=0.0, stop_seconds=1.0, label=interval),),
            boxes=(Box(frame=0, x1=0.0, y1=0.0, x2=1.0, y2=1.0, label=box),),
        )  # fmt: skip
        return Catalogue(name="x", classes=("a", "b"), videos=(video,), splits={})

    assert one(AMBIGUOUS, 1).videos[0].intervals[0].label == -1
    for interval, box in ((2, 0), (-2, 0), (0, 2), (0, -1)):
        with pytest.raises(UsageError, match=r"'a\.mp4' has an interval or a box with label -?\d, classes are 0\.\.1"):
            one(interval, box)


@pytest.mark.parametrize("path", ["../a.mp4", "/etc/a.mp4", "b/../../a.mp4", "b/.."])
def test_catalogue_refuses_paths_that_leave_the_folder(path: str) -> None:
    with pytest.raises(UsageError, match="leaves the video folder"):
        catalogue_of("A/fine..name.mp4", path)


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A video folder, itself a link, with links inside it and links that lead out of it."""
    touch(tmp_path / "elsewhere", "x.mp4", "deep/y.mp4")
    real = touch(tmp_path / "disk", "A/a.mp4", "A/b.mp4", "top.mp4")
    os.symlink(real / "A" / "a.mp4", real / "A" / "inside.mp4")
    os.symlink("../../elsewhere/x.mp4", real / "A" / "out.mp4")
    os.symlink(tmp_path / "elsewhere" / "deep", real / "B")
    os.symlink(real / "A", real / "C")
    os.symlink(tmp_path / "disk2", real / "gone.mp4")
    touch(tmp_path, "disk2-sibling/z.mp4")
    os.symlink(real, tmp_path / "root")
    return tmp_path / "root"


def test_links_out_of_the_folder_are_found_and_others_are_fine(linked: Path, tmp_path: Path) -> None:
    fine = ["A/a.mp4", "A/b.mp4", "A/inside.mp4", "C/a.mp4", "top.mp4", "A/absent.mp4", "absent/a.mp4"]
    assert links_outside(linked, fine) == []
    refuse_links_outside(linked, fine)
    elsewhere = str(tmp_path / "elsewhere")
    assert links_outside(linked, [*fine, "B/y.mp4", "A/out.mp4", "C/out.mp4"]) == [
        ("A/out.mp4", f"{elsewhere}/x.mp4"),
        ("B/y.mp4", f"{elsewhere}/deep/y.mp4"),
        ("C/out.mp4", f"{elsewhere}/x.mp4"),
    ]
    with pytest.raises(UsageError, match=r"^A/out\.mp4 leads by a link to .*elsewhere/x\.mp4, .* \(2 such entries\)"):
        refuse_links_outside(linked, [*fine, "B/y.mp4", "A/out.mp4"])
    with pytest.raises(UsageError, match=r"^gone\.mp4 leads by a link to .*disk2, outside the video folder \S+;"):
        refuse_links_outside(linked, ["gone.mp4"])  # nothing is there yet, but what comes would be outside


def test_check_reports_links_out_of_the_folder(linked: Path, tmp_path: Path) -> None:
    found = check("folder", catalogue_of("A/a.mp4", "A/out.mp4", "B/y.mp4", "A/gone.mp4"), linked)
    assert found.outside == (
        ("A/out.mp4", str(tmp_path / "elsewhere" / "x.mp4")),
        ("B/y.mp4", str(tmp_path / "elsewhere" / "deep" / "y.mp4")),
    )
    assert found.missing == ("A/gone.mp4",)


def test_a_name_that_cannot_be_kept_as_text_is_refused() -> None:
    video = Video(id="a", path="caf\udce9.mp4", labels=())
    with pytest.raises(UsageError, match=r"the name caf\\xe9\.mp4 is not UTF-8"):
        Catalogue(name="x", classes=(), videos=(video,), splits={})
