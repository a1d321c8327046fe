"""`vidatt show`, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .door import common
from .tables import measures_text, size, table

if TYPE_CHECKING:
    from ..pipelines.show import NextStep, ShownFolder, ShownRun, ShownStore


@click.command()
@click.argument("path", metavar="RUN|STORE", type=click.Path(path_type=Path))
@common
def show(path: Path) -> tuple[ShownRun | ShownStore | ShownFolder, str, int]:
    """Say what a run or a store is, how it was made, and what can be done with it next; also of a folder of runs.

    \b
    Example:
      vidatt show runs/stan
      vidatt show ucf101.zarr
      vidatt show runs/ucf101-stan-sweep
    """
    from ..pipelines.show import ShownRun, ShownStore
    from ..pipelines.show import show as look

    result = look(path)
    if isinstance(result, ShownRun):
        return result, run_text(result), 0
    return result, store_text(result) if isinstance(result, ShownStore) else folder_text(result), 0


def run_text(result: ShownRun) -> str:
    """Return what a run is, how it was made, and what comes next."""
    what = f": {result.summary}" if result.summary else ""
    lines = [
        f"{result.run}: {'a run' if result.finished else 'a run that is NOT finished'}",
        f"  head      {result.head}, preset {result.preset}{what}",
        *(f"  stream    {name}: {text}" for name, text in result.streams.items()),
        f"  split     {result.split}, seed {result.seed}, {result.classes} classes",
    ]
    if result.train_videos is not None:
        held = f", {result.validation_videos} held out for validation"
        lines.append(f"  fitted on {result.train_videos} videos{held}")
    if result.store is not None:
        lines.append(f"  store     {result.store}{'' if result.store_there else ' (it is not there)'}")
    lines.append("  settings  " + ", ".join(f"{key}={_plain(value)}" for key, value in result.settings.items()))
    if result.validation is not None:
        lines.append(f"  measured  validation: {measures_text(result.validation, result.classes)}")
    lines += [f"  measured  {name}: {measures_text(m, result.classes)}" for name, m in result.evaluations.items()]
    if result.made_by is not None:
        lines += ["made by", f"  {result.made_by.command}", f"  {_versions(result.made_by.versions)}"]
    elif result.again:
        lines += ["made by (its command is not recorded; this does the same)", f"  {result.again[0]}"]
    return "\n".join([*lines, *_steps(result.next)])


def store_text(result: ShownStore) -> str:
    """Return what a store is, how it was made, and what comes next."""
    holds = result.holds
    state = "complete" if result.complete else "NOT complete"
    told = holds.attributes
    lines = [
        f"{result.store}: a store, {state}",
        f"  dataset   {told.get('dataset') or 'not said'}: {holds.videos} videos, {holds.classes} classes",
        *(f"  split     {name}: {one.train} train, {one.test} test" for name, one in holds.splits.items()),
        f"  segments  {told.get('sampler') or 'not said'}; views {told.get('view_rule') or told['views']}",
    ]
    for name, stream in holds.streams.items():
        K, _, D = stream.cube
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in stream.outcomes.items()) or "no video yet"
        lines.append(
            f"  stream    {name}: {_recipe(stream.recipe)}; cubes {K}x{K}x{D}, {stream.shards_done} of "
            f"{holds.shards} shards, {size(stream.bytes)}; {outcomes}"
        )
    for entry in result.made_by:
        lines += ["made by", f"  {entry.command}", f"  {_versions(entry.versions)}, {entry.time}"]
    if not result.made_by:
        lines.append("made by a command that is not recorded beside it")
    return "\n".join([*lines, *_steps(result.next)])


def folder_text(result: ShownFolder) -> str:
    """Return a row per run of a folder, and what comes next."""
    rows = []
    for run in result.runs:
        measured = run.evaluations.get(f"{run.split}-test")
        told = [measures_text(m, run.classes) if m else "-" for m in (run.validation, measured)]
        state = "finished" if run.finished else "NOT finished"
        rows.append([Path(run.run).name, state, run.head, run.preset, "+".join(run.streams), run.split, *told])
    header = ["run", "", "head", "preset", "streams", "split", "validation", "test"]
    return "\n".join([f"{result.folder}: a folder of {len(rows)} runs", "", table(header, rows), *_steps(result.next)])


def _steps(steps: Sequence[NextStep]) -> list[str]:
    return ["next", *(line for step in steps for line in (f"  {step.what}:", f"    {step.command}"))] if steps else []


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _recipe(recipe: Mapping[str, object]) -> str:
    from ..pipelines.show import recipe_text

    return recipe_text(recipe)


def _plain(value: object) -> str:
    return ",".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
