"""What is divided among tasks: the shards of an extraction or the fits of a sweep, made ready ahead of them."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...cache.growth import finish
from ...errors import UsageError
from ..extraction.config import ExtractConfig
from ..extraction.plan import plan_extraction
from ..extraction.retry import todo
from ..fitting.sweep import SweepConfig, members

PROGRAM = (sys.executable, "-m", "vidatt")
"""How a task on another machine of the same file system starts vidatt: with this interpreter and what it has."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A command that is divided among tasks."""

    command: tuple[str, ...]  # what stands behind `vidatt`
    subject: Path  # the store, or the folder of the runs
    unit: str  # "shards" or "fits"
    parts: int
    to_do: int  # of the parts
    finally_: tuple[tuple[str, ...], ...]  # commands, behind `vidatt`, that tell afterwards whether all is done

    @property
    def name(self) -> str:
        """A name for the job: letters, digits, `-`, `_` and `.`."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", f"vidatt-{self.subject.name.removesuffix('.zarr')}").strip("-.")


def extraction_work(config: ExtractConfig, command: Sequence[str], *, make: bool = True) -> Work:
    """Plan an extraction and make its store, so that no task has to.

    Backbones are built once and forgotten: weights that are missing are told here, not by each task. Streams are made
    by the first task, whose hardware decides what `auto` means.

    Parameters
    ----------
    make : make the store; else nothing is written

    Raises
    ------
    VidattError
        As the extraction itself would.
    """
    if make and config.store.exists():
        finish(config.store)  # an extension that was killed
    plan = plan_extraction(replace(config, slice="0/1"))
    for stream in plan.streams:
        replace(stream, flow_engine="auto").setup("cpu", views=plan.views, seed=config.seed)
    to_do = todo(plan, plan.open_store() if make else plan.store)
    store = os.path.abspath(config.store)
    return Work(
        command=checked(command),
        subject=Path(store),
        unit="shards",
        parts=plan.layout.shard_count,
        to_do=len(to_do.tasks),
        finally_=(("status", store, "--check"), ("cache", "verify", store)),
    )


def sweep_work(config: SweepConfig, command: Sequence[str]) -> Work:
    """Lay out the fits of a sweep, each checked; the same command afterwards gathers their results.

    Raises
    ------
    UsageError
        On an unknown setting, value, stream or split.
    """
    wanted = members(config)
    return Work(
        command=checked(command),
        subject=Path(os.path.abspath(config.fit.out)),
        unit="fits",
        parts=len(wanted),
        to_do=len(wanted),
        finally_=((*checked(command), "--shard", "0/1"),),
    )


def checked(texts: Iterable[str]) -> tuple[str, ...]:
    """Return texts that can stand in a script or a manifest.

    Raises
    ------
    UsageError
        On line breaks, control characters, and bytes that are no text.
    """
    texts = tuple(texts)
    for text in texts:
        if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text):
            raise UsageError(
                f"{text!r} holds a line break, a control character or bytes that are no text, which no job script can "
                "hold; rename it, or use a link with another name."
            )
    return texts


def require_least(config: object, scheduler: str, least: Mapping[str, int]) -> None:
    """Refuse a setting below its least value; None is left to the scheduler.

    Raises
    ------
    UsageError
        If one is below.
    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and value < bound:
            raise UsageError(f"{name} of a {scheduler} job is {value}: must be {bound} or more.")


def require_forms(config: object, forms: Mapping[str, tuple[str, str]]) -> None:
    """Refuse a setting that is not of its form; None is left to the scheduler.

    Parameters
    ----------
    forms : setting -> pattern, and the form in words

    Raises
    ------
    UsageError
        If one is not.
    """
    for name, (pattern, form) in forms.items():
        value = getattr(config, name)
        if value is not None and not re.fullmatch(pattern, value, re.ASCII):
            raise UsageError(f"--{name.replace('_', '-')} {value!r}: write {form}.")
