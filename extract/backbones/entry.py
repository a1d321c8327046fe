"""What the registry knows of a backbone before it is built, and what building one takes and makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ...errors import UnknownNameError
from ..windows import StreamKind
from .forms import MAP, OutputForm
from .preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user chose of a backbone, defaults of the entry filled in."""

    kind: StreamKind
    layer: str  # empty: the last one with a grid, where the network knows it only when it is built
    weights: str
    preprocessing: str | None  # None: what belongs to the weights
    side_px: int
    dtype: torch.dtype  # working precision of networks
    seed: int  # of random weights
    flow_bound_px: float
    flow_rescale: bool

    @property
    def first_channels(self) -> int | None:
        """Inputs that the first convolution of an image network must get; None: its own three."""
        return self.kind.channels if self.kind.displacement else None


@dataclass(frozen=True, eq=False)
class BuiltNetwork:
    """A network that is loaded and cut at its layer, and not yet frozen."""

    net: nn.Module
    layer: str
    form: OutputForm  # of what `net` returns
    recipe: dict[str, Any]  # what a fingerprint says beside name, layer and precision
    preprocessing: Preprocessing | None = None  # None: it takes bytes as they are and works in float32


@dataclass(frozen=True, kw_only=True)
class BackboneEntry(ABC):
    """One backbone of the registry, or of a family of them; it builds itself."""

    name: str
    summary: str
    kinds: tuple[str, ...]  # of KINDS that it takes
    layers: Mapping[str, str]  # public layer name -> node of torchvision's feature extraction
    default_layer: str
    network: str | None = None  # whose weights it takes, torchvision's name or c3d; None: none of the registry's
    crop_px: int = 224
    layer_crops: Mapping[str, int] = field(default_factory=dict)  # of layers that take no other side
    resize: str = "short:256"
    resizes: Mapping[int, str] = field(default_factory=dict)  # by side of the crop, where it is not `resize`
    form: OutputForm = MAP  # of the layers that `forms` does not name
    forms: Mapping[str, OutputForm] = field(default_factory=dict)  # by public layer name

    def default_crop_px(self, layer: str | None = None) -> int:
        """Return the side of the input that a layer takes unless told otherwise."""
        return self.layer_crops.get(layer or self.default_layer, self.crop_px)

    def resize_for(self, crop_px: int) -> str:
        """Return how frames are resized before a crop of this side, unless told otherwise."""
        return self.resizes.get(crop_px, self.resize)

    def form_of(self, layer: str) -> OutputForm:
        """Return the declared form of a public layer's output."""
        return self.forms.get(layer, self.form)

    def known_layer(self, layer: str) -> str:
        """Return the layer if it is a public one.

        Raises
        ------
        UnknownNameError
        """
        if layer not in self.layers:
            raise UnknownNameError(f"layer of {self.name}", layer, self.layers)
        return layer

    def cubes_of_nodes(self, kind: StreamKind, side_px: int) -> Mapping[str, tuple[int, int, int]]:
        """Return (K, K, D) of each place where the network can be cut beside its public layers; none of most.

        Raises
        ------
        UsageError
            If the network cannot take inputs of this side.
        """
        return {}

    @abstractmethod
    def build(self, choices: Choices) -> BuiltNetwork:
        """Build the network, load its weights and cut it at the layer.

        Raises
        ------
        UsageError, WeightsError, UnknownNameError
        """


@dataclass(frozen=True, kw_only=True)
class DescriptorEntry(BackboneEntry):
    """A hand-made descriptor: one layer, no weights; it takes bytes."""

    make: Callable[[Choices], nn.Module] = field(repr=False)
    layers: Mapping[str, str] = field(default_factory=lambda: {"blocks": ""})
    default_layer: str = "blocks"

    def build(self, choices: Choices) -> BuiltNetwork:
        """Make the descriptor; its `settings`, where it has some, are part of the recipe."""
        net = self.make(choices)
        return BuiltNetwork(net, self.known_layer(choices.layer), self.form, dict(getattr(net, "settings", {})))
