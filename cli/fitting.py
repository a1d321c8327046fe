"""The commands that fit: `vidatt fit-head`, alone, as a sweep, and with a support vector machine on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .door import assignments, common, typed_command
from .grouped import GroupedCommand

if TYPE_CHECKING:
    from ..pipelines.fitting.plan import FitConfig
    from ..pipelines.fitting.sweep import SweepConfig, SweepResult
    from ..pipelines.runs.measured import FitResult


GROUPS = {
    "What most people need": ("head", "store", "streams", "preset", "set", "out"),
    "The head": ("aggregator", "classifier", "from", "on"),
    "The videos": ("split", "views", "validation", "skip-truncated"),
    "Many fits": ("sweep", "seeds", "splits", "jobs", "shard"),
    "The machine": ("device", "seed"),
}


@click.command("fit-head", cls=GroupedCommand, groups=GROUPS)
@click.option("--head", metavar="NAME", help="One of `vidatt heads`; --sweep head=A,B needs none.")
@click.option("--store", type=click.Path(path_type=Path), help="The store that `vidatt extract` made.")
@click.option("--on", type=click.Path(path_type=Path), metavar="RUN", help="With --head svm: the run it is fitted on.")
@click.option("--from", "start", type=click.Path(path_type=Path), metavar="RUN", help="Start from its weights.")
@click.option("--streams", metavar="NAMES", help="Comma-separated [all streams of the store].")
@click.option("--split", help="Named split of the dataset [the first].")
@click.option("--views", metavar="SET", help="The store's views to fit on: center, 10crop, train [train, if it has].")
@click.option("--preset", help="Named settings of the head: paper, small, ... [by videos and device, which is said].")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the head or of its fit.")
@click.option("--aggregator", metavar="NAME", help="What runs over time, in heads with a choice of it.")
@click.option(
    "--classifier",
    type=click.Choice(["own", "svm"]),
    default="own",
    show_default=True,
    help="svm: then also a linear SVM on the fitted head's representation, in OUT/svm.",
)
@click.option(
    "--validation",
    type=float,
    default=0.2,
    show_default=True,
    metavar="SHARE",
    help="Of the training list, whole groups, to choose the step by; up to half, 0 = none.",
)
@click.option("--skip-truncated", is_flag=True, help="Leave out videos of which only a part could be decoded.")
@click.option("--sweep", multiple=True, metavar="KEY=V1,V2", help="Fit each value of a setting, head, preset, streams.")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="Fit with N seeds, from --seed on.")
@click.option("--splits", metavar="NAMES", help="Fit on each of these splits, comma-separated, or `all`.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Fits of a sweep at a time.")
@click.option("--shard", metavar="I/N", help="Of a sweep: only my slice of the fits [the scheduler's, else 0/1].")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [runs/STORE-HEAD-SPLIT-SEED].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@click.option("--seed", type=int, default=0, show_default=True)
@common
def fit_head(**given: Any) -> tuple[FitResult | SweepResult, str, int]:
    """Train a head on the cubes of a store; a killed fit continues from its checkpoint.

    With --sweep, --seeds or --splits: one run folder each below --out, each evaluated on its test list, one table.

    \b
    Example:
      vidatt fit-head --head stan --store ucf101.zarr --split 1 --preset small --set lr=5e-4 --out runs/stan
      vidatt fit-head --head stan --store ucf101.zarr --sweep lr=1e-3,1e-4 --seeds 3 --splits 1,2,3 --jobs 4
      vidatt fit-head --sweep head=stan,san,mean --store ucf101.zarr --preset small
    """
    from ..heads.registry import default_preset
    from ..pipelines.fitting.fit import fit
    from ..pipelines.fitting.sweep import SweepConfig, sweep
    from .fitting_tables import fit_text, sweep_text

    config = fit_config(given)
    if isinstance(config, SweepConfig):
        swept = sweep(config)
        return swept, sweep_text(swept), 1 if swept.failed else 0
    result = fit(config)
    if given["classifier"] == "svm":
        preset = default_preset("svm")
        on_top = replace(config, head="svm", on=config.out, out=config.out / "svm", preset=preset, settings={})
        result = replace(result, svm=fit(on_top))
    return result, fit_text(result), 0


def fit_config(given: Mapping[str, Any]) -> FitConfig | SweepConfig:
    """Return the configuration that the options of `vidatt fit-head` stand for.

    Raises
    ------
    UsageError
        If options do not go together.
    """
    from ..pipelines.fitting.plan import FitConfig
    from ..pipelines.fitting.sweep import SweepConfig, parse_sweep
    from ..pipelines.runs.reload import recorded_store

    head, on, store, out = given["head"], given["on"], given["store"], given["out"]
    if store is None:
        if on is None:
            raise UsageError("--store is missing: give the store that `vidatt extract` made.")
        store = recorded_store(on)
    vary = parse_sweep(given["sweep"])
    many = bool(vary or given["seeds"] or given["splits"])
    if head is None and "head" not in vary:
        raise UsageError("--head is missing: give one of `vidatt heads`, such as --head stan.")
    name = store.name.removesuffix(".zarr") + (f"-{head}" if head else "") + (f"-on-{on.name}" if on else "")
    own = "sweep" if many else f"{given['split'] or 'first'}-{given['seed']}"
    aggregator = (f"aggregator={given['aggregator']}",) if given["aggregator"] else ()
    config = FitConfig(
        head=head or vary["head"][0],
        store=store,
        streams=_names(given["streams"]),
        split=given["split"],
        views=given["views"],
        preset=given["preset"],
        settings=assignments("--set", given["settings"] + aggregator),
        seed=given["seed"],
        out=out or Path("runs") / f"{name}-{own}",
        on=on,
        start=given["start"],
        device=given["device"],
        validation_share=given["validation"],
        allow_truncated=not given["skip_truncated"],
        command=typed_command(),
    )
    if given["classifier"] == "svm" and (on or many):
        raise UsageError("--classifier svm is for one fit; for many, fit them, then use --head svm --on RUN on each.")
    if many:
        return SweepConfig(
            fit=config,
            vary=vary,
            seeds=given["seeds"],
            splits=_names(given["splits"]),
            jobs=given["jobs"],
            slice=given["shard"],
        )
    for option in ("jobs", "shard"):
        if given[option] not in (1, None):
            raise UsageError(f"--{option} is for several fits: give --sweep, --seeds or --splits too.")
    return config


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in text.split(",")) if text else None
