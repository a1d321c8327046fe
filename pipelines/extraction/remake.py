"""Back from a stored recipe to the configuration of its stream: what made a stream once can make it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import RefusedError, UsageError, WeightsError
from ...extract.streams import StreamConfig


def stream_of(name: str, recipe: Mapping[str, Any], *, weights: Path | None = None) -> StreamConfig:
    """Return the configuration that a recipe was written by.

    Parameters
    ----------
    weights : the file, where the recipe's weights are none that vidatt knows by name

    Raises
    ------
    RefusedError
        If the stream was imported, or comes from another program: no extraction made it.
    UsageError
        If its weights are in a file that is not named, or that has another digest.
    """
    if "imported" in recipe or not {"stream", "backbone", "layer", "precision", "resize", "crop_px"} <= recipe.keys():
        raise RefusedError(
            f"Stream {name!r} was imported, so no extraction can make it again; import it into a new store with "
            "`vidatt cache import`."
        )
    given: Mapping[str, Any] = recipe.get("weights") or {}
    flow: Mapping[str, Any] = recipe.get("flow") or {}
    more: dict[str, Any] = {}
    if flow:
        more = {"flow_preset": flow["preset"], "flow_engine": flow["engine"], "flow_bound": flow["bound"]}
    return StreamConfig(
        name=recipe["stream"],
        backbone=recipe["backbone"],
        layer=recipe["layer"] or None,
        weights=_weights(name, recipe["backbone"], given, weights),
        preprocessing=_preprocessing(recipe.get("preprocessing")),
        resize=recipe["resize"],
        crop_px=recipe["crop_px"],
        pool=recipe.get("pool"),
        precision=recipe["precision"],
        flow_rescale="times 3 /" in str(given.get("conv1", "")),
        **more,
    )


def _weights(stream: str, backbone: str, recipe: Mapping[str, Any], file: Path | None) -> str:
    """Return what `--weights` of an extraction would name."""
    from ...extract.backbones.weights import weights_registry

    if not recipe:
        return "default"  # a descriptor, which has none
    name, digest = str(recipe["name"]), str(recipe["sha256"])
    if file is not None:
        require_digest(stream, file, name=name, digest=digest)
        return str(file)
    if name == "random" or name in weights_registry():
        return name
    if backbone.startswith("timm:"):
        return name if "/" in name else "default"
    raise UsageError(
        f"Stream {stream!r} was made with the weights in a file {name!r} (SHA-256 {digest[:16]}...); name it with "
        f"--weights {stream}=PATH."
    )


def require_digest(stream: str, file: Path, *, name: str, digest: str) -> None:
    """Refuse a file that is not the one of the weights that a stream was made with.

    Raises
    ------
    WeightsError
        If it is not there, or has another SHA-256.
    """
    from ...extract.backbones.weights import file_sha256

    if not file.is_file():
        raise WeightsError(f"--weights {stream}={file}: there is no such file.")
    if (found := file_sha256(file)) != digest:
        raise WeightsError(
            f"--weights {stream}={file} has SHA-256 {found[:16]}..., stream {stream!r} was made with {digest[:16]}... "
            f"({name}); name that file."
        )


def _preprocessing(recipe: Mapping[str, Any] | None) -> str | None:
    """Return the name of a preprocessing; None where it is that of the network's own publisher."""
    from ...extract.backbones.preprocessing import PREPROCESSINGS

    return next((name for name, rules in PREPROCESSINGS.items() if recipe == rules.to_dict()), None)
