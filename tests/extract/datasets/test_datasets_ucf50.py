"""The dataset `ucf50`: a folder whose file names hold the groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidatt.errors import MissingFileError, UsageError
from vidatt.extract.datasets.catalogue import TEST, TRAIN
from vidatt.extract.datasets.registry import check, load_catalogue


@pytest.fixture
def videos(shared_data: Path, tmp_path: Path) -> Path:
    """The real class names with 25 groups of two clips; the clips of Billiards are misspelt as in the archive."""
    names = (shared_data / "annotations" / "ucf50" / "class_names.txt").read_text().split()
    assert len(names) == 50
    for name in names:
        folder = tmp_path / "v" / "UCF50" / name
        folder.mkdir(parents=True)
        stem = "Billards" if name == "Billiards" else name
        for group in range(1, 26):
            for clip in (1, 2):
                (folder / f"v_{stem}_g{group:02d}_c{clip:02d}.avi").touch()
    return tmp_path / "v"


def test_ucf50_has_25_folds_that_leave_one_group_out(videos: Path) -> None:
    catalogue = load_catalogue("ucf50", videos=videos)
    assert len(catalogue.classes) == 50
    assert list(catalogue.classes) == sorted(catalogue.classes)
    assert len(catalogue.videos) == 2500
    assert list(catalogue.splits) == [f"g{group:02d}" for group in range(1, 26)]
    for name, roles in catalogue.splits.items():
        test = [video for video, role in zip(catalogue.videos, roles, strict=True) if role == TEST]
        assert len(test) == 100
        assert {video.group.rpartition("_")[2] for video in test} == {name}
        assert {video.labels for video in test} == {(label,) for label in range(50)}
        assert int(np.sum(roles == TRAIN)) == 2400
    assert np.all(np.sum([roles == TEST for roles in catalogue.splits.values()], axis=0) == 1)
    assert len({video.group for video in catalogue.videos}) == 50 * 25
    assert catalogue.notes == ()
    by_id = {video.id: video for video in catalogue.videos}
    odd = by_id["Billiards/v_Billards_g07_c02.avi"]
    assert (odd.path, odd.group) == ("UCF50/Billiards/v_Billards_g07_c02.avi", "Billiards_g07")
    found = check("ucf50", catalogue, videos)
    assert (found.missing, found.surplus, found.misnamed, found.outside) == ((), (), (), ())


@pytest.mark.slow
def test_ucf50_notes_classes_without_25_groups_and_videos_without_a_group(videos: Path) -> None:
    for path in (videos / "UCF50" / "Biking").glob("*_g2[45]_*"):
        path.unlink()
    (videos / "UCF50" / "Biking" / "extra.avi").touch()
    catalogue = load_catalogue("ucf50", videos=videos)
    assert len(catalogue.videos) == 2496
    assert catalogue.notes == (
        "1 videos without _gNN_cNN in the name are left out, such as UCF50/Biking/extra.avi",
        "1 classes have not 25 groups each, such as Biking with 23",
    )


def test_ucf50_class_file_keeps_the_labels_of_a_folder_that_is_partly_there(
    videos: Path, shared_data: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    part.mkdir()
    (videos / "UCF50" / "YoYo").rename(part / "YoYo")
    alone = load_catalogue("ucf50", videos=part)
    assert alone.classes == ("YoYo",)
    assert alone.notes[0] == "there are 1 classes, officially 50"
    catalogue = load_catalogue("ucf50", videos=part, annotations=shared_data / "annotations" / "ucf50")
    assert {video.labels for video in catalogue.videos} == {(49,)}
    (part / "YoYo").rename(part / "JoJo")
    with pytest.raises(UsageError, match=r"JoJo is no class of .*class_names\.txt"):
        load_catalogue("ucf50", videos=part, annotations=shared_data / "annotations" / "ucf50")


def test_ucf50_without_videos_or_class_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name it with --videos"):
        load_catalogue("ucf50")
    (tmp_path / "Run").mkdir()
    (tmp_path / "Run" / "a.avi").touch()
    with pytest.raises(MissingFileError, match="holds no videos named like"):
        load_catalogue("ucf50", videos=tmp_path)
    (tmp_path / "Run" / "v_Run_g01_c01.avi").touch()
    with pytest.raises(MissingFileError, match=r"holds no class_names\.txt"):
        load_catalogue("ucf50", videos=tmp_path, annotations=tmp_path)
