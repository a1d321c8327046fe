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
from .localisation import detect, locate
from .results import compare, evaluate, evaluate_detections, fuse
from .stores import cache


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vidatt")
def main() -> None:
    """Extract video features once, train many attention heads on them."""


main.add_command(cache)
main.add_command(detect)
main.add_command(locate)
for _command in (evaluate, evaluate_detections, compare, fuse):
    main.add_command(_command)


def _per_stream(option: str, values: tuple[str, ...], streams: list[str]) -> dict[str, str]:
    """Read `[STREAM=]VALUE` texts into one value per stream."""
    chosen: dict[str, str] = {}
    for text in values:
        stream, equals, value = text.partition("=")
        if not equals:
            chosen |= dict.fromkeys(streams, text)
        elif stream not in streams:
            raise UnknownNameError(f"stream in {option} {text!r}:", stream, streams)
        else:
            chosen[stream] = value
    return chosen


@main.command()
@click.option("--dataset", required=True, metavar="NAME", help="One of `vidatt datasets`.")
@click.option("--videos", type=click.Path(path_type=Path), help="Video folder [$VIDATT_DATA/NAME, else ./data/NAME].")
@click.option("--annotations", type=click.Path(path_type=Path), help="Folder of official files, or a CSV (`list`).")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="A setting of the dataset.")
@click.option(
    "--store", type=click.Path(path_type=Path), help="[$VIDATT_CACHE/NAME.zarr, else ./cache-store/NAME.zarr]"
)
@click.option("--recipe", default="stan", show_default=True, help="stan, glka, where-and-when, tclsta or hands.")
@click.option("--streams", help="Comma-separated: rgb, flow, clip [those of the recipe].")
@click.option("--backbone", multiple=True, metavar="[STREAM=]NAME", help="One of `vidatt backbones` [the recipe's].")
@click.option("--layer", multiple=True, metavar="[STREAM=]NAME", help="Layer to keep [the backbone's default].")
@click.option("--weights", multiple=True, metavar="[STREAM=]default|random|PATH", help="[default]")
@click.option("--preprocessing", multiple=True, metavar="[STREAM=]NAME", help="[what belongs to the weights]")
@click.option("--resize", multiple=True, metavar="[STREAM=]short:S|WxH|none", help="Before the crop [short:256].")
@click.option("--crop", multiple=True, metavar="[STREAM=]PIXELS", help="Side of the square input [224].")
@click.option("--pool", multiple=True, metavar="[STREAM=]K", help="Average each grid down to KxK [as it is].")
@click.option(
    "--segments", type=click.IntRange(1), metavar="T", help="Segments per video: short for --sampler uniform:T."
)
@click.option("--sampler", metavar="RULE", help="uniform:T, centre:T, every:N, fps:R or windows:L:S:M.")
@click.option("--window", type=click.IntRange(1), metavar="FRAMES", help="Frames kept free behind a segment's first.")
@click.option("--views", default="center", show_default=True, help="Crops of each segment: center, 10crop, train:K.")
@click.option("--flow-preset", default="tsn", show_default=True, help="TV-L1 parameters: tsn, opencv or fast.")
@click.option("--flow-engine", default="auto", show_default=True, help="numba, torch, triton, opencv or auto.")
@click.option(
    "--flow-bound", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True, metavar="PIXELS"
)
@click.option("--flow-rescale", is_flag=True, help="Scale a cross-modality conv1 by 3/20.")
@click.option("--shard", metavar="I/N", help="Only my slice, 0-based [Slurm's array variables, else 0/1].")
@click.option("--shard-videos", type=click.IntRange(1), help="Videos per shard, set when the store is made [<= 64].")
@click.option("--workers", type=click.IntRange(1), help="Processes [one per GPU, or one per core].")
@click.option("--decoders", type=click.IntRange(1), help="Decoding children per worker.")
@click.option("--batch", type=click.IntRange(1), help="Segments per pass through a backbone [CPU 8, CUDA 64].")
@click.option("--decode-timeout", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True, metavar="S")
@click.option("--decode-memory", type=click.FloatRange(0), default=0.0, metavar="GB", help="Limit of a decoder [none].")
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:I.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of videos and of random weights.")
@click.option("--dry-run", is_flag=True, help="Print the plan with an estimate and write nothing.")
@_common
def extract(**given: Any) -> tuple[dict[str, Any], str, int]:
    """Run frozen backbones once over all videos and keep the cubes; interrupt and repeat at will.

    \b
    Example:
      vidatt extract --dataset ucf101 --videos /data/UCF-101 --annotations /data/ucfTrainTestlist
    """
    from ..extract.recipes import RECIPES, find_recipe
    from ..extract.streams import StreamConfig
    from ..pipelines.extraction.extract import ExtractConfig, with_choices_of_store
    from ..pipelines.extraction.extract import extract as run
    from ..pipelines.extraction.plan import default_store, default_videos
    from .tables import plan_text, summary_text

    recipe = find_recipe(given["recipe"])
    wanted = given["streams"] if given["streams"] is not None else ",".join(recipe.backbones)
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise UsageError(f"--streams {wanted!r}: name each stream once.")
    if given["segments"] and given["sampler"]:
        raise UsageError("--segments and --sampler both say how many segments; give one of them.")
    chosen = {key: _per_stream(f"--{key}", given[key], names) for key in (
        "backbone", "layer", "weights", "preprocessing", "resize", "crop", "pool")}  # fmt: skip
    for text in chosen["crop"].values():
        if not text.isdigit() or int(text) < 1:
            raise UsageError(f"--crop {text!r}: write a number of pixels.")
    for text in chosen["pool"].values():
        if not text.isdigit() or int(text) < 1:
            raise UsageError(f"--pool {text!r}: write a number of cells.")
    streams = tuple(
        StreamConfig(
            name=name,
            backbone=chosen["backbone"].get(name, defaults.backbones.get(name, "")),
            layer=chosen["layer"].get(name, defaults.layers.get(name)),
            weights=chosen["weights"].get(name, "default"),
            preprocessing=chosen["preprocessing"].get(name),
            resize=chosen["resize"].get(name, defaults.resize.get(name)),
            crop_px=int(chosen["crop"][name]) if name in chosen["crop"] else defaults.crop_px.get(name),
            pool=int(chosen["pool"][name]) if name in chosen["pool"] else None,
            views=given["views"],
            precision=given["precision"],
            seed=given["seed"],
            flow_preset=given["flow_preset"],
            flow_engine=given["flow_engine"],
            flow_bound=given["flow_bound"],
            flow_rescale=given["flow_rescale"],
        )
        for name, defaults in ((name, recipe if name in recipe.backbones else RECIPES["stan"]) for name in names)
    )
    config = ExtractConfig(
        dataset=given["dataset"],
        videos=given["videos"] or default_videos(given["dataset"]),
        store=given["store"] or default_store(given["dataset"]),
        annotations=given["annotations"],
        dataset_options=_assignments("--option", given["options"]),
        streams=streams,
        sampler=f"uniform:{given['segments']}" if given["segments"] else given["sampler"],
        default_sampler=recipe.sampler,
        window_frames=given["window"],
        shard_videos=given["shard_videos"],
        slice=given["shard"],
        seed=given["seed"],
        device=given["device"],
        workers=given["workers"],
        decoders=given["decoders"],
        batch_segments=given["batch"],
        decode_timeout_seconds=given["decode_timeout"],
        decode_memory_bytes=int(given["decode_memory"] * 1e9),
    )
    config = with_choices_of_store(config)
    if given["dry_run"]:
        from ..pipelines.extraction.estimate import estimate  # imports torch, which the supervisor does without

        plan = estimate(config)
        return plan, plan_text(plan), 0
    summary = run(config)
    return summary, summary_text(summary), 1 if summary["failed"] or summary["given_up"] else 0


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
    """List the backbones with their layers; `torchvision:MODEL:NODE` and `timm:MODEL:LAYER` name any other model.

    \b
    Example:
      vidatt backbones
    """
    from ..extract.backbones.backbone import KINDS
    from ..extract.backbones.entry import describe_entry
    from ..extract.backbones.registry import BACKBONES, backbone_names
    from .tables import backbones_text

    found = {kind: {name: describe_entry(BACKBONES[name]) for name in backbone_names(kind)} for kind in KINDS}
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
    """Download one weights file and check its digest; NAME is one of the list, timm:MODEL or ORG/NAME of the hub.

    \b
    Example:
      vidatt weights fetch vgg16-imagenet1k_v1
      vidatt weights fetch timm:vit_base_patch14_dinov2
    """
    from ..extract.backbones.registry import fetch_weights

    path = fetch_weights(name)
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
