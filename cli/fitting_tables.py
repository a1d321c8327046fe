"""Results of `vidatt fit-head` as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .tables import duration, figure, measures_text, table

if TYPE_CHECKING:
    from ..pipelines.fitting.sweep import SweepResult
    from ..pipelines.runs.measured import FitResult


def fit_text(result: FitResult) -> str:
    """Return the end of a fit, and of the machine on top of it."""
    numbers = measures_text(result.metrics.validation, result.classes) if result.metrics.validation else ""
    made = f"{result.run}: {result.head} on {', '.join(result.streams)}"
    chosen = f"; C {result.C:g}" if result.C is not None else ""
    text = f"{made}{chosen}; validation {numbers or 'none'}; {duration(result.seconds)}"
    return text if result.svm is None else f"{text}\n\n{fit_text(result.svm)}"


def _counted(result: SweepResult) -> str:
    """Count the runs that are done; those that failed have a line each."""
    done = sum(run.status == "ok" for run in result.runs)
    before = sum(run.status == "ok" and bool(run.finished_before) for run in result.runs)
    return f"{done} of {len(result.runs)} runs are done" + (f" ({before} were before)" if before else "")


def sweep_text(result: SweepResult) -> str:
    """Return a row per setting, and what failed."""
    rows, measure = result.rows, result.measure
    if not rows:
        return f"none of the fits in {result.out} is in this slice"
    splits = list(dict.fromkeys(split for row in rows for split in row.test.splits))
    header = [*rows[0].setting, "runs", f"validation {measure}", "+-", f"test {measure}", "+-"]
    header += [f"split {split}" for split in splits] if len(splits) > 1 else []
    body = []
    for row in rows:
        cells = [*row.setting.values(), f"{row.runs}/{row.wanted}"]
        for part in (row.validation, row.test):
            cells += [figure(part.mean), figure(part.spread)]
        body.append(cells + ([figure(row.test.splits.get(s)) for s in splits] if len(splits) > 1 else []))
    lines = [
        table(header, body),
        "",
        "mean over seeds of the mean over splits, +- the sample standard deviation over seeds; choose by validation",
        f"{_counted(result)} in {result.out}; {duration(result.seconds)}",
    ]
    return "\n".join(lines + [f"failed: {failure.run}: {failure.error}" for failure in result.failed])
