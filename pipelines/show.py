"""`vidatt show`: what a run, a store or a folder of runs is, how it was made, and what can be done with it next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cache.made_by import made_by
from ..cache.store import Store
from ..errors import MissingFileError, StoreNotFoundError
from ..extract.datasets.catalogue import TEST, TRAIN
from ..heads.registry import HEADS, trained_head_names
from .metrics.classification import Measures
from .record import OPTIONAL, Record
from .report.again import commands
from .runs.folders import runs_in
from .runs.identity import FitIdentity, FusionEnvironment
from .runs.measured import Evaluation, FitMeasures
from .runs.reload import acting_settings
from .runs.run import CONFIG, Run
from .stores.info import StoreInfo, store_info
from .stores.status import store_status


@dataclass(frozen=True, kw_only=True)
class NextStep(Record):
    """Something that can be done; the command works from any folder."""

    what: str
    command: str


@dataclass(frozen=True, kw_only=True)
class RecordedCommand(Record):
    """A command that made something."""

    command: str  # as it was typed, else what does the same
    versions: Mapping[str, str]
    time: str | None = field(default=None, metadata=OPTIONAL)  # of its start, where it is recorded


@dataclass(frozen=True, kw_only=True)
class ShownRun(Record):
    """A run."""

    run: str  # absolute
    head: str
    summary: str  # of the head, "" where this version has none of that name
    preset: str
    settings: Mapping[str, Any]  # those that act
    streams: Mapping[str, str]  # what each is
    split: str
    seed: int
    classes: int
    finished: bool
    store: str | None  # None: a fusion of other runs' scores
    store_there: bool
    train_videos: int | None = field(default=None, metadata=OPTIONAL)  # of a fit
    validation_videos: int | None = field(default=None, metadata=OPTIONAL)
    validation: Measures | None  # at the end of the fit
    evaluations: Mapping[str, Measures]  # by place: split-part, with the store's digest where it is another
    made_by: RecordedCommand | None
    again: tuple[str, ...]  # commands that make and measure it again, by its record alone
    next: tuple[NextStep, ...]


@dataclass(frozen=True, kw_only=True)
class ShownStore(Record):
    """A store."""

    store: str  # absolute
    complete: bool
    holds: StoreInfo
    made_by: tuple[RecordedCommand, ...]  # none where the file beside the store is not there
    next: tuple[NextStep, ...]


@dataclass(frozen=True, kw_only=True)
class ShownFolder(Record):
    """A folder of runs, such as a sweep's."""

    folder: str  # absolute
    runs: tuple[ShownRun, ...]
    next: tuple[NextStep, ...]


def show(path: Path) -> ShownRun | ShownStore | ShownFolder:
    """Say what lies at a path.

    Raises
    ------
    MissingFileError
        If it is neither a run, nor a store, nor a folder of runs.
    UsageError, CorruptStoreError
        If it is damaged.
    """
    path = Path(os.path.abspath(path))
    if (path / CONFIG).exists():
        return _run(path)
    if runs := runs_in(path):
        return _folder(path, [_run(run) for run in runs])
    try:
        return _store(path)
    except StoreNotFoundError:
        raise MissingFileError(
            f"{path} is neither a run (of `vidatt fit-head`), nor a store (of `vidatt extract`), nor a folder of runs."
        ) from None


def _run(path: Path) -> ShownRun:
    run = Run.open(path)
    identity, environment = run.identity, run.environment
    fitted = identity if isinstance(identity, FitIdentity) else None
    place = None if isinstance(environment, FusionEnvironment) else Path(environment.store)
    store = None if place is None else _opened(place)
    metrics = run.metrics() if run.finished else {"fit": {}, "evaluations": {}}
    where = f"{path}: metrics"
    known = {name: Evaluation.from_dict(one, where).metrics for name, one in metrics["evaluations"].items()}
    validation = FitMeasures.from_dict(metrics["fit"].get("metrics"), where).validation if run.finished else None
    again = commands(run, identity.split, "test")
    return ShownRun(
        run=str(path),
        head=identity.head,
        summary=HEADS[identity.head].summary if identity.head in HEADS else "",
        preset=identity.preset,
        settings=acting_settings(run),
        streams={name: recipe_text(one.recipe) for name, one in identity.streams.items()},
        split=identity.split,
        seed=identity.seed,
        classes=len(identity.classes),
        finished=run.finished,
        store=None if place is None else os.path.abspath(place),
        store_there=store is not None,
        train_videos=None if fitted is None else fitted.train.videos,
        validation_videos=None if fitted is None else fitted.validation.videos,
        validation=validation,
        evaluations=known,
        made_by=_made(environment.command, environment.versions),
        again=again,
        next=tuple(_next_of_run(run, store, measured=f"{identity.split}-test" in known, again=again)),
    )


def _opened(path: Path) -> Store | None:
    try:
        return Store.open(path)
    except StoreNotFoundError:
        return None


def _made(command: str | None, versions: Mapping[str, str] | None) -> RecordedCommand | None:
    return None if command is None else RecordedCommand(command=command, versions=versions or {})


def _next_of_run(run: Run, store: Store | None, *, measured: bool, again: Sequence[str]) -> list[NextStep]:
    identity, name = run.identity, shlex.quote(str(run.path))
    if not run.finished:
        back = run.environment.again or (again[0] if again else None)
        return [NextStep(what="continue the fit", command=back)] if back else []
    report = NextStep(
        what="look at it", command=f"vidatt report {name} --out {shlex.quote(str(run.path / 'report.html'))}"
    )
    if not isinstance(identity, FitIdentity):
        return [report]
    if store is None:
        return []
    steps = []
    roles = store.index.splits.get(identity.split)
    if not measured and roles is not None and (roles == TEST).any():
        steps.append(NextStep(what="measure it on the test list", command=f"vidatt evaluate {name}"))
    if measured:
        steps.append(report)
    if identity.head in trained_head_names() and identity.validation.videos:
        steps.append(
            NextStep(
                what="put a support vector machine on its representation",
                command=f"vidatt fit-head --head svm --on {name} --out {shlex.quote(f'{run.path}-svm')} "
                f"--seed {identity.seed} --validation {identity.validation_share:g}"
                + ("" if identity.allow_truncated else " --skip-truncated"),
            )
        )
    return steps


def _folder(path: Path, runs: Sequence[ShownRun]) -> ShownFolder:
    name = shlex.quote(str(path))
    measured = [run for run in runs if run.finished and f"{run.split}-test" in run.evaluations]
    steps = []
    if len(measured) > 1 and len(measured) == sum(run.finished for run in runs):
        steps.append(NextStep(what="compare the runs", command=f"vidatt compare {name}"))
    if measured:
        out = shlex.quote(str(path / "report.html"))
        steps.append(NextStep(what="look at them", command=f"vidatt report {name} --out {out}"))
    unfinished = [step for run in runs if not run.finished for step in run.next]
    return ShownFolder(folder=str(path), runs=tuple(runs), next=(*unfinished[:1], *steps))


def _store(path: Path) -> ShownStore:
    info = store_info(path)
    entries = made_by(path)
    store = Store.open(path)
    name = shlex.quote(str(path))
    missing = [stream for stream, one in info.streams.items() if one.shards_done < info.shards]
    complete = bool(info.streams) and not missing
    steps = []
    command = store.command(missing)
    if not complete and " --videos " in command:
        steps.append(NextStep(what="continue the extraction", command=command))
    if complete:
        if any((roles == TRAIN).any() for roles in store.index.splits.values()):
            fit = NextStep(what="fit a head", command=f"vidatt fit-head --head stan --store {name}")
            steps.append(fit)
        steps.append(NextStep(what="check every byte", command=f"vidatt cache verify {name}"))
    if complete and (again := store_status(path).retry_command):
        steps.append(NextStep(what="look again at videos that could not be read", command=again))
    return ShownStore(
        store=str(path),
        complete=complete,
        holds=info,
        made_by=tuple(
            RecordedCommand(command=entry.command or entry.again, versions={"vidatt": entry.vidatt}, time=entry.time)
            for entry in entries
        ),
        next=tuple(steps),
    )


def recipe_text(recipe: Mapping[str, object]) -> str:
    """Return a stream's recipe in a few words."""
    if "backbone" not in recipe:
        return "imported" if "imported" in recipe else "made by a program"
    weights = recipe.get("weights")
    told = [str(recipe["backbone"])]
    told += [f"layer {recipe['layer']}"] if recipe.get("layer") else []
    told += [f"weights {weights['name']}"] if isinstance(weights, Mapping) and "name" in weights else []
    return ", ".join(told)
