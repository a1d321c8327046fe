"""`vidatt fit-head --sweep`: many fits of one store, side by side, each evaluated on the test list of its split."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ...cache.store import Store
from ...errors import InterruptedRunError, UsageError, VidattError, nearest_key_error
from ...heads.registry import default_preset, resolve_settings
from ..jobs.allotment import given_cores
from ..jobs.place import find_place, parse_slice
from ..metrics.classification import Measures
from ..record import OPTIONAL, Record
from ..results.evaluate import evaluate
from ..runs.places import Place
from ..runs.progress import Progress
from ..runs.run import Run
from ..runs.signals import NUMBERS, StopRequest
from ..runs.splits import TEST
from .fit import fit
from .plan import FitConfig

log = logging.getLogger(__name__)

CHOICES = ("head", "preset", "streams")
"""What may vary besides the settings of `--set`; streams of one value are joined by +."""

STOP = "stop"
"""The file that tells the workers to begin no more fits."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """What varies; all the rest is that of `fit`, whose `out` is the folder of the runs."""

    fit: FitConfig
    vary: Mapping[str, Sequence[str]]  # setting, or one of CHOICES -> values
    seeds: int | None = None  # that many from the fit's on; None = its own, and the runs are not named by it
    splits: Sequence[str] | None = None  # None = the fit's; ("all",) = all of the store
    jobs: int = 1  # fits at a time
    slice: str | None = None  # I/N, only those fits; else what the scheduler says, see `find_place`

    def __post_init__(self) -> None:
        for key, values in self.vary.items():
            if not values or len(set(values)) != len(values) or not all(values):
                raise UsageError(f"--sweep {key}={','.join(values)}: give each value once.")
        if self.seeds is not None and self.seeds < 1:
            raise UsageError(f"--seeds {self.seeds}: must be 1 or more.")
        if self.splits is not None and len(set(self.splits)) != len(self.splits):
            raise UsageError(f"--splits {','.join(self.splits)}: give each split once.")
        if self.splits is not None and self.fit.split is not None:
            raise UsageError("--split and --splits both say what to fit on; leave one out.")
        if self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs}: must be 1 or more.")
        if self.slice is not None:
            parse_slice(self.slice)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One fit of a sweep."""

    setting: Mapping[str, str]  # what varies besides seed and split
    fit: FitConfig


@dataclass(frozen=True, kw_only=True)
class SweepRun(Record):
    """One fit of a sweep, with its evaluation."""

    run: str
    setting: Mapping[str, str]  # what varies besides seed and split
    split: str | None
    seed: int
    status: str = "ok"  # or "failed" or "interrupted"
    error: str | None = None
    validation: Measures | None = None
    test: Measures | None = None  # None too if the split has no test list
    finished_before: bool | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class Spread(Record):
    """Figures over seeds; None where one is undefined."""

    mean: float | None  # over seeds, of the means over splits
    spread: float | None  # sample standard deviation over seeds; None below two
    splits: Mapping[str, float]  # mean over seeds by split


@dataclass(frozen=True, kw_only=True)
class SweepRow(Record):
    """One setting of a sweep."""

    setting: Mapping[str, str]
    runs: int  # that are done
    wanted: int
    seeds: tuple[int, ...]  # those with all splits, which count
    validation: Spread
    test: Spread


@dataclass(frozen=True, kw_only=True)
class SweepFailure(Record):
    """A fit that failed."""

    run: str
    error: str | None


@dataclass(frozen=True, kw_only=True)
class SweepResult(Record):
    """A sweep: a row per setting, and every run."""

    out: str
    store: str
    measure: str  # "top1" or "map"
    rows: tuple[SweepRow, ...]
    runs: tuple[SweepRun, ...]
    failed: tuple[SweepFailure, ...]
    seconds: float


def parse_sweep(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read `KEY=V1,V2,...` texts; where values hold commas themselves, `;` parts them.

    Raises
    ------
    UsageError
        On a text without `=`, and on a key given twice.
    """
    vary: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or key.strip() in vary:
            raise UsageError(f"--sweep {text!r}: write each key once, as KEY=VALUE,VALUE such as lr=1e-3,1e-4.")
        vary[key.strip()] = tuple(value.strip() for value in values.split(";" if ";" in values else ","))
    return vary


def members(config: SweepConfig) -> list[Member]:
    """Lay out the fits, and check every setting before the first of them begins.

    Raises
    ------
    UsageError
        On an unknown setting, value, stream or split.
    """
    base, store = config.fit, Store.open(config.fit.store)
    splits: Sequence[str | None] = (base.split,)
    if config.splits is not None:
        splits = sorted(store.index.splits) if tuple(config.splits) == ("all",) else config.splits
        nearest_key_error("split", [split for split in splits if split], store.index.splits)
    found: dict[Path, Member] = {}
    for values in itertools.product(*config.vary.values()):
        setting = dict(zip(config.vary, values, strict=True))
        if both := sorted(set(setting) & set(base.settings)):
            raise UsageError(f"--set and --sweep both say {both[0]}; leave one out.")
        own = {key: value for key, value in setting.items() if key not in CHOICES}
        streams = tuple(setting["streams"].split("+")) if "streams" in setting else base.streams
        nearest_key_error("stream", streams or (), store.stream_names)
        chosen = replace(
            base,
            head=setting.get("head", base.head),
            preset=setting.get("preset", base.preset),
            streams=streams,
            settings={**base.settings, **own},
        )
        resolve_settings(chosen.head, chosen.preset or default_preset(chosen.head), chosen.settings)
        for split, seed in itertools.product(splits, range(base.seed, base.seed + (config.seeds or 1))):
            named = dict(setting)
            named |= {} if config.splits is None else {"split": str(split)}
            named |= {} if config.seeds is None else {"seed": str(seed)}
            name = re.sub(r"[^A-Za-z0-9=.,+_-]", "_", ",".join(f"{key}={value}" for key, value in named.items()))
            out = base.out / (name or "run")
            if out in found:
                raise UsageError(f"Two fits of the sweep would lie in {out}; change one of the values.")
            found[out] = Member(setting=setting, fit=replace(chosen, split=split, seed=seed, out=out))
    return list(found.values())


def _require_complete(base: FitConfig, wanted: Sequence[Member]) -> None:
    """Refuse a sweep one of whose fits would find a stream unfinished: all shards are asked for, or nothing begins."""
    store = Store.open(base.store)
    for name in sorted({name for member in wanted for name in member.fit.streams or store.stream_names}):
        store.usable([name])


def sweep(config: SweepConfig) -> SweepResult:
    """Run all fits and evaluations, or those of my slice, but for those that are finished already; summarise them.

    Raises
    ------
    InterruptedRunError
        After SIGTERM, SIGUSR1 or Ctrl-C, when the fits in work have written checkpoints; the same call continues.
    UsageError, ShardMissingError
        If a setting is wrong, or a stream is not complete; nothing has begun then.
    """
    started = time.monotonic()
    place = find_place(config.slice, os.environ)
    wanted = members(config)
    _require_complete(config.fit, wanted)
    wanted = wanted[place.index :: place.count]
    if place.source:
        log.info("%s", place)
    jobs = max(1, min(config.jobs, len(wanted)))
    threads = max(1, given_cores(os.environ) // jobs)
    log.info("%d fits, %d at a time on %d threads each, in %s", len(wanted), jobs, threads, config.fit.out)
    desk = Path(tempfile.mkdtemp(prefix="vidatt-sweep-"))
    found: dict[int, SweepRun] = {}
    try:
        with _forwarded(desk), Progress("sweep", len(wanted), unit="fit") as progress, _quiet_executor():
            work = Parallel(n_jobs=jobs, backend="loky", return_as="generator_unordered", pre_dispatch="n_jobs")
            for number, run in work(delayed(_one)(n, member, desk, threads, jobs) for n, member in enumerate(wanted)):
                found[number] = run
                progress.advance()
                if run.status == "failed":
                    log.error("%s failed: %s", run.run, run.error)
                if run.status == "interrupted":  # of one process: the signal reached the fit alone
                    (desk / STOP).touch()
        stopped = (desk / STOP).exists()
    except TerminatedWorkerError:
        raise VidattError(
            f"A process of the sweep in {config.fit.out} was killed, out of memory perhaps; finished runs are kept. "
            "The same command continues; try fewer --jobs."
        ) from None
    finally:
        shutil.rmtree(desk, ignore_errors=True)
    runs = tuple(found[number] for number in sorted(found))
    if stopped:
        done = sum(run.status == "ok" for run in runs)
        raise InterruptedRunError(f"Stopped: {done} of {len(wanted)} fits are finished; the same command continues.")
    store = Store.open(config.fit.store)
    measure = "map" if store.index.multi_label else "top1"
    return SweepResult(
        out=str(config.fit.out),
        store=str(config.fit.store),
        measure=measure,
        rows=average_runs(runs, measure),
        runs=runs,
        failed=tuple(SweepFailure(run=run.run, error=run.error) for run in runs if run.status == "failed"),
        seconds=round(time.monotonic() - started, 3),
    )


def _one(number: int, member: Member, desk: Path, threads: int, jobs: int) -> tuple[int, SweepRun]:
    """Fit and evaluate one member, in a process of its own if there are several at a time."""
    asked = member.fit
    result = SweepRun(run=str(asked.out), setting=dict(member.setting), split=asked.split, seed=asked.seed)
    here = desk / str(os.getpid())
    before = torch.get_num_threads()
    with StopRequest() if jobs > 1 else _nothing():
        if jobs > 1:
            # Before the look for the stop file, which is made before the signals are sent: one of the two is seen.
            here.touch()
        try:
            if (desk / STOP).exists():
                return number, replace(result, status="interrupted")
            torch.set_num_threads(threads)
            fitted = fit(asked)
            split, test = _evaluation(asked)
            return number, replace(
                result, validation=fitted.metrics.validation, test=test, split=split,
                finished_before=fitted.finished_before,
            )  # fmt: skip
        except InterruptedRunError:
            return number, replace(result, status="interrupted")
        except (VidattError, MemoryError, torch.cuda.OutOfMemoryError) as error:
            return number, replace(result, status="failed", error=str(error) or "out of memory")
        finally:
            torch.set_num_threads(before)
            here.unlink(missing_ok=True)


def _evaluation(config: FitConfig) -> tuple[str, Measures | None]:
    """Return the split and the figures on its test list, known or measured now; None without such a list."""
    run = Run.open(config.out)
    split = run.identity.split
    if not (Store.open(config.store).index.split(split) == TEST).any():
        return split, None
    known = run.evaluation(Place(split=split, part="test").name) or evaluate(
        config.out, config.store, device=config.device
    )
    return split, known.metrics


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _quiet_executor() -> Iterator[None]:
    """Let joblib restart workers that grew, which it does by itself and warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
        yield


@contextmanager
def _forwarded(desk: Path) -> Iterator[None]:
    """Pass a stop signal on to the processes that fit at this moment, and let nobody begin another fit."""

    def stop(number: int, _: FrameType | None) -> None:
        log.warning("%s: the fits in work write checkpoints, then the sweep stops", signal.Signals(number).name)
        (desk / STOP).touch()
        for path in desk.iterdir():
            if path.name.isdigit() and int(path.name) != os.getpid():
                try:
                    os.kill(int(path.name), signal.SIGTERM)
                except ProcessLookupError:
                    continue

    before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # Python delivers signals to it only
            for number in NUMBERS:
                before[number] = signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def average_runs(runs: Sequence[SweepRun], measure: str) -> tuple[SweepRow, ...]:
    """Average the runs of each setting as the official protocols do: over splits first, then over seeds.

    Parameters
    ----------
    measure : "top1" or "map"

    Returns
    -------
    One row per setting in the order of the runs; a seed counts if it is there for every split
    """
    groups: dict[str, list[SweepRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(dict(run.setting)), []).append(run)
    rows = []
    for group in groups.values():
        done = {(run.seed, str(run.split)): run for run in group if run.status == "ok"}
        splits = list(dict.fromkeys(str(run.split) for run in group if run.status == "ok"))
        whole = [
            seed
            for seed in dict.fromkeys(run.seed for run in group)
            if all((run.seed, str(run.split)) in done for run in group if run.seed == seed)
        ]

        figures = {
            part: _spread(
                np.array(
                    [[_value(getattr(done[seed, split], part), measure) for split in splits] for seed in whole], float
                ).reshape(len(whole), len(splits)),
                splits,
            )
            for part in ("validation", "test")
        }
        rows.append(
            SweepRow(
                setting=group[0].setting,
                runs=len(done),
                wanted=len(group),
                seeds=tuple(whole),
                **figures,
            )
        )
    return tuple(rows)


def _value(measures: Measures | None, measure: str) -> float:
    value = None if measures is None else getattr(measures, measure)
    return np.nan if value is None else value


def _spread(values: np.ndarray, splits: Sequence[str]) -> Spread:
    """[seeds, splits] -> mean and spread over seeds of the mean over splits."""
    if not values.size or np.isnan(values).any():
        return Spread(mean=None, spread=None, splits={})
    seeds = values.mean(1)
    return Spread(
        mean=float(seeds.mean()),
        spread=float(seeds.std(ddof=1)) if len(seeds) > 1 else None,
        splits={split: float(mean) for split, mean in zip(splits, values.mean(0), strict=True)},
    )
