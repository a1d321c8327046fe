"""Synthetic stores: random cubes with the shape of real ones, for benchmarks and tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .index import Index
from .layout import plan_layout
from .ledger import VideoOutcome
from .store import Store
from .stream import Stream


def synthetic_index(length: Sequence[int], classes: int = 3) -> Index:
    """Return an index of videos `v0000.avi`, ... of the given lengths, classes in turn, two of three for training."""
    N = len(length)
    return Index(
        ids=np.array([f"v{i:04}.avi" for i in range(N)]),
        paths=np.array([f"v{i:04}.avi" for i in range(N)]),
        groups=np.array([f"g{i // 4}" for i in range(N)]),
        labels=np.arange(N)[:, None] % classes,
        classes=tuple(f"class {i}" for i in range(classes)),
        splits={"1": np.where(np.arange(N) % 3 == 0, 2, 1)},
        length=np.asarray(length),
    )


def synthetic_store(path: str | Path, length: Sequence[int], *, views: int = 1, videos_per_shard: int = 64) -> Store:
    """Make a store for videos of the given lengths, without streams."""
    layout = plan_layout(np.asarray(length), views, videos_per_shard)
    attributes = {"dataset": "synthetic", "seed": 0}
    return Store.create(path, index=synthetic_index(length), views=views, layout=layout, attributes=attributes)


def synthetic_shard(stream: Stream, shard: int, seed: int = 0) -> dict[str, Any]:
    """Return the arguments of `Stream.publish` for a shard, drawn from the seed and the shard.

    About two thirds of the cubes' values are zero, as after a ReLU. Every seventh video is `truncated` after half of
    its segments, every eleventh `missing`.
    """
    store = stream.store
    start, stop = store.shard_row_range(shard)
    rng = np.random.default_rng([seed, shard])
    cubes = np.zeros((stop - start, *stream.cube_shape), np.float16)
    frames = np.full((stop - start, 3), -1, np.int32)
    seconds = np.full(stop - start, np.nan)
    outcomes = []
    for position in store.shard_videos(shard):
        T = int(store.index.length[position])
        segments, outcome = T, "ok"
        if position % 7 == 6:
            segments, outcome = T // 2, "truncated"
        if position % 11 == 10 or not segments:
            segments, outcome = 0, "missing"
        for view in range(store.views):
            row = int(store.index.offset[position]) + view * T - start
            segment = np.arange(max(0, -row), max(0, min(segments, stop - start - row)))
            values = rng.standard_normal((len(segment), *stream.cube_shape), np.float32)
            cubes[row + segment] = np.maximum(values - 0.5, 0)
            frames[row + segment] = segment[:, None] * 8 + [0, 4, 8]
            seconds[row + segment] = (segment * 8 + 4) / 25
        outcomes.append(
            VideoOutcome(
                id=str(store.index.ids[position]), outcome=outcome, decoded_frames=8 * segments, segments=segments
            )
        )
    return {"cubes": cubes, "frames": frames, "seconds": seconds, "outcomes": outcomes}
