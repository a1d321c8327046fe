"""The annotation files of THUMOS14: videos with their actions (.mat), and where the actions happen (.txt or .csv)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import MissingFileError, UsageError
from .annotation_files import files_below, line_error, read_lines, read_table
from .matlab_files import cells, read_structures

UNCLEAR = "Ambiguous"
_PARTS = {"validation": ("val", "validation_videos"), "test": ("test", "test_videos")}
_META = {"validation": ("validation_set.mat",), "test": ("test_set_final.mat", "test_set_meta.mat")}
_NAME = re.compile(r"video_(validation|test)_\d{7}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One video of the validation set or the test set."""

    name: str
    actions: tuple[str, ...]  # the primary one first; none in a background video
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One stretch of a video in which an action happens."""

    video: str
    action: str  # a class name, or UNCLEAR
    start_seconds: float
    stop_seconds: float


@dataclass(frozen=True, eq=False, kw_only=True)
class AnnotationFiles:
    """The official files of both parts, found once in the folder or up to three folders down."""

    folder: Path
    files: dict[str, Path]  # by name

    @classmethod
    def find(cls, folder: Path) -> AnnotationFiles:
        """Look for them; none is read, and none is asked for yet."""
        names = [name for part in _META.values() for name in part]
        pattern = r"detclasslist\.txt|classInd\.txt|[A-Za-z]+_(?:val|test)\.txt|(?:val|test)_Annotation\.csv|"
        return cls(folder=folder, files=files_below(folder, pattern + "|".join(map(re.escape, names))))

    def entries(self, part: str) -> tuple[list[Entry], dict[int, str]]:
        """Return the videos of `validation` or `test`, and the class names met by their index from 0.

        Raises
        ------
        MissingFileError, UsageError
        """
        path = next((self.files[name] for name in _META[part] if name in self.files), None)
        if path is None:
            raise MissingFileError(f"{self.folder} holds no {_META[part][0]}; put the official file there.")
        fields: tuple[str, ...] = ("video_name", "primary_action", "primary_action_index", "secondary_actions",
                  "secondary_actions_indices", "video_duration_seconds")  # fmt: skip
        if part == "test":
            fields += ("background_video",)
        entries: list[Entry] = []
        classes: dict[int, str] = {}
        for record in read_structures(path, _PARTS[part][1], fields):
            name = str(record["video_name"])
            if not _NAME.fullmatch(name):
                raise UsageError(f"{path}: {name!r} is no video name of THUMOS14; is it the official file?")
            actions = [str(record["primary_action"]), *map(str, cells(record["secondary_actions"]))]
            indices = [int(record["primary_action_index"]), *map(int, cells(record["secondary_actions_indices"]))]
            for action, index in zip(actions, indices, strict=True):
                if classes.setdefault(index - 1, action) != action:
                    raise UsageError(f"{path}: class {index} is {classes[index - 1]!r} and {action!r}; fetch it again.")
            # The primary action of a background video is what it was found by, not what happens in it.
            background = part == "test" and str(record["background_video"]) == "YES"
            entries.append(
                Entry(
                    name=name,
                    actions=() if background else tuple(dict.fromkeys(actions)),
                    seconds=float(record["video_duration_seconds"]),
                )
            )
        return entries, classes

    def detection_classes(self) -> tuple[str, ...]:
        """Return the 20 classes in the order of `detclasslist.txt`, or of the indices in the CSV files.

        Raises
        ------
        MissingFileError
            If there is neither.
        """
        by_index: dict[int, str] = {}
        if "detclasslist.txt" in self.files:
            path = self.files["detclasslist.txt"]
            for number, line in read_lines(path):
                index, _, name = line.partition(" ")
                if not index.isdecimal() or not name.strip():
                    raise line_error(path, number, f"expected '<index> <class>', found {line!r}.")
                by_index[int(index)] = name.strip()
        else:
            for path in (
                self.files[name] for name in ("val_Annotation.csv", "test_Annotation.csv") if name in self.files
            ):
                for number, (name, index) in read_table(path, ("type", "type_idx")):
                    if not index.isdecimal():
                        raise line_error(path, number, f"expected a class index, found {index!r}.")
                    if name != UNCLEAR:
                        by_index[int(index)] = name
        if not by_index:
            raise MissingFileError(
                f"{self.folder} holds neither detclasslist.txt nor val_Annotation.csv; put the official files there."
            )
        return tuple(by_index[index] for index in sorted(by_index))

    def instances(self, part: str, actions: tuple[str, ...]) -> list[Instance]:
        """Return the instances of `validation` or `test`, by class in the order of `actions` and then as in the file.

        The order matters: the official rule lets each instance in turn choose a detection. Seconds are read as they
        stand; the frame numbers of the CSV form are seconds times the video's nominal 30, 25 or 24, and are not used.

        Raises
        ------
        UsageError
            For a class that is not among `actions`, or a line that cannot be read.
        """
        short = _PARTS[part][0]
        known = (*actions, UNCLEAR)
        texts = {
            match[1]: path for name, path in self.files.items() if (match := re.fullmatch(rf"(\w+)_{short}\.txt", name))
        }
        table = self.files.get(f"{short}_Annotation.csv")
        unknown = sorted(set(texts) - set(known))
        if unknown:
            raise UsageError(f"{texts[unknown[0]]}: {unknown[0]!r} is no detection class of THUMOS14; remove the file.")
        if texts:
            absent = [name for name in known if name not in texts]
            if absent:
                raise MissingFileError(
                    f"{next(iter(texts.values())).parent}: no {absent[0]}_{short}.txt; put all {len(known)} there."
                )
            return [instance for name in known for instance in _read_text(texts[name], name)]
        if table is None:
            return []
        place = {name: index for index, name in enumerate(known)}
        found = [
            _instance(table, number, video, name, start, stop)
            for number, (video, name, start, stop) in read_table(table, ("video", "type", "start", "end"))
        ]
        for instance in found:
            if instance.action not in place:
                raise UsageError(f"{table}: {instance.action!r} is no detection class of THUMOS14; fetch it again.")
        return sorted(found, key=lambda instance: place[instance.action])


def _read_text(path: Path, action: str) -> list[Instance]:
    found = []
    for number, line in read_lines(path):
        parts = line.split()
        if len(parts) != 3:
            raise line_error(path, number, f"expected '<video> <start> <stop>', found {line!r}.")
        found.append(_instance(path, number, parts[0], action, parts[1], parts[2]))
    return found


def _instance(path: Path, number: int, video: str, action: str, start: str, stop: str) -> Instance:
    if not _NAME.fullmatch(video):
        raise line_error(path, number, f"expected a video name of THUMOS14, found {video!r}.")
    try:
        first, last = float(start), float(stop)
    except ValueError:
        first = last = math.nan
    if not 0 <= first < last < math.inf:
        raise line_error(path, number, f"expected seconds, the stop after the start, found {start!r} and {stop!r}.")
    return Instance(video=video, action=action, start_seconds=first, stop_seconds=last)
