"""Moments in Time: `moments_categories.txt`, `trainingSet.csv` and `validationSet.csv`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .annotation_files import find_annotations, line_error, nearest_class, read_lines, read_table, usual_places
from .catalogue import TEST, TRAIN, Catalogue, Video
from .dataset import Dataset, DatasetInfo
from .found_files import follow_names

INFO = DatasetInfo(
    name="moments",
    summary="Moments in Time (first release): about 802,000 three-second videos of 339 actions, 33,900 for validation",
    layout="""\
VIDEOS/                            --videos
    training/<class>/<file>.mp4    as in the archive, or in other folders under the same <class>/<file>
    validation/<class>/<file>.mp4  the test part of split 1
ANNOTATIONS/                       --annotations; else VIDEOS/annotations, VIDEOS or VIDEOS/../annotations
    moments_categories.txt         lines <class>,<index>, from 0
    trainingSet.csv                lines <class>/<file>.mp4,<class>,<votes for>,<votes against>
    validationSet.csv""",
    source="MIT, Moments in Time page: the archive Moments_in_Time, after a request form",
    classes=339,
    protocol="top1-top5-average",
)

_LISTS = {"trainingSet.csv": ("training", TRAIN), "validationSet.csv": ("validation", TEST)}


def load(*, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """Read the lists that are there; the folder of a video is its class."""
    folder = find_annotations(INFO.name, annotations, usual_places(videos), "moments_categories.txt")
    find_annotations(INFO.name, folder, (), *_LISTS)
    classes = read_categories(folder / "moments_categories.txt")
    label_of = {name: (index,) for index, name in enumerate(classes)}
    notes = [] if len(classes) == INFO.classes else [f"there are {len(classes)} classes, officially {INFO.classes}"]
    ids: list[str] = []
    defaults: list[str] = []
    roles: list[int] = []
    lines: dict[str, str] = {}
    for name, (part, role) in _LISTS.items():
        path = folder / name
        if not path.is_file():
            notes.append(f"there is no {name}, so no {part} videos")
            continue
        for number, (file,) in read_table(path, ("file",), names=("file",)):
            category, _, rest = file.partition("/")
            if category not in label_of or not rest:
                hint = nearest_class(category, classes)
                raise line_error(path, number, f"{file!r} does not start with a class of moments_categories.txt{hint}")
            if file in lines:
                raise line_error(path, number, f"{file} stands in {lines[file]} already; keep one of the lines.")
            lines[file] = f"{name}:{number}"
            ids.append(file)
            roles.append(role)
            defaults.append(f"{part}/{file}")
    paths, found_notes = follow_names(defaults, videos, folders=1)
    entries = tuple(
        Video(id=id, path=path, labels=label_of[id.partition("/")[0]]) for id, path in zip(ids, paths, strict=True)
    )
    splits = {"1": np.array(roles, dtype=np.int8)}
    return Catalogue(name=INFO.name, classes=classes, videos=entries, splits=splits, notes=(*notes, *found_notes))


def read_categories(path: Path) -> tuple[str, ...]:
    """Return the classes by index, from `name,index` lines with indices from 0 in any order, or from names alone.

    Raises
    ------
    UsageError
        For a name or an index that stands there twice, or a gap; with the line.
    """
    by_index: dict[int, str] = {}
    for place, (number, line) in enumerate(read_lines(path)):
        name, comma, text = line.rpartition(",")
        if not comma:
            name, text = line, str(place)
        if not name or not text.isdecimal():
            raise line_error(path, number, f"expected '<class>,<index>' with an index from 0, found {line!r}.")
        if int(text) in by_index or name in by_index.values():
            raise line_error(path, number, f"{line!r}: names and indices must be unique.")
        by_index[int(text)] = name
    if sorted(by_index) != list(range(len(by_index))) or not by_index:
        raise line_error(path, 1, f"indices must run from 0 without a gap, found {len(by_index)} classes.")
    return tuple(by_index[index] for index in sorted(by_index))


DATASET = Dataset(info=INFO, load=load)
