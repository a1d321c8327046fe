"""The rows of a store: which video has which, and which shard holds them."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .index import Index
from .layout import Layout
from .made_by import continuing
from .plan import StorePlan


def fits(index: Index, views: int, layout: Layout) -> bool:
    """Whether a layout has room for each video of an index, in its order, each beginning with a chunk."""
    ends = layout.offset + views * index.length
    return not (
        (ends[:-1] > layout.offset[1:]).any()
        or layout.offset[0] < 0
        or ends[-1] > layout.rows
        or (layout.offset % layout.chunk_rows).any()
    )


class StoreRows:
    """What a stream knows of the store that it lies in, and a store is built on.

    Attributes
    ----------
    path : the folder of the store
    attributes : schema, digests, row layout, and what the planner gave
    index : the videos, in store order
    views, rows, chunk_rows, shard_rows : the layout; rows of a video are view-major, then by segment
    """

    def __init__(self, path: Path, attributes: dict[str, Any], index: Index) -> None:
        self.path, self.attributes, self.index = path, attributes, index
        self.views: int = attributes["views"]
        self.rows: int = attributes["rows"]
        self.chunk_rows: int = attributes["chunk_rows"]
        self.shard_rows: int = attributes["shard_rows"]

    @cached_property
    def plan(self) -> StorePlan:
        """What the planner said of it."""
        return StorePlan.of(self.attributes)

    @cached_property
    def layout(self) -> Layout:
        """Which rows each video has."""
        return Layout(
            offset=self.index.offset,
            rows=self.rows,
            chunk_rows=self.chunk_rows,
            shard_rows=self.shard_rows,
            earlier_rows=tuple(self.attributes.get("earlier_rows", ())),
        )

    @property
    def shard_count(self) -> int:
        """Number of shards, the same for every stream."""
        return -(-self.rows // self.shard_rows)

    @property
    def equal_lengths(self) -> bool:
        """Whether all videos have the same number of segments (a trimmed set)."""
        return bool((self.index.length == self.index.length[0]).all())

    @property
    def quoted(self) -> str:
        """The path as it is written in a command."""
        return shlex.quote(str(self.path))

    def command(self, streams: Sequence[str] = ()) -> str:
        """Return the command that continues these streams (none = all): as recorded, else as far as the plan says."""
        named = f" --dataset {shlex.quote(self.plan.dataset)}" if self.plan.dataset else ""
        return continuing(self.path, streams) or f"vidatt extract{named} --store {self.quoted}"

    def shard_videos(self, shard: int) -> range:
        """Return the positions of the videos with rows in a shard; a video longer than a shard stands in several."""
        self._check_shard(shard)
        return self.layout.shard_videos(shard)

    def shard_row_range(self, shard: int) -> tuple[int, int]:
        """Return the rows [start, stop) of a shard."""
        self._check_shard(shard)
        return self.layout.row_range(shard)

    def shard_plan(self, shard: int) -> str:
        """SHA-256 of what was planned for a shard: its rows, its videos and their rows, whatever comes after it."""
        start, stop = self.shard_row_range(shard)
        videos = self.shard_videos(shard)
        told = [shard, self.views, self.chunk_rows, start, stop, self.index.digest(slice(videos.start, videos.stop))]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def _check_shard(self, shard: int) -> None:
        if not 0 <= shard < self.shard_count:
            raise UsageError(f"The store {self.path} has shards 0..{self.shard_count - 1}, not {shard}.")
