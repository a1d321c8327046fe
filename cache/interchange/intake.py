"""Intake: material becomes a store, or another stream of one, after every one of its videos was read and checked."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import RefusedError, UsageError
from ..layout import Layout
from ..publish import SCRATCH
from ..root import OWN
from ..scratch import move, scratch_name
from ..store import Store
from .material import Material, check_rows


def survey(material: Material, names: Sequence[str], *, seen: Callable[[], None]) -> dict[str, str]:
    """Read and check everything.

    Returns
    -------
    By stream the SHA-256 of its ids, cubes, frames and seconds, whatever their order.

    Raises
    ------
    UsageError
        On the first video that is not what it should be.
    """
    digests: dict[str, list[str]] = {name: [] for name in names}
    for position, id in enumerate(material.index.ids):
        for name in names:
            rows = material.rows(name, position)
            check_rows(material, material.stream(name), position, rows)
            sha = hashlib.sha256(f"{id}\0".encode())
            for array in (rows.cubes, rows.frames, np.where(np.isnan(rows.seconds), np.nan, rows.seconds)):
                sha.update(np.ascontiguousarray(array).tobytes())
            digests[name].append(sha.hexdigest())
        seen()
    return {name: hashlib.sha256("".join(sorted(parts)).encode()).hexdigest() for name, parts in digests.items()}


def imported_recipe(material: Material, name: str, *, origin: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """Return the recipe of an imported stream: the one it had, and where it came from.

    Parameters
    ----------
    origin : how it came; JSON values
    digest : of its content, from `survey`
    """
    stream = material.stream(name)
    told = {**origin, "content_sha256": digest, "fingerprint": stream.fingerprint}
    if "imported" in stream.recipe:
        told["before"] = stream.recipe["imported"]
    return {**stream.recipe, "imported": told}


def new_store(
    path: Path, material: Material, recipes: Mapping[str, Mapping[str, Any]], *,
    layout: Layout, attributes: Mapping[str, Any], seen: Callable[[], None],
) -> Store:  # fmt: skip
    """Write a store beside `path`, whole, and move it there.

    Parameters
    ----------
    recipes : by stream
    layout : of the rows
    attributes : of the store, its own ones left out

    Raises
    ------
    UsageError
        If something stands at `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f"{path.name}{SCRATCH}-{scratch_name()}"
    given = {key: value for key, value in attributes.items() if key not in OWN}
    try:
        store = Store.create(scratch, index=material.index, views=material.views, layout=layout, attributes=given)
        _fill(store, material, recipes, np.arange(len(material.index)), seen)
        if not move(scratch, path):
            raise UsageError(f"{path} exists already; name another store.")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Store.open(path)


def add_streams(
    store: Store, material: Material, recipes: Mapping[str, Mapping[str, Any]], *, seen: Callable[[], None]
) -> None:
    """Add streams to a store, shard by shard; a repeated call continues.

    Raises
    ------
    RefusedError
        If the material has not exactly the store's videos, views and segments, or says other labels or splits; see
        `check_fit`.
    FingerprintMismatchError
        If a stream of this name was made otherwise.
    """
    place = check_fit(store, material)
    store.sweep()  # of writers that were killed
    _fill(store, material, recipes, place, seen)


def check_fit(store: Store, material: Material) -> np.ndarray:
    """Refuse material that is not of the store's videos.

    Returns
    -------
    [N] int64, for each video of the store its place in the material

    Raises
    ------
    RefusedError
        The message names the first video that differs.
    """
    ours, theirs = store.index, material.index
    for what, ids, other in (
        (f"{material.name} has no video", ours.ids, theirs),
        (f"{store.path} has no video", theirs.ids, ours),
    ):
        known = set(other.ids)
        if absent := [str(id) for id in ids if id not in known]:
            raise RefusedError(
                f"{what} {absent[0]!r}" + (f" and {len(absent) - 1} others" if absent[1:] else "") + "; a stream must "
                "have the ids of its store, one for one. Nothing was imported."
            )
    if material.views != store.views:
        raise RefusedError(f"{material.name} has {material.views} views, {store.path} has {store.views}.")
    place = np.array([theirs.position(id) for id in ours.ids])
    for position, other in enumerate(place.tolist()):
        one, two = _told(store, position), _told(material, other)
        for key in two:
            if key not in one or one[key] != two[key]:
                raise RefusedError(
                    f"Video {str(ours.ids[position])!r} has {key} {two[key]} in {material.name}, "
                    f"{one.get(key, 'none')} in {store.path}. Nothing was imported."
                )
    return place


def _told(material: Material | Store, position: int) -> dict[str, Any]:
    """What is said of a video; labels and splits only where there are any."""
    index = material.index
    told: dict[str, Any] = {"segments": int(index.length[position])}
    if (index.labels >= 0).any():
        told["labels"] = [index.classes[label] for label in index.labels[position] if label >= 0]
    return told | {f"role in split {name}": int(roles[position]) for name, roles in index.splits.items()}


def _fill(
    store: Store, material: Material, recipes: Mapping[str, Mapping[str, Any]], place: np.ndarray,
    seen: Callable[[], None],
) -> None:  # fmt: skip
    """Publish every shard that is not done."""
    # All names and recipes are tried before the first one is made.
    for name in recipes:
        if name in store.stream_names:
            store.add_stream(name, cube_shape=material.stream(name).cube_shape, recipe=recipes[name])
    streams = [
        store.add_stream(name, cube_shape=material.stream(name).cube_shape, recipe=recipe)
        for name, recipe in recipes.items()
    ]
    index = store.index
    for shard in range(store.shard_count):
        start, stop = store.shard_row_range(shard)
        videos = store.shard_videos(shard)
        for stream in streams:
            if stream.is_done(shard):
                continue
            cubes = np.zeros((stop - start, *stream.cube_shape), np.float16)
            frames = np.full((stop - start, 3), -1, np.int32)
            seconds = np.full(stop - start, np.nan)
            for position in videos:
                rows = material.rows(stream.name, int(place[position]))
                first = int(index.offset[position]) - start
                here = slice(max(0, first), max(0, min(stop - start, first + len(rows.cubes))))
                from_ = slice(here.start - first, here.stop - first)
                cubes[here], frames[here], seconds[here] = rows.cubes[from_], rows.frames[from_], rows.seconds[from_]
            outcomes = [material.stream(stream.name).outcomes[place[position]] for position in videos]
            stream.publish(shard, cubes=cubes, frames=frames, seconds=seconds, outcomes=outcomes)
        for position in videos:
            if start <= index.offset[position] < stop:
                seen()
