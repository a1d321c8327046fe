"""`vidatt cache diff`: in what two stores differ, video by video, down to the numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.fingerprint import differences
from ...cache.ledger import VideoOutcome
from ...cache.root import OWN
from ...cache.store import Store
from ...cache.stream import Stream
from ..record import Record
from ..runs.progress import Progress


@dataclass(frozen=True, kw_only=True)
class DifferentVideo(Record):
    """A video whose rows are not the same in both stores."""

    id: str
    max_abs: float | None  # largest difference of two values of its cubes; None = other shapes, or NaN in one alone
    frames: bool  # whether frames or seconds differ
    outcomes: tuple[str, ...]  # in the one and the other


@dataclass(frozen=True, kw_only=True)
class StreamDifference(Record):
    """A stream that both stores have."""

    recipe: tuple[str, ...]  # in what the recipes differ; empty = nothing
    compared: int  # videos done in both
    only_first: int  # videos done in the first alone
    only_second: int
    different: tuple[DifferentVideo, ...]
    max_abs: float  # over all compared cubes


@dataclass(frozen=True, kw_only=True)
class StoreDifference(Record):
    """In what two stores differ."""

    first: str
    second: str
    equal: bool
    plan: tuple[str, ...]  # attributes that differ, dataset and sampler among them
    only_first: tuple[str, ...]  # ids of videos
    only_second: tuple[str, ...]
    described: tuple[str, ...]  # ids whose path, labels, splits or length differ
    streams_only_first: tuple[str, ...]
    streams_only_second: tuple[str, ...]
    streams: Mapping[str, StreamDifference]
    seconds: float


def compare_stores(first: Path, second: Path) -> StoreDifference:
    """Read two stores and compare them by video id; the order of videos and the size of shards may differ.

    Raises
    ------
    StoreNotFoundError, CorruptStoreError
        If one is not there, or damaged.
    """
    started = time.monotonic()
    a, b = Store.open(first), Store.open(second)
    places = {id: position for position, id in enumerate(b.index.ids.tolist())}
    known = set(a.index.ids.tolist())
    pairs = [(n, places[id]) for n, id in enumerate(a.index.ids.tolist()) if id in places]
    names = [name for name in a.stream_names if name in b.stream_names]
    with Progress("compare", len(names) * len(pairs), unit="video") as progress:
        streams = {name: _compare_stream(a.stream(name), b.stream(name), pairs, progress) for name in names}
    plan = _differences(*({k: v for k, v in s.attributes.items() if k not in OWN} for s in (a, b)))
    if a.views != b.views:
        plan = (*plan, f"views: {a.views} in the first, {b.views} in the second")
    described = tuple(str(a.index.ids[n]) for n, m in pairs if _described(a, n) != _described(b, m))
    only_first = tuple(id for id in a.index.ids.tolist() if id not in places)
    only_second = tuple(id for id in b.index.ids.tolist() if id not in known)
    alone = [tuple(sorted(set(x.stream_names) - set(y.stream_names))) for x, y in ((a, b), (b, a))]
    equal = not (plan or described or only_first or only_second or any(alone)) and all(
        not (s.recipe or s.different or s.only_first or s.only_second) for s in streams.values()
    )
    return StoreDifference(
        first=str(first),
        second=str(second),
        equal=equal,
        plan=plan,
        only_first=only_first,
        only_second=only_second,
        described=described,
        streams_only_first=alone[0],
        streams_only_second=alone[1],
        streams=streams,
        seconds=round(time.monotonic() - started, 3),
    )


def _differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(differences(one, two, places=("in the first", "in the second")))


def _described(store: Store, position: int) -> tuple[object, ...]:
    """Return what the index says of a video; classes by name, since their numbers may differ."""
    index = store.index
    return (
        str(index.paths[position]),
        str(index.groups[position]),
        sorted(index.classes[label] for label in index.labels[position] if label >= 0),
        int(index.length[position]),
        [None if np.isnan(x) else x for x in index.span_seconds[position].tolist()],
        {name: int(roles[position]) for name, roles in index.splits.items()},
    )


def _compare_stream(a: Stream, b: Stream, pairs: Sequence[tuple[int, int]], progress: Progress) -> StreamDifference:
    done, outcomes = zip(*(_done(stream) for stream in (a, b)), strict=True)
    readers = a.reader(), b.reader()
    different: list[DifferentVideo] = []
    compared = 0
    most = 0.0
    for places in pairs:
        if done[0][places[0]] and done[1][places[1]]:
            compared += 1
            told = [outcomes[n][str(s.store.index.ids[p])] for n, (s, p) in enumerate(zip((a, b), places, strict=True))]
            rows = [_rows(reader, place) for reader, place in zip(readers, places, strict=True)]
            largest = _largest(rows[0][0], rows[1][0])
            frames = any(
                not np.array_equal(x, y, equal_nan=True) for x, y in zip(rows[0][1:], rows[1][1:], strict=True)
            )
            most = max(most, largest or 0.0)
            if largest != 0.0 or frames or told[0] != told[1]:
                different.append(
                    DifferentVideo(
                        id=told[0].id, max_abs=largest, frames=frames, outcomes=tuple(o.outcome for o in told)
                    )
                )
        progress.advance()
    only = [sum(bool(done[n][p[n]]) and not done[1 - n][p[1 - n]] for p in pairs) for n in (0, 1)]
    recipe = _differences(a.recipe, b.recipe)
    if a.cube_shape != b.cube_shape:
        recipe = (*recipe, f"cubes: {a.cube_shape} in the first, {b.cube_shape} in the second")
    return StreamDifference(
        recipe=recipe, compared=compared, only_first=only[0], only_second=only[1], different=tuple(different),
        max_abs=most,
    )  # fmt: skip


def _done(stream: Stream) -> tuple[np.ndarray, dict[str, VideoOutcome]]:
    return stream.done_videos(), {outcome.id: outcome for outcome in stream.outcomes()}


def _rows(reader: Any, position: int) -> list[np.ndarray]:
    """Read cubes, frames and seconds of a video, all its views."""
    views = range(reader.stream.store.views)
    parts = [
        (reader.read_video(position, view=view), reader.frames(position, view), reader.seconds(position, view))
        for view in views
    ]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _largest(one: np.ndarray, two: np.ndarray) -> float | None:
    """Return the largest absolute difference; None for other shapes, and where one alone is NaN or infinite."""
    if one.shape != two.shape:
        return None
    if np.array_equal(one.view(np.uint16), two.view(np.uint16)):
        return 0.0
    with np.errstate(invalid="ignore"):
        apart = np.abs(one.astype(np.float32) - two.astype(np.float32))
    apart[(one == two) | (np.isnan(one) & np.isnan(two))] = 0.0
    return float(apart.max(initial=0.0)) if np.isfinite(apart).all() else None
