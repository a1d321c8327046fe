"""Scores that runs keep, read back by those who compare and fuse them: as they were written, of videos never seen."""

from __future__ import annotations

import numpy as np

from ...cache.store import Store
from ...errors import MissingFileError
from ..runs.identity import FitIdentity
from ..runs.places import Place, place_of
from ..runs.run import Run
from ..runs.seen import read_seen
from .score_files import ScoreTable, read_scores, seen_note


def kept_scores(run: Run, split: str, part: str, store: Store | None = None) -> ScoreTable:
    """Read the scores of a run on a part of a split.

    Parameters
    ----------
    part : test, train or validation
    store : that was evaluated on; None = the run's own

    Raises
    ------
    MissingFileError
        If there are none; the message names the command that makes them, and what there is.
    UsageError
        If they are damaged.
    """
    place = Place(split=split, part=part) if store is None else place_of(run, store, split, part)
    if not (run.path / place.scores).is_file():
        if part == "validation":  # only a fit makes these
            raise MissingFileError(
                f"Run {run.path} has no {place.scores}: its fit held out no video of that split; fit with "
                "--validation 0.2."
            )
        asked = [f" --store {store.quoted}"] if store else []
        asked += [f" --split {split}"] if split != run.identity.split else []
        asked += [f" --part {part} --allow-seen"] if part != "test" else []
        raise MissingFileError(
            f"Run {run.path} has no {place.scores}; make it by `vidatt evaluate {run.quoted}{''.join(asked)}`"
            f"{_others(run)}."
        )
    return read_scores(run.verified(place.scores), run.identity.classes)


def _others(run: Run) -> str:
    """Say which scores on other stores there are: they may be what is meant."""
    found = sorted(path.name for path in run.path.glob("scores-*@*.npz"))
    return f"; on other stores there are {', '.join(found)} (--store)" if found else ""


def seen_of_run(run: Run, table: ScoreTable, store: Store | None, *, allow_seen: bool) -> tuple[np.ndarray, str | None]:
    """Tell which videos of a file of scores its run was fitted or selected on, [n] bool, and what is to be said.

    What the file says, and of scores on the run's own store, its list of videos.

    Raises
    ------
    RefusedError
        If there are any, and they are not allowed.
    """
    seen, known = table.seen, None
    if store is None or place_of(run, store, run.identity.split, "test").store is None:
        known = read_seen(run)
        if known is not None:
            seen = seen | np.isin(np.array(table.ids, str), np.array(known.ids, str))
        elif isinstance(run.identity, FitIdentity) and not seen.any():
            return seen, f"not known whether run {run.path} was fitted on some of its videos: it keeps no list"
    return seen, seen_note(seen, str(run.path), allow_seen=allow_seen)
