"""What a dataset is: video ids, labels, named splits, classes in the official order, optional boxes and intervals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...errors import UsageError
from .video_files import is_text, leaves_folder, printable

UNUSED, TRAIN, TEST = 0, 1, 2
"""Roles of a video in a split."""
AMBIGUOUS = -1
"""Label of an interval in which it is unclear what happens: detections there are not judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A labelled stretch: [start_seconds, stop_seconds) in presentation time from the video's first frame."""

    start_seconds: float
    stop_seconds: float
    label: int  # class index, or AMBIGUOUS


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A labelled box in one frame; corners in fractions of the upright frame's width and height, 0..1."""

    frame: int  # decode order, 0-based
    x1: float
    y1: float
    x2: float
    y2: float
    label: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """One entry of a catalogue."""

    id: str  # dataset-relative path, or path plus interval where one file holds several entries; unique
    path: str  # file relative to the video folder, POSIX
    labels: tuple[int, ...]  # 0-based class indices, the primary one first; empty for background videos
    group: str = ""  # clips of one source share a group and never part between training and validation
    start_seconds: float | None = None  # only this stretch of the file is the video; None = from its start
    stop_seconds: float | None = None  # None = to its end
    intervals: tuple[Interval, ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The videos of one dataset in the official order.

    Raises
    ------
    UsageError
        On duplicate ids, names that are not UTF-8, labels outside the classes (those of intervals and boxes too), split
        columns of the wrong length, or a path that leaves the video folder.
    """

    name: str
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    splits: Mapping[str, np.ndarray]  # name -> [videos] int8 of UNUSED, TRAIN, TEST
    multi_label: bool = False
    notes: tuple[str, ...] = field(default=())  # quirks met while reading, one line each; shown by the plan

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for video in self.videos:
            if video.id in seen:
                raise UsageError(f"Dataset {self.name!r} lists the video {video.id!r} twice; ids must be unique.")
            seen.add(video.id)
            if not (is_text(video.id) and is_text(video.path)):
                raise UsageError(
                    f"Dataset {self.name!r}: the name {printable(video.path)} is not UTF-8; rename the file."
                )
            if leaves_folder(video.path):
                raise UsageError(
                    f"Dataset {self.name!r}: the path {video.path!r} leaves the video folder; use paths below it."
                )
            for label in video.labels:
                if not 0 <= label < len(self.classes):
                    raise UsageError(
                        f"Dataset {self.name!r}: video {video.id!r} has label {label}, classes are "
                        f"0..{len(self.classes) - 1}."
                    )
            for label in {i.label for i in video.intervals} - {AMBIGUOUS} | {b.label for b in video.boxes}:
                if not 0 <= label < len(self.classes):
                    raise UsageError(
                        f"Dataset {self.name!r}: video {video.id!r} has an interval or a box with label {label}, "
                        f"classes are 0..{len(self.classes) - 1}."
                    )
        for split, roles in self.splits.items():
            if roles.shape != (len(self.videos),):
                raise UsageError(
                    f"Dataset {self.name!r}: split {split!r} has {roles.shape} roles for {len(self.videos)} videos."
                )

    def digest(self) -> str:
        """SHA-256 of everything the catalogue says, independent of where its files lie."""
        content = {
            "name": self.name,
            "classes": self.classes,
            "multi_label": self.multi_label,
            "videos": [
                [
                    v.id, v.path, v.labels, v.group, v.start_seconds, v.stop_seconds,
                    [[i.start_seconds, i.stop_seconds, i.label] for i in v.intervals],
                    [[b.frame, b.x1, b.y1, b.x2, b.y2, b.label] for b in v.boxes],
                ]
                for v in self.videos
            ],
            "splits": {name: roles.tolist() for name, roles in sorted(self.splits.items())},
        }  # fmt: skip
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
