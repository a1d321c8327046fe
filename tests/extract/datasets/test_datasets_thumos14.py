"""The dataset `thumos14`: the official files in their three forms."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from vidatt.errors import MissingFileError, UsageError
from vidatt.extract.datasets.catalogue import AMBIGUOUS, TEST, TRAIN, Catalogue
from vidatt.extract.datasets.registry import check, describe, load_catalogue

pytestmark = pytest.mark.slow

DETECTION = {"task": "detection"}
IDS = (7, 9, 12, 21, 22, 23, 24, 26, 31, 33, 36, 40, 45, 51, 68, 79, 85, 92, 93, 97)
"""The 20 detection classes by their number among the 101: spec/heads.md, section 10."""


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "annotations" / "thumos14"


@pytest.fixture(scope="module")
def classification(folder: Path) -> Catalogue:
    return load_catalogue("thumos14", annotations=folder)


@pytest.fixture(scope="module")
def detection(folder: Path) -> Catalogue:
    return load_catalogue("thumos14", annotations=folder, options=DETECTION)


def test_thumos14_classification_counts_are_the_official_ones(classification: Catalogue) -> None:
    roles = classification.splits["1"]
    assert (int(np.sum(roles == TRAIN)), int(np.sum(roles == TEST))) == (1010, 1574)
    assert describe("thumos14").splits == {"1": (1010, 1574)}
    test = [video for video, role in zip(classification.videos, roles, strict=True) if role == TEST]
    assert sum(video.labels == () for video in test) == 480  # background: negatives of every class
    assert sum(len(video.labels) > 1 for video in test) == 171  # with secondary actions
    assert sum(len(video.labels) > 1 for video in classification.videos) == 171 + 137
    assert {label for video in test for label in video.labels[:1]} == set(range(101))
    assert classification.multi_label


def test_thumos14_classes_are_those_of_ucf101_in_its_order(classification: Catalogue, shared_data: Path) -> None:
    ucf101 = load_catalogue("ucf101", annotations=shared_data / "annotations" / "ucf101")
    assert classification.classes == ucf101.classes


def test_thumos14_a_background_video_does_not_show_what_it_was_found_by(classification: Catalogue) -> None:
    """The first test video is listed under BandMarching, and is background."""
    by_id = {video.id: video for video in classification.videos}
    assert by_id["video_test_0000001"].labels == ()
    # Primary action first: 53 is MilitaryParade with two secondary ones, indices from 0 here.
    assert by_id["video_validation_0000501"].labels == (52, 5, 26)
    assert classification.classes[52] == "MilitaryParade"


def test_thumos14_classification_carries_the_intervals(classification: Catalogue, detection: Catalogue) -> None:
    of_task = {video.id: video.intervals for video in classification.videos if video.intervals}
    assert set(of_task) == {video.id for video in detection.videos}
    for video in detection.videos:
        expected = [
            AMBIGUOUS if i.label == AMBIGUOUS else classification.classes.index(detection.classes[i.label])
            for i in video.intervals
        ]
        assert [i.label for i in of_task[video.id]] == expected
    assert classification.notes == (
        "30 annotated instances start after the video's end, 22 of them in video_test_0000270; they are kept",
    )


def test_thumos14_detection_counts_are_the_official_ones(
    detection: Catalogue, classification: Catalogue, folder: Path
) -> None:
    assert [classification.classes.index(name) + 1 for name in detection.classes] == list(IDS)
    listed = [line.split()[1] for line in (folder / "test/annotation/detclasslist.txt").read_text().split("\n") if line]
    assert list(detection.classes) == listed
    roles = detection.splits["1"]
    for role, videos, instances, unclear in ((TRAIN, 200, 3007, 89), (TEST, 213, 3358, 99)):
        part = [video for video, r in zip(detection.videos, roles, strict=True) if r == role]
        found = Counter(i.label for video in part for i in video.intervals)
        assert len(part) == videos
        assert found.pop(AMBIGUOUS) == unclear
        assert found.total() == instances
        assert set(found) == set(range(20))
    names = Counter(
        i.label for video, r in zip(detection.videos, roles, strict=True) if r == TEST for i in video.intervals
    )
    assert [names[detection.classes.index(name)] for name in ("CliffDiving", "Diving", "HammerThrow")] == [
        217,
        388,
        242,
    ]


def test_thumos14_detection_traps(detection: Catalogue, classification: Catalogue) -> None:
    test = {v.id: v for v, role in zip(detection.videos, detection.splits["1"], strict=True) if role == TEST}
    assert [id for id, video in test.items() if not video.labels] == ["video_test_0001292"]  # unclear ones only
    assert {i.label for i in test["video_test_0001292"].intervals} == {AMBIGUOUS}
    assert sum(len(video.labels) > 1 for video in test.values()) == 34
    # Classes that have instances, though the .mat does not list them for the video.
    listed = {v.id: {classification.classes[label] for label in v.labels} for v in classification.videos}
    extra = [v.id for v in detection.videos for label in v.labels if detection.classes[label] not in listed[v.id]]
    assert Counter(id.split("_")[1] for id in extra) == {"validation": 7, "test": 14}
    # Every CliffDiving is listed again under Diving.
    cliff, diving = (detection.classes.index(name) for name in ("CliffDiving", "Diving"))
    for video in test.values():
        stretches = {
            label: {(i.start_seconds, i.stop_seconds) for i in video.intervals if i.label == label}
            for label in (cliff, diving)
        }
        assert stretches[cliff] <= stretches[diving]


def test_thumos14_text_and_csv_forms_give_the_same_catalogue(
    detection: Catalogue, folder: Path, tmp_path: Path
) -> None:
    """The order of the instances of a class in a video counts as well: the official rule matches in that order."""
    for name in ("val_Annotation.csv", "test_Annotation.csv"):
        shutil.copy(folder / name, tmp_path)
    assert load_catalogue("thumos14", annotations=tmp_path, options=DETECTION).digest() == detection.digest()


def test_thumos14_seconds_are_read_and_frame_numbers_are_not(detection: Catalogue, folder: Path) -> None:
    """The csv counts frames at 30, 25 or 24 a second, the nominal rate: 76 test videos run at 29.97."""
    with (folder / "test_Annotation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rates = Counter(round(int(row["endFrame"]) / float(row["end"])) for row in rows)
    assert set(rates) == {24, 25, 30}
    meta = loadmat(str(folder / "test_set_meta.mat"), squeeze_me=True)["test_videos"]
    fps = Counter(round(float(video["frame_rate_FPS"]), 2) for video in meta)
    assert (fps[30.0], fps[29.97], fps.total()) == (1469, 76, 1574)
    seconds = {str(video["video_name"]): float(video["video_duration_seconds"]) for video in meta}
    late = Counter(row["video"][-7:] for row in rows if float(row["start"]) >= seconds[row["video"]])
    assert late == {"0000270": 22, "0000814": 3, "0001081": 1}
    of_csv = Counter((row["video"], float(row["start"]), float(row["end"])) for row in rows)
    of_test = [video for video, role in zip(detection.videos, detection.splits["1"], strict=True) if role == TEST]
    assert of_csv == Counter((v.id, i.start_seconds, i.stop_seconds) for v in of_test for i in v.intervals)


def test_thumos14_videos_are_found_by_name(folder: Path, tmp_path: Path) -> None:
    for path in ("val/video_validation_0000051.mkv", "TH14_test_set_mp4/video_test_0000004.mp4"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).touch()
    catalogue = load_catalogue("thumos14", annotations=folder, videos=tmp_path, options=DETECTION)
    paths = {video.id: video.path for video in catalogue.videos}
    assert paths["video_validation_0000051"] == "val/video_validation_0000051.mkv"
    assert paths["video_validation_0000052"] == "val/video_validation_0000052.mp4"
    assert paths["video_test_0000006"] == "TH14_test_set_mp4/video_test_0000006.mp4"
    found = check("thumos14", catalogue, tmp_path)
    assert (len(found.missing), found.surplus) == (411, ())


@pytest.mark.slow
def test_thumos14_trains_on_ucf101_or_on_both(folder: Path, shared_data: Path, tmp_path: Path) -> None:
    for name in ("validation_set.mat", "test_set_meta.mat"):
        shutil.copy(folder / name, tmp_path)
    with pytest.raises(MissingFileError, match=r"'ucf101': no classInd\.txt"):
        load_catalogue("thumos14", annotations=tmp_path, options={"train": "ucf101"})
    for name in ("classInd.txt", "trainlist01.txt", "testlist01.txt"):
        shutil.copy(shared_data / "annotations" / "ucf101" / name, tmp_path)
    for train, expected in (("ucf101", 13320), ("both", 14330)):
        catalogue = load_catalogue("thumos14", annotations=tmp_path, options={"train": train})
        roles = catalogue.splits["1"]
        assert (int(np.sum(roles == TRAIN)), int(np.sum(roles == TEST))) == (expected, 1574)
        assert "there are no temporal annotations, so no intervals" in catalogue.notes
    clip = catalogue.videos[-1]
    assert (clip.id, clip.path) == ("YoYo/v_YoYo_g25_c05.avi", "UCF101/YoYo/v_YoYo_g25_c05.avi")
    assert (catalogue.classes[clip.labels[0]], clip.group) == ("YoYo", "YoYo_g25")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Diving_test.txt", "video_test_0000006 1.0\n", r"Diving_test\.txt:1: expected '<video> <start> <stop>'"),
        (
            "Diving_test.txt",
            "../video 1.0 2.0\n",
            r"Diving_test\.txt:1: expected a video name of THUMOS14, found '\.\./",
        ),
        ("Diving_test.txt", "video_test_0000006 2.0 2.0\n", r"Diving_test\.txt:1: expected seconds, the stop after"),
        ("Diving_test.txt", "video_test_0000006 nan 2.0\n", r"Diving_test\.txt:1: expected seconds"),
        ("Dive_test.txt", "", r"Dive_test\.txt: 'Dive' is no detection class"),
        ("detclasslist.txt", "Diving\n", r"detclasslist\.txt:1: expected '<index> <class>'"),
    ],
)
def test_thumos14_bad_annotations_are_refused(folder: Path, tmp_path: Path, name: str, text: str, message: str) -> None:
    shutil.copytree(folder / "test", tmp_path / "test", copy_function=shutil.copyfile)
    (tmp_path / "test" / "annotation").chmod(0o755)
    (tmp_path / "test" / "annotation" / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        load_catalogue("thumos14", annotations=tmp_path, options=DETECTION)


def test_thumos14_videos_of_a_single_label_are_those_of_where_and_when(folder: Path, detection: Catalogue) -> None:
    """Counts of the authors' lists of windows: 167 videos, 2,137 windows to train on, 174 and 2,326 to test on."""
    single = load_catalogue("thumos14", annotations=folder, options={**DETECTION, "labels": "single"})
    assert not single.multi_label
    assert single.classes == detection.classes
    by_id = {video.id: video for video in detection.videos}
    assert all(video.intervals == by_id[video.id].intervals for video in single.videos)
    assert {len(video.labels) for video in single.videos} == {1}
    unlike = {v.id for v in single.videos if v.labels[0] not in by_id[v.id].labels}
    assert unlike == {"video_test_0001496"}  # FrisbeeCatch, with stretches of CricketShot
    for part, role, videos, windows in (("validation_set", TRAIN, 167, 2137), ("test_set_meta", TEST, 174, 2326)):
        records = next(v for k, v in loadmat(folder / f"{part}.mat", simplify_cells=True).items() if k[0] != "_")
        seconds = {record["video_name"]: float(record["video_duration_seconds"]) for record in records}
        mine = [v for v, r in zip(single.videos, single.splits["1"], strict=True) if r == role]
        spans = [(v.id, i) for v in mine for i in v.intervals if i.label != AMBIGUOUS]
        assert (len(mine), sum(i.start_seconds < seconds[id] for id, i in spans)) == (videos, windows)
    with pytest.raises(UsageError, match=r"labels='single' .* is one of task=detection"):
        load_catalogue("thumos14", annotations=folder, options={"labels": "single"})


def test_thumos14_missing_files_and_wrong_options_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"holds no validation_set\.mat"):
        load_catalogue("thumos14", annotations=tmp_path)
    with pytest.raises(MissingFileError, match=r"neither detclasslist\.txt nor val_Annotation\.csv"):
        load_catalogue("thumos14", annotations=tmp_path, options=DETECTION)
    shutil.copy(folder / "test" / "annotation" / "detclasslist.txt", tmp_path)
    with pytest.raises(UsageError, match=r"holds no <Class>_val\.txt"):
        load_catalogue("thumos14", annotations=tmp_path, options=DETECTION)
    shutil.copy(folder / "test" / "annotation" / "Diving_test.txt", tmp_path)
    with pytest.raises(MissingFileError, match=r"no BaseballPitch_test\.txt; put all 21 there"):
        load_catalogue("thumos14", annotations=tmp_path, options=DETECTION)
    with pytest.raises(UsageError, match=r"task='detect' .* must be one of classification, detection"):
        load_catalogue("thumos14", annotations=folder, options={"task": "detect"})
    with pytest.raises(UsageError, match=r"train='both' .* is one of task=classification"):
        load_catalogue("thumos14", annotations=folder, options={"task": "detection", "train": "both"})
