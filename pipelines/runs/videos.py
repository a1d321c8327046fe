"""Which videos of a store a run can be held to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...cache.store import Store
from ...errors import NotFiniteError, RefusedError, UsageError
from .identity import FitIdentity
from .reload import require_fit
from .run import Run
from .seen import read_seen, seen_in
from .splits import PARTS


@dataclass(frozen=True, eq=False, kw_only=True)
class ChosenVideos:
    """The videos of a part of a split that a run is held to."""

    listed: int  # videos of the part
    videos: np.ndarray  # [n] positions of those that can be scored
    seen: np.ndarray  # [n] bool, which of them the run was fitted or selected on
    note: str | None  # what is to be said of that, one line; None = none is seen

    @property
    def seen_count(self) -> int | None:
        """How many are seen; None = none, or nobody knows."""
        return int(self.seen.sum()) or None


def choose_videos(run: Run, store: Store, split: str, part: str, *, allow_seen: bool = False) -> ChosenVideos:
    """Choose the videos of a part of a split that can be scored.

    Parameters
    ----------
    allow_seen : also those that the run was fitted or selected on

    Raises
    ------
    RefusedError
        If there are such videos, and they are not allowed.
    UsageError
        If the part lists no video, or none of them has segments.
    """
    identity = require_fit(run)
    roles = store.index.splits[split] == PARTS[part]
    if not roles.any():
        raise UsageError(f"Split {split!r} of {store.path} lists no {part} videos.")
    videos = np.flatnonzero(roles & usable_videos(identity, store))
    if not len(videos):
        raise UsageError(f"None of the {roles.sum()} {part} videos of split {split!r} has segments in {store.path}.")
    known = read_seen(run, store)
    if known is None:
        note = f"not known whether run {run.path} was fitted on some of them: it keeps no list, and its store is gone"
        return ChosenVideos(listed=int(roles.sum()), videos=videos, seen=np.zeros(len(videos), bool), note=note)
    seen = seen_in(run, known, store, videos)
    told: str | None = None
    if seen.any():
        fitted = dict(zip(known.ids, known.fitted.tolist(), strict=True))
        ids = [str(id) for id in store.index.ids[videos[seen]]]
        of_fit = sum(fitted[id] for id in ids)
        counts = (("fitted on", of_fit), ("selected on", len(ids) - of_fit))
        how = " and ".join(f"{what} ({count})" for what, count in counts if count)
        told = f"{len(ids)} of {len(videos)} {part} videos of split {split!r} are videos that run {run.path} was {how}"
        if not allow_seen:
            hint = "" if split == identity.split else "Fit one run per split; "
            raise RefusedError(
                f"{told}, such as {ids[0]!r} of {store.path}: numbers on them say nothing about new videos. {hint}"
                "--allow-seen measures them all the same, and says so."
            )
    return ChosenVideos(listed=int(roles.sum()), videos=videos, seen=seen, note=told)


def usable_videos(identity: FitIdentity, store: Store) -> np.ndarray:
    """[videos] bool: those with cubes in every stream of the run, of whole videos only if it was fitted so."""
    return store.usable(identity.stream_names, allow_truncated=identity.allow_truncated)


def not_finite(run: Run, store: Store, position: int) -> NotFiniteError:
    """Return the error for a video of which a head says nothing finite: its cubes are at fault, or else the head."""
    id = str(store.index.ids[position])
    for name in require_fit(run).stream_names:
        reader = store.stream(name).reader()
        if not all(np.isfinite(reader.read_video(position, view=view)).all() for view in range(store.views)):
            return NotFiniteError(
                f"What run {run.path} says of video {id!r} is not finite: its cubes in stream {name!r} of {store.path} "
                "hold NaN or infinity; extract it again."
            )
    return NotFiniteError(
        f"What run {run.path} says of video {id!r} is not finite, and its cubes in {store.path} are: the head is at "
        "fault. Fit again with another --out."
    )
