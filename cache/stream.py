"""A stream of a store: three arrays of the same rows, a recipe that never changes, and a marker per finished shard."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from ..errors import UsageError
from ..version import __version__
from .arrays import DTYPES, FILLS
from .ledger import VideoOutcome
from .publish import ARRAYS, DONE, publish_shard
from .reader import Reader
from .rows import StoreRows
from .stream_files import StreamFiles
from .video_cubes import VideoCubes


class Stream(StreamFiles):
    """One modality in a store; from `Store.stream` or `Store.add_stream`.

    `stream["a/b.mp4"]` and `stream[7]` read a video by its id or its position, for one thread at a time.

    Attributes
    ----------
    store, name, path, cube_shape, recipe, fingerprint, attributes : see `StreamFiles`
    """

    def publish(
        self,
        shard: int,
        *,
        cubes: np.ndarray,
        frames: np.ndarray,
        seconds: np.ndarray,
        outcomes: Sequence[VideoOutcome],
        replaces: str | None = None,
    ) -> bool:
        """Commit a whole shard: atomic, durable, first writer wins.

        Parameters
        ----------
        cubes : [rows, K, K, D] float16, all rows of `store.shard_row_range(shard)`; padding is 0
        frames : [rows, 3] int32, first, centre and stop frame in decode order; padding is -1
        seconds : [rows] float64, presentation time of the centre frame; padding is NaN
        outcomes : one for each of `store.shard_videos(shard)`, in that order
        replaces : `publish.marker_digest` of the marker that this content is to replace; None = a shard not done yet

        Returns
        -------
        True if this content stands, False if another writer's does and this was dropped.

        Raises
        ------
        UsageError
            If shapes, dtypes, ids, or the outcomes' segments and the frames do not fit each other.
        """
        arrays = {"cubes": cubes, "frames": frames, "seconds": seconds}
        start, stop = self.store.shard_row_range(shard)
        for name, rows in arrays.items():
            wanted = (stop - start, *self.row_shape(name))
            if rows.shape != wanted or rows.dtype != DTYPES[name]:
                raise UsageError(
                    f"Shard {shard} of stream {self.name!r} takes {name} {wanted} {DTYPES[name]}, "
                    f"not {rows.shape} {rows.dtype}."
                )
        self._check(shard, frames, outcomes)
        ledger = {
            "rows": stop - start,
            "videos": [outcome.to_dict() for outcome in outcomes],
            "stream": self.name,
            "fingerprint": self.fingerprint,
            "plan": self.store.shard_plan(shard),
            "versions": {"vidatt": __version__, "zarr": zarr.__version__, "numpy": np.__version__},
        }
        dense = self._all_there(shard, outcomes)
        return publish_shard(self.path, shard, arrays, ledger, keep_zeros=dense, replaces=replaces)

    def _all_there(self, shard: int, outcomes: Sequence[VideoOutcome]) -> bool:
        """Whether every row of a shard is a real segment; else chunks of padding are left out and cost nothing."""
        videos = self.store.shard_videos(shard)
        lengths = self.store.index.length[videos.start : videos.stop].tolist()
        # By the shard alone: its bytes stay the same when the store is extended by videos of another length.
        equal = set(lengths) == {self.store.chunk_rows}
        return equal and [outcome.segments for outcome in outcomes] == lengths

    def _check(self, shard: int, frames: np.ndarray, outcomes: Sequence[VideoOutcome]) -> None:
        """Refuse a ledger that tells other videos or other segments than the rows do."""
        videos = self.store.shard_videos(shard)
        ids = [self.store.index.ids[position] for position in videos]
        if [outcome.id for outcome in outcomes] != ids:
            raise UsageError(
                f"Shard {shard} of stream {self.name!r} needs the outcomes of its {len(ids)} videos in order."
            )
        start, stop = self.store.shard_row_range(shard)
        real = frames[:, 0] >= 0
        for position, outcome in zip(videos, outcomes, strict=True):
            first, T = int(self.store.index.offset[position]) - start, int(self.store.index.length[position])
            last = first + self.store.views * T
            if first >= 0 and last <= stop - start:  # else the video has several shards
                per_view = real[first:last].reshape(self.store.views, T).sum(axis=1)
                if (per_view != outcome.segments).any():
                    raise UsageError(
                        f"Video {outcome.id!r} of stream {self.name!r} has {per_view.tolist()} rows with frames in its "
                        f"views, but its outcome says {outcome.segments} segments."
                    )
            real[max(0, first) : last] = False
        if real.any():
            raise UsageError(f"Shard {shard} of stream {self.name!r} has frames in rows that belong to no video.")

    def reader(self) -> Reader:
        """Return a new reader of this stream, for one thread."""
        return Reader(self)

    @cached_property
    def _reader(self) -> Reader:
        return self.reader()

    def __len__(self) -> int:
        """Return the number of videos of the store, those without cubes included."""
        return len(self.store.index)

    def __iter__(self) -> Iterator[VideoCubes]:
        """Read the videos in store order."""
        return (self.video(position) for position in range(len(self)))

    def __getitem__(self, video: str | int) -> VideoCubes:
        """Read the first view of a video; see `video`."""
        return self.video(video)

    def video(self, video: str | int, *, view: int = 0) -> VideoCubes:
        """Read a video with its times, for one thread at a time.

        Parameters
        ----------
        video : its id, or its position in the store
        view : which crop of the same segments

        Raises
        ------
        UsageError
            If there is no such video or view.
        ShardMissingError
            If it was never extracted; a video whose extraction failed has no valid segment.
        CorruptStoreError
            If a file is not what its marker says; the message names it and says how to mend it.
        """
        position = self.store.index.position(video) if isinstance(video, str) else operator.index(video)
        frames = self._reader.frames(position, view)
        return VideoCubes(
            id=str(self.store.index.ids[position]),
            cubes=self._reader.read_video(position, view=view),
            frames=frames,
            seconds=self._reader.seconds(position, view),
            valid=frames[:, 0] >= 0,
        )


def build_stream(path: Path, store: StoreRows, cube_shape: tuple[int, int, int], attributes: Mapping[str, Any]) -> None:
    """Write the empty Zarr group of a stream at `path`, outside the store."""
    group = zarr.create_group(path, zarr_format=3, attributes=dict(attributes))
    for name, tail in zip(ARRAYS, (cube_shape, (3,), ()), strict=True):
        group.create_array(
            name,
            shape=(store.rows, *tail),
            dtype=DTYPES[name],
            chunks=(store.chunk_rows, *tail),
            shards=(store.shard_rows, *tail),
            compressors=[Crc32cCodec()],
            filters=None,
            fill_value=FILLS[name],
            # Flat keys: the default makes three folders a shard.
            chunk_key_encoding={"name": "default", "configuration": {"separator": "."}},
        )
    (path / DONE).mkdir()
