"""The command line that a configuration stands for: what messages advise works as it stands."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ...cache.made_by import made_by
from ...extract.recipes import RECIPES, recipe_streams
from ...extract.streams import StreamConfig
from .config import ExtractConfig

_COMMON = ("precision", "flow_preset", "flow_engine", "flow_bound", "flow_rescale")
_OWN = {"backbone": "--backbone", "layer": "--layer", "weights": "--weights", "preprocessing": "--preprocessing",
        "resize": "--resize", "crop_px": "--crop", "pool": "--pool"}  # fmt: skip
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in (*fields(ExtractConfig), *fields(StreamConfig))}
_OPTIONS = {"annotations": "--annotations", "sampler": "--sampler", "window_frames": "--window", "views": "--views",
            "shard_videos": "--shard-videos", "workers": "--workers", "decoders": "--decoders",
            "batch_segments": "--batch", "decode_timeout_seconds": "--decode-timeout", "device": "--device",
            "seed": "--seed", "follow_links": "--follow-links"}  # fmt: skip


def extract_command(config: ExtractConfig, *more: str) -> str:
    """Return the `vidatt extract` that does what a configuration says, in all slices; `more` is put behind it."""
    words = ["vidatt", "extract", "--dataset", config.dataset, "--videos", str(config.videos)]
    words += ["--store", str(config.store)]
    for key, value in config.dataset_options.items():
        words += ["--option", f"{key}={value}"]
    words += _streams(config.streams)
    for name, option in _OPTIONS.items():
        words += _option(option, getattr(config, name), _DEFAULTS[name])
    if config.decode_memory_bytes != _DEFAULTS["decode_memory_bytes"]:
        words += ["--decode-memory", f"{config.decode_memory_bytes / 1e9:g}"]
    return shlex.join([*words, *more])


def lasting_command(config: ExtractConfig) -> str:
    """Return the `vidatt extract` that continues this one from any folder."""
    streams = tuple(
        replace(stream, weights=os.path.abspath(stream.weights)) if Path(stream.weights).is_file() else stream
        for stream in config.streams
    )
    told = extract_command(
        replace(
            config,
            videos=Path(os.path.abspath(config.videos)),
            store=Path(os.path.abspath(config.store)),
            annotations=None if config.annotations is None else Path(os.path.abspath(config.annotations)),
            streams=streams,
        )
    )
    if any(Path(value).exists() and not Path(value).is_absolute() for value in config.dataset_options.values()):
        return f"cd {shlex.quote(str(Path.cwd()))} && {told}"  # what is a path among them, the dataset alone knows
    return told


def _option(option: str, value: object, default: object) -> list[str]:
    if value is None or value == default:
        return []
    return [option] if value is True else [option, str(value)]


def _streams(streams: Sequence[StreamConfig]) -> list[str]:
    """Return the options that make these streams: a recipe's own if there is one that does."""
    names = [stream.name for stream in streams]
    told = next((s for s in streams if s.kind.flow_fields), streams[0])  # the others do not ask for flow
    common = {name: getattr(told, name) for name in _COMMON}
    words = []
    for name, value in common.items():
        words += _option(f"--{name.replace('_', '-')}", value, _DEFAULTS[name])
    for recipe in RECIPES.values():
        if set(names) <= set(recipe.backbones) and recipe_streams(recipe.name, names, **common) == tuple(streams):
            chosen = [] if recipe.name == "stan" else ["--recipe", recipe.name]
            return [*chosen, *([] if names == list(recipe.backbones) else ["--streams", ",".join(names)]), *words]
    own = [
        word
        for stream in streams
        for name, option in _OWN.items()
        if (value := getattr(stream, name)) is not None and value != _DEFAULTS.get(name)
        for word in (option, f"{stream.name}={value}")
    ]
    return ["--streams", ",".join(names), *own, *words]


def recorded_videos(store: Path) -> Path | None:
    """Return the folder that the last extraction into a store read its videos from; None if no command says."""
    for entry in reversed(made_by(store)):
        words = shlex.split(entry.again)
        if "--videos" in words:
            return Path(words[words.index("--videos") + 1])
    return None
