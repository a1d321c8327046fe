"""The files of a stream: what it is, and which of its shards are committed with which outcomes."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from ..errors import CorruptStoreError, ShardMissingError
from .arrays import StoredArray, read_array
from .fingerprint import fingerprint
from .ledger import VideoOutcome
from .marker import parse_marker
from .mending import mend, told
from .publish import ARRAYS, DONE, marker_path, shard_key
from .rows import StoreRows


class StreamFiles:
    """What can be told of a stream without reading its cubes.

    Attributes
    ----------
    store, name, path : where it is
    cube_shape : (K, K, D)
    recipe : the frozen configuration it was made with
    fingerprint : SHA-256 of the recipe
    attributes : all attributes of the Zarr group
    arrays : what the zarr.json of `cubes`, `frames` and `seconds` states, which fits the store

    Raises
    ------
    CorruptStoreError
        If a zarr.json is damaged or edited, or the folder of the markers is gone.
    """

    def __init__(self, store: StoreRows, name: str) -> None:
        self.store, self.name, self.path = store, name, store.path / name
        try:
            self.attributes: dict[str, Any] = json.loads((self.path / "zarr.json").read_bytes())["attributes"]
            self.recipe: dict[str, Any] = self.attributes["recipe"]
            self.fingerprint: str = self.attributes["fingerprint"]
            if fingerprint(self.recipe) != self.fingerprint:
                raise ValueError("its recipe does not match its fingerprint")
        except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError) as error:
            raise CorruptStoreError(
                f"{self.path}/zarr.json is not that of a stream ({error}); restore it from a copy, or remove the "
                f"stream with `vidatt cache rm {self.store.quoted} {name}`."
            ) from error
        self.arrays = {array: self._array(array) for array in ARRAYS}
        K, _, D = self.arrays["cubes"].row_shape
        self.cube_shape: tuple[int, int, int] = (K, K, D)
        if not (self.path / DONE).is_dir():
            raise CorruptStoreError(
                f"{self.path / DONE}, the folder of the commit markers, is gone", mend(self.store.path)
            )

    def _array(self, name: str) -> StoredArray:
        store = self.store
        try:
            return read_array(
                self.path, name, rows=store.rows, chunk_rows=store.chunk_rows, shard_rows=store.shard_rows
            )
        except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError) as error:
            raise CorruptStoreError(
                f"{self.path}/{name}/zarr.json does not fit its store ({error})", mend(store.path)
            ) from error

    def __repr__(self) -> str:
        return f"Stream({self.name!r}, cubes {self.cube_shape}, {self.store.rows} rows, {self.fingerprint[:12]})"

    def row_shape(self, array: str) -> tuple[int, ...]:
        """Return the shape of one row of `cubes`, `frames` or `seconds`."""
        return self.arrays[array].row_shape

    def is_done(self, shard: int) -> bool:
        """Whether the shard has its commit marker, that is, exists."""
        return marker_path(self.path, shard).exists()

    def missing_shards(self) -> list[int]:
        """List the shards without a commit marker, ascending."""
        names = set(os.listdir(self.path / DONE))
        return [shard for shard in range(self.store.shard_count) if f"{shard}.json" not in names]

    def done_shards(self) -> list[int]:
        """List the shards with a commit marker, ascending."""
        missing = set(self.missing_shards())
        return [shard for shard in range(self.store.shard_count) if shard not in missing]

    def done_videos(self) -> np.ndarray:
        """Tell which videos have all their shards done, [N] bool: a long one stands in several."""
        done = np.ones(len(self.store.index), bool)
        for shard in self.missing_shards():
            done[self.store.shard_videos(shard)] = False
        return done

    def marker(self, shard: int) -> dict[str, Any]:
        """Return the commit marker, which proves to be that of this shard, its videos and this stream.

        Returns
        -------
        `shard, rows, files: {key: {bytes, sha256, chunks}}, videos, versions, stream, fingerprint, plan, seal`;
        `chunks` and the last four are absent in markers of earlier versions

        Raises
        ------
        ShardMissingError
            If the shard is not done.
        CorruptStoreError
            If the marker is damaged, edited, or another shard's or stream's.
        """
        path = marker_path(self.path, shard)
        try:
            marker = parse_marker(path.read_bytes())
            self._prove(marker, shard)
        except FileNotFoundError:
            raise ShardMissingError(
                f"Shard {shard} of stream {self.name!r} in {self.store.path} was never extracted; "
                f"run {told(self.store.command([self.name]))}."
            ) from None
        except (ValueError, OSError) as error:
            raise CorruptStoreError(
                f"{path} is not the commit marker of its shard ({error})", mend(self.store.path)
            ) from error
        return marker

    def _prove(self, marker: dict[str, Any], shard: int) -> None:
        start, stop = self.store.shard_row_range(shard)
        videos = self.store.shard_videos(shard)
        truth = {"shard": shard, "rows": stop - start, "stream": self.name, "fingerprint": self.fingerprint}
        for key, value in truth.items():
            if key in marker and marker[key] != value:
                raise ValueError(f"it says {key} {marker[key]!r}, not {value!r}")
        ids = self.store.index.ids[videos.start : videos.stop].tolist()
        if [video["id"] for video in marker["videos"]] != ids:
            raise ValueError("its videos are others")
        if "plan" in marker and marker["plan"] != self.store.shard_plan(shard):
            raise ValueError("its videos were planned otherwise")
        known = {shard_key(array, 1 + len(self.row_shape(array)), shard) for array in ARRAYS}
        if not marker["files"].keys() <= known:
            raise ValueError("it names files that are not its shard's")

    def outcomes(self) -> list[VideoOutcome]:
        """Return the outcomes of all videos in finished shards, in store order, each video once."""
        found: dict[str, VideoOutcome] = {}
        for shard in self.done_shards():
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
