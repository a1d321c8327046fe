"""timm's image networks (extra `vidatt[timm]`): DINOv2, CLIP's and SigLIP's image towers, ConvNeXt, Swin and the rest.

Features are those of timm's own `forward_intermediates`, with the final normalisation where the network has one for
them; class and register tokens are cut off there. Preprocessing, side and resize are those of the model's own data
configuration; frames are resized as for all backbones, whatever interpolation it names.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UnknownNameError, UsageError, WeightsError
from ..windows import StreamKind
from .entry import BackboneEntry, BuiltNetwork, Choices
from .networks import first_conv, to_flow
from .preprocessing import Preprocessing
from .timm_weights import HubFile, resolve_timm_weights
from .weights import check_tensors

_WITHOUT_NORM = ("hiera", "hieradet_sam2")  # files of timm whose networks refuse to normalise their features


@dataclass(frozen=True, kw_only=True)
class TimmEntry(BackboneEntry):
    """One of timm's models; a layer is a module that `forward_intermediates` gives features of, the last by default."""

    model: str  # timm's name, with a tag if one was given
    hub_file: HubFile | None  # of its published weights
    rules: Preprocessing
    crop_share: float  # the side of the crop is this share of the side before it
    squash: bool  # to a square, whatever the aspect
    resampled: bool  # its position embedding or windows belong to one side, and are fitted to others by timm

    def resize_for(self, crop_px: int) -> str:
        """Return timm's own resize before a crop of this side."""
        side = math.floor(crop_px / self.crop_share)
        return f"{side}x{side}" if self.squash else f"short:{side}"

    def build(self, choices: Choices) -> BuiltNetwork:
        """Build the network, load it, fit it to the side and cut it.

        Raises
        ------
        UsageError
            For flow, if the network does not begin with a convolution over RGB.
        UnknownNameError
            For a layer that gives no features.
        WeightsError
        """
        loaded = resolve_timm_weights(choices, hub_file=self.hub_file, rules=self.rules)
        model = self._create(choices.seed)
        layers = [info["module"] for info in model.feature_info]
        layer = choices.layer or layers[-1]
        if layer not in layers:
            raise UnknownNameError(f"layer of {self.name}", layer, layers)
        recipe = dict(loaded.recipe)
        tensors: Mapping[str, Tensor] | None = loaded.tensors
        conv = first_conv(model, self.name) if choices.first_channels is not None else ""
        if tensors is not None:
            tensors = self._in_own_layout(model, tensors, conv=conv, source=recipe["name"])
        if conv:
            tensors, recipe["conv1"] = to_flow(model, conv, tensors, choices, recipe["name"])
        own = model.state_dict()
        model.prune_intermediate_layers([layers.index(layer)], prune_norm=False, prune_head=True)
        if tensors is not None:
            needed = set(model.state_dict())
            check_tensors(own, tensors, needed=needed, source=recipe["name"])
            model.load_state_dict({name: tensors[name] for name in needed & set(tensors)}, strict=False)
        if self.resampled and choices.side_px != self.crop_px and hasattr(model, "set_input_size"):
            self._fit_to(model, choices.side_px)
        norm = type(model).__module__.rpartition(".")[2] not in _WITHOUT_NORM
        facts = {
            "norm": "final" if norm else "none",
            "weights": recipe,
            "preprocessing": loaded.preprocessing.to_dict(),
        }
        net = _Intermediate(model, layers.index(layer), norm=norm)
        return BuiltNetwork(net, layer, self.form, facts, loaded.preprocessing)

    def cubes_of_nodes(self, kind: StreamKind, side_px: int) -> Mapping[str, tuple[int, int, int]]:
        """Return (K, K, D) of every layer that gives a square grid, in the network's order.

        Raises
        ------
        UsageError
            If the network cannot take inputs of this side.
        """
        model = self._create(0)
        if self.resampled and side_px != self.crop_px and hasattr(model, "set_input_size"):
            self._fit_to(model, side_px)
        try:
            with torch.inference_mode():
                inputs = torch.zeros(1, 3, side_px, side_px)
                maps = model.forward_intermediates(inputs, output_fmt="NCHW", intermediates_only=True)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"Backbone {self.name!r} cannot take {side_px}-pixel inputs: {reason}") from error
        layers = [info["module"] for info in model.feature_info]
        grids = ((layer, found.shape) for layer, found in zip(layers, maps, strict=True))
        return {layer: (shape[2], shape[3], shape[1]) for layer, shape in grids if shape[2] == shape[3]}

    def _create(self, seed: int, **settings: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return import_timm().create_model(self.model, **settings).eval()

    def _in_own_layout(
        self, model: nn.Module, tensors: Mapping[str, Tensor], *, conv: str, source: str
    ) -> Mapping[str, Tensor]:
        """Return a file's tensors under the names and in the shapes here; timm converts its publishers' layouts."""
        own = model.state_dict()
        foreign = [name for name in tensors if name not in own or tensors[name].shape != own[name].shape]
        if set(foreign) <= {f"{conv}.weight"}:  # which may be one over flow
            return tensors
        try:
            overlay = {"state_dict": dict(tensors)}
            return self._create(0, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
        except (RuntimeError, KeyError, ValueError, AssertionError) as error:
            check_tensors(own, tensors, needed=set(own), source=source)
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{source} cannot be converted for {self.name}: {reason}") from error

    def _fit_to(self, model: Any, side_px: int) -> None:
        try:
            with warnings.catch_warnings():  # advice to timm's authors about the speed of one interpolation
                warnings.filterwarnings("ignore", message="torch.searchsorted")
                model.set_input_size(img_size=(side_px, side_px))
        except (RuntimeError, AssertionError, ValueError, ZeroDivisionError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"Backbone {self.name!r} cannot take {side_px}-pixel inputs: {reason}") from error


class _Intermediate(nn.Module):
    """The features of one layer as a map (b, D, K, K)."""

    model: Any

    def __init__(self, model: nn.Module, index: int, *, norm: bool) -> None:
        super().__init__()
        self.model, self.index, self.norm = model, index, norm

    def forward(self, pixels: Tensor) -> Tensor:
        features: list[Tensor] = self.model.forward_intermediates(
            pixels, indices=[self.index], norm=self.norm, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        return features[0]


@cache
def timm_entry(rest: str) -> TimmEntry:
    """Return the entry of `timm:MODEL[.TAG][:LAYER]` by what follows the first colon.

    Raises
    ------
    UsageError
        If timm is not installed, or the model frames its inputs with a border.
    UnknownNameError
        For a model or a tag that timm does not know.
    """
    timm = import_timm()
    model, _, layer = rest.partition(":")
    architecture, _, tag = model.partition(".")
    if architecture not in timm.list_models():
        raise UnknownNameError("timm model", architecture, timm.list_models())
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and model not in tagged:
        raise UnknownNameError("timm model", model, tagged)
    published = timm.get_pretrained_cfg(model)
    data = timm.data.resolve_data_config(pretrained_cfg=published.to_dict())
    if data["crop_mode"] == "border":
        raise UsageError(f"Backbone 'timm:{model}' frames its inputs with a border, which no view here does.")
    return TimmEntry(
        name=f"timm:{architecture}",
        summary=f"timm's {architecture}",
        kinds=("rgb", "flow"),
        layers={},
        default_layer=layer,
        crop_px=min(data["input_size"][1:]),
        model=model,
        hub_file=HubFile.of(published, name=f"timm:{model}"),
        rules=Preprocessing(order="RGB", divisor=255.0, mean=tuple(data["mean"]), std=tuple(data["std"])),
        crop_share=data["crop_pct"],
        squash=data["crop_mode"] == "squash",
        resampled=published.fixed_input_size,
    )


def fetch_timm(name: str) -> Path:
    """Download the published weights of `timm:MODEL[.TAG]`, or those of a repository of the hub, ORG/NAME.

    Raises
    ------
    UsageError, UnknownNameError
        See `timm_entry`.
    WeightsError
        Without a network, or if nothing is published.
    """
    if not name.startswith("timm:"):
        return HubFile.in_repository(name).fetch()
    entry = timm_entry(name.split(":")[1])
    if entry.hub_file is None:
        raise WeightsError(f"timm publishes no weights of {entry.model}; give a file with --weights PATH.")
    return entry.hub_file.fetch()


def import_timm() -> ModuleType:
    """Import timm.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        import timm
        import timm.data
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise UsageError(
            "Backbones timm:MODEL need timm, which is not installed: pip install 'vidatt[timm]'."
        ) from None
    return timm
