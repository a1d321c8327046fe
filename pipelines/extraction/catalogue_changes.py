"""What a catalogue says otherwise than the store that was planned by an earlier one, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...cache.index import Index
from ...extract.datasets.catalogue import Catalogue, Video

MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class CatalogueChanges:
    """The differences between a store's index and a catalogue; ids of videos."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    moved: tuple[str, ...]  # with another file or stretch
    relabelled: tuple[str, ...]
    regrouped: tuple[str, ...]
    annotated: tuple[str, ...]  # with other intervals or boxes
    resplit: tuple[str, ...]  # names of splits that are new, gone, or have other roles for videos that are in both
    classes: tuple[str, ...]  # that are new or gone

    @property
    def only_adds(self) -> bool:
        """Whether a store can follow without touching what it has: its videos are all there, with their files."""
        return not self.removed and not self.moved

    def words(self) -> str:
        """Return them as one line: `1 video added: a/fi037.mp4; 1 label changed: b.mp4`."""
        told = [
            _told("video", "added", self.added),
            _told("video", "removed", self.removed),
            _told("video", "with another file or stretch", self.moved),
            _told("label", "changed", self.relabelled),
            _told("group", "changed", self.regrouped),
            _told("video", "with other intervals or boxes", self.annotated),
            _told("split", "changed", self.resplit),
            _told("class", "added or gone", self.classes, plural="classes"),
        ]
        return "; ".join(filter(None, told)) or "the same videos and labels in another order"


def catalogue_changes(index: Index, catalogue: Catalogue) -> CatalogueChanges:
    """Compare the index of a store with a catalogue."""
    position = {str(id): p for p, id in enumerate(index.ids.tolist())}
    both = [(video, position[video.id]) for video in catalogue.videos if video.id in position]
    ours = {video.id for video in catalogue.videos}
    return CatalogueChanges(
        added=tuple(video.id for video in catalogue.videos if video.id not in position),
        removed=tuple(id for id in position if id not in ours),
        moved=tuple(video.id for video, p in both if _file(video) != _stored_file(index, p)),
        relabelled=tuple(
            video.id
            for video, p in both
            if [catalogue.classes[i] for i in video.labels] != [index.classes[i] for i in index.labels[p] if i >= 0]
        ),
        regrouped=tuple(video.id for video, p in both if video.group != index.groups[p]),
        annotated=_annotated(index, catalogue, both),
        resplit=_resplit(index, catalogue, position),
        classes=tuple(sorted(set(catalogue.classes) ^ set(index.classes))),
    )


def _told(what: str, how: str, names: Sequence[str], *, plural: str | None = None) -> str:
    if not names:
        return ""
    some = ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
    return f"{len(names)} {what if len(names) == 1 else plural or f'{what}s'} {how}: {some}"


def _file(video: Video) -> tuple[str, float | None, float | None]:
    return video.path, video.start_seconds, video.stop_seconds


def _stored_file(index: Index, position: int) -> tuple[str, float | None, float | None]:
    start, stop = (None if np.isnan(x) else float(x) for x in index.span_seconds[position])
    return str(index.paths[position]), start, stop


def _annotated(index: Index, catalogue: Catalogue, both: Sequence[tuple[Video, int]]) -> tuple[str, ...]:
    stored: dict[int, list[tuple[object, ...]]] = {}

    def name(label: int) -> str | None:
        return index.classes[label] if label >= 0 else None

    for p, seconds, label in zip(
        index.interval_video.tolist(), index.interval_seconds.tolist(), index.interval_label.tolist(), strict=True
    ):
        stored.setdefault(p, []).append(("interval", *seconds, name(label)))
    for p, frame, corners, label in zip(
        index.box_video.tolist(), index.box_frame.tolist(), index.box_xyxy.tolist(), index.box_label.tolist(),
        strict=True,
    ):  # fmt: skip
        stored.setdefault(p, []).append(("box", frame, *corners, name(label)))

    def told(video: Video) -> list[tuple[object, ...]]:
        intervals: list[tuple[object, ...]] = [
            ("interval", x.start_seconds, x.stop_seconds, catalogue.classes[x.label] if x.label >= 0 else None)
            for x in video.intervals
        ]
        return intervals + [
            ("box", x.frame, *np.array([x.x1, x.y1, x.x2, x.y2], np.float32).tolist(), catalogue.classes[x.label])
            for x in video.boxes
        ]

    return tuple(video.id for video, p in both if told(video) != stored.get(p, []))


def _resplit(index: Index, catalogue: Catalogue, position: dict[str, int]) -> tuple[str, ...]:
    rows = [(row, position[video.id]) for row, video in enumerate(catalogue.videos) if video.id in position]
    ours, theirs = (np.array([pair[i] for pair in rows], np.int64) for i in (0, 1))
    changed = set(index.splits) ^ set(catalogue.splits)
    for name in set(index.splits) & set(catalogue.splits):
        if not np.array_equal(catalogue.splits[name][ours], index.splits[name][theirs]):
            changed.add(name)
    return tuple(sorted(changed))
