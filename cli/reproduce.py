"""The command `vidatt reproduce`: the tables of the papers, listed, or made again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from .door import assignments, common
from .extraction import extract
from .fitting import fit_head
from .localisation import detect, locate, window_recall
from .predict import benchmark
from .results import evaluate, fuse

if TYPE_CHECKING:
    from ..pipelines.reproduce.listing import TableList
    from ..pipelines.reproduce.report import Reproduction
    from ..pipelines.reproduce.tables import Table

STEPS = {
    command.name: command for command in (extract, fit_head, evaluate, fuse, detect, locate, window_recall, benchmark)
}


@click.command()
@click.argument("table", required=False)
@click.option("--store", "stores", multiple=True, metavar="[NAME=]PATH", help="The store; NAME= of another extraction.")
@click.option(
    "--given", multiple=True, metavar="NAME=PATH", help="What else a table reads; {split} in PATH is filled in."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of runs and reports [reproduced/STORE-PAPER].")
@click.option("--splits", metavar="NAMES", help="Comma-separated, or `all` [the paper's].")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Fits with N seeds.")
@click.option("--preset", help="Of every fit, instead of the table's, such as small.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of every fit that has it.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Commands at a time.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@click.option("--dry-run", is_flag=True, help="List the commands that it stands for, and run none.")
@common
def reproduce(
    table: str | None, stores: tuple[str, ...], given: tuple[str, ...], out: Path | None, splits: str | None,
    seeds: int, preset: str | None, settings: tuple[str, ...], jobs: int, device: str, dry_run: bool,
) -> tuple[TableList | Reproduction, str, int]:  # fmt: skip
    """Make the rows of a paper's table from a store, beside the printed numbers; without TABLE list the tables.

    Nothing is extracted. What is fitted already in --out is taken; stopped at any time, the same command continues.

    \b
    Example:
      vidatt reproduce
      vidatt reproduce stan-1 --store ucf101.zarr --out stan-tables --jobs 2
      vidatt reproduce stan-2 --store shapes.zarr --preset small --seeds 3 --dry-run
    """
    from .reproduce_tables import list_text, reproduction_text

    if table is None:
        from ..pipelines.reproduce.listing import list_tables

        if stores or given or out or dry_run or splits or preset or settings:
            raise UsageError("TABLE is missing: say which one, such as stan-1; `vidatt reproduce` lists them.")
        found = list_tables()
        return found, list_text(found), 0
    from ..pipelines.reproduce.plan import ReproduceConfig
    from ..pipelines.reproduce.report import out_folder
    from ..pipelines.reproduce.report import reproduce as run
    from ..pipelines.reproduce.tables import load_table

    wanted = load_table(table)
    check_commands(wanted)
    by_extraction = _stores(wanted, stores)
    result = run(
        ReproduceConfig(
            table=wanted,
            stores=by_extraction,
            given=assignments("--given", given),
            out=out or out_folder(wanted, next(iter(by_extraction.values()))),
            splits=tuple(name.strip() for name in splits.split(",")) if splits else None,
            seeds=seeds,
            preset=preset,
            settings=assignments("--set", settings),
            device=device,
            jobs=jobs,
        ),
        dry_run=dry_run,
    )
    return result, "\n".join(result.commands) if dry_run else reproduction_text(result), 1 if result.failed else 0


def check_commands(table: Table) -> None:
    """Let the commands of a table read their options, and run none.

    Raises
    ------
    UsageError
        If one does not take them; names the table's file, the step and the option.
    """
    from ..pipelines.reproduce.tables import COMMANDS, flags_of, step_flags

    for step in table.steps.values():
        command = STEPS[COMMANDS[step.section]]
        several = {name.removeprefix("--") for param in command.params if param.multiple for name in param.opts}
        for key in [key for key, value in step.options.items() if isinstance(value, list) and key not in several]:
            where = f"{table.name}.toml: {step.section}.{step.name}.{key}"
            raise UsageError(f"{where}: give one value; {command.name} takes no list of it.")
    lines = [(f"extract.{e.name}", e.arguments(d, "STORE")) for e in table.extractions.values() for d in table.datasets]
    for step in table.steps.values():
        flags = step_flags(step, dict.fromkeys((*table.steps, *table.given), "RUN"))
        out = [] if step.section in ("evaluate", "windows", "benchmark") else ["--out", "OUT"]
        if step.evaluation:
            lines.append((f"{step.section}.{step.name}.evaluate", ("evaluate", "RUN", *flags_of(step.evaluation))))
        lines.append((f"{step.section}.{step.name}", (COMMANDS[step.section], *step.runs, *flags, *out)))
    for where, (name, *arguments) in lines:
        command = STEPS[name]
        try:
            command.make_context(name, arguments)
        except click.UsageError as error:
            raise UsageError(f"{table.name}.toml: {where}: {' '.join(error.format_message().split())}") from None


def _stores(table: Table, given: tuple[str, ...]) -> dict[str, Path]:
    """Read `[NAME=]PATH` texts; without any, take a default store of the table's datasets."""
    from ..pipelines.reproduce.listing import store_name, stores_at_hand

    stores: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (equals and name in table.extractions):
            name, path = table.main_extraction, text
        if stores.setdefault(name, Path(path)) != Path(path):
            raise UsageError(f"--store is given twice for the extraction {name}: {stores[name]} and {path}.")
    if not stores and (here := stores_at_hand(table)):
        stores[table.main_extraction] = here[0]
    if not stores:
        dataset = next(iter(table.datasets))
        extraction = table.extractions[table.main_extraction]
        command = extraction.line(dataset, store_name(dataset, extraction, table))
        raise UsageError(f"--store is missing. On {dataset} it is made by `{command}`; other datasets do too.")
    return stores
