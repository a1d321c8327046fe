"""CCV, the Columbia Consumer Videos: YouTube ids and rows of 0/1, one per category."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .annotation_files import find_annotations, line_error, read_lines, usual_places
from .catalogue import TEST, TRAIN, Catalogue, Video
from .dataset import Dataset, DatasetInfo
from .found_files import SUFFIX_OPTION, follow_names, read_suffix

INFO = DatasetInfo(
    name="ccv",
    summary="CCV: 9,317 untrimmed consumer videos of 20 categories, several or none to a video",
    layout="""\
VIDEOS/                              --videos
    1MdlncaU5JE.mp4, ...             <YouTube id>.<any ending>, in any folders below; ids are case-sensitive
ANNOTATIONS/                         --annotations; else VIDEOS/annotations, VIDEOS or VIDEOS/../annotations
    categoryName.txt                 the 20 categories
    trainVidID.txt, trainLabel.txt   4,659 ids, and a row of 20 times 0 or 1 for each
    testVidID.txt, testLabel.txt     4,658""",
    source="DVMM Lab, Columbia University, CCV page: the lists; the videos are on YouTube, many are gone",
    classes=20,
    videos=9317,
    splits={"1": (4659, 4658)},
    options=SUFFIX_OPTION,
    protocol="map",
)

_ID = re.compile(r"[A-Za-z0-9_-]+")


def load(*, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """Read the official lists; videos are found by their YouTube id. A row without a 1 is a video of no category."""
    suffix = read_suffix(INFO.name, options)
    folder = find_annotations(INFO.name, annotations, usual_places(videos), "categoryName.txt")
    classes = tuple(name for _, name in read_lines(folder / "categoryName.txt"))
    ids: list[str] = []
    labels: list[tuple[int, ...]] = []
    roles: list[int] = []
    for part, role in (("train", TRAIN), ("test", TEST)):
        found = _read_ids(folder / f"{part}VidID.txt")
        rows = _read_labels(folder / f"{part}Label.txt", len(classes))
        if len(found) != len(rows):
            path = folder / f"{part}Label.txt"
            raise line_error(path, len(rows), f"{len(rows)} rows for the {len(found)} ids of {part}VidID.txt.")
        ids += found
        labels += rows
        roles += [role] * len(found)
    paths, notes = follow_names([f"{id}{suffix}" for id in ids], videos)
    entries = tuple(Video(id=id, path=path, labels=row) for id, path, row in zip(ids, paths, labels, strict=True))
    return Catalogue(
        name=INFO.name, classes=classes, videos=entries, splits={"1": np.array(roles, dtype=np.int8)},
        multi_label=True, notes=notes,
    )  # fmt: skip


def _read_ids(path: Path) -> list[str]:
    lines = read_lines(path)
    for number, line in lines:
        if not _ID.fullmatch(line):
            raise line_error(path, number, f"expected a YouTube id, found {line!r}.")
    return [line for _, line in lines]


def _read_labels(path: Path, classes: int) -> list[tuple[int, ...]]:
    rows = []
    for number, line in read_lines(path):
        cells = line.split()
        if len(cells) != classes or not set(cells) <= {"0", "1"}:
            raise line_error(path, number, f"expected {classes} times 0 or 1, found {line!r}.")
        rows.append(tuple(index for index, cell in enumerate(cells) if cell == "1"))
    return rows


DATASET = Dataset(info=INFO, load=load)
