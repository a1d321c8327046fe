"""Sports-1M: lists of YouTube addresses with label indices from 0."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...errors import MissingFileError, UsageError
from .annotation_files import find_annotations, line_error, read_lines, usual_places
from .catalogue import TEST, TRAIN, Catalogue, Video
from .dataset import Dataset, DatasetInfo
from .found_files import SUFFIX_OPTION, follow_names, read_suffix

INFO = DatasetInfo(
    name="sports1m",
    summary="Sports-1M: 1,133,158 untrimmed videos of 487 sports, one or several to a video",
    layout="""\
VIDEOS/                            --videos
    UDqivjS-lpI.mp4, ...           <YouTube id>.<any ending>, in any folders below; ids are case-sensitive
ANNOTATIONS/                       --annotations; else VIDEOS/annotations, VIDEOS or VIDEOS/../annotations
    labels.txt                     487 names; the first line is label 0
    original/train_partition.txt   lines such as https://www.youtube.com/watch?v=UDqivjS-lpI 168,169
    original/test_partition.txt    (either may be packed as .txt.gz)
    cross-validation/              sports0_train.txt, sports0_test.txt, ..., for the option partition""",
    source="the repository sports-1m-dataset of G. Toderici: the lists; the videos are on YouTube, and STAN found 9.2 "
    "% of them gone",
    classes=487,
    videos=1133158,
    options={"partition": "original (default), or 0 to 9: that fold of cross-validation/", **SUFFIX_OPTION},
    protocol="hit",
)

_LINE = re.compile(r"\S*?(?:[?&]v=|youtu\.be/|/v/|/embed/)(?P<id>[A-Za-z0-9_-]{11})(?:[?&#]\S*)?\s+(?P<labels>[\d,]+)")


def load(*, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """Read the lists; a video that stands in a list several times has all its labels.

    A video of both lists is tested and never trained on: in the official folds one video may stand in both, because
    its labels were dealt out one by one.
    """
    suffix = read_suffix(INFO.name, options)
    folder = find_annotations(INFO.name, annotations, usual_places(videos), "labels.txt")
    classes = tuple(name for _, name in read_lines(folder / "labels.txt"))
    labels: dict[str, list[int]] = {}
    roles: dict[str, int] = {}
    repeated: list[str] = []
    both: list[str] = []
    for role, path in zip((TRAIN, TEST), _lists(folder, options.get("partition", "original")), strict=True):
        for number, line in read_lines(path):
            match = _LINE.fullmatch(line)
            if match is None:
                raise line_error(path, number, f"expected '<YouTube address> <label>[,<label>]', found {line!r}.")
            id, numbers = match["id"], [int(text) for text in match["labels"].split(",") if text]
            if not numbers or max(numbers) >= len(classes):
                problem = f"labels {match['labels']} are not within 0..{len(classes) - 1} of labels.txt."
                raise line_error(path, number, problem)
            if id in roles:
                (repeated if roles[id] == role else both).append(id)
                labels[id] += [label for label in numbers if label not in labels[id]]
            else:
                labels[id] = list(dict.fromkeys(numbers))
            roles[id] = role
    notes = []
    if repeated:
        notes.append(f"{len(repeated)} lines repeat a video of the same list, such as {repeated[0]}; labels are united")
    if both:
        notes.append(
            f"{len(both)} videos stand in the train list and the test list, such as {both[0]}: they are tested with "
            "the labels of both, and not trained on"
        )
    paths, found_notes = follow_names([f"{id}{suffix}" for id in roles], videos)
    entries = tuple(Video(id=id, path=path, labels=tuple(labels[id])) for id, path in zip(roles, paths, strict=True))
    splits = {"1": np.fromiter(roles.values(), dtype=np.int8, count=len(roles))}
    return Catalogue(
        name=INFO.name, classes=classes, videos=entries, splits=splits, multi_label=True, notes=(*notes, *found_notes)
    )


def _lists(folder: Path, partition: str) -> tuple[Path, Path]:
    """Return the train list and the test list, packed or not."""
    if partition == "original":
        stems = [folder / "original" / f"{part}_partition.txt" for part in ("train", "test")]
    elif re.fullmatch(r"\d", partition):
        stems = [folder / "cross-validation" / f"sports{partition}_{part}.txt" for part in ("train", "test")]
    else:
        raise UsageError(f"Option partition={partition!r} of dataset 'sports1m' must be original, or 0 to 9.")
    found = []
    for stem in stems:
        packed = stem.with_name(stem.name + ".gz")
        path = next((path for path in (stem, packed) if path.is_file()), None)
        if path is None:
            raise MissingFileError(f"{stem}: this annotation file is missing (and {packed.name} too); put it there.")
        found.append(path)
    return found[0], found[1]


DATASET = Dataset(info=INFO, load=load)
