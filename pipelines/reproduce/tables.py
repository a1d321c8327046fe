"""The papers' tables, one readable TOML file each in `pipelines/tables`, parsed strictly.

A table names what is extracted (`[extract.NAME]`), what else must be there (`[given]`), steps that are one command each
(`[fit.NAME]`, `[fuse.NAME]`, `[evaluate.NAME]`, `[detect.NAME]`, `[locate.NAME]`, `[windows.NAME]`,
`[benchmark.NAME]`), and rows with the printed numbers and the step that gives each of them. The keys of an extraction
and of a step are options of its command; `set` holds its settings, and `{NAME}` in any value is the run folder of the
step NAME, or what is given by that name. docs/reproduce.md explains the format.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import UnknownNameError, UsageError, nearest_key_error
from ...extract.datasets.registry import DATASETS

FOLDER = Path(__file__).parents[1] / "tables"
COMMANDS = {
    "fit": "fit-head", "fuse": "fuse", "evaluate": "evaluate", "detect": "detect", "locate": "locate",
    "windows": "window-recall", "benchmark": "benchmark",
}  # fmt: skip
"""The command of a step by the section that it stands in."""
UNITS = {"%": (100.0, 1), "fraction": (1.0, 3), "frames/s": (1.0, 1)}
"""By unit of the printed numbers: what a fraction is multiplied by, and the digits that are shown."""
MEASURES = (
    r"top1|top5|average|class_mean|map|frames_per_second|"
    r"(?:thumos14|activitynet|frame_hit|frame_map|window_recall)@0?\.\d+|none"
)
"""What a column shows; `average` is the mean of top-1 and top-5, `none` that no command measures it."""
GIVEN = ("store", "split", "seed", "out", "device", "json", "verbose", "quiet", "jobs", "seeds", "splits", "sweep")
"""Options of steps that the command itself fills in."""
_TOP = (
    "paper",
    "table",
    "title",
    "where",
    "note",
    "unit",
    "columns",
    "measures",
    "datasets",
    "extract",
    "given",
    "row",
)
_OWN = ("runs", "set", "extraction", "for", "evaluate")
_PARTS = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, kw_only=True)
class PaperDataset:
    """How the paper measures on a dataset."""

    name: str
    measure: str  # of the columns that have none of their own
    splits: tuple[str, ...]  # () = all of the store


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What one store holds: options of `vidatt extract`."""

    name: str
    options: Mapping[str, Any]
    for_datasets: Mapping[str, Mapping[str, Any]]  # what differs for a dataset

    def for_dataset(self, dataset: str) -> dict[str, Any]:
        """Return the options on a dataset."""
        return {**self.options, **self.for_datasets.get(dataset, {})}

    def arguments(self, dataset: str, store: str) -> tuple[str, ...]:
        """Return the command line behind `vidatt`."""
        return ("extract", "--dataset", dataset, *flags_of(self.for_dataset(dataset)), "--store", store)

    def line(self, dataset: str, store: str) -> str:
        """Return the command as a person types it."""
        return shlex.join(("vidatt", *self.arguments(dataset, store)))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command, and for a fit its evaluation."""

    name: str
    section: str  # of COMMANDS
    extraction: str
    runs: tuple[str, ...]  # steps whose runs the command is about: its arguments
    options: Mapping[str, Any]  # text, number, true, or a list of them, by option
    settings: Mapping[str, str]  # of --set
    for_datasets: Mapping[str, Mapping[str, str]]  # settings that differ for a dataset
    evaluation: Mapping[str, Any]  # options of the evaluation that follows a fit
    needs: tuple[str, ...]  # steps that come before
    given: tuple[str, ...]  # what it reads of that which is given

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that a fit reads, () where it is not for it to say."""
        return tuple(str(self.options.get("streams", "")).split(",")) if "streams" in self.options else ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: its label, the step of each column ("" = none), and what is printed."""

    label: str
    steps: tuple[str, ...]  # by column; () = no command gives it
    printed: Mapping[str, tuple[float | None, ...]]  # by dataset and column; None = nothing is printed
    reason: str  # why no command gives it, "" if one does
    reasons: Mapping[str, str]  # by dataset, where it is given on others
    measures: tuple[str, ...]  # by column; () = those of the table
    note: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of a paper."""

    name: str  # such as stan-1
    paper: str
    table: str  # as the paper calls it: Table I
    title: str
    where: str  # page or section
    note: str
    unit: str  # of UNITS
    columns: tuple[str, ...]
    measures: tuple[str, ...]  # by column; () = the dataset's
    datasets: Mapping[str, PaperDataset]
    extractions: Mapping[str, Extraction]  # the first is that of `--store`
    given: Mapping[str, str]  # runs and files of other origin that steps read: what each is, by name
    steps: Mapping[str, Step]  # those that others need come first
    rows: tuple[Row, ...]

    @property
    def family(self) -> str:
        """The paper's part of the name, such as where-and-when."""
        return _order(self.name)[0]

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that its fits read, () if it has none."""
        return tuple(dict.fromkeys(stream for step in self.steps.values() for stream in step.streams))

    @cached_property
    def main_extraction(self) -> str:
        """The extraction of a store that is given without a name."""
        return next(iter(self.extractions))

    def measure(self, row: Row, column: int, dataset: str | None, *, multi_label: bool) -> str:
        """Return what a cell shows; on a dataset that the paper has not, mAP where videos have several labels."""
        if own := row.measures or self.measures:
            return own[column]
        if dataset is not None and dataset in self.datasets:
            return self.datasets[dataset].measure
        first = next(iter(self.datasets.values())).measure
        if first in ("top1", "class_mean", "map"):
            return "map" if multi_label else "top1"
        return first

    def parts(self, step: str) -> list[str]:
        """Return the steps that a step stands on, itself last, in an order that can be run."""
        wanted = {step}
        for name in reversed(list(self.steps)):
            if name in wanted:
                wanted.update(self.steps[name].needs)
        return [name for name in self.steps if name in wanted]


def table_names() -> list[str]:
    """Return the tables' names: papers one after the other, tables by number."""
    return sorted((path.stem for path in FOLDER.glob("*.toml")), key=_order)


def _order(name: str) -> tuple[str, bool, int]:
    paper, _, number = name.rpartition("-")
    return paper.removesuffix("-figure"), paper.endswith("-figure"), int(number)


def load_table(name: str) -> Table:
    """Read a table by name.

    Raises
    ------
    UnknownNameError
        For a name that there is not.
    UsageError
        For a file that does not hold a table; names file and key.
    """
    if name not in (known := table_names()):
        raise UnknownNameError("table", name, known)
    return read_table(FOLDER / f"{name}.toml")


def read_table(path: Path) -> Table:
    """Read a table's file; raises as `load_table`."""
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name}: no TOML: {error}") from None
    try:
        return _table(path.stem, content)
    except (UsageError, UnknownNameError) as error:
        raise UsageError(f"{path.name}: {error}") from None


def _table(name: str, content: Mapping[str, Any]) -> Table:
    nearest_key_error("key", content, (*_TOP, *COMMANDS))
    columns = _texts(content, "columns")
    measures = _measures(content, columns)
    unit = _text(content, "unit")
    nearest_key_error("unit", [unit], UNITS)
    extractions = {key: _extraction(key, value) for key, value in _section(content, "extract").items()}
    if not extractions:
        raise UsageError("extract: name what is extracted.")
    given = _section(content, "datasets")
    datasets = {key: _dataset(key, value, measured=bool(measures)) for key, value in given.items()}
    nearest_key_error("dataset", datasets, DATASETS.names())
    outside = _object(content, "given")
    outside = {key: _text(outside, key, where="given") for key in outside}
    steps = _in_order(_steps(content, tuple(extractions), outside))
    for apart in (*(e.for_datasets for e in extractions.values()), *(step.for_datasets for step in steps.values())):
        nearest_key_error("dataset in for:", apart, datasets)
    listed = content.get("row", [])
    if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
        raise UsageError("row: write [[row]].")
    rows = tuple(_row(row, columns, steps, datasets) for row in listed)
    used = {name for row in rows for name in row.steps} | {name for step in steps.values() for name in step.needs}
    if unused := sorted(set(steps) - used):
        raise UsageError(f"step {unused[0]}: no row and no step needs it.")
    if unused := sorted(set(outside) - {name for step in steps.values() for name in step.given}):
        raise UsageError(f"given.{unused[0]}: no step needs it.")
    return Table(
        name=name, paper=_text(content, "paper"), table=_text(content, "table"), title=_text(content, "title"),
        where=_text(content, "where"), note=_text(content, "note", default=""), unit=unit, columns=columns,
        measures=measures, datasets=datasets, extractions=extractions, given=outside, steps=steps, rows=rows,
    )  # fmt: skip


def _dataset(name: str, content: Mapping[str, Any], *, measured: bool) -> PaperDataset:
    where = f"datasets.{name}"
    nearest_key_error(f"key of {where}", content, ("measure", "splits"))
    measure = _text(content, "measure", where=where, default="none" if measured else None)
    _measure(where, measure)
    if content.get("splits") == "all":
        return PaperDataset(name=name, measure=measure, splits=())
    return PaperDataset(name=name, measure=measure, splits=_texts(content, "splits", where=where))


def _extraction(name: str, content: Mapping[str, Any]) -> Extraction:
    where = f"extract.{name}"
    _text(content, "recipe", where=where)
    options = {key: value for key, value in content.items() if key != "for"}
    return Extraction(name=name, options=options, for_datasets=_section(content, "for", where=where))


def _steps(content: Mapping[str, Any], extractions: Sequence[str], given: Mapping[str, str]) -> dict[str, Step]:
    found: dict[str, Step] = {}
    for section in COMMANDS:
        for name, values in _section(content, section).items():
            if name in found or name in given:
                raise UsageError(f"{section}.{name}: there is another step of this name, or something given.")
            found[name] = _step(section, name, values, extractions, given)
    for step in found.values():
        for need in step.needs:
            if need not in found:
                raise UnknownNameError(f"step in {step.section}.{step.name}:", need, found)
    return found


def _step(
    section: str, name: str, content: Mapping[str, Any], extractions: Sequence[str], given: Mapping[str, str]
) -> Step:
    where = f"{section}.{name}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name):
        raise UsageError(f"{where}: a name is small letters, digits, '-', '+' and '.': it becomes a folder.")
    options = {key: value for key, value in content.items() if key not in _OWN}
    if section in (must := {"fit": "head", "fuse": "method"}):
        _text(content, must[section], where=where)
    if taken := sorted(set(options) & set(GIVEN)):
        raise UsageError(f"{where}.{taken[0]}: the command fills that in; leave it out.")
    settings = _settings(f"{where}.set", _object(content, "set", where=where))
    apart = _section(content, "for", where=where)
    evaluation = _object(content, "evaluate", where=where)
    if evaluation and section != "fit":
        raise UsageError(f"{where}.evaluate: only a fit is evaluated.")
    extraction = content.get("extraction", extractions[0])
    nearest_key_error(f"extraction in {where}:", [extraction], extractions)
    runs = _texts(content, "runs", where=where, least=0)
    if bool(runs) == (section == "fit"):
        raise UsageError(f"{where}.runs: a fit has none, every other step one or more.")
    values = [v for value in options.values() for v in (value if isinstance(value, list) else [value])]
    named = [part for text in (*values, *settings.values()) for part in _PARTS.findall(str(text))]
    read = dict.fromkeys((*(run.partition(":")[0] for run in runs), *named))
    return Step(
        name=name, section=section, extraction=extraction, runs=runs, options=options, settings=settings,
        for_datasets={dataset: _settings(f"{where}.for.{dataset}", own) for dataset, own in apart.items()},
        evaluation=evaluation, needs=tuple(part for part in read if part not in given),
        given=tuple(part for part in read if part in given),
    )  # fmt: skip


def _in_order(steps: Mapping[str, Step]) -> dict[str, Step]:
    """Return the steps with those that others need first."""
    ordered: dict[str, Step] = {}
    while len(ordered) < len(steps):
        ready = [s for s in steps.values() if s.name not in ordered and all(need in ordered for need in s.needs)]
        if not ready:
            raise UsageError(f"steps {', '.join(sorted(set(steps) - set(ordered)))}: need each other in a circle.")
        ordered |= {step.name: step for step in ready}
    return ordered


def _row(
    content: Mapping[str, Any], columns: Sequence[str], steps: Mapping[str, Step], datasets: Mapping[str, Any]
) -> Row:
    label = _text(content, "label", where="row")
    where = f"row {label!r}"
    nearest_key_error(
        f"key of {where}", content, ("label", "steps", "printed", "reason", "reasons", "note", "measures")
    )
    named = _texts(content, "steps", where=where, least=0)
    nearest_key_error(f"step of {where}:", [name for name in named if name], steps)
    if named and len(named) != len(columns):
        raise UsageError(f"{where}: {len(named)} steps for {len(columns)} columns.")
    if bool(named) == ("reason" in content):
        raise UsageError(f"{where}: give its steps, or the reason why no command gives it.")
    printed = {}
    for name, values in _object(content, "printed", where=where).items():
        numbers = [None if value == "-" else value for value in (values if isinstance(values, list) else [values])]
        if not all(value is None or isinstance(value, int | float) for value in numbers):
            raise UsageError(f"{where}: printed.{name} must be a list of numbers, or '-' where there is none.")
        if len(numbers) != len(columns):
            raise UsageError(f"{where}: {len(numbers)} printed numbers for {len(columns)} columns on {name}.")
        printed[name] = tuple(numbers)
    reasons = _object(content, "reasons", where=where)
    nearest_key_error(f"dataset of {where}", (*printed, *reasons), datasets)
    return Row(
        label=label, steps=named, printed=printed, reasons=reasons, measures=_measures(content, columns, where=where),
        reason=_text(content, "reason", where=where, default=""), note=_text(content, "note", where=where, default=""),
    )  # fmt: skip


def _section(content: Mapping[str, Any], key: str, *, where: str = "") -> Mapping[str, Mapping[str, Any]]:
    section = _object(content, key, where=where)
    if not all(isinstance(value, dict) for value in section.values()):
        raise UsageError(f"{f'{where}.' if where else ''}{key}: write {key}.NAME = {{ KEY = VALUE, ... }}.")
    return section


def _object(content: Mapping[str, Any], key: str, *, where: str = "") -> Mapping[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"{f'{where}.' if where else ''}{key}: write {key} = {{ KEY = VALUE, ... }}.")
    return value


def _text(content: Mapping[str, Any], key: str, *, where: str = "", default: str | None = None) -> str:
    value = content.get(key, default)
    if not isinstance(value, str) or (default is None and not value):
        raise UsageError(f"{f'{where}.' if where else ''}{key}: must be text.")
    return value


def _texts(content: Mapping[str, Any], key: str, *, where: str = "", least: int = 1) -> tuple[str, ...]:
    values = content.get(key, [])
    if not isinstance(values, list) or len(values) < least or not all(isinstance(value, str) for value in values):
        raise UsageError(f"{f'{where}.' if where else ''}{key}: must be a list of texts.")
    return tuple(values)


def _measures(content: Mapping[str, Any], columns: Sequence[str], *, where: str = "") -> tuple[str, ...]:
    """Read what each column shows, () where that is not said."""
    measures = _texts(content, "measures", where=where, least=0)
    where = f"{where}.measures" if where else "measures"
    if measures and len(measures) != len(columns):
        raise UsageError(f"{where}: {len(measures)} for {len(columns)} columns.")
    for measure in measures:
        _measure(where, measure)
    return measures


def _measure(where: str, measure: str) -> None:
    if not re.fullmatch(MEASURES, measure):
        raise UsageError(f"{where}: no measure {measure!r}; write top1, top5, average, class_mean, map or thumos14@.5.")


def _settings(where: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {key: _plain(f"{where}.{key}", value) for key, value in values.items()}


def _plain(where: str, value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise UsageError(f"{where}: must be text, a number, true or false.")
    return str(value).lower() if isinstance(value, bool) else str(value)


def flags_of(options: Mapping[str, Any]) -> list[str]:
    """Return options as a command line; true is an option without a value, a list one that is repeated."""
    flags: list[str] = []
    for key, value in options.items():
        for item in value if isinstance(value, list) else [value]:
            flags += [f"--{key}"] if item is True else [f"--{key}", str(item)]
    return flags


def filled(text: str, runs: Mapping[str, str]) -> str:
    """Put run folders in the places of `{NAME}`."""
    return _PARTS.sub(lambda found: runs[found[1]], text)


def step_flags(step: Step, runs: Mapping[str, str]) -> list[str]:
    """Return options and settings of a step as a command line; `runs` are folders by step."""
    pairs = [part for key, text in step.settings.items() for part in ("--set", f"{key}={text}")]
    return [filled(flag, runs) for flag in (*flags_of(step.options), *pairs)]
