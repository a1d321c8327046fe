"""A shard under the magnifying glass: its marker, the SHA-256 of its files, the crc32c of every chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import CorruptStoreError, VidattError
from .fingerprint import sha256_of
from .ledger import VideoOutcome
from .publish import ARRAYS, DONE, shard_key
from .shards import ShardedArray
from .stream_files import StreamFiles


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong with a shard."""

    reason: str
    file: str  # relative to the stream
    videos: tuple[int, ...]  # positions of those whose rows are concerned


@dataclass(frozen=True, eq=False, kw_only=True)
class Examined:
    """What was read of a shard."""

    findings: Sequence[Finding]
    read_bytes: int
    outcomes: Sequence[VideoOutcome]  # of its videos, in order; empty where the marker is damaged
    frames: np.ndarray | None  # [rows, 3] int32; None where damaged
    seconds: np.ndarray | None  # [rows] float64; None where damaged


def examine_shard(stream: StreamFiles, shard: int) -> Examined:
    """Read every byte of a shard that is done and compare it with its marker; what is wrong is found, not raised."""
    everyone = tuple(stream.store.shard_videos(shard))
    try:
        marker = stream.marker(shard)
        outcomes = [VideoOutcome.from_dict(values) for values in marker["videos"]]
    except VidattError as error:
        what = error.what if isinstance(error, CorruptStoreError) else str(error)
        wrong = Finding(reason=what, file=f"{DONE}/{shard}.json", videos=everyone)
        return Examined(findings=[wrong], read_bytes=0, outcomes=[], frames=None, seconds=None)
    findings: list[Finding] = []
    rows: dict[str, np.ndarray | None] = {}
    size = 0
    for name in reversed(ARRAYS):  # which rows are padding is known when the cubes come
        key = shard_key(name, 1 + len(stream.row_shape(name)), shard)
        found, read = _file(stream, key, marker["files"].get(key), everyone)
        frames = rows.get("frames")
        if key in marker["files"]:
            wrong_chunks, rows[name] = _chunks(stream, name, key, shard, None if frames is None else frames[:, 0] < 0)
        else:  # every row is padding
            fill, row_shape = stream.arrays[name].fill, stream.row_shape(name)
            wrong_chunks, rows[name] = [], np.broadcast_to(fill, (marker["rows"], *row_shape))
        findings += [*found, *wrong_chunks]
        size += read
    return Examined(
        findings=findings, read_bytes=size, outcomes=outcomes, frames=rows["frames"], seconds=rows["seconds"]
    )


def _file(
    stream: StreamFiles, key: str, told: dict[str, int | str] | None, videos: tuple[int, ...]
) -> tuple[list[Finding], int]:
    """Compare a file with its SHA-256."""
    path = stream.path / key
    try:
        size = path.stat().st_size if told or path.exists() else 0
        if not told:
            wrong = f"{path} stands there, and its commit marker tells of no such file" if path.exists() else ""
        elif size != told["bytes"]:
            wrong = f"{path} has {size} bytes, its commit marker says {told['bytes']}"
        else:
            wrong = (
                "" if sha256_of(path) == told["sha256"] else f"{path} does not have the SHA-256 of its commit marker"
            )
    except FileNotFoundError:
        wrong, size = f"{path} is missing though its shard is marked done", 0
    except OSError as error:
        wrong, size = f"{path} cannot be read ({error.strerror})", 0
    return ([Finding(reason=wrong, file=key, videos=videos)] if wrong else []), size


def _chunks(
    stream: StreamFiles, name: str, key: str, shard: int, padding: np.ndarray | None
) -> tuple[list[Finding], np.ndarray | None]:
    """Read a shard chunk by chunk as a reader does; frames and seconds whole, None if a chunk is damaged.

    Parameters
    ----------
    padding : [rows] bool, which rows of cubes must be zero; None = not known
    """
    store = stream.store
    start, stop = store.shard_row_range(shard)
    findings: dict[str, list[int]] = {}
    kept = None if name == "cubes" else np.empty((stop - start, *stream.row_shape(name)), stream.arrays[name].dtype)
    buffer = np.empty((store.chunk_rows, *stream.row_shape(name)), stream.arrays[name].dtype)
    array = ShardedArray(stream, name)
    try:
        for first in range(start, stop, store.chunk_rows):
            last = min(first + store.chunk_rows, stop)
            out = buffer[: last - first] if kept is None else kept[first - start : last - start]
            try:
                array.read(first, last, out)
                wrong = ""
                if name == "cubes" and padding is not None:
                    empty = padding[first - start : last - start]
                    told = out if empty.all() else out[empty]  # what is not copied is seen at memory speed
                    if told.view(np.uint16).any():
                        wrong = f"{stream.path / key} has values in rows of padding"
            except CorruptStoreError as error:
                wrong, kept = error.what, None
            except OSError as error:
                wrong, kept = f"{stream.path / key} cannot be read ({error.strerror})", None
            if wrong:
                findings.setdefault(wrong, []).extend(_videos(stream, first, last))
    finally:
        array.close()
    found = [Finding(reason=reason, file=key, videos=tuple(sorted(set(videos)))) for reason, videos in findings.items()]
    return found, kept


def _videos(stream: StreamFiles, first: int, last: int) -> range:
    """Return the positions of the videos with rows in [first, last)."""
    offset = stream.store.index.offset
    begin, end = np.searchsorted(offset, [first, last - 1], side="right")
    return range(max(0, int(begin) - 1), int(end))
