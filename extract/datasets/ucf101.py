"""UCF101 and everything in its format: `classInd.txt`, `trainlist0k.txt` and `testlist0k.txt`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import MissingFileError
from .annotation_files import find_annotations, line_error, nearest_class, read_lines
from .catalogue import TEST, TRAIN, UNUSED, Catalogue, Video
from .dataset import Dataset, DatasetInfo
from .found_files import follow_spelling
from .video_files import spelling_key

INFO = DatasetInfo(
    name="ucf101",
    summary="UCF101: 13,320 trimmed clips of 101 actions, three splits; also any set with lists in its format",
    layout="""\
VIDEOS/                                          --videos
    ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi  one folder per class (or VIDEOS/UCF-101/ApplyEyeMakeup/...)
    ...
ANNOTATIONS/                                     --annotations; else the first of VIDEOS/ucfTrainTestlist,
    classInd.txt                                 VIDEOS/annotations, VIDEOS, VIDEOS/../ucfTrainTestlist and
    trainlist01.txt, testlist01.txt              VIDEOS/../annotations that holds classInd.txt
    trainlist02.txt, testlist02.txt, ...""",
    source="UCF Center for Research in Computer Vision, data set page of UCF101: the archives UCF101 (videos) and "
    "'The Train/Test Splits for Action Recognition on UCF101 data set' (lists)",
    classes=101,
    videos=13320,
    splits={"1": (9537, 3783), "2": (9586, 3734), "3": (9624, 3696)},
    protocol="accuracy-mean-of-splits",
)

_ENTRY = re.compile(r"(?P<path>(?P<folder>[^/]+)/[^/]*?[^/\s])(?:\s+(?P<id>\d+))?")
_GROUP = re.compile(r"_(g\d+)_")


def load(*, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """Read the official lists; with `videos`, follow folders and files that are spelled otherwise on disk.

    Classes stand in the order of `classInd.txt`, which is not the sorted one; videos by class, then by name.
    """
    candidates = [] if videos is None else [
        videos / "ucfTrainTestlist", videos / "annotations", videos,
        videos.parent / "ucfTrainTestlist", videos.parent / "annotations",
    ]  # fmt: skip
    folder = find_annotations(INFO.name, annotations, candidates, "classInd.txt")
    classes = _read_classes(folder / "classInd.txt")
    entries, splits = _read_splits(folder, classes)
    order = sorted(range(len(entries)), key=lambda row: (entries[row].labels, entries[row].path))
    ordered = tuple(entries[row] for row in order)
    splits = {split: roles[order] for split, roles in splits.items()}
    notes = _count_notes(classes, splits)
    if videos is not None:
        paths, spelling_notes = follow_spelling([video.path for video in ordered], videos, archive="UCF-101/")
        ordered = tuple(replace(video, path=path) for video, path in zip(ordered, paths, strict=True))
        notes += spelling_notes
    return Catalogue(name=INFO.name, classes=classes, videos=ordered, splits=splits, notes=notes)


def _read_classes(path: Path) -> tuple[str, ...]:
    by_id: dict[int, str] = {}
    keys: set[str] = set()
    for number, line in read_lines(path):
        index, _, name = line.partition(" ")
        name = name.strip()
        if not index.isdecimal() or not name:
            raise line_error(path, number, f"expected '<id> <class>', found {line!r}.")
        if int(index) in by_id or spelling_key(name) in keys:
            raise line_error(path, number, f"class {line!r} stands there twice; ids and names must be unique.")
        by_id[int(index)] = name
        keys.add(spelling_key(name))
    if sorted(by_id) != list(range(1, len(by_id) + 1)) or not by_id:
        raise line_error(path, 1, f"class ids must run from 1 without a gap, found {len(by_id)} ids.")
    return tuple(by_id[index] for index in sorted(by_id))


def _read_splits(folder: Path, classes: tuple[str, ...]) -> tuple[list[Video], dict[str, np.ndarray]]:
    numbers = sorted(
        match[1] for path in folder.iterdir() if (match := re.fullmatch(r"trainlist(\d+)\.txt", path.name))
    )
    if not numbers:
        raise MissingFileError(f"{folder}: there is no trainlist01.txt beside classInd.txt; put the split lists there.")
    labels = {spelling_key(name): label for label, name in enumerate(classes)}
    rows: dict[str, int] = {}  # spelling key -> row
    entries: list[Video] = []
    members: dict[str, dict[int, int]] = {}  # split -> row -> role
    for number_text in numbers:
        roles = members.setdefault(str(int(number_text)), {})
        for role, stem in ((TRAIN, "trainlist"), (TEST, "testlist")):
            path = folder / f"{stem}{number_text}.txt"
            for number, line in read_lines(path):
                video = _read_entry(path, number, line, role, classes, labels)
                row = rows.setdefault(spelling_key(video.path), len(entries))
                if row == len(entries):
                    entries.append(video)
                if row in roles:
                    where = "twice in this list" if roles[row] == role else "in the train list and the test list"
                    raise line_error(path, number, f"{video.path} stands {where} of one split; keep one of the lines.")
                roles[row] = role
    splits = {split: np.full(len(entries), UNUSED, dtype=np.int8) for split in members}
    for split, roles in members.items():
        for row, role in roles.items():
            splits[split][row] = role
    return entries, splits


def _read_entry(
    path: Path, number: int, line: str, role: int, classes: tuple[str, ...], labels: Mapping[str, int]
) -> Video:
    """Read `Class/file.avi` or `Class/file.avi <id>`; the folder is the label, the id must agree with it."""
    match = _ENTRY.fullmatch(line)
    if match is None or (role == TRAIN and match["id"] is None):
        form = "'<class>/<file> <class id>'" if role == TRAIN else "'<class>/<file>'"
        raise line_error(path, number, f"expected {form}, found {line!r}.")
    label = labels.get(spelling_key(match["folder"]))
    if label is None:
        hint = nearest_class(match["folder"], classes)
        raise line_error(path, number, f"the folder {match['folder']!r} is no class of classInd.txt{hint}")
    if match["id"] is not None and int(match["id"]) != label + 1:
        raise line_error(
            path, number, f"class id {match['id']} contradicts the folder {match['folder']!r}, which is id {label + 1}."
        )
    group = _GROUP.search(match["path"])
    return Video(
        id=match["path"],
        path=match["path"],
        labels=(label,),
        group=f"{classes[label]}_{group[1]}" if group else "",
    )


def _count_notes(classes: tuple[str, ...], splits: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Say where the lists of a set with 101 classes have other counts than the official ones."""
    if len(classes) != INFO.classes:
        return ()
    notes = []
    for split, expected in INFO.splits.items():
        if split not in splits:
            continue
        found = (int(np.sum(splits[split] == TRAIN)), int(np.sum(splits[split] == TEST)))
        if found != expected:
            notes.append(
                f"split {split} has {found[0]} train and {found[1]} test videos, officially "
                f"{expected[0]} and {expected[1]}"
            )
    return tuple(notes)


DATASET = Dataset(info=INFO, load=load)
