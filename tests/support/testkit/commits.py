"""Writers of shards that can be killed, and what must hold of a store whoever was killed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_store


class Writers:
    """The server of tests/cache/cache_writer.py."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).parents[2] / "cache" / "cache_writer.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request: Any) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(
        self, store: Store, shards: list[int], seed: int, kill_at: int | None = None, *,
        stop_at: int | None = None, replace: bool = False,
    ) -> int:  # fmt: skip
        asked = {"shards": shards, "seed": seed, "kill_at": kill_at, "stop_at": stop_at, "replace": replace}
        return self.ask(store=str(store.path), stream="rgb", **asked)

    def run(
        self, store: Store, shards: list[int], seed: int = 0, kill_at: int | None = None, *, replace: bool = False
    ) -> int:
        return self.ask(wait=self.start(store, shards, seed, kill_at, replace=replace))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()

    def changes(self, store: Store) -> int:
        return int(np.load(f"{store.path}.changes.npy"))


def new_store(path: Path, shards: int, untrimmed: bool = False) -> Store:
    lengths = [4, 6] * shards if untrimmed else [3, 3] * shards
    store = synthetic_store(path, lengths, videos_per_shard=2)
    store.add_stream("rgb", cube_shape=(1, 1, 4), recipe={})
    return store


def check(store: Store, done: set[int] | None = None, only: int | None = None) -> dict[int, int]:
    """Every marker matches its files, and all files of a shard tell the same seed; the seed of each done shard."""
    stream = store.stream("rgb")
    marked = set(range(store.shard_count)) - set(stream.missing_shards())
    if done is not None:
        assert marked == done
    seeds = {}
    arrays = [zarr.open_array(str(stream.path / name), mode="r") for name in ("cubes", "frames", "seconds")]
    for shard in sorted(marked if only is None else marked & {only}):
        marker = stream.marker(shard)
        for key, seal in marker["files"].items():
            content = (stream.path / key).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (seal["bytes"], seal["sha256"])
        start, stop = store.shard_row_range(shard)
        rows = [np.asarray(array[start:stop]) for array in arrays]
        real = rows[1][:, 0] >= 0
        told = {int(video["detail"]) for video in marker["videos"]}
        told |= {int(value) for values in rows for value in np.unique(values[real])}
        assert len(told) == 1, f"shard {shard} stems from writers {told}"
        seeds[shard] = told.pop()
    return seeds


def litter(store: Store) -> list[str]:
    return [
        str(p.relative_to(store.path))
        for p in store.path.rglob("*")
        if ".tmp" in str(p) or ("-" in p.name and ".done" in str(p))
    ]
