"""`vidatt cache info`: what a store holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.index import Index
from ...cache.store import Store
from ...cache.stream import Stream
from ..record import Record
from ..runs.splits import PARTS


@dataclass(frozen=True, kw_only=True)
class SplitCounts(Record):
    """Videos of a split."""

    train: int
    test: int


@dataclass(frozen=True, kw_only=True)
class StoredStream(Record):
    """A stream of a store, and how much of it is extracted."""

    fingerprint: str
    recipe: Mapping[str, Any]
    cube: tuple[int, ...]  # K, K, D
    shards_done: int
    outcomes: Mapping[str, int]  # videos by outcome
    failed: tuple[Mapping[str, Any], ...]  # what the ledger says of each video whose outcome is not ok
    segments: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class StoreInfo(Record):
    """A store: its plan and its streams."""

    store: str
    attributes: Mapping[str, Any]
    videos: int
    classes: int
    splits: Mapping[str, SplitCounts]
    rows: int
    shards: int
    streams: Mapping[str, StoredStream]


def store_info(path: Path) -> StoreInfo:
    """Return the plan, the streams with their recipes, how much is extracted, and the outcomes.

    Raises
    ------
    StoreNotFoundError
    """
    store = Store.open(path)
    return StoreInfo(
        store=str(path),
        attributes=dict(store.attributes),
        videos=len(store.index.ids),
        classes=len(store.index.classes),
        splits=split_counts(store.index),
        rows=store.rows,
        shards=store.shard_count,
        streams={name: _stream_info(store.stream(name)) for name in store.stream_names},
    )


def split_counts(index: Index) -> dict[str, SplitCounts]:
    """Return the videos of each split."""
    return {
        name: SplitCounts(**{part: int((roles == role).sum()) for part, role in PARTS.items()})
        for name, roles in index.splits.items()
    }


def _stream_info(stream: Stream) -> StoredStream:
    outcomes = stream.outcomes()
    done = stream.done_shards()
    return StoredStream(
        fingerprint=stream.fingerprint,
        recipe=dict(stream.recipe),
        cube=stream.cube_shape,
        shards_done=len(done),
        outcomes=dict(sorted(Counter(o.outcome for o in outcomes).items())),
        failed=tuple(o.to_dict() for o in outcomes if o.outcome != "ok"),
        segments=sum(o.segments for o in outcomes),
        bytes=sum(entry["bytes"] for shard in done for entry in stream.marker(shard)["files"].values()),
    )
