"""`vidatt status`: how far a store is, told by the store alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.made_by import continuing
from ...cache.marker import parse_marker
from ...cache.mending import repair_command
from ...cache.publish import DONE, SCRATCH
from ...cache.scratch import abandoned
from ...cache.store import Store
from ...cache.stream import Stream
from ...errors import CorruptStoreError
from ..record import OPTIONAL, Record


@dataclass(frozen=True, kw_only=True)
class StreamStatus(Record):
    """How far a stream is."""

    shards_done: int
    videos_done: int  # whose first shard is done
    outcomes: Mapping[str, int]  # of those, by outcome
    bytes: int
    damaged: tuple[str, ...]  # markers and metadata that cannot be read, relative to the store


@dataclass(frozen=True, kw_only=True)
class StoreStatus(Record):
    """How far a store is."""

    store: str
    dataset: str | None
    videos: int
    shards: int  # of each stream
    streams: Mapping[str, StreamStatus]
    complete: bool  # all shards of all streams are done, and no marker is damaged
    retryable: int  # videos that a stream could not read: `vidatt extract --retry` looks at them again
    at_work: int  # writers that hold scratch folders at this moment
    command: str | None  # that goes on, or mends; None = there is nothing to do
    retry_command: str | None = field(default=None, metadata=OPTIONAL)  # that looks at them again, where it is recorded


def store_status(path: Path) -> StoreStatus:
    """Count what is done. Only index and markers are read; that files hold what they should says `verify_store`.

    Raises
    ------
    StoreNotFoundError, CorruptStoreError
        If there is no store, or its root or index are damaged.
    """
    store = Store.open(path)
    failed: set[str] = set()
    streams: dict[str, StreamStatus] = {}
    for name in store.stream_names:
        try:
            streams[name] = _stream_status(store.stream(name), failed)
        except CorruptStoreError:
            streams[name] = StreamStatus(shards_done=0, videos_done=0, outcomes={}, bytes=0, damaged=(name,))
    damaged = any(stream.damaged for stream in streams.values())
    done = bool(streams) and all(stream.shards_done == store.shard_count for stream in streams.values())
    unfinished = [name for name, stream in streams.items() if stream.shards_done < store.shard_count]
    scratch = path / SCRATCH
    at_work = len(set(scratch.glob("*")) - set(abandoned(scratch)))
    return StoreStatus(
        store=str(path),
        dataset=store.plan.dataset,
        videos=len(store.index),
        shards=store.shard_count,
        streams=streams,
        complete=done and not damaged,
        retryable=len(failed),
        at_work=at_work,
        retry_command=_retry(path, list(streams)) if failed else None,
        command=repair_command(path) if damaged else None if done else store.command(unfinished),
    )


def _retry(path: Path, streams: list[str]) -> str | None:
    """Return the recorded command of all streams with --retry; None where there is none, or one for each of some."""
    command = continuing(path, streams)
    return None if command is None or " && " in command else f"{command} --retry"


def _stream_status(stream: Stream, failed: set[str]) -> StreamStatus:
    """Count the outcomes of a stream; the ids of videos that are not `ok` go to `failed`."""
    store = stream.store
    names = sorted(name for name in os.listdir(stream.path / DONE) if name.removesuffix(".json").isdecimal())
    outcomes: Counter[str] = Counter()
    damaged: list[str] = []
    size = done = 0
    long: set[str] = set()
    for name in names:
        shard = int(name.removesuffix(".json"))
        try:
            if shard >= store.shard_count:
                raise ValueError("there is no such shard")
            marker = parse_marker((stream.path / DONE / name).read_bytes())
            if marker["shard"] != shard:
                raise ValueError("it is another shard's")
            told = {video["id"]: video["outcome"] for video in marker["videos"]}
            here = Counter(map(str, told.values()))
        except (ValueError, LookupError, OSError):
            damaged.append(f"{stream.name}/{DONE}/{name}")
            continue
        done += 1
        size += sum(file["bytes"] for file in marker["files"].values())
        if len(told) == 1:  # a video longer than a shard has several to itself
            if long.issuperset(told):
                continue
            long.update(told)
        outcomes += here
        if set(told.values()) != {"ok"}:
            failed.update(id for id, outcome in told.items() if outcome != "ok")
    return StreamStatus(
        shards_done=done,
        videos_done=sum(outcomes.values()),
        outcomes=dict(sorted(outcomes.items())),
        bytes=size,
        damaged=tuple(damaged),
    )
