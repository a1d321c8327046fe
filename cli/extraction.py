"""The command of stage one: `vidatt extract`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UnknownNameError, UsageError
from .door import assignments, common, typed_command
from .grouped import GroupedCommand

if TYPE_CHECKING:
    from ..extract.recipes import Recipe
    from ..pipelines.extraction.config import ExtractConfig

PER_STREAM = ("backbone", "layer", "weights", "preprocessing", "resize", "crop", "pool")
"""Options that take [STREAM=]VALUE."""

GROUPS = {
    "What most people need": ("dataset", "videos", "annotations", "store", "streams", "dry-run"),
    "What is kept of each stream": (
        "like", "recipe", "backbone", "layer", "weights", "preprocessing", "resize", "crop", "pool", "precision",
    ),
    "Where it is sampled": ("segments", "sampler", "window", "views", "seed"),
    "Optical flow": ("flow-preset", "flow-engine", "flow-bound", "flow-rescale"),
    "The data set": ("option", "follow-links"),
    "A store that is there": ("retry", "extend", "reuse"),
    "The machine": (
        "shard", "shard-videos", "workers", "decoders", "batch", "device", "decode-timeout", "decode-memory",
    ),
}  # fmt: skip


LIKE_SAYS = ("What is kept of each stream", "Where it is sampled", "Optical flow")
"""Headings of what `--like` takes from elsewhere, but for the files of weights."""


@click.command(cls=GroupedCommand, groups=GROUPS)
@click.option("--dataset", required=True, metavar="NAME", help="One of `vidatt datasets`.")
@click.option("--videos", type=click.Path(path_type=Path), help="Video folder [$VIDATT_DATA/NAME, else ./data/NAME].")
@click.option("--annotations", type=click.Path(path_type=Path), help="Folder of official files, or a CSV (`list`).")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="A setting of the dataset.")
@click.option("--follow-links", is_flag=True, help="Read videos that links lead to outside the video folder.")
@click.option(
    "--store", type=click.Path(path_type=Path), help="[$VIDATT_CACHE/NAME.zarr, else ./cache-store/NAME.zarr]"
)
@click.option("--like", type=click.Path(path_type=Path), metavar="STORE|RUN", help="Make its features, sampled alike.")
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
@click.option("--sampler", metavar="RULE", help="uniform:T, centre:T, every:N, fps:R, windows:L:S:M or random:P:F.")
@click.option("--window", type=click.IntRange(1), metavar="FRAMES", help="Frames kept free behind a segment's first.")
@click.option("--views", metavar="SET[+SET]", help="Crops of each segment: center, 10crop, train:K [center].")
@click.option("--flow-preset", default="tsn", show_default=True, help="TV-L1 parameters: tsn, opencv or fast.")
@click.option("--flow-engine", default="auto", show_default=True, help="numba, torch, triton, opencv or auto.")
@click.option(
    "--flow-bound", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True, metavar="PIXELS"
)
@click.option("--flow-rescale", is_flag=True, help="Scale a cross-modality conv1 by 3/20.")
@click.option("--shard", metavar="I/N", help="Only my slice, 0-based [what the scheduler says, else 0/1].")
@click.option("--shard-videos", type=click.IntRange(1), help="Videos per shard, set when the store is made [<= 64].")
@click.option("--workers", type=click.IntRange(1), help="Processes [one per GPU, or one per core].")
@click.option("--decoders", type=click.IntRange(1), help="Decoding children per worker.")
@click.option("--batch", type=click.IntRange(1), help="Segments per pass through a backbone [CPU 8, CUDA 64].")
@click.option("--decode-timeout", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True, metavar="S")
@click.option("--decode-memory", type=click.FloatRange(0), metavar="GB", help="Limit of a decoder, 0 for none [2].")
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:I.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of videos and of random weights.")
@click.option(
    "--retry",
    is_flag=False,
    flag_value="all",
    metavar="[OUTCOME,...]",
    help="Look again at videos that are missing, unreadable, ... [all that are not ok].",
)
@click.option("--extend", is_flag=True, help="Take new videos and labels into the store that is there.")
@click.option("--reuse", type=click.Path(path_type=Path), metavar="STORE", help="Copy equal videos' cubes from it.")
@click.option("--dry-run", is_flag=True, help="Print the plan with an estimate and write nothing.")
@common
def extract(**given: Any) -> tuple[dict[str, Any], str, int]:
    """Run frozen backbones once over all videos and keep the cubes; interrupt and repeat at will.

    \b
    Example:
      vidatt extract --dataset ucf101 --videos /data/UCF-101 --annotations /data/ucfTrainTestlist
    """
    from ..pipelines.extraction.extract import extract as run
    from .tables import plan_text, summary_text

    config = extract_config(given)
    if given["dry_run"]:
        from ..pipelines.extraction.estimate import estimate  # imports torch, which the supervisor does without

        plan = estimate(config).to_dict()
        return plan, plan_text(plan), 0
    summary = run(config).to_dict()
    return summary, summary_text(summary), 1 if summary["failed"] or summary["given_up"] else 0


def extract_config(given: Mapping[str, Any]) -> ExtractConfig:
    """Return the configuration that the options of `vidatt extract` stand for."""
    from ..extract.decoder import MEMORY_BYTES
    from ..extract.recipes import find_recipe
    from ..pipelines.extraction.config import ExtractConfig, default_store, default_videos

    recipe = find_recipe(given["recipe"])
    named = None
    if given["streams"] is not None:
        named = [name.strip() for name in given["streams"].split(",") if name.strip()]
    return ExtractConfig(
        dataset=given["dataset"],
        videos=given["videos"] or default_videos(given["dataset"]),
        store=given["store"] or default_store(given["dataset"]),
        annotations=given["annotations"],
        dataset_options=assignments("--option", given["options"]),
        **(_alike(named, given) if given["like"] else _chosen(named, recipe, given)),
        shard_videos=given["shard_videos"],
        slice=given["shard"],
        device=given["device"],
        workers=given["workers"],
        decoders=given["decoders"],
        batch_segments=given["batch"],
        decode_timeout_seconds=given["decode_timeout"],
        decode_memory_bytes=MEMORY_BYTES if given["decode_memory"] is None else int(given["decode_memory"] * 1e9),
        follow_links=given["follow_links"],
        retry=_outcomes(given["retry"]),
        extend=given["extend"],
        reuse=given["reuse"],
        command=typed_command(),
    )


def _chosen(named: list[str] | None, recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return streams, and where they are sampled, by the options."""
    from ..extract.recipes import recipe_streams

    if given["segments"] and given["sampler"]:
        raise UsageError("--segments and --sampler both say how many segments; give one of them.")
    names = list(recipe.backbones) if named is None else named
    return {
        "streams": recipe_streams(
            recipe.name,
            names,
            choices=_choices(names, given),
            **{key: given[key] for key in ("precision", "flow_preset", "flow_engine", "flow_bound", "flow_rescale")},
        ),
        "sampler": f"uniform:{given['segments']}" if given["segments"] else given["sampler"],
        "default_sampler": recipe.sampler,
        "window_frames": given["window"],
        "views": given["views"],
        "seed": given["seed"],
    }


def _alike(named: list[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return streams, and where they are sampled, as another store or run has them."""
    from ..pipelines.extraction.like import likeness

    says = {name for heading in LIKE_SAYS for name in GROUPS[heading]} - {"like", "weights"}
    for option in extract.params:
        name = max(option.opts, key=len).lstrip("-")
        value = given.get(str(option.name))
        if name in says and value and value != option.default:
            raise UsageError(f"--{name}: --like {given['like']} says it; leave one of them out.")
    weights = assignments("--weights", given["weights"])
    found = likeness(given["like"], streams=named, weights={name: Path(file) for name, file in weights.items()})
    return vars(found)


def _outcomes(text: str | None) -> tuple[str, ...]:
    """Read the outcomes of --retry; none given = all, and without the option none."""
    from ..pipelines.extraction.config import RETRYABLE

    if text is None:
        return ()
    names = RETRYABLE if text == "all" else tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError(f"--retry {text!r}: name outcomes, such as missing,unreadable, or none for all.")
    return names


def _choices(names: list[str], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each stream's own settings, by field of its configuration."""
    chosen = {option: _per_stream(f"--{option}", given[option], names) for option in PER_STREAM}
    for option, what in (("crop", "pixels"), ("pool", "cells")):
        for text in chosen[option].values():
            if not text.isdigit() or int(text) < 1:
                raise UsageError(f"--{option} {text!r}: write a number of {what}.")
    choices: dict[str, dict[str, Any]] = {name: {} for name in names}
    for option, by_stream in chosen.items():
        for name, text in by_stream.items():
            field = "crop_px" if option == "crop" else option
            choices[name][field] = int(text) if option in ("crop", "pool") else text
    return choices


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
