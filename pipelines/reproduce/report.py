"""Rows beside the paper's numbers: as records, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ...cache.scratch import write_atomically
from ..record import Record
from .plan import Key, Plan, ReproduceConfig, plan_reproduction
from .run import Outcome, run_tasks
from .tables import UNITS, Row, Table

CSV_COLUMNS = (
    "table", "dataset", "row", "column", "measure", "value", "spread", "printed", "difference", "runs", "status", "why",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ReproducedCell(Record):
    """One number of a row; numbers are in the table's unit."""

    column: str
    measure: str
    status: str  # "measured", "failed", "left out", or "planned" of a dry run
    value: float | None  # mean over seeds of the mean over splits
    spread: float | None  # sample standard deviation over seeds; None below two
    printed: float | None  # the paper's; None too on a dataset that the paper has not
    difference: float | None  # value - printed
    runs: int  # that the value is made of
    why: str  # it failed or is left out, else ""


@dataclass(frozen=True, kw_only=True)
class ReproducedRow(Record):
    """One row of a table."""

    label: str
    cells: tuple[ReproducedCell, ...]
    note: str


@dataclass(frozen=True, kw_only=True)
class Reproduction(Record):
    """A table of a paper, made again."""

    table: str
    paper: str
    title: str
    where: str  # page or section of the paper
    dataset: str | None  # of the store; None = it does not say
    stores: Mapping[str, str]  # by extraction
    out: str
    unit: str
    splits: tuple[str, ...]
    seeds: int
    rows: tuple[ReproducedRow, ...]
    notes: tuple[str, ...]
    commands: tuple[str, ...]  # each can be run by hand, in this order
    files: tuple[str, ...]  # written; none by a dry run
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether a command failed."""
        return any(cell.status == "failed" for row in self.rows for cell in row.cells)


def reproduce(config: ReproduceConfig, *, dry_run: bool = False) -> Reproduction:
    """Make the rows of a table that can be made, and write them as Markdown and CSV below `out`.

    Parameters
    ----------
    dry_run : only say which commands there are

    Raises
    ------
    UsageError
        As `plan_reproduction`.
    InterruptedRunError
        As `run_tasks`.
    """
    started = time.monotonic()
    plan = plan_reproduction(config)
    outcomes = {} if dry_run else run_tasks(plan)
    table = config.table
    files = () if dry_run else tuple(config.out / f"{table.name}.{suffix}" for suffix in ("md", "csv"))
    result = Reproduction(
        table=table.name,
        paper=table.paper,
        title=f"{table.table}: {table.title}",
        where=table.where,
        dataset=plan.dataset,
        stores={name: str(path) for name, path in config.stores.items()},
        out=str(config.out),
        unit=table.unit,
        splits=plan.splits,
        seeds=config.seeds,
        rows=tuple(_row(plan, row, outcomes, dry_run=dry_run) for row in table.rows),
        notes=(*((table.note,) if table.note else ()), *plan.notes),
        commands=plan.lines,
        files=tuple(str(path) for path in files),
        seconds=round(time.monotonic() - started, 3),
    )
    for path, text in zip(files, (markdown(result), csv_text(result)) if files else (), strict=True):
        write_atomically(path, text.encode())
    return result


def _row(plan: Plan, row: Row, outcomes: Mapping[Key, Outcome], *, dry_run: bool) -> ReproducedRow:
    printed = row.printed.get(plan.dataset or "", ())
    cells = []
    for column, name in enumerate(plan.config.table.columns):
        paper = printed[column] if printed else None
        if row.steps and not row.steps[column]:
            continue
        if row.reason and plan.own and paper is None:
            continue  # the paper has nothing here either
        cells.append(_cell(plan, row, column, name, paper, outcomes, dry_run=dry_run))
    return ReproducedRow(label=row.label, cells=tuple(cells), note=row.note)


def _cell(
    plan: Plan, row: Row, column: int, name: str, printed: float | None, outcomes: Mapping[Key, Outcome], *,
    dry_run: bool,
) -> ReproducedCell:  # fmt: skip
    measure = plan.measure(row, column)
    status, why, value, spread, runs = "left out", plan.left_out(row, column) or "", None, None, 0
    if not why:
        status = "planned"
    if not why and not dry_run:
        step, config = row.steps[column], plan.config
        status = "measured"
        keys = [[(step, split, seed) for split in plan.splits] for seed in range(config.seeds)]
        ends = [outcomes[key] for seed in keys for key in seed]
        results = [[outcomes[key].result for key in seed] for seed in keys]
        if failed := next((end for end in ends if end.error), None):
            status, why = "failed", failed.error
        else:
            values = [[figure(result or {}, measure) for result in seed] for seed in results]
            known = [[v for v in seed if v is not None] for seed in values]
            if all(len(own) == len(plan.splits) for own in known):
                scale = UNITS[config.table.unit][0]
                means = [scale * mean(own) for own in known]
                value, spread, runs = mean(means), stdev(means) if len(means) > 1 else None, len(ends)
            else:
                status, why = "left out", f"the store has no truth for {measure}"
    return ReproducedCell(
        column=name, measure=measure, status=status, value=value, spread=spread, printed=printed,
        difference=None if value is None or printed is None else value - printed, runs=runs, why=why,
    )  # fmt: skip


def figure(result: Mapping[str, Any], measure: str) -> float | None:
    """Return a figure of what a command printed by `--json`; None where it is undefined."""
    rule, _, threshold = measure.partition("@")
    if measure == "frames_per_second":
        return float(result[measure])
    if not threshold:
        metrics = result["metrics"]
        if measure == "average":
            return mean([metrics["top1"], metrics["top5"]]) if metrics["top1"] is not None else None
        value: float | None = metrics[measure]
        return value
    if rule == "window_recall":
        return _at(result, rule, threshold)
    measures = result["measures"]
    if measures is None:
        return None
    return _at(measures, rule, threshold) if rule.startswith("frame") else _at(measures[rule], "map", threshold)


def _at(measures: Mapping[str, Any], key: str, threshold: str) -> float | None:
    values = zip(measures["thresholds"], measures[key], strict=True)
    return next(value for at, value in values if math.isclose(at, float(threshold)))


def shown(value: float | None, unit: str, *, sign: bool = False) -> str:
    """Return a number in its unit's digits, "-" where there is none."""
    if value is None:
        return "-"
    return f"{value:{'+' if sign else ''}.{UNITS[unit][1]}f}"


def body(result: Reproduction) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table: each column, and beside it the paper's number and the difference."""
    columns = list(dict.fromkeys(cell.column for row in result.rows for cell in row.cells))
    paper = any(cell.printed is not None for row in result.rows for cell in row.cells)
    header = [""] + [text for name in columns for text in ((name, "paper", "difference") if paper else (name,))]
    rows = []
    for row in result.rows:
        cells = {cell.column: cell for cell in row.cells}
        if not paper and all(cell.status == "left out" for cell in row.cells):
            continue
        rows.append([row.label, *(t for name in columns for t in _texts(cells.get(name), result.unit, paper=paper))])
    return header, rows


def _texts(cell: ReproducedCell | None, unit: str, *, paper: bool) -> list[str]:
    if cell is None:
        return [""] * (3 if paper else 1)
    own = "failed" if cell.status == "failed" else shown(cell.value, unit)
    if cell.spread is not None:
        own += f" +- {shown(cell.spread, unit)}"
    return [own, shown(cell.printed, unit), shown(cell.difference, unit, sign=True)] if paper else [own]


def remarks(result: Reproduction) -> Iterator[str]:
    """Say what is to be known beside the numbers, one line each: notes, what failed, what is left out."""
    yield from result.notes
    yield from (f"{row.label}: {row.note}" for row in result.rows if row.note)
    for status in ("failed", "left out"):
        rows: dict[str, list[str]] = {}
        for row in result.rows:
            cells = [cell for cell in row.cells if cell.status == status]
            for why in dict.fromkeys(cell.why for cell in cells):
                names = [cell.column for cell in cells if cell.why == why]
                part = f" ({', '.join(names)})" if len(names) < len(row.cells) else ""
                rows.setdefault(why, []).append(f"{row.label}{part}")
        yield from (f"{status}: {'; '.join(labels)}: {why}" for why, labels in rows.items())


def summary(result: Reproduction) -> str:
    """Say in one line what the numbers are."""
    measures = ", ".join(dict.fromkeys(cell.measure for row in result.rows for cell in row.cells))
    unit = "%" if result.unit == "%" else result.unit
    return (
        f"{measures} in {unit}, mean over splits {', '.join(result.splits)} and {result.seeds} "
        f"seed{'s' if result.seeds > 1 else ''}, on {result.dataset or 'a store of no named dataset'}"
    )


def markdown(result: Reproduction) -> str:
    """Return the report for people."""
    header, rows = body(result)
    lines = [f"# {result.paper}, {result.title}", "", f"{result.where}. {summary(result)}.", ""]
    lines += [_line(header), _line(["---"] * len(header)), *map(_line, rows), ""]
    lines += [f"- {remark}" for remark in remarks(result)]
    return "\n".join([*lines, "", "Commands:", "", "```sh", *result.commands, "```", ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def csv_text(result: Reproduction) -> str:
    """Return a line per number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in result.rows:
        for cell in row.cells:
            own = {"table": result.table, "dataset": result.dataset, "row": row.label}
            writer.writerow({**own, **cell.to_dict()})
    return text.getvalue()


def out_folder(table: Table, store: Path) -> Path:
    """Return where a reproduction goes unless it is told."""
    return Path("reproduced") / f"{store.name.removesuffix('.zarr')}-{table.family}"
