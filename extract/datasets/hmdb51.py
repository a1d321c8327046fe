"""HMDB51: `<class>_test_split<k>.txt` with a role per video."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...errors import MissingFileError
from .annotation_files import find_annotations, line_error, read_lines, usual_places
from .catalogue import TEST, TRAIN, UNUSED, Catalogue, Video
from .dataset import Dataset, DatasetInfo
from .found_files import follow_spelling

LISTS = "testTrainMulti_7030_splits"
INFO = DatasetInfo(
    name="hmdb51",
    summary="HMDB51: 6,766 trimmed clips of 51 actions from films and the web, three splits",
    layout="""\
VIDEOS/                             --videos
    brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi  one folder per class (or VIDEOS/hmdb51_org/brush_hair/...);
    ...                             names hold ( ) [ ] ! # & + ; @ ~, so unpack with a tool that keeps them
ANNOTATIONS/                        --annotations; else VIDEOS/annotations, VIDEOS or VIDEOS/../annotations
    testTrainMulti_7030_splits/     or the files themselves
        brush_hair_test_split1.txt, brush_hair_test_split2.txt, ...  51 classes x 3 splits""",
    source="Serre Lab, Brown University, HMDB data set page: hmdb51_org.rar (videos, one archive per class inside) and "
    "test_train_splits.rar (lists)",
    classes=51,
    videos=6766,
    splits={"1": (3570, 1530), "2": (3570, 1530), "3": (3570, 1530)},
    protocol="accuracy-mean-of-splits",
)

_LIST = re.compile(r"(.+)_test_split(\d+)\.txt")
_ROLES = {"0": UNUSED, "1": TRAIN, "2": TEST}
# The clip's name goes on with body part, camera motion, number of people, view, quality and a number.
_SOURCE = re.compile(r"(?P<source>.+)_[a-z]_[a-z]{2}_np\d+_[a-z]{2}_[a-z]{3}_\d+\.\w+")


def load(*, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """Read the official lists; with `videos`, follow files that are spelled otherwise on disk.

    Classes are sorted by name. That is not the order of the list files (climb_stairs_... stands before climb_test_...).
    """
    first = "brush_hair_test_split1.txt"
    folder = annotations
    if folder is None or not folder.is_dir():
        folder = find_annotations(INFO.name, annotations, usual_places(videos), LISTS, first)
    if (folder / LISTS).is_dir():
        folder = folder / LISTS
    lists = {(match[1], match[2]): path for path in folder.iterdir() if (match := _LIST.fullmatch(path.name))}
    if not lists:
        raise MissingFileError(f"{folder} holds no <class>_test_split<k>.txt; put the official lists there.")
    classes = tuple(sorted({name for name, _ in lists}))
    numbers = sorted({number for _, number in lists})
    rows: dict[str, int] = {}
    roles: list[dict[str, int]] = []
    for label, name in enumerate(classes):
        for number in numbers:
            if (name, number) not in lists:
                raise MissingFileError(f"{folder / f'{name}_test_split{number}.txt'}: this annotation file is missing.")
            for path, role in _read_list(lists[name, number], name).items():
                row = rows.setdefault(path, len(roles))
                if row == len(roles):
                    roles.append({"label": label})
                roles[row][number] = role
    order = sorted(rows, key=lambda path: (roles[rows[path]]["label"], path))
    paths, notes = (order, ()) if videos is None else follow_spelling(order, videos, archive="hmdb51_org/")
    entries = tuple(
        Video(id=id, path=path, labels=(roles[rows[id]]["label"],), group=_source(id))
        for id, path in zip(order, paths, strict=True)
    )
    splits = {
        number: np.array([roles[rows[id]].get(number, UNUSED) for id in order], dtype=np.int8) for number in numbers
    }
    return Catalogue(name=INFO.name, classes=classes, videos=entries, splits=splits, notes=notes)


def _read_list(path: Path, name: str) -> dict[str, int]:
    """Return path -> role of one class in one split."""
    found: dict[str, int] = {}
    for number, line in read_lines(path):
        file, _, role = line.rpartition(" ")
        file = file.strip()
        if role not in _ROLES or not file or "/" in file:
            raise line_error(path, number, f"expected '<file> 0|1|2' (unused, train, test), found {line!r}.")
        if f"{name}/{file}" in found:
            raise line_error(path, number, f"{file} stands there twice; keep one of the lines.")
        found[f"{name}/{file}"] = _ROLES[role]
    return found


def _source(id: str) -> str:
    """Return the film or web video that a clip was cut from: the name before the class and the six attributes."""
    folder, name = id.split("/")
    match = _SOURCE.fullmatch(name)
    return match["source"].removesuffix(f"_{folder}") if match else ""


DATASET = Dataset(info=INFO, load=load)
