"""A folder of videos with one directory per class, split by a seed or by lists of paths."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import MissingFileError, UsageError
from .annotation_files import line_error, read_lines
from .catalogue import TEST, TRAIN, UNUSED, Catalogue, Video
from .dataset import Dataset, DatasetInfo
from .video_files import VIDEO_SUFFIXES, FoundVideos, find_videos

INFO = DatasetInfo(
    name="folder",
    summary="your own videos, one directory per class; split by a seed, or by lists",
    layout="""\
VIDEOS/                  --videos
    <class>/a.mp4        classes are the directories, in sorted order; videos may lie deeper
    <class>/b/c.avi
    ...
ANNOTATIONS/             --annotations, optional; without it a seeded, stratified split named 1
    train.txt, test.txt  one path below VIDEOS per line, the split 1
    <split>_train.txt, <split>_test.txt  further splits""",
    source="yours",
    options={
        "seed": "draws the split (default 0)",
        "test_share": "share of each class in the test part, between 0 and 1 (default 0.3)",
        "unlabelled": "true: a heap of videos without classes, for extraction only (default false)",
    },
)


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """How a folder without lists is split."""

    seed: int = 0
    test_share: float = 0.3
    unlabelled: bool = False

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> FolderOptions:
        """Read the texts of the command line.

        Raises
        ------
        UsageError
            For a value that is no whole number, no share or no truth value.
        """
        readers: dict[str, Callable[[str], Any]] = {"seed": int, "test_share": float, "unlabelled": _truth}
        values: dict[str, Any] = {}
        for name, text in options.items():
            try:
                values[name] = readers[name](text)
            except ValueError:
                raise UsageError(f"Option {name}={text!r} of dataset 'folder': {INFO.options[name]}.") from None
        parsed = cls(**values)
        if not 0 < parsed.test_share < 1:
            raise UsageError(
                f"Option test_share={parsed.test_share} of dataset 'folder': {INFO.options['test_share']}."
            )
        return parsed


def _truth(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def load(*, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """List the folder; labels are the top directories, splits come from `annotations` or from the seed."""
    return _load(annotations, videos, options, follow_links=False)


def load_with_links(*, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """Do as `load` does, where links may lead out of the folder."""
    return _load(annotations, videos, options, follow_links=True)


def _load(
    annotations: Path | None, videos: Path | None, options: Mapping[str, str], *, follow_links: bool
) -> Catalogue:
    settings = FolderOptions.parse(options)
    if videos is None:
        raise UsageError("Dataset 'folder' is a folder of videos; name it with --videos.")
    found = find_videos(videos, allow_links_outside=follow_links)
    if not found.paths:
        raise MissingFileError(
            f"{videos} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))}); put them below one directory per class."
        )
    if settings.unlabelled:
        if annotations is not None:
            raise UsageError("Dataset 'folder': unlabelled=true takes no --annotations; leave one of them out.")
        heap = tuple(Video(id=path, path=path, labels=()) for path in found.paths)
        return Catalogue(name=INFO.name, classes=(), videos=heap, splits={}, notes=found.notes())
    return _labelled(found, annotations, videos, settings)


def _labelled(found: FoundVideos, annotations: Path | None, videos: Path, settings: FolderOptions) -> Catalogue:
    stray = [path for path in found.paths if "/" not in path]
    paths = [path for path in found.paths if "/" in path]
    classes = tuple(sorted({path.split("/", 1)[0] for path in paths}))
    if len(classes) < 2:
        there = f"one class directory ({classes[0]})" if classes else "no class directories"
        raise UsageError(
            f"{videos} has {there} with videos; make one directory per class, or set unlabelled=true to extract only."
        )
    notes = [*found.notes()]
    if stray:
        notes.append(
            f"{len(stray)} videos directly in the folder belong to no class and are left out, such as {stray[0]}"
        )
    if annotations is None:
        splits = {"1": stratified_split([path.split("/", 1)[0] for path in paths], paths, settings)}
    else:
        members = _read_lists(annotations, classes)
        absent = sorted(set().union(*members.values()) - set(paths))  # extraction will record them as missing
        if absent:
            notes.append(f"{len(absent)} listed videos are not in the folder, such as {absent[0]}")
        paths = sorted([*paths, *absent])
        splits = {
            split: np.array([roles.get(p, UNUSED) for p in paths], dtype=np.int8) for split, roles in members.items()
        }
    entries = tuple(Video(id=path, path=path, labels=(classes.index(path.split("/", 1)[0]),)) for path in paths)
    return Catalogue(name=INFO.name, classes=classes, videos=entries, splits=splits, notes=tuple(notes))


def stratified_split(labels: Sequence[str], ids: Sequence[str], settings: FolderOptions) -> np.ndarray:
    """Split each class by the order of its hashed ids: a video keeps its place when others come or go.

    Returns
    -------
    [videos] int8 of TRAIN and TEST; a class of two or more videos has both, a single video is TRAIN
    """
    members: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        members[label].append(row)
    roles = np.full(len(ids), TRAIN, dtype=np.int8)
    for rows in members.values():
        ranked = sorted(
            rows,
            key=lambda row: hashlib.sha256(f"{settings.seed}/{ids[row]}".encode(errors="surrogateescape")).digest(),
        )
        count = min(max(round(settings.test_share * len(rows)), 1), len(rows) - 1)
        roles[ranked[:count]] = TEST
    return roles


def _read_lists(folder: Path, classes: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Return split -> path -> role from train.txt, test.txt and their namesakes with a prefix."""
    if not (folder / "train.txt").is_file() and not any(folder.glob("*_train.txt")):
        raise MissingFileError(
            f"{folder} holds no train.txt; put train.txt and test.txt there, or leave out --annotations."
        )
    prefixes = sorted(path.name.removesuffix("train.txt") for path in folder.glob("*train.txt"))
    members: dict[str, dict[str, int]] = {}
    for prefix in prefixes:
        if prefix and not prefix.endswith("_"):
            continue
        split = prefix.removesuffix("_") or "1"
        if split in members:
            raise UsageError(f"{folder}: train.txt and {prefix}train.txt both name the split '1'; keep one of them.")
        roles = members.setdefault(split, {})
        for role, name in ((TRAIN, f"{prefix}train.txt"), (TEST, f"{prefix}test.txt")):
            path = folder / name
            for number, line in read_lines(path):
                video = str(PurePosixPath(line))
                if video.split("/", 1)[0] not in classes or "/" not in video:
                    raise line_error(
                        path, number, f"{line!r} does not start with a class directory of the video folder."
                    )
                if video in roles:
                    raise line_error(path, number, f"{video} is in split {split!r} already; keep one of the lines.")
                roles[video] = role
    return members


DATASET = Dataset(info=INFO, load=load, load_with_links=load_with_links)
