"""Kinetics-400 and Kinetics-600: CSV lists of ten-second clips of YouTube videos."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import MissingFileError, UsageError
from .annotation_files import find_annotations, line_error, nearest_class, read_lines, read_table, usual_places
from .catalogue import TEST, TRAIN, UNUSED, Catalogue, Video
from .dataset import Dataset, DatasetInfo
from .found_files import SUFFIX_OPTION, follow_names, read_suffix

PARTS = {"train": TRAIN, "val": TEST, "test": UNUSED}  # the labels of the test list are not public
_ID = re.compile(r"[A-Za-z0-9_-]+")


def _info(count: int, numbers: str) -> DatasetInfo:
    return DatasetInfo(
        name=f"kinetics{count}",
        summary=f"Kinetics-{count}: ten-second clips of {count} actions, {numbers}",
        layout=f"""\
VIDEOS/                          --videos
    train/abseiling/<id>_<start>_<end>.mp4  six digits each, such as 0wR5jVB-WPk_000417_000427.mp4;
    val/abseiling/...            in these or any other folders, or in none; any ending
ANNOTATIONS/                     --annotations; else VIDEOS/annotations, VIDEOS or VIDEOS/../annotations
    kinetics-{count}_train.csv       (or train.csv) with the columns label, youtube_id, time_start, time_end
    kinetics-{count}_val.csv         (or val.csv, validate.csv); it is the test part of split 1
    kinetics-{count}_test.csv        (or test.csv); its labels are not public, see the option parts
    label_map_k{count}.txt           optional, class names in label order; else the labels are sorted""",
        source="Google DeepMind, Kinetics page, or ActivityNet's crawler: the lists; the videos are on YouTube, many "
        "are gone, and copies of the clips differ in what they hold",
        classes=count,
        options={
            "parts": "lists to take, separated by commas (default train,val; test has videos without labels)",
            "subset": "files that say what to keep, separated by commas: CSV lists, of which youtube_id is read, or a "
            "class, a YouTube id or a clip's name in each line; kinetics400 with the lists of kinetics600 is GLKA's "
            "Kinetics-400*",
            **SUFFIX_OPTION,
        },
        protocol="top1-top5-average",
    )


def load(count: int, *, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """Read the lists that are there; the class is the place of its name in the label map, or among the sorted names."""
    name = f"kinetics{count}"
    suffix, parts, subset = read_suffix(name, options), _read_parts(name, options), _read_subset(options)
    files = {part: _file_names(count, part) for part in PARTS}
    wanted = [file for part in parts for file in files[part]]
    folder = find_annotations(name, annotations, usual_places(videos), *wanted)
    notes = []
    ids: list[str] = []
    texts: list[str] = []
    roles: list[int] = []
    defaults: list[str] = []
    lines: dict[str, tuple[Path, int]] = {}
    for part in parts:
        path = next((folder / file for file in files[part] if (folder / file).is_file()), None)
        if path is None:
            notes.append(f"there is no {files[part][0]}, so no {part} videos")
            continue
        for number, id, label in _read_list(path, labelled=part != "test"):
            if id in lines:
                first = lines[id]
                raise line_error(path, number, f"{id} stands in {first[0].name}:{first[1]} already; keep one.")
            lines[id] = (path, number)
            if subset is not None and not subset.takes(id, label):
                continue
            ids.append(id)
            texts.append(label)
            roles.append(PARTS[part])
            defaults.append(f"{part}/{label}/{id}{suffix}" if label else f"{part}/{id}{suffix}")
    if subset is not None:
        notes.append(subset.note(name, len(ids)))
    found = {text for text in texts if text}
    classes = _classes(folder / f"label_map_k{count}.txt", found)
    if subset is not None:
        classes = tuple(text for text in classes if text in found)
    if len(classes) != count:
        notes.append(f"the lists have {len(classes)} classes, officially {count}")
    label_of = {text: (index,) for index, text in enumerate(classes)} | {"": ()}
    unknown = next((row for row, text in enumerate(texts) if text not in label_of), None)
    if unknown is not None:
        hint = nearest_class(texts[unknown], classes)
        raise line_error(*lines[ids[unknown]], f"label {texts[unknown]!r} is not in label_map_k{count}.txt{hint}")
    paths, found_notes = follow_names(defaults, videos)
    entries = tuple(
        Video(id=id, path=path, labels=label_of[text], group=id.rsplit("_", 2)[0])
        for id, path, text in zip(ids, paths, texts, strict=True)
    )
    splits = {"1": np.array(roles, dtype=np.int8)}
    return Catalogue(name=name, classes=classes, videos=entries, splits=splits, notes=(*notes, *found_notes))


class _Subset:
    """What to keep of the lists: classes, YouTube ids and clips by name."""

    def __init__(self, text: str) -> None:
        self._text, self._wanted, self._met = text, set[str](), set[str]()
        for path in (Path(part.strip()) for part in text.split(",")):
            if path.suffix == ".csv":
                self._wanted |= {id for _, (id,) in read_table(path, ("youtube_id",))}
            else:
                self._wanted |= {line for _, line in read_lines(path)}

    def takes(self, id: str, label: str) -> bool:
        """Tell whether a clip is kept."""
        met = self._wanted & {id, label, id.rsplit("_", 2)[0]}
        self._met |= met
        return bool(met)

    def note(self, name: str, count: int) -> str:
        """Say what was kept.

        Raises
        ------
        UsageError
            If nothing was.
        """
        if not count:
            raise UsageError(
                f"Option subset={self._text!r} of dataset {name!r}: no line of it is a class, a YouTube id or a clip "
                "of the lists."
            )
        unmet = len(self._wanted) - len(self._met)
        return f"subset {self._text}: {count} videos are kept" + (
            f"; {unmet} of its entries meet none" if unmet else ""
        )


def _read_subset(options: Mapping[str, str]) -> _Subset | None:
    return _Subset(options["subset"]) if "subset" in options else None


def _file_names(count: int, part: str) -> list[str]:
    names = [f"kinetics-{count}_{part}.csv", f"{part}.csv"]
    return [*names, f"kinetics-{count}_validate.csv", "validate.csv"] if part == "val" else names


def _read_parts(name: str, options: Mapping[str, str]) -> list[str]:
    parts = [part.strip() for part in options.get("parts", "train,val").split(",")]
    if not set(parts) <= set(PARTS) or len(set(parts)) != len(parts):
        raise UsageError(f"Option parts={options['parts']!r} of dataset {name!r} takes train, val and test, once each.")
    return parts


def _read_list(path: Path, *, labelled: bool) -> Iterator[tuple[int, str, str]]:
    """Yield line, clip name and label ("" in a list without labels)."""
    columns = ("youtube_id", "time_start", "time_end", *(("label",) if labelled else ()))
    for number, (id, start, stop, *label) in read_table(path, columns):
        if not _ID.fullmatch(id):
            raise line_error(path, number, f"expected a YouTube id, found {id!r}.")
        if labelled and not label[0]:
            raise line_error(path, number, "the cell label is empty.")
        try:
            first, last = int(start), int(stop)
        except ValueError:
            first = last = -1
        if not 0 <= first < last:
            raise line_error(
                path, number, f"expected whole seconds, the end after the start, found {start!r} and {stop!r}."
            )
        yield number, f"{id}_{first:06d}_{last:06d}", label[0] if labelled else ""


def _classes(label_map: Path, found: set[str]) -> tuple[str, ...]:
    if label_map.is_file():
        return tuple(name for _, name in read_lines(label_map))
    if not found:
        raise MissingFileError(f"{label_map}: without a labelled list this file is needed; put it there.")
    return tuple(sorted(found))


DATASETS = (
    Dataset(info=_info(400, "about 240,000 in the list train and 19,906 in val"), load=partial(load, 400)),
    Dataset(info=_info(600, "about 390,000 in the list train and 30,000 in val"), load=partial(load, 600)),
)
