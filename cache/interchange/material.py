"""Material: videos with their cubes, wherever they lie; what an export writes and an import reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import ShardMissingError, UsageError
from ..arrays import DTYPES
from ..index import Index
from ..layout import Layout
from ..ledger import VideoOutcome
from ..mending import told
from ..store import Store

AXES = "view, segment, row, column, channel"
"""Order of the axes of cubes; where a store has one view only, files leave the first one out."""


@dataclass(frozen=True, eq=False)
class VideoRows:
    """All rows of one video in one stream: view by view, then segment by segment."""

    cubes: np.ndarray  # [V*T, K, K, D] float16; padding is 0
    frames: np.ndarray  # [V*T, 3] int32: first, centre, stop in decode order; padding is -1
    seconds: np.ndarray  # [V*T] float64 of the centre frame; NaN = padding or unknown

    def by_view(self, views: int) -> VideoRows:
        """Return the arrays with an axis of views in front if there are several."""
        if views == 1:
            return self
        return VideoRows(*(a.reshape(views, -1, *a.shape[1:]) for a in (self.cubes, self.frames, self.seconds)))

    def flat(self, views: int) -> VideoRows:
        """Undo `by_view`."""
        if views == 1:
            return self
        return VideoRows(*(a.reshape(-1, *a.shape[2:]) for a in (self.cubes, self.frames, self.seconds)))


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamInfo:
    """What is known of a stream besides its rows."""

    name: str
    cube_shape: tuple[int, int, int]  # K, K, D
    recipe: Mapping[str, Any]
    fingerprint: str | None  # of the recipe where it was made; None for foreign material
    outcomes: Sequence[VideoOutcome]  # one per video of the index, in its order


class Material(ABC):
    """Videos with labels, splits and the rows of one or more streams.

    Attributes
    ----------
    name : what to call it in messages and recipes: the name of a file or folder, without its place
    index : the videos
    views : crops of each segment
    attributes : what its store said of itself; JSON values
    layout : the rows of the store that it is the whole of; None = to be planned
    streams : at least one
    """

    name: str
    index: Index
    views: int
    attributes: Mapping[str, Any]
    layout: Layout | None
    streams: Sequence[StreamInfo]

    @abstractmethod
    def rows(self, stream: str, position: int) -> VideoRows:
        """Read one video.

        Raises
        ------
        VidattError
            If it is damaged or cannot be what it should be; the message names it.
        """

    def stream(self, name: str) -> StreamInfo:
        """Return one stream.

        Raises
        ------
        UsageError
            If there is none of this name.
        """
        for stream in self.streams:
            if stream.name == name:
                return stream
        raise UsageError(f"{self.name} has no stream {name!r}; it has {', '.join(s.name for s in self.streams)}.")


class StoreMaterial(Material):
    """What is extracted in a store: the videos whose shards are done in all the streams.

    Attributes
    ----------
    missing : ids of the videos that are left out

    Raises
    ------
    ShardMissingError
        If no video is done.
    """

    def __init__(self, store: Store, streams: Sequence[str]) -> None:
        done = np.ones(len(store.index), bool)
        opened = [store.stream(name) for name in streams]
        for stream in opened:
            done &= stream.done_videos()
        if not opened or not done.any():
            raise ShardMissingError(
                f"The store {store.path} has no video that is done in {', '.join(streams) or 'any stream'}; "
                f"run {told(store.command(streams))}."
            )
        self._positions = np.flatnonzero(done)
        self.name, self.views, self.attributes = store.path.name, store.views, store.attributes
        self.missing = [str(store.index.ids[position]) for position in np.flatnonzero(~done)]
        self.index = store.index if done.all() else select(store.index, self._positions)
        # Of a store that was extended the copy is made in one piece, without the gaps between.
        self.layout = store.layout if done.all() and not store.layout.earlier_rows else None
        self._readers = {stream.name: stream.reader() for stream in opened}
        ids = set(self.index.ids)
        self.streams = [
            StreamInfo(
                name=stream.name,
                cube_shape=stream.cube_shape,
                recipe=stream.recipe,
                fingerprint=stream.fingerprint,
                outcomes=[outcome for outcome in stream.outcomes() if outcome.id in ids],
            )
            for stream in opened
        ]

    def rows(self, stream: str, position: int) -> VideoRows:
        """Read one video."""
        reader, place = self._readers[stream], int(self._positions[position])
        start, stop = reader.row_range(place)[0], reader.row_range(place, self.views - 1)[1]
        return VideoRows(
            cubes=reader.read_rows(start, stop),
            frames=np.concatenate([reader.frames(place, view) for view in range(self.views)]),
            seconds=np.concatenate([reader.seconds(place, view) for view in range(self.views)]),
        )


def require_object(value: Any) -> Mapping[str, Any]:
    """Return what an export states as a JSON object; refuse anything else."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{str(value)[:40]!r} stands where an object should be")
    return value


MOST_CHUNKS = 1_000_000
"""Chunks of a shard at most: its index has 16 bytes for each, whether it is there or not."""


def stated_layout(index: Index, views: int, told: Mapping[str, Any]) -> Layout:
    """Read the layout that an export states; it may be any that holds the rows of its index.

    Raises
    ------
    UsageError
        If a number is none, or rows would lie outside, over each other, or in shards of an absurd size.
    """
    numbers = {name: told[name] for name in ("rows", "chunk_rows", "shard_rows")}
    if views < 1 or any(type(number) is not int or number < 1 for number in numbers.values()):
        raise UsageError(f"a layout of {views} views and {numbers} is none")
    layout = Layout(offset=index.offset, **numbers)
    ends = index.offset + views * index.length.astype(np.int64)
    if (
        len(index.offset) != len(index)
        or index.offset[0] < 0
        or (ends[:-1] > index.offset[1:]).any()
        or not ends[-1] <= layout.rows <= ends[-1] + layout.shard_rows
        or layout.shard_rows % layout.chunk_rows
        or layout.shard_rows // layout.chunk_rows > MOST_CHUNKS
    ):
        raise UsageError(f"{layout!r} is not one of its {len(index)} videos")
    return layout


def stated_stream(
    index: Index, name: str, cube_shape: Sequence[int], recipe: Any, fingerprint: Any, outcomes: Sequence[Any]
) -> StreamInfo:
    """Read what an export states of a stream; what it states of the videos' rows is checked with them.

    Raises
    ------
    UsageError, CorruptStoreError
        If it has not one outcome per video, in their order, or something is of another type.
    """
    sides = tuple(int(side) for side in cube_shape)
    read = [VideoOutcome.from_dict(values) for values in outcomes]
    if len(sides) != 3 or min(sides) < 1:
        raise UsageError(f"stream {name!r} has cubes of shape {list(sides)}")
    if not isinstance(fingerprint, str | None):
        raise UsageError(f"stream {name!r} has the fingerprint {str(fingerprint)[:40]!r}")
    if [outcome.id for outcome in read] != list(index.ids):
        raise UsageError(f"stream {name!r} has not one outcome per video, in their order")
    return StreamInfo(
        name=name,
        cube_shape=(sides[0], sides[1], sides[2]),
        recipe=require_object(recipe),
        fingerprint=fingerprint,
        outcomes=read,
    )


def select(index: Index, positions: np.ndarray) -> Index:
    """Return the index of some of the videos, without offsets; intervals and boxes of the others are dropped."""
    place = np.full(len(index), -1, np.int64)
    place[positions] = np.arange(len(positions))
    changes: dict[str, Any] = {"offset": np.zeros(0, np.int64)}
    for name in ("ids", "paths", "groups", "labels", "length", "span_seconds"):
        changes[name] = getattr(index, name)[positions]
    for kind in ("interval", "box"):
        kept = place[getattr(index, f"{kind}_video")] >= 0
        for field in fields(index):
            if field.name.startswith(f"{kind}_"):
                changes[field.name] = getattr(index, field.name)[kept]
        changes[f"{kind}_video"] = place[changes[f"{kind}_video"]]
    splits = {name: roles[positions] for name, roles in index.splits.items()}
    return replace(index, **changes, splits=splits)


def check_rows(material: Material, stream: StreamInfo, position: int, rows: VideoRows) -> None:
    """Refuse rows that are not those of the video.

    Raises
    ------
    UsageError
        On other shapes or dtypes, numbers that are not finite, or padding that the outcome does not tell of.
    """
    what = f"{material.name}: video {str(material.index.ids[position])!r} of stream {stream.name!r}"
    count = material.views * int(material.index.length[position])
    for name, tail in (("cubes", stream.cube_shape), ("frames", (3,)), ("seconds", ())):
        array, wanted = getattr(rows, name), (count, *tail)
        if array.shape != wanted or array.dtype != DTYPES[name]:
            raise UsageError(
                f"{what} has {name} {array.shape} {array.dtype}; they should be {wanted} {DTYPES[name]}. "
                "Nothing was imported."
            )
    if not np.isfinite(rows.cubes).all():
        raise UsageError(f"{what} holds NaN or infinity; mend it, or leave it out. Nothing was imported.")
    real = (rows.frames[:, 0] >= 0).reshape(material.views, -1).sum(1)
    if (real != stream.outcomes[position].segments).any():
        raise UsageError(
            f"{what} has {real.tolist()} rows with frames in its views, but its outcome says "
            f"{stream.outcomes[position].segments} segments. Nothing was imported."
        )


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse names with slashes that cannot stand in one tree of folders (or HDF5 groups).

    Parameters
    ----------
    names : of the files
    where : what they would be, for the message

    Raises
    ------
    UsageError
        On a name that leaves the tree, and on a file that would also be a folder.
    """
    files = set(names)
    for name in sorted(files):
        parts = PurePosixPath(name).parts
        if not parts or "/".join(parts) != name or {".", ".."} & set(name.split("/")) or "\0" in name:
            raise UsageError(f"The name {name!r} cannot be {where}; use --format hdf5-packed.")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in files:
                raise UsageError(
                    f"{'/'.join(parts[:end])!r} would be {where} and the folder of {name!r}; use --format hdf5-packed."
                )


def refuse_existing(path: Path) -> None:
    """Refuse to write over something.

    Raises
    ------
    UsageError
    """
    if path.exists():
        raise UsageError(f"{path} exists already; name another place, or remove it.")
