"""Results of `vidatt fit-head` as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tables import duration, figure, table


def fit_text(result: Mapping[str, Any]) -> str:
    """Return the end of a fit."""
    measured = result["metrics"]["validation"] or {}
    numbers = ", ".join(f"{k} {v:.3f}" for k, v in measured.items() if isinstance(v, float))
    made = f"{result['run']}: {result['head']} on {', '.join(result['streams'])}"
    chosen = f"; C {result['C']:g}" if "C" in result else ""
    return f"{made}{chosen}; validation {numbers or 'none'}; {duration(result['seconds'])}"


def sweep_text(result: Mapping[str, Any]) -> str:
    """Return a row per setting, and what failed."""
    rows, measure = result["rows"], result["measure"]
    keys = list(rows[0]["setting"])
    splits = list(dict.fromkeys(split for row in rows for split in row["test"]["splits"]))
    header = [*keys, "runs", f"validation {measure}", "+-", f"test {measure}", "+-"]
    header += [f"split {split}" for split in splits] if len(splits) > 1 else []
    body = []
    for row in rows:
        cells = [*row["setting"].values(), f"{row['runs']}/{row['wanted']}"]
        for part in ("validation", "test"):
            cells += [figure(row[part]["mean"]), figure(row[part]["spread"])]
        body.append(cells + ([figure(row["test"]["splits"].get(s)) for s in splits] if len(splits) > 1 else []))
    lines = [
        table(header, body),
        "",
        "mean over seeds of the mean over splits, +- the sample standard deviation over seeds; choose by validation",
        f"{len(result['runs'])} runs in {result['out']}; {duration(result['seconds'])}",
    ]
    return "\n".join(lines + [f"failed: {failure['run']}: {failure['error']}" for failure in result["failed"]])
