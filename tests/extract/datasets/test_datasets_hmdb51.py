"""The dataset `hmdb51`: the official lists, and lists that are damaged."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from vidatt.errors import MissingFileError, UsageError
from vidatt.extract.datasets.catalogue import TEST, TRAIN, UNUSED, Catalogue
from vidatt.extract.datasets.registry import check, describe, load_catalogue


@pytest.fixture(scope="module")
def official(shared_data: Path) -> Catalogue:
    return load_catalogue("hmdb51", annotations=shared_data / "annotations" / "hmdb51")


def write(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "run_test_split1": "a_b_run_f_cm_np1_ba_bad_0.avi 1 \nc_run_f_cm_np1_ba_bad_0.avi 2 \n",
        "sit_test_split1": "a_b_sit_u_nm_np10_fr_goo_11.avi 0 \nd!_(x)_sit_u_nm_np1_fr_goo_1.avi 1 \n",
    } | texts
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_hmdb51_counts_are_the_official_ones(official: Catalogue) -> None:
    assert len(official.classes) == 51
    assert len(official.videos) == 6766
    counts = {
        name: [int(np.sum(roles == role)) for role in (UNUSED, TRAIN, TEST)] for name, roles in official.splits.items()
    }
    assert counts == {"1": [1666, 3570, 1530], "2": [1666, 3570, 1530], "3": [1666, 3570, 1530]}
    labels = np.array([video.labels[0] for video in official.videos])
    for roles in official.splits.values():
        assert set(np.bincount(labels[roles == TRAIN])) == {70}
        assert set(np.bincount(labels[roles == TEST])) == {30}
    assert describe("hmdb51").splits == {name: (train, test) for name, (_, train, test) in counts.items()}
    assert official.notes == ()


def test_hmdb51_classes_are_sorted_which_the_list_files_and_the_class_list_are_not(
    official: Catalogue, shared_data: Path
) -> None:
    folder = shared_data / "annotations" / "hmdb51"
    assert list(official.classes) == sorted(official.classes)
    files = sorted(path.name for path in (folder / "testTrainMulti_7030_splits").iterdir())
    by_file = list(dict.fromkeys(re.sub(r"_test_split\d\.txt", "", name) for name in files))
    assert [i for i, (a, b) in enumerate(zip(by_file, official.classes, strict=True)) if a != b] == [
        5, 6, 20, 21, 44, 45,
    ]  # fmt: skip
    listed = [line.strip() for line in (folder / "class_list.txt").read_text().split("\n") if line.strip()]
    assert sorted(listed) == list(official.classes)
    assert [i for i, (a, b) in enumerate(zip(listed, official.classes, strict=True)) if a != b] == [20, 21, 44, 45]


def test_hmdb51_groups_are_the_sources(official: Catalogue) -> None:
    groups = {video.id: video.group for video in official.videos}
    assert len(set(groups.values())) == 1407
    assert "" not in groups.values()
    # The trap of the names: ten people are np10, and 7 clips of the set have them.
    assert sum("_np10_" in id for id in groups) == 7
    assert groups["sit/TheBoondockSaints_sit_u_nm_np10_ba_med_0.avi"] == "TheBoondockSaints"
    assert sum(group == "TheBoondockSaints" for group in groups.values()) == 125
    name = "brush_hair/Brushing_Her_Hair__[_NEW_AUDIO_]_UPDATED!!!!_brush_hair_h_cm_np1_fr_goo_0.avi"
    assert groups[name] == "Brushing_Her_Hair__[_NEW_AUDIO_]_UPDATED!!!!"
    assert {char for id in groups for char in id if not re.match(r"[\w./-]", char)} == set("!#&()+;@[]~")
    for roles in official.splits.values():  # within a class, no source is in both parts
        train, test = (
            {(v.labels, v.group) for v, r in zip(official.videos, roles, strict=True) if r == role}
            for role in (TRAIN, TEST)
        )
        assert not train & test


def test_hmdb51_finds_lists_and_videos_in_the_folders_of_the_archives(tmp_path: Path) -> None:
    videos = tmp_path / "v"
    write(videos / "annotations" / "testTrainMulti_7030_splits")
    for path in ("hmdb51_org/run/c_run_f_cm_np1_ba_bad_0.avi", "hmdb51_org/sit/D!_(x)_sit_u_nm_np1_fr_goo_1.avi"):
        (videos / path).parent.mkdir(parents=True, exist_ok=True)
        (videos / path).touch()
    catalogue = load_catalogue("hmdb51", videos=videos)
    assert [video.path for video in catalogue.videos] == [
        "run/a_b_run_f_cm_np1_ba_bad_0.avi",
        "hmdb51_org/run/c_run_f_cm_np1_ba_bad_0.avi",
        "sit/a_b_sit_u_nm_np10_fr_goo_11.avi",
        "hmdb51_org/sit/D!_(x)_sit_u_nm_np1_fr_goo_1.avi",
    ]
    assert [video.group for video in catalogue.videos] == ["a_b", "c", "a_b", "d!_(x)"]
    assert "1 videos of sit are spelled otherwise on disk" in catalogue.notes[0]
    found = check("hmdb51", catalogue, videos)
    assert (len(found.missing), found.surplus, found.misnamed, found.outside) == (2, (), (), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.avi 3 \n", r"run_test_split1\.txt:1: expected '<file> 0\|1\|2'"),
        ("a.avi\n", r"run_test_split1\.txt:1: expected"),
        ("../../a.avi 1\n", r"run_test_split1\.txt:1: expected '<file> .* found '../../a\.avi 1'"),
        ("/etc/a.avi 1\n", r"run_test_split1\.txt:1: expected"),
        ("a.avi 1\n\na.avi 2\n", r"run_test_split1\.txt:3: a\.avi stands there twice"),
    ],
)
def test_hmdb51_bad_lines_are_refused_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_catalogue("hmdb51", annotations=write(tmp_path, run_test_split1=text))


def test_hmdb51_a_missing_list_is_named(tmp_path: Path, shared_data: Path) -> None:
    folder = tmp_path / "testTrainMulti_7030_splits"
    shutil.copytree(shared_data / "annotations" / "hmdb51" / "testTrainMulti_7030_splits", folder)
    (folder / "kick_test_split2.txt").unlink()
    with pytest.raises(MissingFileError, match=r"kick_test_split2\.txt: this annotation file is missing"):
        load_catalogue("hmdb51", annotations=tmp_path)
    with pytest.raises(MissingFileError, match=r"no testTrainMulti_7030_splits or brush_hair_test_split1\.txt"):
        load_catalogue("hmdb51", annotations=tmp_path / "nowhere")
