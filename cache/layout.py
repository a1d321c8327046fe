"""The layout: which rows of the store each video gets, before anything is extracted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import UsageError

UNTRIMMED_CHUNK_ROWS = 5
"""Rows per chunk where lengths vary: 2.5 % of padding, against 15 % for 25 rows (log-normal lengths, mean 79)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Layout:
    """Rows of the videos: each starts on a chunk and lies in one shard, or starts on a shard and has several alone."""

    offset: np.ndarray  # [N] int64, first row of each video
    rows: int  # of the whole store, a multiple of chunk_rows
    chunk_rows: int  # unit of checking
    shard_rows: int  # unit of commit, a multiple of chunk_rows
    earlier_rows: tuple[int, ...] = ()  # rows of the store before each of its extensions, ascending

    @property
    def shard_count(self) -> int:
        """Number of shards, the last of which may be shorter."""
        return -(-self.rows // self.shard_rows)

    @cached_property
    def _first_shards(self) -> np.ndarray:
        return self.offset // self.shard_rows  # ascending

    def shard_videos(self, shard: int) -> range:
        """Return the positions of the videos with rows in a shard; a video longer than a shard stands in several."""
        start, stop = np.searchsorted(self._first_shards, [shard, shard + 1])
        return range(int(start), int(stop)) if start < stop else range(int(start) - 1, int(start))

    def row_range(self, shard: int) -> tuple[int, int]:
        """Return the rows [start, stop) of a shard: one that was the last before an extension keeps its end."""
        start = shard * self.shard_rows
        ends = [end for end in (*self.earlier_rows, self.rows) if start < end]
        return start, min(start + self.shard_rows, *ends)

    def __repr__(self) -> str:
        return (
            f"Layout({len(self.offset)} videos, {self.rows} rows in {self.shard_count} shards of {self.shard_rows}, "
            f"chunks of {self.chunk_rows})"
        )


def plan_layout(length: np.ndarray, views: int, videos_per_shard: int) -> Layout:
    """Give each video its rows: contiguous, view by view, starting on a chunk, none crossing a shard's border.

    Parameters
    ----------
    length : [N] integer, segments per view planned for each video, in store order
    views : at least 1
    videos_per_shard : at least 1; where lengths vary, that many videos of median length fill a shard

    Returns
    -------
    A layout with one chunk per view where all lengths are equal, else chunks of 5 rows. A video longer than a shard
    starts on a shard, and the video after it on the next free one, so that a shard never mixes it with others.

    Raises
    ------
    UsageError
        If there are no videos, a length is negative, all are 0, or a count is below 1.
    """
    length = np.asarray(length, np.int64)
    if length.ndim != 1 or not length.size or length.min() < 0 or length.max() == 0:
        raise UsageError(f"A layout needs one length of 0 or more per video and one above 0, not shape {length.shape}.")
    if views < 1 or videos_per_shard < 1:
        raise UsageError(f"A layout needs at least 1 view and 1 video a shard, not {views} and {videos_per_shard}.")
    if length.min() == length.max():
        T = int(length[0])
        offset = np.arange(length.size, dtype=np.int64) * (views * T)
        return Layout(
            offset=offset, rows=length.size * views * T, chunk_rows=T, shard_rows=videos_per_shard * views * T
        )
    chunk = UNTRIMMED_CHUNK_ROWS
    padded = _padded(length, views, chunk)
    shard_rows = -int(-np.median(padded) * videos_per_shard // chunk) * chunk
    offset, rows = _place(padded, shard_rows, 0)
    return Layout(offset=offset, rows=rows, chunk_rows=chunk, shard_rows=shard_rows)


def extend_layout(layout: Layout, length: np.ndarray, views: int) -> Layout:
    """Give more videos their rows, in new shards behind those there are, whose rows all stay what they are.

    Parameters
    ----------
    length : [n] integer, segments per view planned for each of the new videos; none = the same layout
    """
    length = np.asarray(length, np.int64)
    if not length.size:
        return layout
    offset, rows = _place(
        _padded(length, views, layout.chunk_rows), layout.shard_rows, layout.shard_count * layout.shard_rows
    )
    return Layout(
        offset=np.concatenate([layout.offset, offset]),
        rows=rows,
        chunk_rows=layout.chunk_rows,
        shard_rows=layout.shard_rows,
        earlier_rows=(*layout.earlier_rows, layout.rows),
    )


def _padded(length: np.ndarray, views: int, chunk_rows: int) -> np.ndarray:
    """Return the rows of each video in whole chunks: at least one, so that a shard's ledger names it."""
    return np.maximum(-(-length * views // chunk_rows), 1) * chunk_rows


def _place(padded: np.ndarray, shard_rows: int, row: int) -> tuple[np.ndarray, int]:
    """Return the first row of each video, from `row` on, and the row behind the last."""
    offset = np.empty(padded.size, np.int64)
    for position, size in enumerate(padded.tolist()):
        left = -row % shard_rows
        if left and size > left:  # never true on a border, where left is 0
            row += left
        offset[position] = row
        row += size
        if size > shard_rows:
            row += -row % shard_rows
    return offset, int(offset[-1] + padded[-1])
