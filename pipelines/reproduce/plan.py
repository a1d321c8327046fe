"""What a table comes to on the stores at hand: which rows can be made, and the commands that make them, in order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...cache.store import Store
from ...errors import UnknownNameError, UsageError, nearest_key_error
from ...extract.recipes import recipe_streams
from ...heads.registry import HEADS, default_preset, resolve_settings
from ..results.fusion_methods import METHODS
from .tables import COMMANDS, Row, Step, Table, flags_of, step_flags

Key = tuple[str, str, int]
"""A step on a split with a seed."""


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """What a reproduction is asked to do."""

    table: Table
    stores: Mapping[str, Path]  # by extraction of the table
    given: Mapping[str, str] = field(default_factory=dict)  # path by name of what the table wants; may hold `{split}`
    out: Path  # where run folders, results and reports go
    splits: tuple[str, ...] | None = None  # None = the paper's
    seeds: int = 1  # 0, 1, ...
    preset: str | None = None  # of every fit; None = the table's
    settings: Mapping[str, str] = field(default_factory=dict)  # of every fit whose head has them
    device: str = "auto"
    jobs: int = 1  # commands at a time

    def __post_init__(self) -> None:
        nearest_key_error(f"extraction of {self.table.name}:", self.stores, self.table.extractions)
        if not self.stores:
            raise UsageError(f"Table {self.table.name}: give --store, the store of its extraction.")
        nearest_key_error(f"name in --given of {self.table.name}:", self.given, self.table.given)
        if "," in str(self.out):
            raise UsageError(f"--out {self.out}: settings list runs by commas; take a folder without any.")
        if self.seeds < 1 or self.jobs < 1:
            raise UsageError(f"--seeds {self.seeds} and --jobs {self.jobs}: must be 1 or more.")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A step on one split with one seed."""

    key: Key
    commands: tuple[tuple[str, ...], ...]  # what follows `vidatt`, one after the other; the last one's result counts
    needs: tuple[Key, ...]
    document: Path  # where its result is kept
    state: Mapping[str, Any]  # of the store that it reads: another state makes another result

    @property
    def name(self) -> str:
        """What it is, for people."""
        step, split, seed = self.key
        return f"{step} (split {split}, seed {seed})"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A table on stores."""

    config: ReproduceConfig
    dataset: str | None  # of the store; None = it does not say
    multi_label: bool
    splits: tuple[str, ...]
    missing: Mapping[str, str]  # steps that cannot be made here, and why
    tasks: tuple[Task, ...]  # those that others need come first
    notes: tuple[str, ...]  # where the stores are not what the paper extracted

    @property
    def own(self) -> bool:
        """Whether the paper has numbers on this dataset."""
        return self.dataset in self.config.table.datasets

    def left_out(self, row: Row, column: int) -> str | None:
        """Return why a cell of a row is not made, None if it is or there is no such cell."""
        if row.reason:
            return row.reason
        if (why := row.reasons.get(self.dataset or "")) is not None:
            return why
        if self.measure(row, column) == "none":
            return "no command measures this"
        return self.missing.get(row.steps[column])

    def measure(self, row: Row, column: int) -> str:
        """Return what a cell shows here."""
        return self.config.table.measure(row, column, self.dataset, multi_label=self.multi_label)

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The commands as a person types them."""
        return tuple(shlex.join(("vidatt", *command)) for task in self.tasks for command in task.commands)


def plan_reproduction(config: ReproduceConfig) -> Plan:
    """Find out what can be made, and check every setting before anything begins; writes nothing.

    Raises
    ------
    UsageError
        If a setting, preset or split is not there, or no row can be made; the message says why.
    StoreNotFoundError
        If there is no store.
    """
    table = config.table
    stores = {name: Store.open(path) for name, path in config.stores.items()}
    main = stores.get(table.main_extraction) or next(iter(stores.values()))
    multi_label = main.index.multi_label
    dataset = main.plan.dataset
    steps = _chosen(config, dataset)
    missing = _missing(config, stores)
    splits = _splits(config, main)
    for name, text in config.given.items():
        if absent := next((path for split in splits if not (path := given_path(text, split)).exists()), None):
            raise UsageError(f"--given {name}={text}: there is no {absent}; it is {table.given[name]}.")
    plan = Plan(
        config=config, dataset=dataset, multi_label=multi_label, splits=splits,
        missing=missing, tasks=(), notes=tuple(_notes(table, stores)),
    )  # fmt: skip
    wanted = {
        part
        for row in table.rows
        for column, step in enumerate(row.steps)
        if step and plan.left_out(row, column) is None
        for part in table.parts(step)
    }
    if not wanted:
        reasons = list(dict.fromkeys(missing.values())) or [row.reason for row in table.rows if row.reason]
        raise UsageError(f"Table {table.name}: no row can be made on this store: {reasons[0]}")
    states = {name: _state(store) for name, store in stores.items()}
    tasks = [
        _task(plan, steps[name], split, seed, states)
        for split in plan.splits
        for seed in range(config.seeds)
        for name in table.steps
        if name in wanted
    ]
    return replace(plan, tasks=tuple(tasks))


def _splits(config: ReproduceConfig, store: Store) -> tuple[str, ...]:
    """Return the splits to fit on: those asked for, the paper's, or as many of another dataset."""
    there = sorted(store.index.splits)
    if not there:
        raise UsageError(f"Store {store.path} has no split; its dataset names no training and test videos.")
    asked = config.splits
    if asked == ("all",):
        return tuple(there)
    if asked is None:
        datasets = config.table.datasets
        dataset = datasets.get(store.plan.dataset or "") or next(iter(datasets.values()))
        if not dataset.splits:
            return tuple(there)
        asked = dataset.splits if store.plan.dataset in datasets else tuple(there[: len(dataset.splits)])
    nearest_key_error("split", asked, there)
    return asked


def _chosen(config: ReproduceConfig, dataset: str | None) -> dict[str, Step]:
    """Return the steps with the preset and the settings that were asked for, all checked."""
    known: set[str] = set()
    chosen = {}
    for step in config.table.steps.values():
        options, settings = dict(step.options), {**step.settings, **step.for_datasets.get(dataset or "", {})}
        if step.section == "fit":
            own = head_settings(str(options["head"]))
            known |= own
            settings |= {key: text for key, text in config.settings.items() if key in own}
            options["preset"] = config.preset or options.get("preset") or default_preset(str(options["head"]))
        chosen[step.name] = replace(step, options=options, settings=settings)
        check_settings(config.table, chosen[step.name])
    nearest_key_error("setting of any head in the table:", config.settings, known)
    return chosen


def head_settings(head: str) -> set[str]:
    """Return what `--set` takes for a head."""
    entry = HEADS[head]
    return {f.name for kind in (entry.head.Config, entry.fit) for f in fields(kind)}


def check_settings(table: Table, step: Step) -> None:
    """Refuse a step whose head, preset, method or setting is not there.

    Raises
    ------
    UsageError
        Names the table's file and the step.
    """
    where = f"{table.name}.toml: {step.section}.{step.name}"
    try:
        if step.section == "fit":
            head = str(step.options.get("head", ""))
            resolve_settings(head, str(step.options.get("preset") or default_preset(head)), step.settings)
        elif step.section == "fuse" and step.options.get("method") not in METHODS:
            raise UnknownNameError("method", str(step.options.get("method")), METHODS)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def given_path(text: str, split: str) -> Path:
    """Return where something that is given lies for a split."""
    return Path(text.replace("{split}", split))


def _missing(config: ReproduceConfig, stores: Mapping[str, Store]) -> dict[str, str]:
    """Return the steps that cannot be made, and why."""
    missing: dict[str, str] = {}
    for name, step in config.table.steps.items():
        before = next((missing[need] for need in step.needs if need in missing), None)
        if before or (why := _lacks(step, config, stores)):
            missing[name] = before or str(why)
    return missing


def _lacks(step: Step, config: ReproduceConfig, stores: Mapping[str, Store]) -> str | None:
    if (absent := next((name for name in step.given if name not in config.given), None)) is not None:
        return f"needs {config.table.given[absent]}, as --given {absent}=PATH"
    store = stores.get(step.extraction)
    reads = step.section in ("fit", "evaluate", "windows", "benchmark")
    if reads and store is None:
        return f"needs the extraction {step.extraction}, given as --store {step.extraction}=PATH"
    if store is not None and (lacking := [name for name in step.streams if name not in store.stream_names]):
        return f"{store.path} has no stream {lacking[0]}"
    return None


def _notes(table: Table, stores: Mapping[str, Store]) -> Iterator[str]:
    """Say where a store is not what the paper extracted."""
    for name, store in stores.items():
        dataset = store.plan.dataset or ""
        options = table.extractions[name].for_dataset(dataset)
        wanted = recipe_streams(str(options["recipe"]), choices=_choices(options))
        sampler, views = options.get("sampler"), options.get("views", "center")
        if sampler and store.plan.sampler != sampler:
            yield f"{store.path}: segments by {store.plan.sampler}, the table's by {sampler}"
        if store.plan.view_rule not in (None, views):
            yield f"{store.path}: views {store.plan.view_rule}, the table's {views}"
        for stream in wanted:
            if stream.name in store.stream_names and stream.name in table.streams:
                there = store.stream(stream.name).recipe.get("backbone")
                if there not in (None, stream.backbone):  # an imported stream may not say
                    yield f"{store.path}: {stream.name} by {there}, the table's by {stream.backbone}"


def _choices(options: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the backbones that an extraction names, by stream."""
    given = options.get("backbone", [])
    pairs = [text.partition("=") for text in (given if isinstance(given, list) else [given])]
    return {stream: {"backbone": backbone} for stream, equals, backbone in pairs if equals}


def _state(store: Store) -> dict[str, Any]:
    """Return what of a store a result depends on."""
    return {
        name: [stream.fingerprint, len(stream.done_shards())]
        for name in store.stream_names
        for stream in [store.stream(name)]
    }


def _task(plan: Plan, step: Step, split: str, seed: int, states: Mapping[str, Any]) -> Task:
    config = plan.config
    instance = f"split-{re.sub(r'[^A-Za-z0-9.+_-]', '_', split)}-seed-{seed}"  # no comma: settings list runs by commas
    folder = {name: str(config.out / name / instance) for name in config.table.steps}
    folder |= {name: str(given_path(text, split)) for name, text in config.given.items()}
    runs = [f"{folder[name]}{colon}{branch}" for name, colon, branch in (run.partition(":") for run in step.runs)]
    flags = step_flags(step, folder)
    device = () if config.device == "auto" else ("--device", config.device)
    store = str(config.stores.get(step.extraction, ""))
    out = folder[step.name]
    commands: tuple[tuple[str, ...], ...]
    if step.section == "fit":
        fit = ("fit-head", *flags, "--store", store, "--split", split, "--seed", str(seed), *device, "--out", out)
        commands = (fit, ("evaluate", out, *flags_of(step.evaluation), *device))
    elif step.section in ("evaluate", "windows"):
        commands = ((COMMANDS[step.section], *runs, *flags, "--store", store, *device),)
    elif step.section == "benchmark":
        commands = (("benchmark", *runs, *flags, "--store", store, "--split", split, *device),)
    elif step.section == "fuse":
        commands = (("fuse", *runs, *flags, "--out", out),)
    else:
        suffix = {"detect": ".txt", "locate": ".csv"}[step.section]
        commands = ((COMMANDS[step.section], *runs, *flags, *device, "--out", f"{out}{suffix}"),)
    return Task(
        key=(step.name, split, seed), commands=commands, needs=tuple((need, split, seed) for need in step.needs),
        document=config.out / step.name / f"{instance}.json", state=states.get(step.extraction, {}),
    )  # fmt: skip
