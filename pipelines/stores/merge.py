"""`vidatt cache merge`: the shards of several partial stores of one plan, gathered in one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.fingerprint import differences
from ...cache.made_by import note_command
from ...cache.publish import adopt_shard
from ...cache.root import DIGEST
from ...cache.store import Store
from ...cache.stream import Stream
from ...errors import FingerprintMismatchError, RefusedError, UsageError
from ..record import Record
from ..runs.progress import Progress


@dataclass(frozen=True, kw_only=True)
class MergedStream(Record):
    """A stream of the store that was gathered."""

    taken: int  # shards that came from the sources
    there: int  # that it had before
    missing: int  # that nobody has


@dataclass(frozen=True, kw_only=True)
class MergeResult(Record):
    """A store that was gathered, or would be."""

    into: str
    new: bool
    sources: tuple[str, ...]
    shards: int
    streams: Mapping[str, MergedStream]
    bytes: int  # of what was taken
    dry_run: bool
    seconds: float


@dataclass(frozen=True)
class _Take:
    stream: str
    shard: int
    source: Path  # the folder of the stream that has it
    bytes: int


def _adopt(into: Path, takes: Sequence[_Take]) -> None:
    with Progress("merge", len(takes), unit="shard") as progress:
        for take in takes:
            adopt_shard(into / take.stream, take.shard, take.source)
            progress.advance()


def merge_stores(
    sources: Sequence[Path], into: Path, *, dry_run: bool = False, command: str | None = None
) -> MergeResult:
    """Take every shard that `into` lacks from the first source that has it; a repeated call continues.

    Everything is compared before anything is written. Files are hard links where source and target share a file
    system, else copies, and each is hashed.

    Parameters
    ----------
    command : as it was typed, to be recorded

    Raises
    ------
    RefusedError
        If the stores are of different plans, or two have a shard with different content.
    FingerprintMismatchError
        If two have a stream of one name and different recipes.
    CorruptStoreError
        If a file of a source is not what its marker says; what was taken before stays.
    """
    started = time.monotonic()
    if not sources:
        raise UsageError("Name the stores to merge.")
    target = Store.open(into) if into.exists() else None
    new = target is None
    opened = [*([target] if target else []), *map(Store.open, sources)]
    first = _of_one_plan(opened)
    names = list(dict.fromkeys(name for store in opened for name in store.stream_names))
    streams = {name: [s.stream(name) for s in opened if name in s.stream_names] for name in names}
    found = {name: _choose(streams[name]) for name in names}
    takes = [take for some in found.values() for take in some if new or take.source.parent != into]
    if not dry_run:
        if target is None:
            target = first.copy_plan(into)
        target.sweep()  # of writers that were killed
        for name in names:
            target.copy_stream(streams[name][0])
        _adopt(into, takes)
        if takes and command is not None:
            note_command(into, command=command)
    taken = Counter(take.stream for take in takes)
    return MergeResult(
        into=str(into),
        new=new,
        sources=tuple(map(str, sources)),
        shards=first.shard_count,
        streams={
            name: MergedStream(
                taken=taken[name], there=len(found[name]) - taken[name], missing=first.shard_count - len(found[name])
            )
            for name in names
        },
        bytes=sum(take.bytes for take in takes),
        dry_run=dry_run,
        seconds=round(time.monotonic() - started, 3),
    )


def _of_one_plan(stores: Sequence[Store]) -> Store:
    """Return the first of stores that have one plan."""
    first, *others = stores
    for store in others:
        if odd := differences(_plan(first), _plan(store), places=(f"in {first.path}", f"in {store.path}")):
            raise RefusedError(f"The stores are of different plans: {'; '.join(odd)}. Nothing was merged.")
    return first


def _plan(store: Store) -> dict[str, Any]:
    return {key: value for key, value in store.attributes.items() if key != DIGEST}


def _choose(streams: Sequence[Stream]) -> list[_Take]:
    """Return for each shard the first stream that has it; the streams must not contradict each other."""
    first = streams[0]
    for stream in streams[1:]:
        places = (f"in {first.store.path}", f"in {stream.store.path}")
        told = [{**s.recipe, "cube_shape": s.cube_shape, "padding": _padding(s)} for s in (first, stream)]
        if odd := differences(*told, places=places):
            raise FingerprintMismatchError(
                f"Stream {first.name!r} was made with different recipes: {'; '.join(odd)}. Nothing was merged."
            )
    found: dict[int, tuple[Stream, dict[str, Any]]] = {}
    for stream in streams:
        for shard in stream.done_shards():
            marker = stream.marker(shard)
            other, before = found.setdefault(shard, (stream, marker))
            if _content(before) != _content(marker):
                raise RefusedError(
                    f"Shard {shard} of stream {first.name!r} has one content in {other.store.path} and another in "
                    f"{stream.store.path}; leave one of them out. Nothing was merged."
                )
    return [
        _Take(first.name, shard, stream.path, sum(file["bytes"] for file in marker["files"].values()))
        for shard, (stream, marker) in sorted(found.items())
    ]


def _padding(stream: Stream) -> dict[str, str]:
    """What absent rows read as: it is other in stores of before."""
    return {name: str(array.fill) for name, array in stream.arrays.items()}


def _content(marker: dict[str, Any]) -> tuple[object, ...]:
    return marker["videos"], {key: (told["bytes"], told["sha256"]) for key, told in marker["files"].items()}
