"""The store: one Zarr group per dataset, with an index of its videos and a group per stream."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ..errors import (
    CorruptStoreError,
    FingerprintMismatchError,
    RefusedError,
    ShardMissingError,
    UsageError,
)
from . import growth, publish
from .fingerprint import differences, fingerprint, plain
from .index import Index
from .index_arrays import read_index, write_index
from .layout import Layout
from .mending import mend, told
from .root import DIGEST, EXTENDED, INDEX, OWN, SCHEMA, read_root, sealed
from .rows import StoreRows, fits
from .scratch import abandoned, make_scratch, move, remove_scratch, scratch_name, sync_tree
from .stream import Stream, build_stream

_FIRST = ("rgb", "flow", "clip")


class Store(StoreRows):
    """The cache of one dataset; from `Store.create` or `Store.open`. `store["rgb"]` is one of its streams.

    Attributes
    ----------
    path, attributes, index, views, rows, chunk_rows, shard_rows : see `StoreRows`
    """

    @classmethod
    def create(
        cls, path: str | Path, *, index: Index, views: int, layout: Layout, attributes: Mapping[str, Any]
    ) -> Store:
        """Make a store, or open the equal one that is there: another process may be making it at this moment.

        Parameters
        ----------
        index : its offsets come from the layout
        views : crops of each segment, at least 1
        layout : from `plan_layout` with the index's lengths
        attributes : JSON values kept with the store (dataset, digests, sampling rule, seed, ...)

        Raises
        ------
        RefusedError
            If a store of another plan or other attributes is there; the message lists what differs.
        UsageError
            If the path is taken by something else, or the layout is not that of the index.
        """
        path = Path(path)
        index = replace(index, offset=layout.offset)
        attributes = _attributes(index, views, layout, attributes)
        if not (path / "zarr.json").exists():
            for folder in abandoned(path.parent, prefix=f"{path.name}{publish.SCRATCH}-"):
                shutil.rmtree(folder, ignore_errors=True)  # another process may be at it
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.parent / f"{path.name}{publish.SCRATCH}-{scratch_name()}"
            try:
                zarr.create_group(scratch, zarr_format=3, attributes=attributes)
                write_index(scratch / INDEX, index, attributes)
                sync_tree(scratch)
                if not move(scratch, path) and not (path / "zarr.json").exists():
                    raise UsageError(f"{path} exists and is no vidatt store; give another path.")
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        store = cls.open(path)
        if DIGEST not in store.attributes:  # made before there was one
            del attributes[DIGEST]
        if odd := differences(attributes, store.attributes):
            raise RefusedError(
                f"The store {path} was planned otherwise: {'; '.join(odd)}. Use the settings it was made with, "
                "or another path."
            )
        return store

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a store.

        Raises
        ------
        StoreNotFoundError
            If there is none.
        RefusedError
            If it is of another schema version.
        CorruptStoreError
            If its metadata or index are damaged.
        """
        path = Path(path)
        attributes = read_root(path)
        folder = path / attributes.get(INDEX, INDEX)
        try:
            index = read_index(folder)
        except CorruptStoreError:
            if read_root(path) == attributes:
                raise
            return cls.open(path)  # it was extended at this moment, and that index removed
        if index.content_digest() != attributes["index_digest"]:
            raise CorruptStoreError(f"The index {folder} does not match its digest; restore it from a copy.")
        store = cls(path, attributes, index)
        if not fits(index, store.views, store.layout):
            raise CorruptStoreError(f"The layout in {path}/zarr.json is not that of its index", mend(path))
        return store

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, {len(self.index)} videos, streams {', '.join(self.stream_names) or 'none'})"

    @property
    def stream_names(self) -> list[str]:
        """The streams there are: rgb, flow, clip, then others by name."""
        # A folder with markers counts too: a stream whose zarr.json is lost is damaged, not gone.
        found = [*self.path.glob("[!.]*/zarr.json"), *self.path.glob("[!.]*/.done")]
        names = {path.parent.name for path in found if not _is_index(path.parent.name)}
        return [name for name in _FIRST if name in names] + sorted(names.difference(_FIRST))

    def stream(self, name: str) -> Stream:
        """Open a stream.

        Raises
        ------
        UsageError
            If there is none of this name; the message lists those there are.
        """
        self.require_streams([name])
        return Stream(self, name)

    def require_streams(self, names: Iterable[str]) -> None:
        """Refuse names that no stream has; raises as `stream`."""
        there = self.stream_names
        if absent := [name for name in names if name not in there]:
            raise UsageError(
                f"The store {self.path} has no stream {absent[0]!r}; it has {', '.join(there) or 'none yet'}."
            )

    def __getitem__(self, name: str) -> Stream:
        """Open a stream; see `stream`."""
        return self.stream(name)

    def __iter__(self) -> Iterator[str]:
        """Name the streams there are."""
        return iter(self.stream_names)

    def add_stream(self, name: str, *, cube_shape: Sequence[int], recipe: Mapping[str, Any]) -> Stream:
        """Make a stream, or open the equal one that is there: other processes may be making it at this moment.

        Parameters
        ----------
        cube_shape : (K, K, D)
        recipe : how the stream is made; JSON values, frozen from now on

        Raises
        ------
        FingerprintMismatchError
            If the stream was made with another recipe or shape; the message lists what differs. Nothing is changed.
        UsageError
            If the name, the shape or the recipe cannot be kept.
        """
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or _is_index(name):
            raise UsageError(f"{name!r} cannot name a stream; use letters, digits, '_' and '-', and not 'index'.")
        shape = tuple(int(side) for side in cube_shape)
        if len(shape) != 3 or shape[0] != shape[1] or min(shape) < 1:
            raise UsageError(f"Stream {name!r} has cubes of shape {shape}; it should be (K, K, D), all at least 1.")
        attributes = {"recipe": plain(recipe), "fingerprint": fingerprint(recipe)}
        if name not in self.stream_names:
            scratch = make_scratch(self.path / publish.SCRATCH)
            try:
                build_stream(scratch / name, self, shape, attributes)
                sync_tree(scratch)
                move(scratch / name, self.path / name)  # else another was faster
            finally:
                remove_scratch(scratch)
            growth.grow_arrays(self.path, read_root(self.path)["rows"])  # the store may have been extended meanwhile
        stream = Stream(self, name)
        odd = differences(recipe, stream.recipe) + differences({"cube_shape": shape}, {"cube_shape": stream.cube_shape})
        if odd:
            raise FingerprintMismatchError(
                f"Stream {name!r} of {self.path} was made with another recipe: {'; '.join(odd)}. Use that recipe, or "
                "another store."
            )
        return stream

    def copy_plan(self, path: Path) -> Store:
        """Make an empty store of the same plan at `path`.

        Raises
        ------
        UsageError
            If something stands there.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.parent / f"{path.name}{publish.SCRATCH}-{scratch_name()}"
        folder = self.attributes.get(INDEX, INDEX)
        try:
            shutil.copytree(self.path / folder, scratch / folder)
            shutil.copyfile(self.path / "zarr.json", scratch / "zarr.json")
            sync_tree(scratch)
            if not move(scratch, path):
                raise UsageError(f"{path} exists already; name another place, or remove it.")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return Store.open(path)

    def copy_stream(self, other: Stream) -> Stream:
        """Make the stream that another store of the same plan has, without shards; or open the one that is there."""
        if other.name not in self.stream_names:
            scratch = make_scratch(self.path / publish.SCRATCH)
            try:
                for part in ("", *publish.ARRAYS):
                    (scratch / other.name / part).mkdir()
                    shutil.copyfile(other.path / part / "zarr.json", scratch / other.name / part / "zarr.json")
                (scratch / other.name / publish.DONE).mkdir()
                sync_tree(scratch)
                move(scratch / other.name, self.path / other.name)  # else another was faster
            finally:
                remove_scratch(scratch)
        return self.stream(other.name)

    def usable(self, streams: Iterable[str], *, allow_truncated: bool = True, partial: bool = False) -> np.ndarray:
        """Tell which videos have real rows in all the streams.

        Parameters
        ----------
        allow_truncated : whether videos whose decoding ended early count
        partial : accept streams with shards that are not done; their videos are not usable

        Returns
        -------
        [N] bool, in store order

        Raises
        ------
        ShardMissingError
            If a stream has shards that are not done, unless `partial`.
        """
        accepted = ("ok", "truncated") if allow_truncated else ("ok",)
        usable = np.ones(len(self.index), bool)
        for stream in map(self.stream, streams):
            missing = stream.missing_shards()
            if missing and not partial:
                raise ShardMissingError(
                    f"Stream {stream.name!r} of {self.path} has {len(missing)} of {self.shard_count} shards not done; "
                    f"continue with {told(self.command([stream.name]))}."
                )
            good = {o.id for o in stream.outcomes() if o.outcome in accepted and o.segments > 0}
            usable &= np.fromiter((name in good for name in self.index.ids), bool, len(self.index))
            usable &= stream.done_videos()  # of a long video, some shards may be done
        return usable

    def extend(self, *, index: Index, layout: Layout, attributes: Mapping[str, Any]) -> Store:
        """Enter more videos, or other labels, splits, intervals and boxes: atomic, durable, the first extension wins.

        Parameters
        ----------
        index : the videos of this store first, in its order, with their rows, then the new ones
        layout : from `extend_layout`
        attributes : what the planner says of the new whole; what it does not say stays

        Returns
        -------
        The store as it is now, which is another process's if that was first: compare its index with yours.

        Raises
        ------
        UsageError
            If a video of this store is missing, or has another path, stretch or other rows.
        """
        index = replace(index, offset=layout.offset)
        N = len(self.index)
        if index.digest(slice(0, N)) != self.index.digest(slice(0, N)):
            raise UsageError(
                "An extension leaves a store's videos, their files and rows as they are; only add to them."
            )
        kept = {key: value for key, value in self.attributes.items() if key not in OWN}
        root = _attributes(index, self.views, layout, {**kept, **attributes}, folder=growth.next_index(self.attributes))
        growth.claim(self.path, index, root)
        growth.finish(self.path)
        return type(self).open(self.path)

    def sweep(self) -> int:
        """Complete what killed writers left ready, and remove the scratch of dead ones.

        Returns
        -------
        The number of scratch folders removed.
        """
        return publish.sweep(self.path, [self.path / name for name in self.stream_names])


def _is_index(name: str) -> bool:
    return re.fullmatch(rf"{INDEX}(-[0-9]+)?", name) is not None


def _attributes(
    index: Index, views: int, layout: Layout, given: Mapping[str, Any], *, folder: str = INDEX
) -> dict[str, Any]:
    if not fits(index, views, layout):
        raise UsageError(
            "The layout is not that of the index: make it with plan_layout from the same lengths and views."
        )
    own: dict[str, Any] = {
        "schema": SCHEMA,
        "views": int(views),
        "rows": int(layout.rows),
        "chunk_rows": int(layout.chunk_rows),
        "shard_rows": int(layout.shard_rows),
        "plan_digest": index.digest(),
        "index_digest": index.content_digest(),
    }
    if folder != INDEX:
        own |= {"schema": EXTENDED, INDEX: folder, "earlier_rows": list(layout.earlier_rows)}
    if taken := [key for key in OWN if key in given and given[key] != own.get(key)]:
        raise UsageError(f"The attributes {', '.join(taken)} are the store's own; give others.")
    return sealed({**given, **own})
