"""Folders of runs, such as a sweep's: they are taken wherever several runs are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError
from .run import CONFIG, METRICS

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Named:
    """The runs that paths stand for."""

    runs: tuple[Path, ...]  # in the order given; those of a folder by name
    unfinished: tuple[Path, ...]  # of folders, left out
    folders: tuple[Path, ...]  # that were taken for their runs


def runs_in(folder: Path) -> list[Path]:
    """Return the runs that lie in a folder which is none itself, finished or not, by name."""
    return [] if (folder / CONFIG).exists() else [path.parent for path in sorted(folder.glob(f"*/{CONFIG}"))]


def named_runs(paths: Sequence[Path]) -> Named:
    """Return the runs that paths stand for: a folder of runs for its finished ones, anything else for itself.

    Raises
    ------
    UsageError
        If a folder has runs, and no finished one.
    """
    runs: list[Path] = []
    unfinished: list[Path] = []
    folders: list[Path] = []
    for path in paths:
        inside = runs_in(path)
        if not inside:
            runs.append(path)
            continue
        done = [run for run in inside if (run / METRICS).exists()]
        if not done:
            raise UsageError(f"{path} is no run, and has no finished run in it ({len(inside)} unfinished).")
        runs += done
        unfinished += [run for run in inside if run not in done]
        folders.append(path)
    return Named(runs=tuple(runs), unfinished=tuple(unfinished), folders=tuple(folders))


def given_runs(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the runs that paths stand for, and say which unfinished ones are left out; raises as `named_runs`."""
    named = named_runs(paths)
    for path in named.unfinished:
        log.warning("%s is not finished and is left out", path)
    return named.runs
