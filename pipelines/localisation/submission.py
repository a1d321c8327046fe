"""Temporal detections and their truth as files: the THUMOS14 evaluation's, and ActivityNet's; and measured by rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.index import Index
from ...cache.scratch import write_atomically
from ...errors import MissingFileError, UnknownNameError, UsageError
from ...extract.datasets.catalogue import AMBIGUOUS
from ..metrics.detection import MEASURES, DetectionMeasures, Intervals, detection_summary
from ..record import OPTIONAL
from ..truth import NOWHERE, TruthPart, TruthSource, require_truth

SUBSETS = {"thumos14": "test", "activitynet": "validation"}
"""The part of the truth that each evaluation reads by default."""
THUMOS14_IDS = {
    "BaseballPitch": 7, "BasketballDunk": 9, "Billiards": 12, "CleanAndJerk": 21, "CliffDiving": 22,
    "CricketBowling": 23, "CricketShot": 24, "Diving": 26, "FrisbeeCatch": 31, "GolfSwing": 33, "HammerThrow": 36,
    "HighJump": 40, "JavelinThrow": 45, "LongJump": 51, "PoleVault": 68, "Shotput": 79, "SoccerPenalty": 85,
    "TennisSwing": 92, "ThrowDiscus": 93, "VolleyballSpiking": 97,
}  # fmt: skip
"""The 20 classes of THUMOS14's detection task by their official ids: 1-based places among the 101 classes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionTruth:
    """The truth of a detection task; the labels of `segments` are places in `names`."""

    segments: Intervals
    names: tuple[str, ...]  # of the classes
    class_ids: tuple[int, ...] = ()  # what submission files call the classes; of ActivityNet's truth none
    where: str  # who says it, in words
    videos: frozenset[str] = frozenset()  # all that are listed, with truth or without; empty = nobody says


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluation(DetectionMeasures):
    """A file of detections, measured."""

    result: str
    truth: str
    subset: str  # of the official files; of a store or a dataset the part of its split
    split: str | None = field(default=None, metadata=OPTIONAL)  # of a store or a dataset
    listed: int | None = field(default=None, metadata=OPTIONAL)  # videos of that part, those without truth included
    excluded: tuple[str, ...]  # videos that were left out


def evaluate_detections(
    result: Path,
    *,
    rule: str,
    truth: Path | None = None,
    source: TruthSource = NOWHERE,
    split: str | None = None,
    part: str | None = None,
    exclude: Sequence[str] = (),
    subset: str | None = None,
    thresholds: Sequence[float] | None = None,
) -> DetectionEvaluation:
    """Measure a file of detections by an official rule.

    Parameters
    ----------
    result : a THUMOS14 submission file (`video t1 t2 classid conf`), or ActivityNet's JSON
    rule : "thumos14" or "activitynet"; of official files it also says what form they have
    truth : the folder of official THUMOS14 files, or ActivityNet's JSON
    source : instead of `truth`, a store or a dataset that knows the true intervals
    split, part : of the source; None = its only split, "test"
    exclude : ids of videos to leave out, from the truth and from the detections; THUMOS14 also by number
    subset : of `truth`; None = that of `SUBSETS`
    thresholds : overlaps above 0, at most 1; None = those of the rule

    Raises
    ------
    UnknownNameError
        For another rule, split or part.
    MissingFileError, UsageError
        If a file is not there or a line of it cannot be what it should be, with file and line; if an excluded video is
        neither in the truth nor among the detections; if there is no truth, or two.
    """
    if rule not in MEASURES:
        raise UnknownNameError("rule of detection", rule, MEASURES)
    true, subset, listed = _truth(truth, source, split=split, part=part, subset=subset, rule=rule)
    found = read_detections(result, true)
    names = np.union1d(true.segments.videos, found.videos)
    excluded = sorted({_video_of(id, names, rule) for id in exclude})
    kept, judged = (part[~np.isin(part.videos, excluded)] for part in (true.segments, found))
    if not (kept.labels != AMBIGUOUS).any():
        raise UsageError(f"{true.where} holds no true segment of subset {subset!r}; nothing can be measured.")
    classes = list(enumerate(true.names))
    return DetectionEvaluation(
        **vars(detection_summary(kept, judged, classes=classes, thresholds=thresholds, rule=rule)),
        result=str(result),
        truth=true.where,
        subset=subset,
        split=listed.split if listed else None,
        listed=len(listed.videos) if listed else None,
        excluded=tuple(excluded),
    )


def _truth(
    truth: Path | None, source: TruthSource, *, split: str | None, part: str | None, subset: str | None, rule: str
) -> tuple[DetectionTruth, str, TruthPart | None]:
    """Return the truth, what of it is read, and the listed videos of a store or a dataset."""
    if (truth is None) == (not source):
        raise UsageError("Say who knows the true segments: one of --truth, --store and --dataset.")
    if truth is None:
        if subset is not None:
            raise UsageError("--subset is of --truth; of a store or a dataset say --part and --split.")
        listed = require_truth(source).part(split, part or "test")
        return truth_of_part(listed), listed.part, listed
    if split is not None or part is not None:
        raise UsageError("--split and --part are of a store or a dataset; of --truth say --subset.")
    subset = subset or SUBSETS[rule]
    return (read_thumos14_truth if rule == "thumos14" else read_activitynet_truth)(truth, subset), subset, None


def read_detections(path: Path, truth: DetectionTruth) -> Intervals:
    """Read detections by their form: JSON where the name says so or classes have no ids, else lines; see the readers.

    Raises
    ------
    UsageError
        Also if all of them are in videos that a store or a dataset does not list.
    """
    if path.suffix == ".json" or not truth.class_ids:
        found = read_activitynet(path, truth.names, videos=truth.videos)
    else:
        where = truth.where if truth.videos else "detclasslist.txt"
        found = read_thumos14(path, truth.class_ids, videos=truth.videos, where=where)
    if truth.videos and len(found) and not truth.videos.intersection(found.videos.tolist()):
        raise UsageError(
            f"{path} has detections in none of the {len(truth.videos)} videos of {truth.where}, such as "
            f"{min(truth.videos)!r}."
        )
    return found


def truth_of_part(part: TruthPart) -> DetectionTruth:
    """Return the true intervals of a part of a split; see `submission_classes` for the classes."""
    index = part.truth.index
    ids, emitted = submission_classes(part.truth.dataset, index)
    known = np.isin(index.interval_video, part.videos) & np.isin(index.interval_label, [AMBIGUOUS, *emitted])
    place = {int(label): n for n, label in enumerate(emitted)} | {AMBIGUOUS: AMBIGUOUS}
    segments = Intervals(
        videos=np.array([str(id) for id in index.ids[index.interval_video[known]]], dtype=str),
        seconds=index.interval_seconds[known],
        labels=np.array([place[label] for label in index.interval_label[known].tolist()], np.int64),
    )
    return DetectionTruth(
        segments=segments,
        names=tuple(index.classes[label] for label in emitted),
        class_ids=tuple(ids[label] for label in emitted),
        where=part.truth.where,
        videos=frozenset(part.ids.tolist()),
    )


def submission_classes(dataset: str | None, index: Index) -> tuple[list[int], np.ndarray]:
    """Return the id of each class in a submission file, and the labels of the classes that go into it, ascending.

    Ids are 1-based class indices; those of THUMOS14's detection task are the official ones, which for its 101 classes
    is the same. Only the 20 classes of that task go in; of another dataset those that have true intervals, or all.
    """
    classes, known = index.classes, index.interval_label
    ids = list(range(1, len(classes) + 1))
    if dataset == "thumos14":
        ids = [THUMOS14_IDS.get(name, id) for id, name in zip(ids, classes, strict=True)]
        return ids, np.flatnonzero([name in THUMOS14_IDS for name in classes])
    labels = np.unique(known[known != AMBIGUOUS])
    return ids, labels if len(labels) else np.arange(len(classes))


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
    return DetectionTruth(segments=_segments(rows), names=tuple(names), class_ids=tuple(ids), where=str(folder))


def read_thumos14(
    path: Path, class_ids: Sequence[int], *, videos: Container[str] = (), where: str = "detclasslist.txt"
) -> Intervals:
    """Read a submission file of lines `video t1 t2 classid conf`; labels are places in `class_ids`.

    Parameters
    ----------
    videos : known ids, which stand as they are; of others a `.mp4` at the end is taken off
    where : says the classes, for messages

    Raises
    ------
    MissingFileError
        If there is no such file.
    UsageError
        If a line is something else or of a class that is none of `class_ids`, with file and line.
    """
    label_of = {id: label for label, id in enumerate(class_ids)}
    rows, scores = [], []
    for line, (video, start, stop, class_id, score) in _lines(path, "VIDEO START STOP CLASSID CONFIDENCE"):
        id = _number(line, class_id, int)
        if id not in label_of:
            raise UsageError(f"{line}: class {id} is none of {where} ({', '.join(map(str, class_ids))}).")
        name = video if video in videos else video.removesuffix(".mp4")
        rows.append((name, *_span(line, start, stop), label_of[id]))
        scores.append(_number(line, score, float))
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
        segments=_segments([(id, a, b, names.index(label)) for id, a, b, label, _ in rows]),
        names=names,
        where=str(path),
    )


def read_activitynet(path: Path, names: Sequence[str], *, videos: Container[str] = ()) -> Intervals:
    """Read ActivityNet's `{"results": {id: [{"segment", "label", "score"}]}}`; labels are places in `names`.

    Parameters
    ----------
    videos : known ids; if any of the file's is one of them, all stand as they are

    Raises
    ------
    MissingFileError
        If there is no such file.
    UsageError
        If it is something else or has a class that is none of `names`, with the file and the entry.
    """
    label_of = {name: label for label, name in enumerate(names)}
    rows, scores = [], []
    for id, entries in _entries(path, _json(path).get("results"), videos):
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


def _entries(path: Path, videos: Any, known: Container[str] = ()) -> Iterator[tuple[str, Any]]:
    """Yield the videos of an object by id, without the `v_` of file names unless ids are known to begin so."""
    if not isinstance(videos, Mapping):
        raise UsageError(f"{path} has no object of videos where ActivityNet's files have `database` or `results`.")
    named = all(id.startswith("v_") and id not in known for id in videos)
    prefix = "v_" if named else ""  # ids of videos may begin so themselves
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
