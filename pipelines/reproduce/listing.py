"""What tables there are, what each needs, and how much of each can be said in commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...extract.recipes import find_recipe
from ..extraction.config import default_store
from ..record import Record
from .tables import Extraction, Row, Table, load_table, table_names


@dataclass(frozen=True, kw_only=True)
class TableSummary(Record):
    """One table: what it needs, what is at hand, and how much of it commands can make."""

    name: str
    paper: str
    table: str
    title: str
    where: str  # page or section of the paper
    datasets: tuple[str, ...]
    streams: tuple[str, ...]
    backbones: tuple[str, ...]  # whose weights are needed
    rows: int
    rows_expressed: int  # that commands make, on one dataset at least
    own_rows: int  # the rows without those that need other people's networks
    numbers: int  # printed
    numbers_expressed: int
    extractions: Mapping[str, str]  # command by name, on the first dataset
    stores: tuple[str, ...]  # at hand: those that `vidatt extract` makes by default
    not_expressed: Mapping[str, str]  # reason by row
    given: Mapping[str, str]  # what must be there besides stores, by name: `--given NAME=PATH`


@dataclass(frozen=True, kw_only=True)
class TableList(Record):
    """All tables."""

    tables: tuple[TableSummary, ...]


def list_tables() -> TableList:
    """Return all tables in the order of papers and numbers."""
    return TableList(tables=tuple(summarise(load_table(name)) for name in table_names()))


def summarise(table: Table) -> TableSummary:
    """Return one table in short."""
    extractions = table.extractions.values()
    first = next(iter(table.datasets))
    pairs = [backbones(extraction) for extraction in extractions]
    read = [{s: b for s, b in pair.items() if not table.streams or s in table.streams} for pair in pairs]
    cells = [
        (row, column, dataset)
        for row in table.rows
        for dataset, values in row.printed.items()
        for column, value in enumerate(values)
        if value is not None
    ]
    return TableSummary(
        name=table.name,
        paper=table.paper,
        table=table.table,
        title=table.title,
        where=table.where,
        datasets=tuple(table.datasets),
        streams=tuple(dict.fromkeys(stream for pair in read for stream in pair)),
        backbones=tuple(dict.fromkeys(backbone for pair in read for backbone in pair.values())),
        rows=len(table.rows),
        rows_expressed=sum(bool(row.steps) for row in table.rows),
        own_rows=sum(not row.reason.startswith(OTHERS) for row in table.rows),
        numbers=len(cells),
        numbers_expressed=sum(expressed(table, *cell) for cell in cells),
        extractions={e.name: e.line(first, store_name(first, e, table)) for e in extractions},
        stores=tuple(str(path) for path in stores_at_hand(table)),
        not_expressed={row.label: why for row in table.rows if (why := row.reason or "; ".join(row.reasons.values()))},
        given=table.given,
    )


OTHERS = "a network of another paper"
"""How the reason of a row begins that needs other people's networks."""


def expressed(table: Table, row: Row, column: int, dataset: str) -> bool:
    """Whether commands make this number."""
    if not row.steps or not row.steps[column] or dataset in row.reasons:
        return False
    return table.measure(row, column, dataset, multi_label=False) != "none"


def backbones(extraction: Extraction) -> dict[str, str]:
    """Return the backbone of each stream of an extraction."""
    options = extraction.options
    recipe = find_recipe(str(options["recipe"]))
    streams = str(options["streams"]).split(",") if "streams" in options else list(recipe.backbones)
    given = options.get("backbone", [])
    pairs = dict(text.split("=", 1) for text in (given if isinstance(given, list) else [given]))
    defaults = find_recipe("stan").backbones | recipe.backbones
    return {stream: pairs.get(stream, defaults.get(stream, "?")) for stream in streams}


def store_name(dataset: str, extraction: Extraction, table: Table) -> str:
    """Return a name for the store of an extraction."""
    return f"{dataset}.zarr" if extraction.name == table.main_extraction else f"{dataset}-{extraction.name}.zarr"


def stores_at_hand(table: Table) -> list[Path]:
    """Return the default stores of the table's datasets that are there."""
    return [path for name in table.datasets if (path := default_store(name)).exists()]
