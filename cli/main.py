"""The door: one thin click command per job. A command parses, builds one configuration, calls one pipeline, prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..errors import UnknownNameError, UsageError
from .door import assignments as _assignments
from .door import common as _common
from .extraction import extract
from .localisation import detect, locate
from .results import compare, evaluate, evaluate_detections, fuse
from .stores import cache


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vidatt")
def main() -> None:
    """Extract video features once, train many attention heads on them."""


main.add_command(extract)
main.add_command(cache)
main.add_command(detect)
main.add_command(locate)
for _command in (evaluate, evaluate_detections, compare, fuse):
    main.add_command(_command)


@main.command("fit-head")
@click.option("--head", required=True, metavar="NAME", help="One of `vidatt heads`.")
@click.option("--store", type=click.Path(path_type=Path), help="The store that `vidatt extract` made.")
@click.option("--on", type=click.Path(path_type=Path), metavar="RUN", help="With --head svm: the run it is fitted on.")
@click.option("--streams", metavar="NAMES", help="Comma-separated [all streams of the store].")
@click.option("--split", help="Named split of the dataset [the first].")
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
    type=click.FloatRange(0, 0.9),
    default=0.2,
    show_default=True,
    metavar="SHARE",
    help="Of the training list, whole groups, to choose the step by.",
)
@click.option("--skip-truncated", is_flag=True, help="Leave out videos of which only a part could be decoded.")
@click.option("--sweep", multiple=True, metavar="KEY=V1,V2", help="Fit each value of a setting, head, preset, streams.")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="Fit with N seeds, from --seed on.")
@click.option("--splits", metavar="NAMES", help="Fit on each of these splits, comma-separated, or `all`.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Fits of a sweep at a time.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [runs/STORE-HEAD-SPLIT-SEED].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@click.option("--seed", type=int, default=0, show_default=True)
@_common
def fit_head(
    head: str, store: Path | None, on: Path | None, streams: str | None, split: str | None, preset: str,
    settings: tuple[str, ...], aggregator: str | None, classifier: str,
    validation: float, skip_truncated: bool, out: Path | None, device: str, seed: int,
    sweep: tuple[str, ...], seeds: int | None, splits: str | None, jobs: int,
) -> tuple[dict[str, Any], str, int]:  # fmt: skip
    """Train a head on the cubes of a store; a killed fit continues from its checkpoint.

    With --sweep, --seeds or --splits: one run folder each below --out, each evaluated on its test list, one table.

    \b
    Example:
      vidatt fit-head --head stan --store ucf101.zarr --split 1 --preset small --set lr=5e-4 --out runs/stan
      vidatt fit-head --head stan --store ucf101.zarr --sweep lr=1e-3,1e-4 --seeds 3 --splits 1,2,3 --jobs 4
    """
    from dataclasses import replace

    from ..heads.registry import default_preset
    from ..pipelines.fitting.fit import FitConfig, fit
    from ..pipelines.fitting.sweep import SweepConfig, parse_sweep
    from ..pipelines.fitting.sweep import sweep as run_sweep
    from ..pipelines.runs.reload import recorded_store
    from .tables import fit_text, sweep_text

    if store is None:
        if on is None:
            raise UsageError("--store is missing: give the store that `vidatt extract` made.")
        store = recorded_store(on)
    name = f"{store.name.removesuffix('.zarr')}-{head}" + (f"-on-{on.name}" if on else "")
    config = FitConfig(
        head=head,
        store=store,
        streams=tuple(name.strip() for name in streams.split(",")) if streams else None,
        split=split,
        preset=preset or default_preset(head),
        settings=_assignments("--set", settings + ((f"aggregator={aggregator}",) if aggregator else ())),
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
        folder = out or Path("runs") / f"{name}-sweep"
        many = SweepConfig(
            fit=replace(config, out=folder),
            vary=parse_sweep(sweep),
            seeds=seeds,
            splits=tuple(name.strip() for name in splits.split(",")) if splits else None,
            jobs=jobs,
        )
        result = run_sweep(many)
        return result, sweep_text(result), 1 if result["failed"] else 0
    if jobs > 1:
        raise UsageError("--jobs is for several fits: give --sweep, --seeds or --splits too.")
    result = fit(config)
    text = fit_text(result)
    if classifier == "svm":
        preset = default_preset("svm")
        on_top = replace(config, head="svm", on=config.out, out=config.out / "svm", preset=preset, settings={})
        result["svm"] = fit(on_top)
        text += "\n\n" + fit_text(result["svm"])
    return result, text, 0


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-out"), show_default=True)
@click.option("--train-videos", type=click.IntRange(30), default=144, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:I.")
@click.option("--seed", type=int, default=0, show_default=True)
@_common
def demo(out: Path, train_videos: int, device: str, seed: int) -> tuple[dict[str, Any], str, int]:
    """Generate real encoded videos, extract, fit, evaluate, and draw attention on the frames; no data, no network.

    \b
    Example:
      vidatt demo --out demo-out
    """
    from ..pipelines.demo import demo as run
    from .tables import demo_text

    result = run(out, train_videos=train_videos, device=device, seed=seed)
    return result, demo_text(result), 0


@main.command()
@_common
def doctor() -> tuple[dict[str, Any], str, int]:
    """Show versions, FFmpeg, devices, cores and what is missing: what a bug report needs.

    \b
    Example:
      vidatt doctor
    """
    from ..pipelines.doctor import doctor as run
    from .tables import doctor_text

    report = run()
    return report, doctor_text(report), 1 if report["missing"] else 0


@main.command()
@click.argument("name", required=False)
@click.option("--check", "folder", type=click.Path(path_type=Path), help="Report missing, surplus, misnamed videos.")
@click.option("--annotations", type=click.Path(path_type=Path), help="Folder of official files, or a CSV (`list`).")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="A setting of the dataset.")
@_common
def datasets(
    name: str | None, folder: Path | None, annotations: Path | None, options: tuple[str, ...]
) -> tuple[dict[str, Any], str, int]:
    """List the datasets, explain one, or check its files.

    \b
    Example:
      vidatt datasets
      vidatt datasets ucf101
      vidatt datasets ucf101 --check /data/UCF-101 --annotations /data/ucfTrainTestlist
    """
    from ..extract.datasets.registry import check, dataset_names, describe, load_catalogue
    from .tables import check_text, dataset_text, listing

    if name is None:
        found = {known: describe(known).summary for known in dataset_names()}
        return {"datasets": found}, listing(found), 0
    info = describe(name)
    if folder is None:
        return _plain(info), dataset_text(info), 0
    catalogue = load_catalogue(name, annotations=annotations, videos=folder, options=_assignments("--option", options))
    report = check(name, catalogue, folder)
    result = {
        "dataset": name,
        "videos": len(catalogue.videos),
        "missing": list(report.missing),
        "surplus": list(report.surplus),
        "misnamed": [list(pair) for pair in report.misnamed],
        "outside": [list(pair) for pair in report.outside],
        "notes": list(catalogue.notes),
    }
    return result, check_text(result), 1 if report.missing or report.misnamed or report.outside else 0


@main.command()
@click.argument("name", required=False)
@_common
def heads(name: str | None) -> tuple[dict[str, Any], str, int]:
    """List the heads, or show the settings and presets of one.

    \b
    Example:
      vidatt heads
      vidatt heads stan
    """
    from ..heads.registry import HEADS, head_names, preset_names, resolve_settings
    from .tables import head_text, listing

    if name is None:
        found = {known: HEADS[known].summary for known in head_names()}
        return {"heads": found}, listing(found), 0
    presets = {preset: resolve_settings(name, preset).to_dict() for preset in preset_names(name)}
    result = {"head": name, "summary": HEADS[name].summary, "paper": HEADS[name].paper, "presets": presets}
    return result, head_text(result), 0


@main.command()
@_common
def backbones() -> tuple[dict[str, Any], str, int]:
    """List the backbones with their layers; `torchvision:MODEL:NODE` names any other torchvision model.

    \b
    Example:
      vidatt backbones
    """
    from ..extract.backbones.registry import BACKBONES, backbone_names
    from ..extract.kinds import KINDS
    from .tables import backbones_text

    found = {
        kind: {
            name: _plain(BACKBONES[name]) | {"crop_px": BACKBONES[name].default_crop_px()}
            for name in backbone_names(kind)
        }
        for kind in dict.fromkeys(known.seen_as for known in KINDS.values())
    }
    return {"backbones": found}, backbones_text(found), 0


@main.group()
def weights() -> None:
    """Published weights: what is known, and fetching it ahead of a job without a network."""


@weights.command("list")
@click.argument("network", required=False)
@_common
def weights_list(network: str | None) -> tuple[dict[str, Any], str, int]:
    """List the known weights (of one NETWORK): file, digest, licence, and whether it is here.

    \b
    Example:
      vidatt weights list vgg16
    """
    from ..extract.backbones.weights import weights_registry
    from .tables import listing

    entries = [e for e in weights_registry().values() if network in (None, e.network)]
    if not entries:
        raise UnknownNameError("network", str(network), {e.network for e in weights_registry().values()})
    result = [{**_plain(entry), "path": str(entry.path), "here": entry.path.exists()} for entry in entries]
    table = {
        e.name: f"{'here' if e.path.exists() else 'absent'}  {e.file_name}  {e.digest_words}  {e.licence}"
        for e in entries
    }
    return {"weights": result}, listing(table), 0


@weights.command("fetch")
@click.argument("name")
@_common
def weights_fetch(name: str) -> tuple[dict[str, Any], str, int]:
    """Download one weights file and check its digest.

    \b
    Example:
      vidatt weights fetch vgg16-imagenet1k_v1
    """
    from ..extract.backbones.weights import fetch

    path = fetch(name)
    return {"name": name, "path": str(path)}, f"{name} is at {path}", 0


def _plain(value: Any) -> dict[str, Any]:
    """Turn a flat dataclass of our registries into plain values."""
    from dataclasses import fields

    def plain(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {key: plain(x) for key, x in item.items()}
        return list(item) if isinstance(item, tuple) else item

    return {f.name: plain(getattr(value, f.name)) for f in fields(value)}


if __name__ == "__main__":
    main()
