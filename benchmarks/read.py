"""How fast training reads are, as a ratio to memcpy of the same bytes in the same process.

Makes a synthetic store, warms its pages with sequential 128 KB reads (how pages enter the cache matters by 2.6 times),
and then measures shuffled batches in turn: memcpy, the reader, the reader in a prefetch thread (`Batches` in stream
mode), and zarr-python. Medians of several rounds. Run it on one core for figures that compare: `taskset -c 0`.

Example: `taskset -c 0 python benchmarks/read.py --videos 512`
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import zarr

from vidatt.cache.batches import Batches
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_shard, synthetic_store

T, CUBE = 25, (7, 7, 512)


def make(path: Path, videos: int, videos_per_shard: int) -> Store:
    store = synthetic_store(path, [T] * videos, videos_per_shard=videos_per_shard)
    stream = store.add_stream("rgb", cube_shape=CUBE, recipe={"benchmark": "read"})
    for shard in range(store.shard_count):
        stream.publish(shard, **synthetic_shard(stream, shard))
    return store


def warm(store: Store) -> None:
    buffer = bytearray(128 * 1024)
    for path in sorted(store.path.glob("rgb/*/c.*")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def measure(store: Store, batch_videos: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds an epoch of each way, interleaved; the epoch's order changes from round to round."""
    usable = np.flatnonzero(store.usable(["rgb"]))
    batches = Batches(store, ["rgb"], usable, batch_videos=batch_videos, residency="stream")
    reader = store.stream("rgb").reader()
    array = zarr.open_array(str(store.path / "rgb" / "cubes"), mode="r")
    ring = [np.zeros((batch_videos, T, *CUBE), np.float16) for _ in range(2)]
    source = np.ones((batch_videos, T, *CUBE), np.float16)

    def copy(order: np.ndarray) -> None:
        for number, start in enumerate(range(0, len(order), batch_videos)):
            count = len(order[start : start + batch_videos])
            np.copyto(ring[number % 2][:count], source[:count])

    def read(order: np.ndarray) -> None:
        for number, start in enumerate(range(0, len(order), batch_videos)):
            for place, position in enumerate(order[start : start + batch_videos].tolist()):
                reader.read_video(position, out=ring[number % 2][place])

    def draw(order: np.ndarray) -> None:
        for _ in batches.epoch(int(order[0])):
            pass

    def slices(order: np.ndarray) -> None:
        for number, start in enumerate(range(0, len(order), batch_videos)):
            for place, position in enumerate(order[start : start + batch_videos].tolist()):
                first = int(store.index.offset[position])
                ring[number % 2][place] = array[first : first + T]

    ways: dict[str, Callable[[np.ndarray], None]] = {
        "memcpy": copy,
        "Reader": read,
        "Batches, stream": draw,
        "zarr-python slices": slices,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    rng = np.random.default_rng(0)
    for round_ in range(rounds + 1):  # the first, which checks each chunk's crc32c and grows the ring, does not count
        order = rng.permutation(usable)
        for name, way in ways.items():
            start = time.perf_counter()
            way(order)
            if round_:
                seconds[name].append(time.perf_counter() - start)
    size = len(usable) * T * int(np.prod(CUBE)) * 2
    return {
        name: {
            "mb_per_second": size / statistics.median(times) / 1e6,
            "ratio": statistics.median(m / t for m, t in zip(seconds["memcpy"], times, strict=True)),
        }
        for name, times in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=512, help="videos in the store, 1.25 MB each (512)")
    parser.add_argument("--videos-per-shard", type=int, default=64)
    parser.add_argument("--batch-videos", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="where to put the store (the system's temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store = make(Path(folder) / "read.zarr", options.videos, options.videos_per_shard)
        warm(store)
        results = measure(store, options.batch_videos, options.rounds)
    cores = len(os.sched_getaffinity(0))
    if options.json:
        json.dump({"videos": options.videos, "cores": cores, "rounds": options.rounds, "ways": results}, sys.stdout)
        print()
        return
    print(f"{options.videos} videos of {T} x {CUBE} float16, batches of {options.batch_videos}, {cores} cores")
    print(f"{'':22}{'MB/s':>10}{'/ memcpy':>10}")
    for name, result in results.items():
        print(f"{name:22}{result['mb_per_second']:10.0f}{result['ratio']:10.3f}")


if __name__ == "__main__":
    main()
