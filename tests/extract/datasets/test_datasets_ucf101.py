"""The dataset `ucf101`: the official lists with their traps, and lists in the same format."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from vidatt.errors import MissingFileError, UsageError
from vidatt.extract.datasets.catalogue import TEST, TRAIN, UNUSED, Catalogue
from vidatt.extract.datasets.registry import check, describe, load_catalogue

CLASSES = "1 HandstandPushups\n2 Walk\n"
TRAIN_LIST = "HandstandPushups/v_HandStandPushups_g08_c01.avi 1\nWalk/v_Walk_g09_c01.avi 2\n"
TEST_LIST = "HandstandPushups/v_HandStandPushups_g01_c01.avi\nWalk/v_Walk_g02_c01.avi\n"


def write_lists(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"classInd": CLASSES, "trainlist01": TRAIN_LIST, "testlist01": TEST_LIST} | texts
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


@pytest.fixture(scope="module")
def official(shared_data: Path) -> Catalogue:
    return load_catalogue("ucf101", annotations=shared_data / "annotations" / "ucf101")


def test_ucf101_counts_are_the_official_ones(official: Catalogue) -> None:
    assert len(official.classes) == 101
    assert len(official.videos) == 13320
    counts = {name: (int(np.sum(r == TRAIN)), int(np.sum(r == TEST))) for name, r in official.splits.items()}
    assert counts == {"1": (9537, 3783), "2": (9586, 3734), "3": (9624, 3696)}
    assert counts == describe("ucf101").splits
    assert official.notes == ()


def test_ucf101_classes_keep_the_order_of_class_ind(official: Catalogue) -> None:
    differing = [i for i, (a, b) in enumerate(zip(official.classes, sorted(official.classes), strict=True)) if a != b]
    assert differing == [34, 35, 46, 47]
    assert [official.classes[i] for i in differing] == ["Hammering", "HammerThrow", "JumpingJack", "JumpRope"]


def test_ucf101_labels_are_the_folders_and_the_ids_of_the_lists(official: Catalogue, shared_data: Path) -> None:
    labels = {video.id: video.labels for video in official.videos}
    lines = (shared_data / "annotations" / "ucf101" / "trainlist03.txt").read_text().split("\n")
    entries = [line.split() for line in lines if line.strip()]
    assert len(entries) == 9624
    assert all(labels[path] == (int(index) - 1,) for path, index in entries)
    assert labels["HandstandPushups/v_HandStandPushups_g01_c01.avi"] == (36,)
    assert labels["JumpRope/v_JumpRope_g01_c01.avi"] == (47,)


def test_ucf101_has_25_groups_per_class_that_never_part(official: Catalogue) -> None:
    groups: dict[int, set[str]] = defaultdict(set)
    for video in official.videos:
        groups[video.labels[0]].add(video.group)
    assert {len(of_class) for of_class in groups.values()} == {25}
    assert "HandstandPushups_g01" in groups[36]
    for roles in official.splits.values():
        train = {video.group for video, role in zip(official.videos, roles, strict=True) if role == TRAIN}
        test = {video.group for video, role in zip(official.videos, roles, strict=True) if role == TEST}
        assert not train & test


def test_ucf101_reads_a_two_class_set_in_its_format(shared_data: Path) -> None:
    videos = shared_data / "videos" / "fight_surv"
    catalogue = load_catalogue("ucf101", annotations=shared_data / "annotations" / "fight_surv", videos=videos)
    assert catalogue.classes == ("fight", "noFight")
    assert list(catalogue.splits) == ["1"]
    assert [int(np.sum(catalogue.splits["1"] == role)) for role in (TRAIN, TEST, UNUSED)] == [78, 36, 0]
    assert {video.group for video in catalogue.videos} == {""}
    found = check("ucf101", catalogue, videos)
    assert (found.missing, found.surplus, found.misnamed) == ((), (), ())


@pytest.mark.parametrize("place", ["v/ucfTrainTestlist", "v/annotations", "v", "ucfTrainTestlist", "annotations"])
def test_ucf101_finds_its_lists_beside_the_videos(tmp_path: Path, place: str) -> None:
    (tmp_path / "v").mkdir()
    write_lists(tmp_path / place)
    assert len(load_catalogue("ucf101", videos=tmp_path / "v").videos) == 4


def test_ucf101_without_lists_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no classInd\.txt \(looked in .*ucfTrainTestlist, .*--annotations"):
        load_catalogue("ucf101", videos=tmp_path)
    with pytest.raises(MissingFileError, match=r"looked in [^,]*nowhere\)"):
        load_catalogue("ucf101", videos=tmp_path, annotations=tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match="no folder was given"):
        load_catalogue("ucf101")


def test_ucf101_reads_bom_crlf_and_blank_lines(tmp_path: Path) -> None:
    plain = load_catalogue("ucf101", annotations=write_lists(tmp_path / "plain"))
    odd = write_lists(
        tmp_path / "odd",
        classInd="\ufeff" + CLASSES.replace("\n", "\r\n"),
        trainlist01="\r\n" + TRAIN_LIST.replace("\n", " \r\n\r\n"),
    )
    assert load_catalogue("ucf101", annotations=odd).digest() == plain.digest()


def test_ucf101_matches_class_folders_in_any_case_and_merges_the_spellings(tmp_path: Path) -> None:
    respelled = TRAIN_LIST.replace("HandstandPushups/", "HandStandPushups/")
    lists = write_lists(tmp_path, trainlist02=respelled, testlist02=TEST_LIST)
    catalogue = load_catalogue("ucf101", annotations=lists)
    assert len(catalogue.videos) == 4
    assert catalogue.videos[0].labels == (0,)
    assert catalogue.videos[0].group == "HandstandPushups_g01"
    assert catalogue.splits["2"].tolist() == catalogue.splits["1"].tolist()


def test_ucf101_follows_the_spelling_on_disk_and_notes_it(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for path in ("HandStandPushups/v_HandstandPushups_g01_c01.avi", "Walk/v_Walk_g09_c01.avi"):
        (videos / path).parent.mkdir(parents=True)
        (videos / path).touch()
    catalogue = load_catalogue("ucf101", annotations=write_lists(tmp_path / "lists"), videos=videos)
    paths = {video.id: video.path for video in catalogue.videos}
    assert paths["HandstandPushups/v_HandStandPushups_g01_c01.avi"] == "HandStandPushups/v_HandstandPushups_g01_c01.avi"
    assert paths["Walk/v_Walk_g09_c01.avi"] == "Walk/v_Walk_g09_c01.avi"
    assert len(catalogue.notes) == 1
    assert "1 videos of HandstandPushups are spelled otherwise on disk" in catalogue.notes[0]
    found = check("ucf101", catalogue, videos)
    assert (len(found.missing), found.surplus, found.misnamed) == (2, (), ())


def test_ucf101_finds_videos_in_the_folder_of_the_archive(tmp_path: Path) -> None:
    inner = tmp_path / "UCF-101" / "Walk"
    inner.mkdir(parents=True)
    (inner / "v_Walk_g02_c01.avi").touch()
    catalogue = load_catalogue("ucf101", annotations=write_lists(tmp_path / "lists"), videos=tmp_path)
    assert {v.id: v.path for v in catalogue.videos}["Walk/v_Walk_g02_c01.avi"] == "UCF-101/Walk/v_Walk_g02_c01.avi"
    assert catalogue.notes == ()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("trainlist01", "Walk/v_Walk_g09_c01.avi\n", r"trainlist01\.txt:1: expected '<class>/<file> <class id>'"),
        ("trainlist01", "\nv_Walk_g09_c01.avi 2\n", r"trainlist01\.txt:2: expected"),
        ("trainlist01", "Walk/v_Walk_g09_c01.avi two\n", r"trainlist01\.txt:1: expected"),
        ("trainlist01", "Walk/v_Walk_g09_c01.avi 1\n", r"trainlist01\.txt:1: class id 1 contradicts .*'Walk'.* id 2"),
        ("testlist01", "Walc/v_Walk_g09_c01.avi\n", r"testlist01\.txt:1: the folder 'Walc' .* did you mean 'Walk'\?"),
        ("testlist01", "../Walk/x.avi\n", r"testlist01\.txt:1: expected '<class>/<file>'"),
        ("testlist01", TRAIN_LIST, r"testlist01\.txt:1: .* in the train list and the test list of one split"),
        ("testlist01", TEST_LIST + TEST_LIST, r"testlist01\.txt:3: .* twice in this list"),
        ("classInd", "1 Walk\n3 Run\n", r"classInd\.txt:1: class ids must run from 1 without a gap"),
        ("classInd", "Walk\n", r"classInd\.txt:1: expected '<id> <class>', found 'Walk'"),
        ("classInd", "1 Walk\n2 walk\n", r"classInd\.txt:2: class '2 walk' stands there twice"),
    ],
)
def test_ucf101_bad_lists_are_refused_with_file_and_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_catalogue("ucf101", annotations=write_lists(tmp_path, **{name: text}))


def test_ucf101_missing_or_binary_lists_are_refused(tmp_path: Path) -> None:
    lists = write_lists(tmp_path / "a")
    (lists / "testlist01.txt").unlink()
    with pytest.raises(MissingFileError, match=r"testlist01\.txt: this annotation file is missing"):
        load_catalogue("ucf101", annotations=lists)
    (lists / "trainlist01.txt").unlink()
    with pytest.raises(MissingFileError, match=r"there is no trainlist01\.txt"):
        load_catalogue("ucf101", annotations=lists)
    binary = write_lists(tmp_path / "b")
    (binary / "trainlist01.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UsageError, match=r"trainlist01\.txt: byte 0 is not UTF-8"):
        load_catalogue("ucf101", annotations=binary)


def test_ucf101_notes_counts_that_are_not_the_official_ones(shared_data: Path, tmp_path: Path) -> None:
    for name in ("classInd.txt", "trainlist01.txt", "testlist01.txt"):
        shutil.copyfile(shared_data / "annotations" / "ucf101" / name, tmp_path / name)
    text = (tmp_path / "trainlist01.txt").read_bytes()
    (tmp_path / "trainlist01.txt").write_bytes(text[text.index(b"\n") + 1 :])
    catalogue = load_catalogue("ucf101", annotations=tmp_path)
    assert catalogue.notes == ("split 1 has 9536 train and 3783 test videos, officially 9537 and 3783",)
