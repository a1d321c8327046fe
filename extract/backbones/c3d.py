"""C3D (Tran et al. 2015): the clip stream of STAN, and the three public layouts of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UsageError, WeightsError
from .entry import BackboneEntry, BuiltNetwork, Choices
from .weights import check_tensors, resolve_weights

CONVS = ("conv1", "conv2", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b")
LINEARS = ("fc6", "fc7", "fc8")
WIDTHS = (64, 128, 256, 256, 512, 512, 512, 512)
HIDDEN = 4096
POOLED = {"conv1": "pool1", "conv2": "pool2", "conv3b": "pool3", "conv4b": "pool4", "conv5b": "pool5"}
LAYERS = {"conv5b": "max over its two time steps", "pool5": "", "fc6": "after its ReLU, 112-pixel clips only"}
"""Public layer names, with what is to be said of them."""
FC_CROP_PX = 112
_FC_CELLS = 4 * 4  # of pool5 at 112 pixels

LAYOUTS: dict[str, dict[str, str]] = {
    "c3d-pytorch": {name: name for name in CONVS + LINEARS},
    "torch-sequential": {
        **{f"features.{i}": name for i, name in zip((0, 3, 6, 8, 11, 13, 16, 18), CONVS, strict=True)},
        **{f"classifier.{i}": name for i, name in zip((0, 3, 6), LINEARS, strict=True)},
    },
    "mmaction2": {
        **{f"{name + 'a' if name in ('conv1', 'conv2') else name}.conv": name for name in CONVS},
        "fc6": "fc6",
        "fc7": "fc7",
        "cls_head.fc_cls": "fc8",
    },
}
"""Module names of public weights files -> names here: DavideA's, jfzhang95's, mmaction2's."""


class C3D(nn.Module):
    """The network up to one layer; 16 frames become 2 time steps at conv5b and 1 at pool5.

    Pooling rounds its output size up and pads nothing, as Caffe's does: 7 cells become 4 with windows {0, 1}, {2, 3},
    {4, 5}, {6}. Ports that pad pool5 instead hand other cells to fc6 than those it was trained on, and give 8x8 rather
    than 7x7 at 224 pixels.

    Parameters
    ----------
    layer : one of LAYERS, or `fc8` for the whole network
    classes : of fc8
    """

    def __init__(
        self, layer: str = "pool5", *, widths: Sequence[int] = WIDTHS, hidden: int = HIDDEN, classes: int = 487
    ) -> None:
        super().__init__()
        self.layer = layer
        for name, inputs, outputs in zip(CONVS, (3, *widths), widths, strict=False):
            self.add_module(name, nn.Conv3d(inputs, outputs, kernel_size=3, padding=1))
        sizes = (widths[-1] * _FC_CELLS, hidden, hidden, classes)
        for i, name in enumerate(LINEARS[: LINEARS.index(layer) + 1] if layer in LINEARS else ()):
            self.add_module(name, nn.Linear(sizes[i], sizes[i + 1]))
        self.pool1 = nn.MaxPool3d((1, 2, 2), ceil_mode=True)
        self.pool2 = self.pool3 = self.pool4 = self.pool5 = nn.MaxPool3d(2, ceil_mode=True)
        for name, parameter in self.named_parameters():  # PyTorch's own start would fade out over eleven layers
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")

    def forward(self, clips: Tensor) -> Tensor:
        """(b, 3, 16, S, S) -> (b, 512, K, K), or (b, 4096) for a linear layer."""
        x = clips
        for name in CONVS:
            x = self.get_submodule(name)(x).relu()
            if name == self.layer:
                return x.amax(2)
            if name in POOLED:
                x = self.get_submodule(POOLED[name])(x)
        if self.layer == "pool5":
            return x.squeeze(2)
        x = x.flatten(1)  # in the order C, T, y, x
        for name in LINEARS:
            x = self.get_submodule(name)(x)
            if name == LINEARS[-1]:
                return x
            x = x.relu()
            if name == self.layer:
                return x
        raise ValueError(f"C3D has no layer {self.layer!r}")


@dataclass(frozen=True, kw_only=True)
class C3dEntry(BackboneEntry):
    """C3D, cut at one of LAYERS and nowhere else."""

    def build(self, choices: Choices) -> BuiltNetwork:
        """Build the network up to the layer and load it.

        Raises
        ------
        UnknownNameError
            For another layer than those of LAYERS.
        UsageError, WeightsError
            See `build_c3d`.
        """
        layer = self.known_layer(choices.layer)
        loaded = resolve_weights(
            choices.weights,
            network="c3d",
            kind=choices.kind.seen_as,
            seed=choices.seed,
            preprocessing=choices.preprocessing,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(choices.seed)
            net = build_c3d(layer, side_px=choices.side_px, tensors=loaded.tensors, source=str(loaded.recipe["name"]))
        facts: dict[str, Any] = {"weights": loaded.recipe}
        if layer == "conv5b":
            facts["time_pooling"] = "max"
        facts["preprocessing"] = loaded.preprocessing.to_dict()
        return BuiltNetwork(net, layer, self.form_of(layer), facts, loaded.preprocessing)


def build_c3d(layer: str, *, side_px: int, tensors: Mapping[str, Tensor] | None, source: str) -> C3D:
    """Build the network up to a layer and load it; None leaves it at its random start.

    Raises
    ------
    UsageError
        For fc6 on anything but 112 pixels.
    WeightsError
        For a file with surplus, missing or misshapen tensors, by name; fc7 and fc8 are checked and left aside.
    """
    if layer == "fc6" and side_px != FC_CROP_PX:
        raise UsageError(
            f"Layer 'fc6' of c3d takes the 4x4 cells of {FC_CROP_PX}-pixel clips, not {side_px} pixels; "
            f"use --crop {FC_CROP_PX}, or the layer pool5."
        )
    network = C3D(layer)
    if tensors is not None:
        own = network.state_dict()
        renamed = convert(tensors, source=source)
        classes = len(renamed["fc8.bias"]) if "fc8.bias" in renamed else 1
        with torch.device("meta"):
            whole = C3D("fc8", classes=classes).state_dict()
        check_tensors(whole, renamed, needed=set(own), source=source)
        network.load_state_dict({name: renamed[name] for name in own})
    return network


def convert(tensors: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Rename the tensors of any of LAYOUTS to the names here; the layout is the one that knows most of them.

    Raises
    ------
    WeightsError
        Naming the first tensors that the layout does not know, or two that would become one.
    """
    given = {name.removeprefix("backbone."): name for name in tensors}
    modules = [name.rpartition(".")[0] for name in given]
    layout = max(LAYOUTS.values(), key=lambda known: sum(module in known for module in modules))
    foreign = [given[name] for name, module in zip(given, modules, strict=True) if module not in layout]
    if foreign or len(given) != len(tensors):
        words = foreign[:3] or "the same names with and without 'backbone.'"
        raise WeightsError(f"{source}: tensors have no place in C3D, such as {words}.")
    renamed = {}
    for name, original in given.items():
        module, _, parameter = name.rpartition(".")
        renamed[f"{layout[module]}.{parameter}"] = tensors[original]
    return renamed
