"""Results of `vidatt reproduce` as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..pipelines.reproduce.report import body, remarks, summary
from .tables import duration, table

if TYPE_CHECKING:
    from ..pipelines.reproduce.listing import TableList
    from ..pipelines.reproduce.report import Reproduction


def list_text(result: TableList) -> str:
    """Return a row per table, and their sums."""
    header = ["table", "datasets", "streams", "backbones", "rows", "numbers", "store at hand"]
    tables = result.tables
    rows = [
        [
            t.name,
            ",".join(t.datasets),
            ",".join(t.streams),
            ",".join(t.backbones),
            f"{t.rows_expressed}/{t.rows}",
            f"{t.numbers_expressed}/{t.numbers}",
            ", ".join(t.stores) or "-",
        ]
        for t in tables
    ]
    wanted, own = sum(t.rows for t in tables), sum(t.own_rows for t in tables)
    made = sum(t.rows_expressed for t in tables)
    return "\n".join(
        [
            table(header, rows),
            "",
            f"{made} of {wanted} rows can be made by commands; {own} rows are without other people's networks: "
            f"{made / own:.0%} of those",
            "rows, numbers: made by commands / printed",
        ]
    )


def reproduction_text(result: Reproduction) -> str:
    """Return the rows beside the paper's numbers, and what is to be known about them."""
    header, rows = body(result)
    lines = [f"{result.paper}, {result.title}; {result.where}", summary(result), "", table(header, rows), ""]
    lines += [f"  {remark}" for remark in remarks(result)]
    return "\n".join([*lines, f"{', '.join(result.files)}; {duration(result.seconds)}"])
