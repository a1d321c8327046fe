"""`extract --reuse OLD`: cubes of an older store are copied where recipe, sampling and the video file are equal."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.fingerprint import differences
from ...cache.ledger import VideoOutcome
from ...cache.plan import StorePlan
from ...cache.reader import Reader
from ...cache.store import Store
from ...errors import RefusedError
from ...extract.views import Views
from ..placing import draws_segments

Key = tuple[str, float, float, int, str]
"""What makes cubes equal: SHA-256 of the video file, its stretch, rows, and the id where something is drawn from it."""


def check_reuse(old: Path, store: Path, plan: StorePlan) -> None:
    """Refuse an older store none of whose cubes could be copied.

    Parameters
    ----------
    plan : of the extraction

    Raises
    ------
    RefusedError
        If it is the store itself, or its segments were placed otherwise.
    StoreNotFoundError
    """
    if store.exists() and old.resolve() == store.resolve():
        raise RefusedError(f"--reuse {old} is the store itself; name the older store there.")
    found = Store.open(old).plan
    odd = [
        f"{key} {getattr(found, key)} -> {getattr(plan, key)}"
        for key in ("sampler", "window_frames", "view_rule", *(("seed",) if _draws(plan) else ()))
        if getattr(found, key) != getattr(plan, key)
    ]
    if odd:
        raise RefusedError(
            f"Nothing of {old} can be reused: its segments are others ({', '.join(odd)}). Leave --reuse out, or repeat "
            "the options it was made with."
        )


class Reuse:
    """The older store, for one worker.

    Parameters
    ----------
    recipes : of the streams that are extracted

    Raises
    ------
    RefusedError
        If the older store lacks one of the streams, made it otherwise, or did not record digests of its videos.
    """

    def __init__(self, path: Path, recipes: Mapping[str, Mapping[str, Any]]) -> None:
        self._store = Store.open(path)
        for name, recipe in recipes.items():
            if name not in self._store.stream_names:
                raise RefusedError(
                    f"Nothing of {path} can be reused: it has no stream {name!r}. Leave --reuse out, or extract the "
                    f"streams it has with --streams {','.join(self._store.stream_names)} first."
                )
            if odd := differences(recipe, self._store.stream(name).recipe):
                raise RefusedError(
                    f"Nothing of {path} can be reused: its stream {name!r} was made with another recipe: "
                    f"{'; '.join(odd)}. Leave --reuse out, or repeat that recipe."
                )
        self._streams = {name: self._store.stream(name) for name in recipes}
        self._readers: dict[str, Reader] = {name: stream.reader() for name, stream in self._streams.items()}
        self._outcomes: dict[str, dict[str, VideoOutcome]] = {}

    def __len__(self) -> int:
        """Return how many of its videos can be copied, if their files are found again."""
        return len(self._found)

    @cached_property
    def _found(self) -> dict[Key, int]:
        """Positions of the videos that can be copied, by what must be equal."""
        for name, stream in self._streams.items():
            self._outcomes[name] = {o.id: o for o in stream.outcomes() if o.segments and o.sha256}
        index, found = self._store.index, {}
        whole = np.logical_and.reduce([stream.done_videos() for stream in self._streams.values()])
        for position, id in enumerate(index.ids.tolist()):
            digests = {outcomes[id].sha256 if id in outcomes else "" for outcomes in self._outcomes.values()}
            if whole[position] and len(digests) == 1 and (digest := digests.pop()):
                found[_key(self._store, position, digest)] = position
        if not found:
            raise RefusedError(
                f"Nothing of {self._store.path} can be reused: no video in it has the digest of its file, which "
                "earlier versions did not record. Leave --reuse out."
            )
        return found

    def matches(self, store: Store, positions: Sequence[int], videos: Path) -> dict[int, int]:
        """Return the position here of each video of a new store whose file, stretch and rows are equal."""
        matched = {}
        for position in positions:
            digest = _digest(videos / str(store.index.paths[position]))
            here = self._found.get(_key(store, position, digest))
            if here is not None:
                matched[position] = here
        return matched

    def copy(
        self, stream: str, position: int, skip: int, *, cubes: np.ndarray, frames: np.ndarray, seconds: np.ndarray
    ) -> VideoOutcome:
        """Copy rows of a video, from its row `skip` on (over all views), into the given arrays; its outcome.

        Raises
        ------
        CorruptStoreError
            If the older store is damaged there.
        """
        reader = self._readers[stream]
        first = reader.row_range(position)[0] + skip
        reader.read_rows(first, first + len(cubes), out=cubes)
        views = range(self._store.views)
        rows = slice(skip, skip + len(cubes))
        frames[...] = np.concatenate([reader.frames(position, view) for view in views])[rows]
        seconds[...] = np.concatenate([reader.seconds(position, view) for view in views])[rows]
        return self._outcomes[stream][str(self._store.index.ids[position])]


def _draws(plan: StorePlan) -> bool:
    """Whether segments or crops are drawn from the video's id."""
    views = Views.parse(plan.view_rule or "center")
    return draws_segments(plan) or any(one.random for one in views.sets)


def _digest(path: Path) -> str:
    """SHA-256 of a video file; empty if it cannot be read: the decoder will say why."""
    if not os.path.isfile(path):  # not Path.is_file, which raises for names that are too long
        return ""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _key(store: Store, position: int, digest: str) -> Key:
    start, stop = (-1.0 if np.isnan(x) else float(x) for x in store.index.span_seconds[position])
    id = str(store.index.ids[position]) if _draws(store.plan) else ""
    return digest, start, stop, int(store.index.length[position]), id
