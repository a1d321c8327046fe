"""Temporal detections and their truth as files: the THUMOS14 evaluation's, and ActivityNet's; and measured by rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.scratch import write_atomically
from ...errors import MissingFileError, UnknownNameError, UsageError
from ...extract.datasets.catalogue import AMBIGUOUS
from ..metrics.detection import MEASURES, DetectionMeasures, Intervals, detection_summary

SUBSETS = {"thumos14": "test", "activitynet": "validation"}
"""The part of the truth that each evaluation reads by default."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionTruth:
    """The truth of a detection task; the labels of `segments` are places in `names`."""

    segments: Intervals
    names: tuple[str, ...]  # of the classes
    class_ids: tuple[int, ...] = ()  # what submission files call the classes; THUMOS14 only


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluation(DetectionMeasures):
    """A file of detections, measured."""

    result: str
    truth: str
    subset: str
    excluded: tuple[str, ...]  # videos that were left out


def evaluate_detections(
    result: Path, *, truth: Path, rule: str, exclude: Sequence[str] = (), subset: str | None = None
) -> DetectionEvaluation:
    """Measure a file of detections by an official rule.

    Parameters
    ----------
    result : a THUMOS14 submission file (`video t1 t2 classid conf`), or ActivityNet's JSON
    truth : the folder of official THUMOS14 files, or ActivityNet's JSON
    rule : "thumos14" or "activitynet"; it also says what form the files have
    exclude : ids of videos to leave out, from the truth and from the detections; THUMOS14 also by number
    subset : None = that of `SUBSETS`

    Raises
    ------
    UnknownNameError
        For another rule.
    MissingFileError, UsageError
        If a file is not there or a line of it cannot be what it should be, with file and line; if an excluded video is
        neither in the truth nor among the detections.
    """
    if rule not in MEASURES:
        raise UnknownNameError("rule of detection", rule, MEASURES)
    subset = subset or SUBSETS[rule]
    if rule == "thumos14":
        true = read_thumos14_truth(truth, subset)
        found = read_thumos14(result, true.class_ids)
    else:
        true = read_activitynet_truth(truth, subset)
        found = read_activitynet(result, true.names)
    names = np.union1d(true.segments.videos, found.videos)
    excluded = sorted({_video_of(id, names, rule) for id in exclude})
    kept, judged = (part[~np.isin(part.videos, excluded)] for part in (true.segments, found))
    if not (kept.labels != AMBIGUOUS).any():
        raise UsageError(f"{truth} holds no true segment of subset {subset!r}; nothing can be measured.")
    return DetectionEvaluation(
        **vars(detection_summary(kept, judged, classes=list(enumerate(true.names)), rule=rule)),
        result=str(result),
        truth=str(truth),
        subset=subset,
        excluded=tuple(excluded),
    )


def read_thumos14_truth(folder: Path, subset: str = "test") -> DetectionTruth:
    """Read `detclasslist.txt`, `<Class>_<subset>.txt` of each class in it, and `Ambiguous_<subset>.txt`.

    Parameters
    ----------
    folder : of the official files
    subset : "test" or "val"

    Raises
    ------
    MissingFileError
        If one of these files is not there.
    UsageError
        If a line is not `video start stop`, with file and line.
    """
    ids, names = [], []
    for where, fields in _lines(folder / "detclasslist.txt", "ID CLASS"):
        ids.append(_number(where, fields[0], int))
        names.append(fields[1])
    if not names or len(set(ids)) < len(ids) or len(set(names)) < len(names):
        raise UsageError(f"{folder / 'detclasslist.txt'} must list each class once, as `7 BaseballPitch`.")
    rows: list[tuple[str, float, float, int]] = []
    for label, name in [*enumerate(names), (AMBIGUOUS, "Ambiguous")]:
        for where, (video, start, stop) in _lines(folder / f"{name}_{subset}.txt", "VIDEO START STOP"):
            rows.append((video.removesuffix(".mp4"), *_span(where, start, stop), label))
    return DetectionTruth(segments=_segments(rows), names=tuple(names), class_ids=tuple(ids))


def read_thumos14(path: Path, class_ids: Sequence[int]) -> Intervals:
    """Read a submission file of lines `video t1 t2 classid conf`; labels are places in `class_ids`.

    Raises
    ------
    MissingFileError
        If there is no such file.
    UsageError
        If a line is something else or of a class that is none of `class_ids`, with file and line.
    """
    label_of = {id: label for label, id in enumerate(class_ids)}
    rows, scores = [], []
    for where, (video, start, stop, class_id, score) in _lines(path, "VIDEO START STOP CLASSID CONFIDENCE"):
        id = _number(where, class_id, int)
        if id not in label_of:
            raise UsageError(f"{where}: class {id} is none of detclasslist.txt ({', '.join(map(str, class_ids))}).")
        rows.append((video.removesuffix(".mp4"), *_span(where, start, stop), label_of[id]))
        scores.append(_number(where, score, float))
    return _segments(rows, scores)


def write_thumos14(path: Path, detections: Intervals, class_ids: Sequence[int], *, note: str | None = None) -> None:
    """Write a submission file, in the order given; reading it gives the same numbers.

    Parameters
    ----------
    detections : with scores; videos without white space in their names
    class_ids : what the file calls the class of each label
    note : one line that stands first, behind a `#`, so that nobody takes the file for what it is not
    """
    if detections.scores is None:
        raise ValueError("The detections have no scores.")
    lines = [
        f"{video} {float(start)!r} {float(stop)!r} {class_ids[label]} {float(score)!r}\n"
        for video, (start, stop), label, score in zip(
            detections.videos, detections.seconds, detections.labels, detections.scores, strict=True
        )
    ]
    if odd := next((str(video) for video in detections.videos if len(video.split()) != 1), None):
        raise UsageError(f"{path}: the video name {odd!r} cannot stand in a file whose fields are parted by spaces.")
    write_atomically(path, "".join([f"# {note}\n"] * bool(note) + lines).encode())


def read_activitynet_truth(path: Path, subset: str = "validation") -> DetectionTruth:
    """Read ActivityNet's `{"database": {id: {"subset", "annotations": [{"segment", "label"}]}}}`, or the inner object.

    Classes are sorted by name. Where every id begins with `v_`, as in the names of files, that is taken off.

    Raises
    ------
    MissingFileError
        If there is no such file.
    UsageError
        If it is something else, with the file and the entry.
    """
    content = _json(path)
    database = content.get("database", content)
    rows = []
    for id, entry in _entries(path, database):
        if not isinstance(entry, Mapping):
            raise UsageError(f"{path}, {id!r}: must be an object with annotations.")
        if entry.get("subset", subset) == subset:
            rows += [(id, *row) for row in _annotations(path, id, entry.get("annotations"))]
    names = tuple(sorted({label for *_, label, _ in rows}))
    return DetectionTruth(
        segments=_segments([(id, a, b, names.index(label)) for id, a, b, label, _ in rows]), names=names
    )


def read_activitynet(path: Path, names: Sequence[str]) -> Intervals:
    """Read ActivityNet's `{"results": {id: [{"segment", "label", "score"}]}}`; labels are places in `names`.

    Raises
    ------
    MissingFileError
        If there is no such file.
    UsageError
        If it is something else or has a class that is none of `names`, with the file and the entry.
    """
    label_of = {name: label for label, name in enumerate(names)}
    rows, scores = [], []
    for id, entries in _entries(path, _json(path).get("results")):
        for start, stop, name, entry in _annotations(path, id, entries):
            if name not in label_of:
                raise UsageError(f"{path}, {id!r}: the truth has no class {name!r} in this subset.")
            rows.append((id, start, stop, label_of[name]))
            scores.append(_number(f"{path}, {id!r}", entry.get("score"), float))
    return _segments(rows, scores)


def _segments(rows: Sequence[tuple[str, float, float, int]], scores: Sequence[float] | None = None) -> Intervals:
    return Intervals(
        videos=np.array([row[0] for row in rows], dtype=str),
        seconds=np.array([row[1:3] for row in rows], np.float64).reshape(-1, 2),
        labels=np.array([row[3] for row in rows], np.int64),
        scores=None if scores is None else np.array(scores, np.float64),
    )


def _lines(path: Path, form: str) -> Iterator[tuple[str, list[str]]]:
    """Yield `file, line n` and the fields of each line that is not empty; `form` names them."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise MissingFileError(f"There is no file {path}; its lines should be `{form}`.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text ({error}); its lines should be `{form}`.") from None
    for number, line in enumerate(text.splitlines(), 1):
        fields = [] if line.startswith("#") else line.split()
        if fields and len(fields) != len(form.split()):
            raise UsageError(f"{path}, line {number}: {line.strip()!r} is not `{form}`.")
        if fields:
            yield f"{path}, line {number}", fields


def _number(where: str, given: Any, kind: Callable[[Any], Any]) -> Any:
    """Read a finite number."""
    try:
        value = kind(given)
    except (TypeError, ValueError):
        raise UsageError(f"{where}: {given!r} is no number.") from None
    if not np.isfinite(value):
        raise UsageError(f"{where}: {given!r} is not finite.")
    return value


def _span(where: str, start: Any, stop: Any) -> tuple[float, float]:
    span = _number(where, start, float), _number(where, stop, float)
    if span[1] < span[0]:
        raise UsageError(f"{where}: a segment from {span[0]} to {span[1]} stops before it starts.")
    return span


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise MissingFileError(f"There is no JSON file {path}.") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {error.lineno}: no JSON ({error.msg}).") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no JSON ({error}).") from None
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} must hold one JSON object.")
    return content


def _entries(path: Path, videos: Any) -> Iterator[tuple[str, Any]]:
    """Yield the videos of an object by id, without the `v_` of file names."""
    if not isinstance(videos, Mapping):
        raise UsageError(f"{path} has no object of videos where ActivityNet's files have `database` or `results`.")
    prefix = "v_" if all(id.startswith("v_") for id in videos) else ""  # ids of videos may begin so themselves
    for id, entry in videos.items():
        yield id.removeprefix(prefix), entry


def _annotations(path: Path, id: str, entries: Any) -> Iterator[tuple[float, float, str, Mapping[str, Any]]]:
    """Yield start, stop, label and the entry of each labelled segment of a video."""
    if not isinstance(entries, list):
        raise UsageError(f"{path}, {id!r}: must have a list of segments.")
    for number, entry in enumerate(entries, 1):
        where = f"{path}, {id!r}, segment {number}"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("label"), str):
            raise UsageError(f"{where}: must be an object with `segment` and `label`.")
        span = entry.get("segment")
        if not isinstance(span, list) or len(span) != 2:
            raise UsageError(f"{where}: `segment` must be [start, stop] in seconds.")
        yield (*_span(where, *span), entry["label"], entry)


def _video_of(id: str, names: np.ndarray, rule: str) -> str:
    """Return the name of an excluded video: itself, or for THUMOS14 the one with this number."""
    same = names[names == id]
    if not len(same) and rule == "thumos14" and id.isdigit():
        same = names[np.char.endswith(names, f"_{int(id):07d}")] if len(names) else same
    if len(same) != 1:
        raise UsageError(f"--exclude {id}: no such video in the truth or among the detections.")
    return str(same[0])
