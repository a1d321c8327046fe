"""Runs side by side in forms that other programs take: CSV, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from ..pipelines.results.compare import Comparison
from .tables import figure

FORMS = ("csv", "markdown", "latex")
_HEADER = ("run", "head", "preset", "streams", "split", "seed", "videos", "top1", "class mean", "mAP", "seen")
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def comparison_as(form: str, result: Comparison) -> str:
    """Return a comparison's runs, a line each, without the paired tests.

    CSV has figures as they are; Markdown and LaTeX (booktabs) have three digits. `seen` are videos that the run was
    fitted or selected on; it stands there only if there are some.
    """
    known = any(run.seen for run in result.runs)
    header = _HEADER if known else _HEADER[:-1]
    rows = [
        (
            run.run, run.head, run.preset, "+".join(run.streams), run.split, run.seed, run.videos, run.metrics.top1,
            run.metrics.class_mean, run.metrics.map, run.seen or 0,
        )[: len(header)]
        for run in result.runs
    ]  # fmt: skip
    if form == "csv":
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
        return file.getvalue().rstrip("\n")
    texts = [[_text(value) for value in row] for row in rows]
    if form == "markdown":
        lines = [[cell.replace("|", r"\|") for cell in row] for row in [header, ["---"] * len(header), *texts]]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return _latex(header, texts)


def _text(value: object) -> str:
    if isinstance(value, float):
        return figure(value)
    return "-" if value in (None, "") else str(value)


def _latex(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table for the package booktabs."""
    lines = [" & ".join(_escaped(cell) for cell in row) + r" \\" for row in (header, *rows)]
    columns = "lllll" + "r" * (len(header) - 5)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule",
         r"\end{tabular}"]
    )  # fmt: skip


def _escaped(text: str) -> str:
    return re.sub(r"[\\~^&%$#_{}]", lambda found: _LATEX.get(found[0], "\\" + found[0]), text)
