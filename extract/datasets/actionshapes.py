"""The generated data set `actionshapes`, catalogue side: `annotations.json` beside the videos holds the truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MissingFileError, UsageError
from .catalogue import TEST, TRAIN, Box, Catalogue, Interval, Video
from .dataset import Dataset, DatasetInfo

TRUTH_FILE = "annotations.json"
FORMAT_VERSION = 1

INFO = DatasetInfo(
    name="actionshapes",
    summary="generated videos: a class is a shape and a motion, with boxes and intervals as truth",
    layout="""\
VIDEOS/                             --videos; made by `vidatt demo`
    annotations.json                classes, labels, split, intervals, boxes and the options it was made with
    <shape>-<motion>/00000.mp4, ...""",
    source="generated on the spot by `vidatt demo` or vidatt.extract.datasets.generator.generate",
)


def load(*, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """Read the truth beside the generated videos, or in the folder `annotations`."""
    folder = annotations or videos
    if folder is None:
        raise UsageError("Dataset 'actionshapes' is a generated folder; name it with --videos.")
    path = folder / TRUTH_FILE
    if not path.is_file():
        raise MissingFileError(
            f"{folder} holds no {TRUTH_FILE}; `vidatt demo` generates the videos, or call "
            "vidatt.extract.datasets.generator.generate(folder)."
        )
    return catalogue_of(read_truth(path), path)


def read_truth(path: Path) -> dict[str, Any]:
    """Return the content of `annotations.json`.

    Raises
    ------
    UsageError
        If it is damaged or of another format version.
    """
    try:
        truth = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is damaged ({error}); delete it and generate the videos again.") from None
    found = (truth.get("format"), truth.get("version")) if isinstance(truth, dict) else None
    if found != ("actionshapes", FORMAT_VERSION):
        raise UsageError(f"{path} is not an actionshapes file of version {FORMAT_VERSION}; generate the videos again.")
    return truth


def catalogue_of(truth: dict[str, Any], path: Path) -> Catalogue:
    """Turn the content of `annotations.json` into a catalogue.

    Raises
    ------
    UsageError
        If an entry lacks what it should hold; the message names `path`.
    """
    try:
        entries = tuple(
            Video(
                id=video["path"],
                path=video["path"],
                labels=(video["label"],),
                intervals=(Interval(start_seconds=video["start"], stop_seconds=video["stop"], label=video["label"]),),
                boxes=tuple(
                    Box(frame=frame, x1=x1, y1=y1, x2=x2, y2=y2, label=video["label"])
                    for frame, (x1, y1, x2, y2) in enumerate(video["boxes"], start=video["first_frame"])
                ),
            )
            for video in truth["videos"]
        )
        roles = np.array([{"train": TRAIN, "test": TEST}[video["split"]] for video in truth["videos"]], dtype=np.int8)
        classes = tuple(truth["classes"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: an entry is damaged ({error!r}); delete it and generate the videos again.") from None
    return Catalogue(name=INFO.name, classes=classes, videos=entries, splits={"1": roles})


DATASET = Dataset(info=INFO, load=load)
