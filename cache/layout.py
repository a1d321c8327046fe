"""The layout: which rows of the store each video gets, before anything is extracted."""

from __future__ import annotations

from dataclasses import dataclass

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

    @property
    def shard_count(self) -> int:
        """Number of shards, the last of which may be shorter."""
        return -(-self.rows // self.shard_rows)

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
    # At least one chunk each, so that a video of unknown length still lies in a shard whose ledger names it.
    padded = np.maximum(-(-length * views // chunk), 1) * chunk
    shard_rows = -int(-np.median(padded) * videos_per_shard // chunk) * chunk
    offset = np.empty(length.size, np.int64)
    row = 0
    for position, size in enumerate(padded.tolist()):
        left = -row % shard_rows
        if left and size > left:  # never true on a border, where left is 0
            row += left
        offset[position] = row
        row += size
        if size > shard_rows:
            row += -row % shard_rows
    last = int(offset[-1] + padded[-1])
    return Layout(offset=offset, rows=last, chunk_rows=chunk, shard_rows=shard_rows)
