"""UCF50, which has no lists: folders are classes, file names hold the groups, and each group is left out once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...errors import MissingFileError, UsageError
from .annotation_files import read_lines, usual_places
from .catalogue import TEST, TRAIN, Catalogue, Video
from .dataset import Dataset, DatasetInfo
from .video_files import walk_videos

CLASS_FILE = "class_names.txt"
GROUPS = 25  # per class
INFO = DatasetInfo(
    name="ucf50",
    summary="UCF50: about 6,650 trimmed clips of 50 actions, 25 leave-one-group-out splits named g01 to g25",
    layout="""\
VIDEOS/                               --videos; the folder itself is the catalogue
    BaseballPitch/v_BaseballPitch_g01_c01.avi  one folder per class (or VIDEOS/UCF50/BaseballPitch/...)
    ...
ANNOTATIONS/                          --annotations, optional
    class_names.txt                   one class a line, for a folder that does not hold all classes yet""",
    source="UCF Center for Research in Computer Vision, data set page of UCF50: the archive UCF50; there are no lists",
    classes=50,
    protocol="class-accuracy-mean-of-folds",
)

_GROUP = re.compile(r"_(g\d+)_c\d+")


def load(*, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """List the folder: class = folder, group = `_gNN_` in the name (clips of Billiards are named v_Billards_gNN_cNN).

    In split gNN the clips of group NN of every class are the test part, all others the training part.
    """
    if videos is None:
        raise UsageError("Dataset 'ucf50' has no lists, its folder is the catalogue; name it with --videos.")
    found = [path for path in walk_videos(videos, allow_links_outside=True) if "/" in path]
    grouped = {path: match[1] for path in found if (match := _GROUP.search(path.rpartition("/")[2]))}
    if not grouped:
        raise MissingFileError(
            f"{videos} holds no videos named like BaseballPitch/v_BaseballPitch_g01_c01.avi; put the folders of the "
            "archive UCF50 there."
        )
    notes = []
    if len(grouped) < len(found):
        stray = next(path for path in found if path not in grouped)
        notes.append(f"{len(found) - len(grouped)} videos without _gNN_cNN in the name are left out, such as {stray}")
    classes = _classes(annotations, videos, {path.split("/")[-2] for path in grouped})
    label = {name: index for index, name in enumerate(classes)}
    entries = tuple(
        Video(
            id="/".join(path.split("/")[-2:]),
            path=path,
            labels=(label[path.split("/")[-2]],),
            group=f"{path.split('/')[-2]}_{group}",
        )
        for path, group in sorted(grouped.items(), key=lambda item: item[0].split("/")[-2:])
    )
    groups = np.array([video.group.rpartition("_")[2] for video in entries])
    splits = {str(name): np.where(groups == name, TEST, TRAIN).astype(np.int8) for name in np.unique(groups)}
    notes += _count_notes(classes, entries)
    return Catalogue(name=INFO.name, classes=classes, videos=entries, splits=splits, notes=tuple(notes))


def _classes(annotations: Path | None, videos: Path, folders: set[str]) -> tuple[str, ...]:
    """Return the sorted classes of `class_names.txt` where there is one, else the folders."""
    places = [annotations] if annotations is not None else usual_places(videos)[:2]
    path = next((place / CLASS_FILE for place in places if (place / CLASS_FILE).is_file()), None)
    if path is None:
        if annotations is not None:
            raise MissingFileError(f"{annotations} holds no {CLASS_FILE}; put it there, or leave out --annotations.")
        return tuple(sorted(folders))
    classes = tuple(sorted({name for _, name in read_lines(path)}))
    unknown = sorted(folders - set(classes))
    if unknown:
        raise UsageError(f"{videos / unknown[0]} is no class of {path}; rename the folder, or add the class.")
    return classes


def _count_notes(classes: tuple[str, ...], entries: tuple[Video, ...]) -> list[str]:
    """Say where the folder differs from 50 classes of 25 groups each."""
    groups: dict[int, set[str]] = defaultdict(set)
    for video in entries:
        groups[video.labels[0]].add(video.group)
    notes = [] if len(classes) == INFO.classes else [f"there are {len(classes)} classes, officially {INFO.classes}"]
    odd = [name for label, name in enumerate(classes) if len(groups[label]) != GROUPS]
    if odd:
        count = len(groups[classes.index(odd[0])])
        notes.append(f"{len(odd)} classes have not {GROUPS} groups each, such as {odd[0]} with {count}")
    return notes


DATASET = Dataset(info=INFO, load=load)
