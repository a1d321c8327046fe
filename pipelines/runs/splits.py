"""The parts of a split by name, and which split is meant; without torch, for commands that read scores only."""

from __future__ import annotations

import logging

from ...cache.store import Store
from ...errors import UnknownNameError, UsageError
from ...extract.datasets.catalogue import TEST, TRAIN

log = logging.getLogger(__name__)

PARTS = {"train": TRAIN, "test": TEST}
"""Parts of a split by name; `train` holds the validation videos too."""


def choose_split(store: Store, name: str | None, *, guess: bool = True) -> str:
    """Return the split asked for, or the only or first one.

    Parameters
    ----------
    guess : whether the first of several may be taken where none was asked for; it goes to the log

    Raises
    ------
    UnknownNameError
        If the store has no such split.
    UsageError
        If it has none at all, or several and none may be guessed.
    """
    splits = sorted(store.index.splits)
    if not splits:
        raise UsageError(f"Store {store.path} has no split; its dataset names no training and test videos.")
    if name is not None and name not in splits:
        raise UnknownNameError("split", name, splits)
    if name is None and len(splits) > 1:
        if not guess:
            raise UsageError(
                f"Store {store.path} has the splits {', '.join(splits)}; say with --split which one it is."
            )
        log.info("split %r is taken, of %s", splits[0], ", ".join(splits))
    return name or splits[0]
