"""The commands that fit: `vidatt fit-head`, alone, as a sweep, and with a support vector machine on top."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from .door import assignments, common

if TYPE_CHECKING:
    from ..pipelines.fitting.plan import FitConfig
    from ..pipelines.fitting.sweep import SweepResult
    from ..pipelines.runs.measured import FitResult


@click.command("fit-head")
@click.option("--head", required=True, metavar="NAME", help="One of `vidatt heads`.")
@click.option("--store", type=click.Path(path_type=Path), help="The store that `vidatt extract` made.")
@click.option("--on", type=click.Path(path_type=Path), metavar="RUN", help="With --head svm: the run it is fitted on.")
@click.option("--streams", metavar="NAMES", help="Comma-separated [all streams of the store].")
@click.option("--split", help="Named split of the dataset [the first].")
@click.option("--views", metavar="SET", help="The store's views to fit on: center, 10crop, train [train, if it has].")
@click.option("--preset", help="Named settings of the head [paper, or what the head's page recommends].")
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
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [runs/STORE-HEAD-SPLIT-SEED].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@click.option("--seed", type=int, default=0, show_default=True)
@common
def fit_head(
    head: str, store: Path | None, on: Path | None, streams: str | None, split: str | None, views: str | None,
    preset: str | None, settings: tuple[str, ...], aggregator: str | None, classifier: str,
    validation: float, skip_truncated: bool, out: Path | None, device: str, seed: int,
    sweep: tuple[str, ...], seeds: int | None, splits: str | None, jobs: int,
) -> tuple[FitResult | SweepResult, str, int]:  # fmt: skip
    """Train a head on the cubes of a store; a killed fit continues from its checkpoint.

    With --sweep, --seeds or --splits: one run folder each below --out, each evaluated on its test list, one table.

    \b
    Example:
      vidatt fit-head --head stan --store ucf101.zarr --split 1 --preset small --set lr=5e-4 --out runs/stan
      vidatt fit-head --head stan --store ucf101.zarr --sweep lr=1e-3,1e-4 --seeds 3 --splits 1,2,3 --jobs 4
    """
    from ..heads.registry import default_preset
    from ..pipelines.fitting.fit import fit
    from ..pipelines.fitting.plan import FitConfig
    from ..pipelines.runs.reload import recorded_store
    from .fitting_tables import fit_text

    if store is None:
        if on is None:
            raise UsageError("--store is missing: give the store that `vidatt extract` made.")
        store = recorded_store(on)
    name = f"{store.name.removesuffix('.zarr')}-{head}" + (f"-on-{on.name}" if on else "")
    config = FitConfig(
        head=head,
        store=store,
        streams=_names(streams),
        split=split,
        views=views,
        preset=preset or default_preset(head),
        settings=assignments("--set", settings + ((f"aggregator={aggregator}",) if aggregator else ())),
        seed=seed,
        out=out or Path("runs") / f"{name}-{split or 'first'}-{seed}",
        on=on,
        device=device,
        validation_share=validation,
        allow_truncated=not skip_truncated,
    )
    if classifier == "svm" and (on or sweep or seeds or splits):
        raise UsageError("--classifier svm is for one fit; for many, fit them, then use --head svm --on RUN on each.")
    if sweep or seeds or splits:
        config = replace(config, out=out or Path("runs") / f"{name}-sweep")
        return _sweep(config, sweep, seeds=seeds, splits=_names(splits), jobs=jobs)
    if jobs > 1:
        raise UsageError("--jobs is for several fits: give --sweep, --seeds or --splits too.")
    result = fit(config)
    if classifier == "svm":
        preset = default_preset("svm")
        on_top = replace(config, head="svm", on=config.out, out=config.out / "svm", preset=preset, settings={})
        result = replace(result, svm=fit(on_top))
    return result, fit_text(result), 0


def _sweep(
    config: FitConfig, vary: tuple[str, ...], *, seeds: int | None, splits: tuple[str, ...] | None, jobs: int
) -> tuple[SweepResult, str, int]:
    from ..pipelines.fitting.sweep import SweepConfig, parse_sweep
    from ..pipelines.fitting.sweep import sweep as run
    from .fitting_tables import sweep_text

    result = run(SweepConfig(fit=config, vary=parse_sweep(vary), seeds=seeds, splits=splits, jobs=jobs))
    return result, sweep_text(result), 1 if result.failed else 0


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in text.split(",")) if text else None
