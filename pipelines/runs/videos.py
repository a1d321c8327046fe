"""Which videos of a store a run can be held to."""

from __future__ import annotations

import numpy as np

from ...cache.store import Store
from ...errors import RefusedError, UsageError
from .identity import FitIdentity
from .reload import require_fit
from .run import Run
from .splits import PARTS, TRAIN


def choose_videos(run: Run, store: Store, split: str, part: str) -> tuple[int, np.ndarray]:
    """Return the number of videos that a part of a split lists, and the positions of those that can be scored.

    Raises
    ------
    RefusedError
        If a test part holds videos that the run was fitted on.
    UsageError
        If the part lists no video, or none of them has segments.
    """
    identity = require_fit(run)
    roles = store.index.splits[split] == PARTS[part]
    if not roles.any():
        raise UsageError(f"Split {split!r} of {store.path} lists no {part} videos.")
    ours = identity.split
    if part == "test" and split != ours and ours in store.index.splits:
        seen = int((roles & (store.index.splits[ours] == TRAIN)).sum())
        if seen:
            raise RefusedError(
                f"{seen} of {roles.sum()} test videos of split {split!r} are training videos of split {ours!r}, which "
                f"run {run.path} was fitted on; fit one run per split."
            )
    videos = np.flatnonzero(roles & usable_videos(identity, store))
    if not len(videos):
        raise UsageError(f"None of the {roles.sum()} {part} videos of split {split!r} has segments in {store.path}.")
    return int(roles.sum()), videos


def usable_videos(identity: FitIdentity, store: Store) -> np.ndarray:
    """[videos] bool: those with cubes in every stream of the run, of whole videos only if it was fitted so."""
    return store.usable(identity.stream_names, allow_truncated=identity.allow_truncated)
