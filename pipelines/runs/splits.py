"""The parts of a split by name, and which split is meant; without torch, for commands that read scores only."""

from __future__ import annotations

import logging
from collections.abc import Iterable

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
    return choose_among(store.index.splits, name, what=f"Store {store.path}", guess=guess)


def choose_among(known: Iterable[str], name: str | None, *, what: str, guess: bool) -> str:
    """Return the split asked for of those known to a store or a dataset; see `choose_split`.

    Parameters
    ----------
    what : has them, for messages
    """
    splits = sorted(known)
    if not splits:
        raise UsageError(f"{what} has no split; it names no training and test videos.")
    if name is not None and name not in splits:
        raise UnknownNameError("split", name, splits)
    if name is None and len(splits) > 1:
        if not guess:
            raise UsageError(f"{what} has the splits {', '.join(splits)}; say with --split which one it is.")
        log.info("split %r is taken, of %s", splits[0], ", ".join(splits))
    return name or splits[0]
