"""A finished fit for use from Python: its head, and what one must know to feed it and to read its scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...cache.store import Store
from ...heads.contract import Head
from .reload import load_head, require_fit, store_for
from .run import Run


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedRun:
    """What `load_run` gives."""

    path: Path  # of the run folder
    head: Head  # with its fitted weights, on the CPU, in evaluation mode
    streams: tuple[str, ...]  # whose cubes the head takes, in this order
    classes: tuple[str, ...]  # [N] names, in the order of its scores
    split: str  # whose training list it was fitted on

    def open_store(self, path: Path | None = None) -> Store:
        """Open the store that the run was fitted on, or another one that fits it.

        Raises
        ------
        StoreNotFoundError
            If there is none.
        FingerprintMismatchError, RefusedError
            If its streams or classes are others; the message says what differs.
        """
        return store_for(Run.open(self.path), path)


def load_run(path: str | Path) -> LoadedRun:
    """Load a fit with its weights.

    Raises
    ------
    MissingFileError
        If there is no run, or it has no weights yet.
    UsageError
        If it is a fusion, or its weights do not fit its configuration.
    """
    run = Run.open(Path(path))
    identity = require_fit(run)
    return LoadedRun(
        path=run.path,
        head=load_head(run),
        streams=identity.stream_names,
        classes=identity.classes,
        split=identity.split,
    )
