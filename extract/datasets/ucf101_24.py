"""UCF101-24: tubes of boxes on 24 classes of UCF101, in the corrected annotations' two forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UsageError
from .annotation_files import find_annotations, read_lines, read_option, usual_places
from .catalogue import TEST, TRAIN, UNUSED, Box, Catalogue, Interval, Video
from .dataset import Dataset, DatasetInfo
from .found_files import follow_spelling
from .matlab_files import read_structures
from .plain_pickle import read_plain_pickle

WIDTH, HEIGHT = 320, 240
"""Frame size of every UCF101 video; the boxes are in its pixels."""
FILES = {"mat": "finalAnnots.mat", "pkl": "pyannot.pkl"}
INFO = DatasetInfo(
    name="ucf101-24",
    summary="UCF101-24: 3,194 videos of 24 classes of UCF101 with 4,458 tubes of boxes, one split",
    layout="""\
VIDEOS/                                     --videos; those of UCF101
    Basketball/v_Basketball_g01_c01.avi     (or VIDEOS/UCF-101/Basketball/...)
    ...
ANNOTATIONS/                                --annotations; else VIDEOS/annotations, VIDEOS or VIDEOS/../annotations
    finalAnnots.mat                         or pyannot.pkl, read without executing anything in it
    testlist01.txt                          the 910 annotated videos of UCF101's test list 1
    trainlist01.txt                         optional; without it all others are for training""",
    source="the repository corrected-UCF101-Annots of G. Singh: both annotation files and the lists; the videos are "
    "those of UCF101",
    classes=24,
    videos=3194,
    splits={"1": (2284, 910)},
    frame_px=(WIDTH, HEIGHT),
    options={
        "form": "mat or pkl, the annotation file to read (default mat where it is there)",
        "fps": "frames per second, for intervals in seconds (default 25)",
    },
)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Tube:
    """One actor through a video: a box in each frame of [first, stop)."""

    first: int  # decode order, 0-based
    stop: int
    label: int  # 0-based
    boxes: np.ndarray  # [stop - first, 4] int64: x, y, width, height in pixels


def load(*, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """Read tubes and lists; every annotated frame has a box per tube, and a tube is an interval in seconds."""
    fps = _fps(options)
    folder = find_annotations(INFO.name, annotations, usual_places(videos), *FILES.values())
    form = read_option(INFO.name, options, "form", [k for k, name in FILES.items() if (folder / name).is_file()])
    path = folder / FILES[form]
    tubes = read_tubes(path)
    classes = tuple(sorted({name.split("/")[0] for name in tubes}))
    _check_labels(path, tubes, classes)
    names = sorted(tubes)
    roles, notes = _read_lists(folder, names, classes)
    ids = [f"{name}.avi" for name in names]
    paths = ids
    if videos is not None:
        paths, spelling_notes = follow_spelling(ids, videos, archive="UCF-101/")
        notes += spelling_notes
    entries = tuple(
        Video(
            id=id,
            path=path,
            labels=(classes.index(name.split("/")[0]),),
            group=name.rpartition("/")[2].removeprefix("v_").rpartition("_")[0],
            intervals=_intervals(tubes[name], fps),
            boxes=tuple(box for tube in tubes[name] for box in _boxes(tube)),
        )
        for name, id, path in zip(names, ids, paths, strict=True)
    )
    return Catalogue(name=INFO.name, classes=classes, videos=entries, splits={"1": roles}, notes=notes)


def _fps(options: Mapping[str, str]) -> float:
    text = options.get("fps", "25")
    try:
        fps = float(text)
    except ValueError:
        fps = 0.0
    if not 0 < fps < 1000:
        raise UsageError(f"Option fps={text!r} of dataset 'ucf101-24' must be frames per second, such as 25.")
    return fps


def read_tubes(path: Path) -> dict[str, list[Tube]]:
    """Return the tubes of each video, `<class>/<video>`, from either official file.

    Raises
    ------
    MissingFileError, UsageError
        If the file is not there, is damaged, or holds something else.
    """
    return dict(_read_mat(path) if path.suffix == ".mat" else _read_pickle(path))


def _read_mat(path: Path) -> Iterator[tuple[str, list[Tube]]]:
    """Yield name and tubes; `sf` and `ef` count from 1 and both belong to the tube, `class` counts from 1."""
    for entry in read_structures(path, "annot", ("name", "tubes")):
        found = [
            _tube(path, str(entry["name"]), int(t["sf"]) - 1, int(t["ef"]), int(t["class"]) - 1, t["boxes"])
            for t in np.atleast_1d(entry["tubes"])
        ]
        yield str(entry["name"]), found


def _read_pickle(path: Path) -> Iterator[tuple[str, list[Tube]]]:
    """Yield name and tubes; `sf` counts from 0 and `ef` is the first frame after the tube, `label` counts from 0."""
    content = read_plain_pickle(path)
    try:
        entries = [(str(name), list(entry["annotations"])) for name, entry in content.items()]
        for name, parts in entries:
            yield name, [_tube(path, name, int(t["sf"]), int(t["ef"]), int(t["label"]), t["boxes"]) for t in parts]
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{path} does not hold the annotations of UCF101-24 ({error!r}); fetch it again.") from None


def _tube(path: Path, name: str, first: int, stop: int, label: int, boxes: Any) -> Tube:
    # The files keep most boxes as uint8: x + width would wrap at 256.
    wide = np.atleast_2d(np.asarray(boxes)).astype(np.int64)
    if wide.shape != (stop - first, 4) or first < 0:
        raise UsageError(f"{path}: {name} has a tube of {stop - first} frames with boxes {wide.shape}; fetch it again.")
    return Tube(first=first, stop=stop, label=label, boxes=wide)


def _check_labels(path: Path, tubes: Mapping[str, list[Tube]], classes: tuple[str, ...]) -> None:
    """Refuse a tube whose class number is not its folder's place among the sorted folders."""
    for name, found in tubes.items():
        if name.count("/") != 1:
            raise UsageError(f"{path}: {name!r} is not of the form <class>/<video>; is it the official file?")
        for tube in found:
            if tube.label >= len(classes) or classes[tube.label] != name.split("/")[0]:
                raise UsageError(
                    f"{path}: a tube of {name} has class {tube.label} of {len(classes)}, which is not its folder; "
                    "fetch the file again."
                )


def _intervals(tubes: list[Tube], fps: float) -> tuple[Interval, ...]:
    """Return the stretches of the tubes; actors that come and go together are one."""
    stretches = dict.fromkeys((tube.first, tube.stop, tube.label) for tube in tubes)
    return tuple(
        Interval(start_seconds=first / fps, stop_seconds=stop / fps, label=label) for first, stop, label in stretches
    )


def _boxes(tube: Tube) -> Iterator[Box]:
    corners = np.concatenate([tube.boxes[:, :2], tube.boxes[:, :2] + tube.boxes[:, 2:]], axis=1)
    fractions = corners / np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], dtype=np.float64)
    for frame, (x1, y1, x2, y2) in enumerate(fractions.tolist(), start=tube.first):
        yield Box(frame=frame, x1=x1, y1=y1, x2=x2, y2=y2, label=tube.label)


def _read_lists(folder: Path, names: list[str], classes: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the roles of the annotated videos; UCF101's own lists do as well, other classes are passed over."""
    test = _read_list(folder / "testlist01.txt", classes)
    train_path = folder / "trainlist01.txt"
    notes = []
    if train_path.is_file():
        train = _read_list(train_path, classes)
    else:
        train = set(names) - test
        notes.append(
            "there is no trainlist01.txt: all annotated videos that are not in testlist01.txt are for training"
        )
    both = sorted(train & test)
    if both:
        raise UsageError(f"{train_path}: {both[0]} stands in testlist01.txt too; keep one of the lines.")
    bare = sorted((train | test) - set(names))
    if bare:
        notes.append(f"{len(bare)} listed videos have no annotation and are left out, such as {bare[0]}")
    roles = [TEST if name in test else TRAIN if name in train else UNUSED for name in names]
    return np.array(roles, dtype=np.int8), tuple(notes)


def _read_list(path: Path, classes: tuple[str, ...]) -> set[str]:
    names = (line.split()[0].removesuffix(".avi") for _, line in read_lines(path))
    return {name for name in names if name.split("/")[0] in classes}


DATASET = Dataset(info=INFO, load=load)
