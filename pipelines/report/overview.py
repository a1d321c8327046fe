"""Several runs side by side: their measures, the paired tests, and what a sweep varied."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import RefusedError, UsageError
from ..results.compare import Comparison, compare
from ..runs.folders import named_runs
from ..runs.measured import Evaluation
from ..runs.places import Place
from ..runs.run import Run
from .chapter import Chapter, fit_measures
from .plots import Dot, Plot, dots, scatter

MOST_COLUMNS = 8
"""Of what varies in a table of runs."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Given:
    """The runs of a report: those that are told in full, and all of them."""

    runs: tuple[Run, ...]  # finished
    names: tuple[str, ...]  # of them, short and different
    unfinished: tuple[str, ...]
    sweeps: tuple[str, ...]  # folders that were taken for their runs


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One run in the table of all."""

    name: str
    path: str
    key: str  # of its chapter; "" without one
    varied: tuple[str, ...]  # as `Overview.varied`
    videos: int | None  # measured
    validation: float | None
    figures: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Two runs on the videos of both."""

    a: str
    b: str
    shared: int
    top1_a: float | None
    top1_b: float | None
    a_right_b_wrong: int
    b_right_a_wrong: int
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The runs side by side."""

    varied: tuple[str, ...]  # what differs among the runs: a column each
    columns: tuple[tuple[str, str], ...]  # key and name of the measures
    measure: str  # name of the one by which fits are selected
    rows: tuple[TableRow, ...]
    tests: tuple[PairedTest, ...]
    fingerprints_equal: bool | None  # None: nothing was compared
    plots: tuple[Plot, ...]
    notes: tuple[str, ...]


def find_runs(paths: Sequence[Path]) -> Given:
    """Open runs, and those of folders of runs (sweeps); unfinished ones of a folder are left out and named.

    Raises
    ------
    MissingFileError
        If a path is neither a run nor a folder with runs.
    UsageError
        If a run that is named is unfinished, a run is named twice, or a folder has no finished one.
    """
    named = named_runs(paths)
    runs = [Run.open(path) for path in named.runs]
    for run in runs:
        run.require_finished()
    places = [run.path.resolve() for run in runs]
    if len(set(places)) < len(places):
        twice = next(run.path for run, place in zip(runs, places, strict=True) if places.count(place) > 1)
        raise UsageError(f"Run {twice} is given twice.")
    unfinished, sweeps = (tuple(map(str, folders)) for folders in (named.unfinished, named.folders))
    return Given(runs=tuple(runs), names=_names(runs), unfinished=unfinished, sweeps=sweeps)


def _evaluation(run: Run, split: str | None, part: str) -> Evaluation | None:
    return run.evaluation(Place(split=split or run.identity.split, part=part).name)


def _names(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the last parts of the paths, as many as tell them apart."""
    parts = [run.path.resolve().parts for run in runs]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return tuple(names)


def overview(given: Given, chapters: Sequence[Chapter], split: str | None, part: str) -> Overview:
    """Set runs side by side.

    Parameters
    ----------
    chapters : of the runs that are told in full
    split : None = each run's own
    """
    varied = _varied([_choices(run) for run in given.runs])
    keys = {chapter.path: chapter.key for chapter in chapters}
    multi_label = given.runs[0].identity.multi_label
    columns = [("top1", "hit@1" if multi_label else "top-1"), ("class_mean", "class mean"), ("map", "mAP")]
    rows = []
    for run, name in zip(given.runs, given.names, strict=True):
        evaluation = _evaluation(run, split, part)
        validation = fit_measures(run).validation
        choices = _choices(run)
        metrics = {} if evaluation is None else evaluation.metrics.to_dict()
        rows.append(
            TableRow(
                name=name,
                path=str(run.path),
                key=keys.get(str(run.path), ""),
                varied=tuple(choices.get(key, "") for key in varied),
                videos=None if evaluation is None else evaluation.videos,
                validation=None if validation is None else getattr(validation, "map" if multi_label else "top1"),
                figures=tuple((key, metrics[key]) for key, _ in columns if metrics.get(key) is not None),
            )
        )
    told = [run for run in given.runs if str(run.path) in keys and _evaluation(run, split, part)]
    compared, notes = _compared(told, split, part)
    names = dict(zip((str(run.path) for run in given.runs), given.names, strict=True))
    tests = _tests(compared, names) if compared else ()
    used = {key for row in rows for key, _ in row.figures}
    return Overview(
        varied=varied,
        columns=tuple(column for column in columns if column[0] in used),
        measure="mAP" if multi_label else "top-1",
        rows=tuple(rows),
        tests=tests,
        fingerprints_equal=compared.fingerprints_equal if compared else None,
        plots=_plots(varied, rows, chapters, part),
        notes=tuple(notes),
    )


def _compared(runs: Sequence[Run], split: str | None, part: str) -> tuple[Comparison | None, list[str]]:
    if len(runs) < 2:
        return None, []
    try:
        return compare([run.path for run in runs], split=split, part=part), []
    except (RefusedError, UsageError) as error:  # runs of different sets may stand in one report
        return None, [f"no paired test: {error}"]


def _tests(compared: Comparison, names: dict[str, str]) -> tuple[PairedTest, ...]:
    return tuple(
        PairedTest(
            a=names[compared.runs[pair.a].run], b=names[compared.runs[pair.b].run], shared=pair.shared,
            top1_a=pair.top1_a, top1_b=pair.top1_b, a_right_b_wrong=pair.a_right_b_wrong,
            b_right_a_wrong=pair.b_right_a_wrong, p_value=pair.p_value,
        )
        for pair in compared.pairs
    )  # fmt: skip


def _choices(run: Run) -> dict[str, str]:
    identity = run.identity
    settings: dict[str, Any] = {**identity.settings.config, **identity.settings.fit}
    return {
        "head": identity.head,
        "preset": identity.preset,
        "streams": "+".join(identity.stream_names),
        **{key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()},
        "split": identity.split,
        "seed": str(identity.seed),
    }


def _varied(choices: Sequence[dict[str, str]]) -> tuple[str, ...]:
    """Return what all runs have and not all have alike; head and streams of a single run."""
    if len(choices) == 1:
        return ("head", "streams")
    shared = [key for key in choices[0] if all(key in other for other in choices)]
    return tuple(key for key in shared if len({other[key] for other in choices}) > 1)[:MOST_COLUMNS]


def _plots(varied: Sequence[str], rows: Sequence[TableRow], chapters: Sequence[Chapter], part: str) -> tuple[Plot, ...]:
    plots = []
    main = "map" if chapters and chapters[0].multi_label else "top1"
    known = [(c.name, f) for c in chapters if (f := c.figure(main))]
    if len(known) > 1:
        drawn = [
            Dot(
                name=n,
                value=f.value,
                low=f.interval.low if f.interval else None,
                high=f.interval.high if f.interval else None,
            )
            for n, f in known
        ]
        plots.append(dots("runs", f"The runs, {part} videos, with 95 % intervals", drawn, x_label=known[0][1].name))
    measured = [(row, dict(row.figures)[main]) for row in rows if main in dict(row.figures)]
    settings = [n for n, key in enumerate(varied) if key not in ("seed", "split")]
    numbers = [n for n in settings if _numeric([row.varied[n] for row in rows])]
    others = [n for n in settings if n not in numbers[:1]]
    if len(rows) > len(chapters) or len(rows) > 2:
        label = "mAP" if main == "map" else "top-1"
        groups = [", ".join(f"{varied[n]} {row.varied[n]}" for n in others) or "all runs" for row, _ in measured]
        x = [float(row.varied[numbers[0]]) for row, _ in measured] if numbers else []
        if len(set(zip(groups, x, strict=False))) > len(set(groups)):  # it varies among runs that are else alike
            points = [(group, at, value) for group, at, (_, value) in zip(groups, x, measured, strict=True)]
            name = varied[numbers[0]]
            plots.append(scatter("sweep", f"{label} by {name}, {part} videos", points, x_label=name, y_label=label))
        elif len(measured) > len(known):
            drawn = [Dot(name=row.name, value=value, low=None, high=None) for row, value in measured[:40]]
            plots.append(dots("sweep", f"All runs, {part} videos", drawn, x_label=label))
    return tuple(plots)


def _numeric(values: Sequence[str]) -> bool:
    try:
        return bool([float(value) for value in values])
    except ValueError:
        return False
