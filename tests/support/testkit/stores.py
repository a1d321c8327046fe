"""Stores of synthetic cubes, whole: every stream added, every shard published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_shard, synthetic_store


def fill(
    store: Store, cubes: Mapping[str, tuple[int, int, int]], *, recipes: Mapping[str, dict[str, Any]] | None = None
) -> Store:
    """Add streams of synthetic cubes, each with its own content; the same store again."""
    for seed, (name, shape) in enumerate(cubes.items()):
        stream = store.add_stream(name, cube_shape=shape, recipe=(recipes or {}).get(name, {}))
        for shard in range(store.shard_count):
            assert stream.publish(shard, **synthetic_shard(stream, shard, seed))
    return store


def filled_store(
    path: Path,
    length: Sequence[int],
    cubes: Mapping[str, tuple[int, int, int]],
    *,
    recipes: Mapping[str, dict[str, Any]] | None = None,
    views: int = 1,
    videos_per_shard: int = 64,
) -> Store:
    """Make a synthetic store of videos of the given lengths with these streams, all filled."""
    made = synthetic_store(path, length, views=views, videos_per_shard=videos_per_shard)
    return fill(made, cubes, recipes=recipes)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path in there: two stores are equal if this is."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
