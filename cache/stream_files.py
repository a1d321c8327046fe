"""The files of a stream: what it is, and which of its shards are committed with which outcomes."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from ..errors import CorruptStoreError, ShardMissingError
from .fingerprint import fingerprint
from .ledger import VideoOutcome
from .publish import DONE, marker_path, read_marker
from .rows import StoreRows

DTYPES: dict[str, np.dtype[Any]] = {
    "cubes": np.dtype("float16"),
    "frames": np.dtype("int32"),
    "seconds": np.dtype("float64"),
}


class StreamFiles:
    """What can be told of a stream without reading its cubes.

    Attributes
    ----------
    store, name, path : where it is
    cube_shape : (K, K, D)
    recipe : the frozen configuration it was made with
    fingerprint : SHA-256 of the recipe
    attributes : all attributes of the Zarr group
    """

    def __init__(self, store: StoreRows, name: str) -> None:
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
