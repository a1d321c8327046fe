"""The dataset `ucf101-24`: both official annotation files, and pickles that would do harm."""

from __future__ import annotations

import os
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from vidatt.errors import MissingFileError, UsageError
from vidatt.extract.datasets.catalogue import TEST, TRAIN, UNUSED, Catalogue
from vidatt.extract.datasets.plain_pickle import read_plain_pickle
from vidatt.extract.datasets.registry import describe, load_catalogue
from vidatt.extract.datasets.ucf101_24 import read_tubes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "annotations" / "ucf101_24"


@pytest.fixture(scope="module")
def official(folder: Path) -> Catalogue:
    return load_catalogue("ucf101-24", annotations=folder, options={"form": "mat"})


@pytest.mark.slow
def test_ucf101_24_counts_are_the_official_ones(official: Catalogue) -> None:
    assert len(official.classes) == 24
    assert official.classes == tuple(sorted(official.classes))
    roles = official.splits["1"]
    assert [int(np.sum(roles == role)) for role in (UNUSED, TRAIN, TEST)] == [0, 2284, 910]
    assert describe("ucf101-24").splits == {"1": (2284, 910)}
    assert sum(len(video.boxes) for video in official.videos) == 573_862
    assert max(max(Counter(box.frame for box in video.boxes).values()) for video in official.videos) == 6
    assert sum(len(video.intervals) for video in official.videos) == 4170  # 4,458 tubes; actors in step are one
    assert all(video.labels[0] == box.label for video in official.videos for box in video.boxes[:1])
    assert "no trainlist01.txt" in official.notes[0]


def test_ucf101_24_boxes_are_cast_before_they_are_added(official: Catalogue, folder: Path) -> None:
    """MATLAB's numbers, read independently: 71,526 boxes would wrap at 256 if they stayed uint8."""
    raw = loadmat(str(folder / "finalAnnots.mat"))["annot"].ravel()
    tubes = [tube for entry in raw for tube in entry["tubes"].ravel()]
    assert len(tubes) == 4458
    dtypes = [tube["boxes"].dtype.name for tube in tubes]
    assert (dtypes.count("uint8"), dtypes.count("uint16")) == (4291, 167)
    wide = {str(entry["name"][0]): [t["boxes"].astype(float) for t in entry["tubes"].ravel()] for entry in raw}
    boxes = np.concatenate([b for of_video in wide.values() for b in of_video])
    assert int(np.sum(boxes[:, 0] + boxes[:, 2] > 255)) == 71_526
    for video in official.videos[::400]:
        expected = np.concatenate(wide[video.id.removesuffix(".avi")])
        found = np.array([[b.x1, b.y1, b.x2, b.y2] for b in video.boxes]) * [320, 240, 320, 240]
        np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=1e-9)
        np.testing.assert_allclose(found[:, 2:], expected[:, :2] + expected[:, 2:], atol=1e-9)
    # Every one of the boxes lies in its frame, the last pixel included.
    corners = np.array([(b.x1, b.y1, b.x2, b.y2) for video in official.videos for b in video.boxes])
    assert corners.min() > 0
    assert corners.max() == 1.0


def test_ucf101_24_tubes_are_0_based_and_half_open(official: Catalogue) -> None:
    """The .mat says sf 9, ef 52 with 44 boxes: both counted from 1 and both inside."""
    video = next(video for video in official.videos if video.id == "Basketball/v_Basketball_g01_c01.avi")
    assert (video.boxes[0].frame, video.boxes[-1].frame, len(video.boxes)) == (8, 51, 44)
    assert [(i.start_seconds, i.stop_seconds, i.label) for i in video.intervals] == [(8 / 25, 52 / 25, 0)]
    assert video.group == "Basketball_g01"


def test_ucf101_24_both_files_give_the_same_tubes(folder: Path) -> None:
    """The pickle counts sf from 0 and gives the first frame after the tube as ef; all 4,458 tubes agree."""
    matlab, pickled = read_tubes(folder / "finalAnnots.mat"), read_tubes(folder / "pyannot.pkl")
    assert matlab.keys() == pickled.keys()
    pairs = [pair for name in matlab for pair in zip(matlab[name], pickled[name], strict=True)]
    assert len(pairs) == 4458
    assert max(map(len, matlab.values())) == 10
    for a, b in pairs:
        assert (a.first, a.stop, a.label) == (b.first, b.stop, b.label)
        np.testing.assert_array_equal(a.boxes, b.boxes)


@pytest.mark.slow
def test_ucf101_24_lists_of_ucf101_name_13_videos_without_annotation(
    official: Catalogue, folder: Path, shared_data: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "pyannot.pkl", tmp_path)
    for name in ("trainlist01.txt", "testlist01.txt"):
        shutil.copy(shared_data / "annotations" / "ucf101" / name, tmp_path)
    catalogue = load_catalogue("ucf101-24", annotations=tmp_path)
    assert catalogue.splits["1"].tolist() == official.splits["1"].tolist()
    assert catalogue.notes == ("13 listed videos have no annotation and are left out, such as Diving/v_Diving_g19_c02",)
    assert catalogue.videos == official.videos


def small(folder: Path, *, tubes: Any = None, lists: dict[str, str] | None = None) -> Path:
    """Two videos of two classes in the pickle's form."""
    folder.mkdir(parents=True, exist_ok=True)
    boxes = np.array([[200, 10, 100, 20]] * 3, dtype=np.uint8)
    tubes = tubes or [{"label": 0, "sf": 1, "ef": 4, "boxes": boxes}]
    content = {
        "Run/v_Run_g01_c01": {"annotations": tubes, "numf": 9, "label": 0},
        "Walk/v_Walk_g02_c01": {"annotations": [{"label": 1, "sf": 0, "ef": 3, "boxes": boxes}], "numf": 9, "label": 1},
    }
    (folder / "pyannot.pkl").write_bytes(pickle.dumps(content, protocol=2))
    for name, text in ({"testlist01": "Walk/v_Walk_g02_c01\n"} | (lists or {})).items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_ucf101_24_reads_the_lists_of_ucf101_and_leaves_out_what_has_no_annotation(tmp_path: Path) -> None:
    lists = {
        "testlist01": "Walk/v_Walk_g02_c01.avi\nWalk/v_Walk_g03_c01.avi\nYoYo/v_YoYo_g01_c01.avi\n",
        "trainlist01": "Run/v_Run_g09_c01.avi 1\nYoYo/v_YoYo_g08_c01.avi 3\n",
    }
    catalogue = load_catalogue("ucf101-24", annotations=small(tmp_path, lists=lists), options={"fps": "29.97"})
    assert [video.id for video in catalogue.videos] == ["Run/v_Run_g01_c01.avi", "Walk/v_Walk_g02_c01.avi"]
    assert catalogue.splits["1"].tolist() == [UNUSED, TEST]
    assert catalogue.notes == ("2 listed videos have no annotation and are left out, such as Run/v_Run_g09_c01",)
    box = catalogue.videos[0].boxes[0]
    assert (box.frame, box.x1, box.x2) == (1, 200 / 320, 300 / 320)
    assert catalogue.videos[0].intervals[0].stop_seconds == pytest.approx(4 / 29.97)


def test_ucf101_24_follows_ucf101s_spelling_on_disk(tmp_path: Path) -> None:
    videos = tmp_path / "v"
    (videos / "UCF-101" / "Run").mkdir(parents=True)
    (videos / "UCF-101" / "Run" / "v_Run_g01_c01.avi").touch()
    catalogue = load_catalogue("ucf101-24", annotations=small(tmp_path / "a"), videos=videos)
    assert [v.path for v in catalogue.videos] == ["UCF-101/Run/v_Run_g01_c01.avi", "Walk/v_Walk_g02_c01.avi"]


BOXES = np.ones((3, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("tube", "message"),
    [
        (
            {"label": 1, "sf": 1, "ef": 4, "boxes": BOXES},
            "a tube of Run/v_Run_g01_c01 has class 1 of 2, .*not its folder",
        ),
        ({"label": 0, "sf": 1, "ef": 5, "boxes": BOXES}, r"a tube of 4 frames with boxes \(3, 4\)"),
        ({"label": 0, "sf": -1, "ef": 2, "boxes": BOXES}, "a tube of 3 frames"),
        ({"label": 0, "sf": 1, "boxes": BOXES}, "does not hold the annotations"),
    ],
)
def test_ucf101_24_wrong_tubes_are_refused(tmp_path: Path, tube: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_catalogue("ucf101-24", annotations=small(tmp_path, tubes=[tube]))


def test_ucf101_24_wrong_files_and_options_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no finalAnnots\.mat or pyannot\.pkl"):
        load_catalogue("ucf101-24", annotations=tmp_path)
    small(tmp_path)
    with pytest.raises(UsageError, match=r"form='mat' .* must be one of pkl"):
        load_catalogue("ucf101-24", annotations=tmp_path, options={"form": "mat"})
    with pytest.raises(UsageError, match=r"fps='0' .* must be frames per second"):
        load_catalogue("ucf101-24", annotations=tmp_path, options={"fps": "0"})
    small(tmp_path, lists={"trainlist01": "Walk/v_Walk_g02_c01\n"})
    with pytest.raises(UsageError, match=r"trainlist01\.txt: Walk/v_Walk_g02_c01 stands in testlist01\.txt too"):
        load_catalogue("ucf101-24", annotations=tmp_path)
    (tmp_path / "testlist01.txt").unlink()
    with pytest.raises(MissingFileError, match=r"testlist01\.txt: this annotation file is missing"):
        load_catalogue("ucf101-24", annotations=tmp_path)
    savemat(str(tmp_path / "finalAnnots.mat"), {"annots": 1})
    with pytest.raises(UsageError, match=r"finalAnnots\.mat holds no structure 'annot' with name, tubes"):
        load_catalogue("ucf101-24", annotations=tmp_path)
    (tmp_path / "finalAnnots.mat").write_bytes((folder / "finalAnnots.mat").read_bytes()[:5000])
    with pytest.raises(UsageError, match=r"finalAnnots\.mat is no MATLAB file, or damaged"):
        load_catalogue("ucf101-24", annotations=tmp_path)


class _Harm:
    """What a hostile file would hold: a call that runs as soon as it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return self._call


def _harms(proof: Path) -> Iterator[tuple[str, object]]:
    yield r"posix\.system", _Harm(os.system, f"touch {proof}")
    yield r"(builtins|__builtin__)\.eval", _Harm(eval, f"open({str(proof)!r}, 'w')")
    yield r"(builtins|__builtin__)\.getattr", _Harm(getattr, np.ndarray, "tofile")
    yield r"shutil\.rmtree", {"Run/v_Run_g01_c01": [_Harm(shutil.rmtree, str(proof.parent))]}
    yield r"numpy[\w.]*\.load", _Harm(np.load, str(proof))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_plain_pickle_refuses_everything_but_numpy_and_plain_types_by_name(tmp_path: Path, protocol: int) -> None:
    proof = tmp_path / "executed"
    for name, harm in _harms(proof):
        path = tmp_path / "pyannot.pkl"
        path.write_bytes(pickle.dumps({"x": harm}, protocol=protocol))
        with pytest.raises(UsageError, match=f"asks to import {name}, which no annotation file needs"):
            load_catalogue("ucf101-24", annotations=tmp_path)
        assert not proof.exists()
    # The same bytes do harm when plain pickle reads them: the test would notice.
    path.write_bytes(pickle.dumps(_Harm(os.system, f"touch {proof}"), protocol=protocol))
    pickle.loads(path.read_bytes())  # noqa: S301
    assert proof.exists()


@pytest.mark.parametrize("protocol", [2, 5])
def test_plain_pickle_reads_arrays_scalars_and_plain_types(tmp_path: Path, protocol: int) -> None:
    content = {"a": np.arange(6.0).reshape(2, 3), "b": [np.uint8(7), 1, 2.5, "ü", None, True, (1, {2}, b"x")]}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_plain_pickle(tmp_path / "x.pkl")
    np.testing.assert_array_equal(found["a"], content["a"])
    assert found["b"] == content["b"]


def test_plain_pickle_names_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    whole = pickle.dumps({"a": np.arange(99)}, protocol=2)
    for content in (b"", b"not a pickle", whole[:-20], b"garbage" + whole):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"x\.pkl is no pickle of annotations, or damaged"):
            read_plain_pickle(path)
    with pytest.raises(MissingFileError, match=r"y\.pkl: this annotation file is missing"):
        read_plain_pickle(tmp_path / "y.pkl")
