"""The frozen networks and descriptors by name, and the one factory that makes them ready for extraction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn

from ...errors import UnknownNameError, UsageError
from ..kinds import KINDS, find_kind
from ..windows import StreamKind
from .backbone import Backbone, measure, working_precision
from .c3d import FC_CROP_PX, LAYERS, build_c3d
from .hof import Hof
from .hog import Hog
from .hog3d import Hog3d
from .networks import build_network
from .weights import resolve_weights


@dataclass(frozen=True, kw_only=True)
class BackboneEntry:
    """What the registry knows of a backbone before it is built."""

    name: str
    summary: str
    kinds: tuple[str, ...]  # that it takes, and those that are seen as one of them
    layers: Mapping[str, str]  # public layer name -> node of torchvision's feature extraction
    default_layer: str
    network: str | None = None  # whose weights it takes, torchvision's name or c3d; None: a descriptor without any
    crop_px: int = 224
    layer_crops: Mapping[str, int] = field(default_factory=dict)  # of layers that take no other side
    resize: str = "short:256"
    resizes: Mapping[int, str] = field(default_factory=dict)  # by side of the crop, where it is not `resize`

    def default_crop_px(self, layer: str | None = None) -> int:
        """Return the side of the input that a layer takes unless told otherwise."""
        return self.layer_crops.get(layer or self.default_layer, self.crop_px)

    def resize_for(self, crop_px: int) -> str:
        """Return how frames are resized before a crop of this side, unless told otherwise."""
        return self.resizes.get(crop_px, self.resize)


_VGG16 = {
    "pool3": "features.16",
    "pool4": "features.23",
    "conv5_3": "features.29",  # after its ReLU
    "pool5": "features.30",
    "fc6": "classifier.1",  # after its ReLU: Caffe's is in place, "fc6" has always been read behind it
}
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_DESCRIPTORS = ("hog", "hof", "hog3d")
_UNCUT = "171x128"  # C3D's and the video ResNets' frames, whatever their aspect was

BACKBONES: dict[str, BackboneEntry] = {
    "vgg16": BackboneEntry(
        name="vgg16",
        summary="VGG-16 (Simonyan and Zisserman 2015): the frame and flow streams of STAN",
        kinds=("rgb", "flow"),
        layers=_VGG16,
        default_layer="pool5",
        network="vgg16",
    ),
    **{
        name: BackboneEntry(
            name=name,
            summary=f"ResNet-{name[6:]} (He et al. 2016), last convolutional stage after its ReLU",
            kinds=("rgb", "flow"),
            layers={"conv5": "layer4"},
            default_layer="conv5",
            network=name,
        )
        for name in _RESNETS
    },
    "c3d": BackboneEntry(
        name="c3d",
        summary="C3D (Tran et al. 2015): the clip stream of STAN; 7x7 at 224 pixels, conv5b also at 112",
        kinds=("clip",),
        layers=LAYERS,
        default_layer="pool5",
        network="c3d",
        layer_crops={"fc6": FC_CROP_PX},
        resizes={FC_CROP_PX: _UNCUT},
    ),
    "hog": BackboneEntry(
        name="hog",
        summary="histograms of oriented gradients on a 7x7 grid (Dalal and Triggs 2005); needs no weights",
        kinds=("rgb",),
        layers={"blocks": ""},
        default_layer="blocks",
    ),
    "hof": BackboneEntry(
        name="hof",
        summary="histograms of optical flow on a 7x7 grid (Laptev et al. 2008); needs no weights",
        kinds=("flow",),
        layers={"blocks": ""},
        default_layer="blocks",
    ),
    "hog3d": BackboneEntry(
        name="hog3d",
        summary="histograms of space-time gradients on a 7x7 grid (after Klaeser et al. 2008); needs no weights",
        kinds=("clip",),
        layers={"blocks": ""},
        default_layer="blocks",
    ),
}


def backbone_names(kind: str | None = None) -> list[str]:
    """Return the registered names (of one kind), sorted; `torchvision:MODEL:NODE` works beside them for every kind."""
    return sorted(name for name, entry in BACKBONES.items() if kind is None or kind in entry.kinds)


def backbone_entry(name: str, kind: str | None = None) -> BackboneEntry:
    """Look a backbone up; `torchvision:MODEL[:NODE]` stands for any torchvision model cut at any node.

    Raises
    ------
    UnknownNameError
        With the nearest known name.
    UsageError
        If `kind` is given and the backbone does not take it; lists those that do.
    """
    entry = BACKBONES[name] if name in BACKBONES else _torchvision_entry(name)
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("kind of stream", kind, KINDS)
    if kind is not None and kind not in entry.kinds:
        model = "a video MODEL" if kind == "clip" else "an image MODEL"
        raise UsageError(
            f"Backbone {name!r} works on {' and '.join(entry.kinds)}, not on {kind}; for {kind} there are "
            f"{', '.join(backbone_names(kind))}, and torchvision:MODEL:NODE with {model}."
        )
    return entry


@cache
def _torchvision_entry(name: str) -> BackboneEntry:
    family, _, rest = name.partition(":")
    if family != "torchvision" or not rest:
        raise UnknownNameError("backbone", name, [*BACKBONES, "torchvision:MODEL:NODE"])
    from torchvision.models import get_model_weights, list_models, video

    network, _, node = rest.partition(":")
    if network not in list_models():
        raise UnknownNameError("torchvision model", network, list_models())
    kinds: tuple[str, ...] = ("rgb", "flow")
    crop_px, resizes = 224, {}
    if network in list_models(module=video):
        published = get_model_weights(network).DEFAULT.transforms()
        kinds, crop_px = ("clip",), published.crop_size[0]
        if len(published.resize_size) == 2:  # height and width; one number: the short side
            resizes = {crop_px: f"{published.resize_size[1]}x{published.resize_size[0]}"}
    return BackboneEntry(
        name=f"torchvision:{network}",
        summary=f"torchvision's {network}",
        kinds=kinds,
        layers={node: node} if node else {},
        default_layer=node,
        network=network,
        crop_px=crop_px,
        resizes=resizes,
    )


def build_backbone(
    name: str,
    *,
    kind: str | StreamKind = "rgb",
    layer: str | None = None,
    weights: str = "default",
    preprocessing: str | None = None,
    precision: str = "auto",
    crop_px: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    flow_bound_px: float = 20.0,
    flow_rescale: bool = False,
) -> Backbone:
    """Build a backbone, load its weights, cut it at a layer and freeze it.

    Parameters
    ----------
    name : registered name, or torchvision:MODEL:NODE
    kind : what a segment is, of KINDS
    layer : public layer name, or any node name of torchvision's feature extraction; None = the entry's default
    weights : see `resolve_weights`; descriptors have none and ignore it
    preprocessing : name; None = what belongs to the weights; descriptors ignore it
    crop_px : side of the square input; None = the layer's own
    seed : of random weights
    flow_bound_px : velocity that the extreme levels of quantised flow stand for
    flow_rescale : scale a first convolution converted from RGB to flow by 3 / channels

    Raises
    ------
    UsageError, WeightsError, UnknownNameError
    """
    kind = find_kind(kind)
    entry = backbone_entry(name, kind.seen_as)
    device = torch.device(device)
    layer = layer or entry.default_layer
    side = crop_px or entry.default_crop_px(layer)
    recipe: dict[str, Any] = {"backbone": entry.name, "layer": layer}
    net: nn.Module
    rules, dtype = None, torch.float32
    if (entry.name in _DESCRIPTORS or entry.network == "c3d") and layer not in entry.layers:
        raise UnknownNameError(f"layer of {entry.name}", layer, entry.layers)
    if entry.network is None:
        net = _descriptor(entry.name, flow_bound_px)
        recipe |= getattr(net, "settings", {})
    else:
        dtype = working_precision(precision, device)
        loaded = resolve_weights(
            weights, network=entry.network, kind=kind.seen_as, seed=seed, preprocessing=preprocessing
        )
        rules = loaded.preprocessing
        if entry.network == "c3d":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                net = build_c3d(layer, side_px=side, tensors=loaded.tensors, source=str(loaded.recipe["name"]))
            recipe["weights"] = loaded.recipe
            if layer == "conv5b":
                recipe["time_pooling"] = "max"
        else:
            net, recipe["layer"], recipe["weights"] = build_network(
                entry.network, title=entry.name, layers=entry.layers, layer=layer, loaded=loaded, seed=seed,
                flow_channels=kind.channels if kind.displacement else None, flow_rescale=flow_rescale,
            )  # fmt: skip
        recipe["preprocessing"] = rules.to_dict()
        net.to(dtype=dtype).to(memory_format=getattr(torch, kind.memory_format))
    recipe["precision"] = str(dtype).removeprefix("torch.")
    backbone = Backbone(net, rules, dtype, kind=kind, crop_px=side, resize=entry.resize_for(side))
    backbone.requires_grad_(False).eval().to(device)
    backbone.recipe = recipe
    measure(backbone, device)
    return backbone


def _descriptor(name: str, flow_bound_px: float) -> nn.Module:
    if name == "hof":
        return Hof(bound_px=flow_bound_px)
    return Hog() if name == "hog" else Hog3d()
