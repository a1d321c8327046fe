"""Small stores in which a channel tells the class: fits on them take a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidatt.cache.index import Index
from vidatt.cache.layout import plan_layout
from vidatt.cache.ledger import VideoOutcome
from vidatt.cache.store import Store

CLASSES, T, K, D = 3, 3, 2, 6


def planted_store(
    path: Path,
    *,
    videos: Sequence[int] = range(36),
    content: int = 0,
    dataset: str = "planted",
    test: Sequence[int] | None = None,
    decoded_frames: int = 0,
    noise: float = 0.0,
    views: int = 1,
    fps: float = 0.0,
    unlike: Sequence[int] = (),
) -> Store:
    """Make a store of some of the videos `v00.avi`, `v01.avi`, ...; the same number is the same video.

    Parameters
    ----------
    content : other content for the same names
    test : which of them split 1 tests; None = every third
    decoded_frames : what the ledger says of each file; 0 = nothing
    noise : relative, as another device would compute the cubes
    fps : 0 = unknown, as of an import
    unlike : videos that have other content all the same
    """
    numbers = np.array(videos)
    tested = numbers % 3 == 0 if test is None else np.isin(numbers, np.array(test))
    names = np.array([f"v{n:02}.avi" for n in numbers])
    index = Index(
        ids=names,
        paths=names,
        groups=np.array([f"g{n}" for n in numbers]),
        labels=(numbers // 3 % CLASSES)[:, None],
        classes=tuple(f"class {n}" for n in range(CLASSES)),
        splits={"1": np.where(tested, 2, 1), "2": np.where(numbers % 3 == 1, 2, 1)},
        length=np.full(len(numbers), T),
    )
    layout = plan_layout(index.length, views, 8)
    store = Store.create(path, index=index, views=views, layout=layout, attributes={"dataset": dataset, "seed": 0})
    stream = store.add_stream("rgb", cube_shape=(K, K, D), recipe={"made": "planted"})
    for shard in range(store.shard_count):
        start, stop = store.shard_row_range(shard)
        cubes = np.zeros((stop - start, K, K, D), np.float16)
        frames = np.full((stop - start, 3), -1, np.int32)
        outcomes = []
        for position in store.shard_videos(shard):
            number = int(numbers[position])
            random = np.random.default_rng([content + (number in unlike), number])
            rows = slice(int(store.index.offset[position]) - start, None)
            rows = slice(rows.start, rows.start + views * T)
            values = random.normal(0, 1, (views * T, K, K, D))
            values[..., number // 3 % CLASSES] += 2
            cubes[rows] = values * (1 + noise * np.sign(values))
            frames[rows] = np.tile(np.arange(T)[:, None] * 8 + [0, 4, 8], (views, 1))
            outcomes.append(
                VideoOutcome(id=str(names[position]), outcome="ok", segments=T, decoded_frames=decoded_frames, fps=fps)
            )
        seconds = np.maximum(frames[:, 1], 0) / (fps or np.inf)
        stream.publish(shard, cubes=cubes, frames=frames, seconds=seconds, outcomes=outcomes)
    return store
