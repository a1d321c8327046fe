"""A stream of a store: three arrays of the same rows, a recipe that never changes, and a marker per finished shard."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from .. import __version__
from ..errors import CorruptStoreError, ShardMissingError, UsageError
from .fingerprint import fingerprint
from .ledger import VideoOutcome
from .publish import ARRAYS, DONE, marker_path, publish_shard, read_marker

if TYPE_CHECKING:
    from .reader import Reader
    from .store import Store

DTYPES: dict[str, np.dtype[Any]] = {
    "cubes": np.dtype("float16"),
    "frames": np.dtype("int32"),
    "seconds": np.dtype("float64"),
}
_FILL = {"cubes": 0.0, "frames": -1, "seconds": 0.0}  # frames of -1 = padding, also for plain Zarr readers


class Stream:
    """One modality in a store; from `Store.stream` or `Store.add_stream`.

    Attributes
    ----------
    store, name, path : where it is
    cube_shape : (K, K, D)
    recipe : the frozen configuration it was made with
    fingerprint : SHA-256 of the recipe
    attributes : all attributes of the Zarr group
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name, self.path = store, name, store.path / name
        try:
            self.attributes: dict[str, Any] = json.loads((self.path / "zarr.json").read_bytes())["attributes"]
            cubes = json.loads((self.path / "cubes" / "zarr.json").read_bytes())
            self.recipe: dict[str, Any] = self.attributes["recipe"]
            self.fingerprint: str = self.attributes["fingerprint"]
            K, K_, D = cubes["shape"][1:]
            self.cube_shape: tuple[int, int, int] = (K, K_, D)
        except (ValueError, LookupError, TypeError, OSError) as error:
            raise CorruptStoreError(
                f"The stream {self.path} cannot be read ({error}); restore its zarr.json."
            ) from error
        if fingerprint(self.recipe) != self.fingerprint:
            raise CorruptStoreError(f"The recipe in {self.path}/zarr.json does not match its fingerprint; restore it.")

    def __repr__(self) -> str:
        return f"Stream({self.name!r}, cubes {self.cube_shape}, {self.store.rows} rows, {self.fingerprint[:12]})"

    def row_shape(self, array: str) -> tuple[int, ...]:
        """Return the shape of one row of `cubes`, `frames` or `seconds`."""
        return {"cubes": self.cube_shape, "frames": (3,), "seconds": ()}[array]

    def is_done(self, shard: int) -> bool:
        """Whether the shard has its commit marker, that is, exists."""
        return marker_path(self.path, shard).exists()

    def missing_shards(self) -> list[int]:
        """List the shards without a commit marker, ascending."""
        names = set(os.listdir(self.path / DONE))
        return [shard for shard in range(self.store.shard_count) if f"{shard}.json" not in names]

    def marker(self, shard: int) -> dict[str, Any]:
        """Return the commit marker: `shard, rows, files: {key: {bytes, sha256}}, videos, job, versions`.

        Raises
        ------
        ShardMissingError
            If the shard is not done.
        """
        try:
            return read_marker(marker_path(self.path, shard))
        except FileNotFoundError:
            raise ShardMissingError(
                f"Shard {shard} of stream {self.name!r} in {self.store.path} was never extracted; "
                f"run `{self.store.command}`."
            ) from None

    def publish(
        self,
        shard: int,
        *,
        cubes: np.ndarray,
        frames: np.ndarray,
        seconds: np.ndarray,
        outcomes: Sequence[VideoOutcome],
    ) -> bool:
        """Commit a whole shard: atomic, durable, first writer wins.

        Parameters
        ----------
        cubes : [rows, K, K, D] float16, all rows of `store.shard_row_range(shard)`; padding is 0
        frames : [rows, 3] int32, first, centre and stop frame in decode order; padding is -1
        seconds : [rows] float64, presentation time of the centre frame
        outcomes : one for each of `store.shard_videos(shard)`, in that order

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
            "job": os.environ.get("SLURM_JOB_ID"),
            "versions": {"vidatt": __version__, "zarr": zarr.__version__, "numpy": np.__version__},
        }
        return publish_shard(self.path, shard, arrays, ledger, keep_zeros=self.store.equal_lengths)

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

    def outcomes(self) -> list[VideoOutcome]:
        """Return the outcomes of all videos in finished shards, in store order, each video once."""
        missing = set(self.missing_shards())
        found: dict[str, VideoOutcome] = {}
        for shard in range(self.store.shard_count):
            if shard not in missing:
                for values in self.marker(shard)["videos"]:
                    outcome = VideoOutcome.from_dict(values)
                    found.setdefault(outcome.id, outcome)  # a long video stands in several shards
        return list(found.values())

    def outcome(self, position: int) -> VideoOutcome:
        """Return the outcome of one video.

        Raises
        ------
        ShardMissingError
            If its shard is not done.
        """
        shard = int(self.store.index.offset[position]) // self.store.shard_rows
        videos = self.store.shard_videos(shard)
        return VideoOutcome.from_dict(self.marker(shard)["videos"][position - videos.start])

    def reader(self) -> Reader:
        """Return a new reader of this stream, for one thread."""
        from .reader import Reader

        return Reader(self)


def build_stream(path: Path, store: Store, cube_shape: tuple[int, int, int], attributes: Mapping[str, Any]) -> None:
    """Write the empty Zarr group of a stream at `path`, outside the store."""
    group = zarr.create_group(str(path), zarr_format=3, attributes=dict(attributes))
    for name, tail in zip(ARRAYS, (cube_shape, (3,), ()), strict=True):
        group.create_array(
            name,
            shape=(store.rows, *tail),
            dtype=DTYPES[name],
            chunks=(store.chunk_rows, *tail),
            shards=(store.shard_rows, *tail),
            compressors=[Crc32cCodec()],
            filters=None,
            fill_value=_FILL[name],
            # Flat keys: the default makes three folders a shard.
            chunk_key_encoding={"name": "default", "configuration": {"separator": "."}},
        )
    (path / DONE).mkdir()
