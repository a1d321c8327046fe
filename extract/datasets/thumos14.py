"""THUMOS14: 101 classes of untrimmed videos with background, or 20 classes to be found in time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...errors import UsageError
from . import ucf101
from .annotation_files import find_annotations, read_option, usual_places
from .catalogue import AMBIGUOUS, TEST, TRAIN, Catalogue, Interval, Video
from .dataset import Dataset, DatasetInfo
from .found_files import follow_names
from .thumos14_truth import UNCLEAR, AnnotationFiles, Entry, Instance

INFO = DatasetInfo(
    name="thumos14",
    summary="THUMOS14: untrimmed videos; 101 classes with background videos, or 20 classes to be found in time",
    layout="""\
VIDEOS/                                  --videos
    validation/video_validation_0000001.mp4, ...  1,010 videos, in these or any other folders
    test/video_test_0000001.mp4, ...     1,574 videos, 480 of them background
    UCF101/<class>/v_<class>_g01_c01.avi the 13,320 clips of UCF101, for the option train
ANNOTATIONS/                             --annotations; else VIDEOS/annotations, VIDEOS or VIDEOS/../annotations;
                                         the files may lie up to three folders down
    validation_set.mat                   1,010 videos with primary and secondary actions
    test_set_final.mat                   (or test_set_meta.mat) 1,574 videos, which of them are background
    detclasslist.txt                     20 classes of the detection task by their index among the 101
    <Class>_val.txt, Ambiguous_val.txt   or val_Annotation.csv: 3,007 instances in 200 videos, 89 unclear ones
    <Class>_test.txt, Ambiguous_test.txt or test_Annotation.csv: 3,358 instances in 213 videos, 99 unclear ones
    classInd.txt, trainlist01.txt, testlist01.txt  those of UCF101, for the option train""",
    source="UCF Center for Research in Computer Vision, THUMOS'14 page: validation and test videos, the .mat files and "
    "the archives TH14_Temporal_annotations_validation and TH14_Temporal_Annotations_Test",
    classes=101,
    videos=2584,
    splits={"1": (1010, 1574)},
    options={
        "task": "classification (default, 101 classes) or detection (20 classes, 200 and 213 videos)",
        "train": "validation (default), ucf101 or both: the training part of the classification task",
        "labels": "all (default) or single: of the detection task the videos with one action in the .mat files, their "
        "one label (167 and 174 videos)",
    },
    protocol="map",
)


def load(*, annotations: Path | None, videos: Path | None, options: Mapping[str, str]) -> Catalogue:
    """Read the official files; videos are found by their names."""
    task = read_option(INFO.name, options, "task", ("classification", "detection"))
    train = read_option(INFO.name, options, "train", ("validation", "ucf101", "both"))
    if task == "detection" and train != "validation":
        raise UsageError(f"Option train={train!r} of dataset 'thumos14' is one of task=classification; leave it out.")
    labels = read_option(INFO.name, options, "labels", ("all", "single"))
    if task == "classification" and labels == "single":
        raise UsageError("Option labels='single' of dataset 'thumos14' is one of task=detection; leave it out.")
    folder = annotations
    if folder is None:
        markers = ("validation_set.mat", "test_set_final.mat", "test_set_meta.mat", "detclasslist.txt",
                   "val_Annotation.csv")  # fmt: skip
        folder = find_annotations(INFO.name, None, usual_places(videos), *markers)
    files = AnnotationFiles.find(folder)
    if task == "detection":
        return _detection(files, videos, single=labels == "single")
    return _classification(files, videos, train)


def _classification(files: AnnotationFiles, videos: Path | None, train: str) -> Catalogue:
    """All videos with their actions; where the 20 actions happen comes along."""
    validation, names = files.entries("validation")
    test, test_names = files.entries("test")
    for index, name in test_names.items():
        if names.setdefault(index, name) != name:
            raise UsageError(
                f"{files.folder}: class {index + 1} is {names[index]!r} in one part and {name!r} in the other."
            )
    if sorted(names) != list(range(len(names))):
        raise UsageError(f"{files.folder}: the .mat files name {len(names)} classes with gaps; fetch them again.")
    classes = tuple(names[index] for index in range(len(names)))
    parts = [("validation", validation, TRAIN)] if train != "ucf101" else []
    parts.append(("test", test, TEST))
    instances = [i for part, _, _ in parts for i in files.instances(part, _detection_classes(files))]
    label = {name: index for index, name in enumerate(classes)}
    intervals = _intervals(instances, label)
    listed = [(entry, f"{part}/{entry.name}.mp4", role) for part, entries, role in parts for entry in entries]
    notes = _end_notes([entry for entry, _, _ in listed], instances)
    paths = [path for _, path, _ in listed]
    clips = _ucf101(files, classes) if train != "validation" else ()
    paths, found_notes = follow_names([*paths, *(f"UCF101/{clip.id}" for clip in clips)], videos)
    entries = [
        Video(
            id=entry.name,
            path=path,
            labels=tuple(label[action] for action in entry.actions),
            intervals=intervals.get(entry.name, ()),
        )
        for (entry, _, _), path in zip(listed, paths[: len(listed)], strict=True)
    ]
    entries += [
        Video(id=clip.id, path=path, labels=clip.labels, group=clip.group)
        for clip, path in zip(clips, paths[len(listed) :], strict=True)
    ]
    roles = np.array([*(role for _, _, role in listed), *(TRAIN for _ in clips)], dtype=np.int8)
    if not instances:
        notes += ("there are no temporal annotations, so no intervals",)
    return Catalogue(
        name=INFO.name, classes=classes, videos=tuple(entries), splits={"1": roles}, multi_label=True,
        notes=(*notes, *found_notes),
    )  # fmt: skip


def _detection_classes(files: AnnotationFiles) -> tuple[str, ...]:
    known = {"detclasslist.txt", "val_Annotation.csv", "test_Annotation.csv"} & set(files.files)
    return files.detection_classes() if known else ()


def _ucf101(files: AnnotationFiles, classes: tuple[str, ...]) -> tuple[Video, ...]:
    """Return the clips of UCF101's lists; both of one split together are all of them."""
    if "classInd.txt" not in files.files:
        find_annotations("ucf101", files.folder, (), "classInd.txt")
    clips = ucf101.load(annotations=files.files["classInd.txt"].parent, videos=None, options={})
    if clips.classes != classes:
        raise UsageError(f"{files.files['classInd.txt']} does not name the classes of THUMOS14 in their order.")
    return clips.videos


def _detection(files: AnnotationFiles, videos: Path | None, *, single: bool) -> Catalogue:
    """The videos with temporal annotations; its labels are those of its instances, unclear ones have none.

    Parameters
    ----------
    single : only videos with one action in the `.mat` files and an instance; that action is their label, or the class
        of their instances where it is none of the 20 (Haircut in video_test_0000270, which shows HammerThrow)
    """
    classes = files.detection_classes()
    label = {name: index for index, name in enumerate(classes)}
    alone = _alone(files) if single else {}
    names: list[str] = []
    roles: list[int] = []
    everything: list[Instance] = []
    for part, role in (("validation", TRAIN), ("test", TEST)):
        found = files.instances(part, classes)
        if single:
            kept = alone.keys() & {i.video for i in found if i.action != UNCLEAR}
            found = [i for i in found if i.video in kept]
        of_part = sorted({i.video for i in found})
        names += of_part
        roles += [role] * len(of_part)
        everything += found
    if not everything:
        files.detection_classes()
        raise UsageError(f"{files.folder} holds no <Class>_val.txt, <Class>_test.txt or csv; put them there.")
    intervals = _intervals(everything, label)
    labels = {
        name: tuple(dict.fromkeys(i.label for i in of_video if i.label != AMBIGUOUS))
        for name, of_video in intervals.items()
    }
    if single:
        labels = {name: (label.get(alone[name], shown[0]),) for name, shown in labels.items()}
    paths, notes = follow_names([f"{name.split('_')[1]}/{name}.mp4" for name in names], videos)
    entries = tuple(
        Video(id=name, path=path, labels=labels[name], intervals=intervals[name])
        for name, path in zip(names, paths, strict=True)
    )
    return Catalogue(
        name=INFO.name, classes=classes, videos=entries, splits={"1": np.array(roles, dtype=np.int8)},
        multi_label=not single, notes=notes,
    )  # fmt: skip


def _alone(files: AnnotationFiles) -> dict[str, str]:
    """Return the action of each video that the `.mat` files list with one."""
    entries = [entry for part in ("validation", "test") for entry in files.entries(part)[0]]
    return {entry.name: entry.actions[0] for entry in entries if len(entry.actions) == 1}


def _intervals(instances: list[Instance], label: Mapping[str, int]) -> dict[str, tuple[Interval, ...]]:
    """Return the intervals of each video, by class and then in the order of the file."""
    found: dict[str, list[Interval]] = defaultdict(list)
    for i in instances:
        found[i.video].append(
            Interval(
                start_seconds=i.start_seconds,
                stop_seconds=i.stop_seconds,
                label=AMBIGUOUS if i.action == UNCLEAR else label[i.action],
            )
        )
    return {video: tuple(of_video) for video, of_video in found.items()}


def _end_notes(entries: list[Entry], instances: list[Instance]) -> tuple[str, ...]:
    """Say how many instances start after their video's end: they stay, as in the official evaluation."""
    seconds = {entry.name: entry.seconds for entry in entries}
    late = Counter(i.video for i in instances if i.start_seconds >= seconds.get(i.video, np.inf))
    if not late:
        return ()
    (video, count), *_ = late.most_common(1)
    return (
        f"{late.total()} annotated instances start after the video's end, {count} of them in {video}; they are kept",
    )


DATASET = Dataset(info=INFO, load=load)
