"""The dataset `folder`: one directory per class."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from vidatt.errors import MissingFileError, UsageError
from vidatt.extract.datasets.catalogue import TEST, TRAIN, UNUSED
from vidatt.extract.datasets.registry import load_catalogue


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two classes: ten videos in `walk` (two of them deeper), five in `run`, and things to be skipped."""
    root = tmp_path / "videos"
    names = [f"walk/{i}.mp4" for i in range(8)] + ["walk/deep/er/8.AVI", "walk/deep/9.mkv"]
    names += [f"run/{i}.webm" for i in range(5)]
    for name in [*names, "walk/.hidden.mp4", ".git/x.mp4", "walk/readme.txt", "empty/notes.txt"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_folder_classes_are_the_sorted_directories_with_videos(videos: Path) -> None:
    catalogue = load_catalogue("folder", videos=videos)
    assert catalogue.classes == ("run", "walk")
    assert [video.id for video in catalogue.videos][:6] == [*(f"run/{i}.webm" for i in range(5)), "walk/0.mp4"]
    assert {video.id for video in catalogue.videos} >= {"walk/deep/er/8.AVI", "walk/deep/9.mkv"}
    assert [video.labels for video in catalogue.videos] == [(0,)] * 5 + [(1,)] * 10


def test_folder_split_is_stratified_and_follows_seed_and_share(videos: Path) -> None:
    roles = load_catalogue("folder", videos=videos).splits["1"]
    assert [int((roles[:5] == TEST).sum()), int((roles[5:] == TEST).sum())] == [2, 3]
    assert load_catalogue("folder", videos=videos).splits["1"].tolist() == roles.tolist()
    other = load_catalogue("folder", videos=videos, options={"seed": "7"}).splits["1"]
    assert other.tolist() != roles.tolist()
    half = load_catalogue("folder", videos=videos, options={"test_share": "0.5"}).splits["1"]
    assert int((half[5:] == TEST).sum()) == 5


def test_folder_split_keeps_videos_in_place_when_another_class_grows(videos: Path) -> None:
    before = load_catalogue("folder", videos=videos)
    roles = {video.id: role for video, role in zip(before.videos, before.splits["1"], strict=True)}
    for index in range(20):
        (videos / "run" / f"new{index}.mp4").touch()
    after = load_catalogue("folder", videos=videos)
    moved = [v.id for v, role in zip(after.videos, after.splits["1"], strict=True) if roles.get(v.id, role) != role]
    assert all(name.startswith("run/") for name in moved)


def test_folder_single_video_of_a_class_is_for_training(videos: Path) -> None:
    (videos / "jump").mkdir()
    (videos / "jump" / "only.mp4").touch()
    catalogue = load_catalogue("folder", videos=videos)
    assert (catalogue.videos[0].id, catalogue.splits["1"][0]) == ("jump/only.mp4", TRAIN)


def test_folder_reads_lists_as_splits(videos: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("walk/0.mp4\r\n\r\n./run/1.webm\n")
    (lists / "test.txt").write_text("walk/1.mp4\nrun/gone.mp4\n")
    (lists / "night_train.txt").write_text("walk/1.mp4\n")
    (lists / "night_test.txt").write_text("walk/0.mp4\n")
    catalogue = load_catalogue("folder", videos=videos, annotations=lists)
    roles = {video.id: int(catalogue.splits["1"][row]) for row, video in enumerate(catalogue.videos)}
    night = {video.id: int(catalogue.splits["night"][row]) for row, video in enumerate(catalogue.videos)}
    assert set(catalogue.splits) == {"1", "night"}
    assert [roles[name] for name in ("walk/0.mp4", "run/1.webm", "walk/1.mp4", "run/gone.mp4")] == [TRAIN] * 2 + [
        TEST
    ] * 2
    assert (night["walk/1.mp4"], night["walk/0.mp4"]) == (TRAIN, TEST)
    assert roles["walk/2.mp4"] == night["walk/2.mp4"] == UNUSED
    assert catalogue.notes[1:] == ("1 listed videos are not in the folder, such as run/gone.mp4",)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("fly/0.mp4\n", r"train\.txt:1: 'fly/0\.mp4' does not start with a class directory"),
        ("walk/0.mp4\nwalk/0.mp4\n", r"train\.txt:2: walk/0\.mp4 is in split '1' already"),
        ("walk/0.mp4\nwalk/../../x.mp4\n", "leaves the video folder"),
    ],
)
def test_folder_bad_lists_are_refused(videos: Path, tmp_path: Path, train: str, message: str) -> None:
    (tmp_path / "train.txt").write_text(train)
    (tmp_path / "test.txt").write_text("walk/1.mp4\n")
    with pytest.raises(UsageError, match=message):
        load_catalogue("folder", videos=videos, annotations=tmp_path)


def test_folder_missing_lists_are_refused(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"holds no train\.txt"):
        load_catalogue("folder", videos=videos, annotations=tmp_path)
    (tmp_path / "train.txt").write_text("walk/0.mp4\n")
    with pytest.raises(MissingFileError, match=r"test\.txt: this annotation file is missing"):
        load_catalogue("folder", videos=videos, annotations=tmp_path)


def test_folder_without_classes_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name it with --videos"):
        load_catalogue("folder")
    with pytest.raises(MissingFileError, match=r"holds no videos \(\.3gp"):
        load_catalogue("folder", videos=tmp_path)
    (tmp_path / "a.mp4").touch()
    with pytest.raises(UsageError, match=r"no class directories with videos; .*unlabelled=true"):
        load_catalogue("folder", videos=tmp_path)
    (tmp_path / "walk").mkdir()
    (tmp_path / "walk" / "b.mp4").touch()
    with pytest.raises(UsageError, match=r"one class directory \(walk\)"):
        load_catalogue("folder", videos=tmp_path)


def test_folder_takes_an_unlabelled_heap(videos: Path) -> None:
    (videos / "stray.mov").touch()
    heap = load_catalogue("folder", videos=videos, options={"unlabelled": "true"})
    assert len(heap.videos) == 16
    assert {video.labels for video in heap.videos} == {()}
    assert heap.classes == ()
    labelled = load_catalogue("folder", videos=videos)
    assert len(labelled.videos) == 15
    assert "such as stray.mov" in labelled.notes[1]
    with pytest.raises(UsageError, match=r"unlabelled=true takes no --annotations"):
        load_catalogue("folder", videos=videos, annotations=videos, options={"unlabelled": "true"})


@pytest.mark.parametrize(
    "option", [{"seed": "x"}, {"test_share": "1.0"}, {"test_share": "nan"}, {"unlabelled": "maybe"}]
)
def test_folder_bad_options_are_refused(videos: Path, option: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=f"Option {next(iter(option))}="):
        load_catalogue("folder", videos=videos, options=option)


def test_folder_links_out_of_the_root_are_refused_by_name(videos: Path, tmp_path: Path) -> None:
    os.symlink(videos / "walk" / "0.mp4", videos / "run" / "inside.mp4")
    assert len(load_catalogue("folder", videos=videos).videos) == 16
    (tmp_path / "outside.mp4").touch()
    os.symlink(tmp_path / "outside.mp4", videos / "run" / "escape.mp4")
    with pytest.raises(
        UsageError, match=r"run/escape\.mp4 leads by a link to .*outside\.mp4, outside the video folder"
    ):
        load_catalogue("folder", videos=videos)


def test_folder_follows_links_out_of_the_root_where_it_is_told_to(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "store" / "jump").mkdir(parents=True)
    (tmp_path / "store" / "jump" / "far.mp4").touch()
    os.symlink(tmp_path / "store" / "jump", videos / "jump")
    with pytest.raises(UsageError, match="--follow-links"):
        load_catalogue("folder", videos=videos)
    catalogue = load_catalogue("folder", videos=videos, follow_links=True)
    assert catalogue.classes == ("jump", "run", "walk")
    assert "jump/far.mp4" in {video.id for video in catalogue.videos}


def test_folder_says_in_one_line_what_it_leaves_out(videos: Path) -> None:
    before = load_catalogue("folder", videos=videos)
    os.symlink(videos / "gone.mp4", videos / "run" / "dangling.mp4")
    os.symlink("b.mp4", videos / "run" / "a.mp4")
    os.symlink("a.mp4", videos / "run" / "b.mp4")
    os.symlink("..", videos / "run" / "up")
    (videos / "run" / "READ.me").touch()
    (videos / "run" / os.fsdecode(b"caf\xe9.mp4")).touch()
    (videos / os.fsdecode(b"sch\xf6n")).mkdir()
    catalogue = load_catalogue("folder", videos=videos)
    assert [video.id for video in catalogue.videos] == [video.id for video in before.videos]
    (note,) = catalogue.notes
    assert note == (
        "11 entries of the video folder are left out: 2 hidden, such as .git; 1 links in a circle, such as run/up; "
        "3 links that lead nowhere, such as run/a.mp4; "
        r"2 whose names are not UTF-8 (rename them), such as run/caf\xe9.mp4; "
        "3 with other endings, such as empty/notes.txt"
    )


def test_folder_leaves_out_what_lies_too_deep_to_be_opened(videos: Path) -> None:
    place = os.open(videos / "run", os.O_DIRECTORY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=place)
        below = os.open("d" * 250, os.O_DIRECTORY, dir_fd=place)
        os.close(place)
        place = below
    os.close(os.open("far.mp4", os.O_CREAT, dir_fd=place))
    os.close(place)
    catalogue = load_catalogue("folder", videos=videos)
    assert len(catalogue.videos) == 15
    assert "1 whose paths are too long, such as run/ddd" in catalogue.notes[0]


def test_folder_that_cannot_be_listed_is_named() -> None:
    with tempfile.TemporaryDirectory() as place:  # not below pytest's own folders, which are root's alone
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "run").mkdir(mode=0)
        as_root = os.geteuid() == 0
        if as_root:
            os.seteuid(65534)
        try:
            with pytest.raises(UsageError, match=r"run cannot be listed: Permission denied\."):
                load_catalogue("folder", videos=folder)
        finally:
            if as_root:
                os.seteuid(0)
