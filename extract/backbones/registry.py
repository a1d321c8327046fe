"""The frozen networks and descriptors by name, and the one factory that makes them ready for extraction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ...errors import UnknownNameError, UsageError
from ...registry import Registry
from ..kinds import KINDS, find_kind
from ..windows import StreamKind
from .backbone import Backbone, measure, working_precision
from .c3d import FC_CROP_PX, LAYERS, C3dEntry
from .entry import BackboneEntry, BuiltNetwork, Choices, DescriptorEntry
from .forms import VECTOR
from .hof import Hof
from .hog import Hog
from .hog3d import Hog3d
from .networks import TorchvisionEntry, torchvision_entry
from .timm_networks import fetch_timm, timm_entry
from .weights import fetch

_VGG16 = {
    "pool3": "features.16",
    "pool4": "features.23",
    "conv5_3": "features.29",  # after its ReLU
    "pool5": "features.30",
    "fc6": "classifier.1",  # after its ReLU: Caffe's is in place, "fc6" has always been read behind it
}
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_UNCUT = "171x128"  # C3D's and the video ResNets' frames, whatever their aspect was

FAMILIES: Registry[Callable[[str], BackboneEntry]] = Registry("family of backbones")
"""What stands before the first colon of a name -> entry by what follows it."""
FAMILIES["torchvision"] = torchvision_entry
FAMILIES["timm"] = timm_entry

BACKBONES: Registry[BackboneEntry] = Registry("backbone", hints=("torchvision:MODEL:NODE", "timm:MODEL:LAYER"))
"""The one registry of backbones; extended with `register`."""


def register(entry: BackboneEntry) -> None:
    """Add a backbone under its own name.

    Raises
    ------
    UsageError
        If the name is taken, or has the form of a family's.
    """
    if ":" in entry.name:
        raise UsageError(f"Backbone {entry.name!r}: names with a colon belong to families ({', '.join(FAMILIES)}).")
    BACKBONES[entry.name] = entry


register(
    TorchvisionEntry(
        name="vgg16",
        summary="VGG-16 (Simonyan and Zisserman 2015): the frame and flow streams of STAN",
        kinds=("rgb", "flow"),
        layers=_VGG16,
        default_layer="pool5",
        network="vgg16",
        forms={"fc6": VECTOR},
    )
)
for _name in _RESNETS:
    register(
        TorchvisionEntry(
            name=_name,
            summary=f"ResNet-{_name[6:]} (He et al. 2016), last convolutional stage after its ReLU",
            kinds=("rgb", "flow"),
            layers={"conv5": "layer4"},
            default_layer="conv5",
            network=_name,
        )
    )
register(
    C3dEntry(
        name="c3d",
        summary="C3D (Tran et al. 2015): the clip stream of STAN; 7x7 at 224 pixels, conv5b also at 112",
        kinds=("clip",),
        layers=LAYERS,
        default_layer="pool5",
        network="c3d",
        layer_crops={"fc6": FC_CROP_PX},
        resizes={FC_CROP_PX: _UNCUT},
        forms={"fc6": VECTOR},
    )
)
register(
    DescriptorEntry(
        name="hog",
        summary="histograms of oriented gradients on a 7x7 grid (Dalal and Triggs 2005); needs no weights",
        kinds=("rgb",),
        make=lambda choices: Hog(),
    )
)
register(
    DescriptorEntry(
        name="hof",
        summary="histograms of optical flow on a 7x7 grid (Laptev et al. 2008); needs no weights",
        kinds=("flow",),
        make=lambda choices: Hof(bound_px=choices.flow_bound_px),
    )
)
register(
    DescriptorEntry(
        name="hog3d",
        summary="histograms of space-time gradients on a 7x7 grid (after Klaeser et al. 2008); needs no weights",
        kinds=("clip",),
        make=lambda choices: Hog3d(),
    )
)


def backbone_names(kind: str | None = None) -> list[str]:
    """Return the registered names (of one kind), sorted; names of FAMILIES work beside them."""
    return [name for name in BACKBONES.names() if kind is None or kind in BACKBONES[name].kinds]


def backbone_entry(name: str, kind: str | None = None) -> BackboneEntry:
    """Look a backbone up; `torchvision:MODEL[:NODE]` and `timm:MODEL[:LAYER]` stand for any model of theirs.

    Raises
    ------
    UnknownNameError
        With the nearest known name.
    UsageError
        If `kind` is given and the backbone does not take it; lists those that do.
    """
    family, _, rest = name.partition(":")
    entry = FAMILIES[family](rest) if rest and family in FAMILIES else BACKBONES[name]
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("kind of stream", kind, KINDS)
    if kind is not None and kind not in entry.kinds:
        model = "a video MODEL" if kind == "clip" else "an image MODEL"
        timm = "" if kind == "clip" else ", or timm:MODEL"
        raise UsageError(
            f"Backbone {name!r} works on {' and '.join(entry.kinds)}, not on {kind}; for {kind} there are "
            f"{', '.join(backbone_names(kind))}, and torchvision:MODEL:NODE with {model}{timm}."
        )
    return entry


def fetch_weights(name: str) -> Path:
    """Download one weights file, unless it is there.

    Parameters
    ----------
    name : a registered name (`vidatt weights list`), whose digest is checked; `timm:MODEL[.TAG]`; or a repository of
        the hub, ORG/NAME

    Raises
    ------
    UnknownNameError, UsageError, WeightsError
    """
    return fetch_timm(name) if "/" in name or name.startswith("timm:") else fetch(name)


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
    pool: int | None = None,
) -> Backbone:
    """Build a backbone, load its weights, cut it at a layer and freeze it.

    Parameters
    ----------
    name : registered name, torchvision:MODEL[:NODE], or timm:MODEL[.TAG][:LAYER]
    kind : what a segment is, of KINDS
    layer : public layer name, any node name of torchvision's feature extraction, or a module that timm gives features
        of; None = the entry's default
    weights : see `resolve_weights` and `timm_networks`; descriptors have none and ignore it
    preprocessing : name; None = what belongs to the weights; descriptors ignore it
    crop_px : side of the square input; None = the layer's own
    seed : of random weights
    flow_bound_px : velocity that the extreme levels of quantised flow stand for
    flow_rescale : scale a first convolution converted from RGB to flow by 3 / channels
    pool : average grids down to this side; None leaves them, and the recipe says nothing of it

    Raises
    ------
    UsageError, WeightsError, UnknownNameError
    """
    kind = find_kind(kind)
    entry = backbone_entry(name, kind.seen_as)
    device = torch.device(device)
    layer = layer or entry.default_layer
    choices = Choices(
        kind=kind, layer=layer, weights=weights, preprocessing=preprocessing,
        side_px=crop_px or entry.default_crop_px(layer), dtype=working_precision(precision, device),
        seed=seed, flow_bound_px=flow_bound_px, flow_rescale=flow_rescale,
    )  # fmt: skip
    backbone = _frozen(entry, entry.build(choices), choices, pool).to(device)
    measure(backbone, device)
    if pool is not None:
        backbone.recipe["pool"] = pool
    return backbone


def layer_cubes(name: str, *, crop_px: int | None = None) -> dict[str, tuple[int, int, int]]:
    """Return (K, K, D) of each layer that a backbone can be cut at: the public ones, then the network's places.

    Of torchvision's networks a stage can be named that is no node itself: it is cut behind its last node, and stands
    there. No weights are read. Flow gives the same shapes as frames.

    Parameters
    ----------
    crop_px : side of the input; None = the backbone's own, and that of layers that take no other

    Raises
    ------
    UnknownNameError
        With the nearest known name.
    UsageError
        If the network cannot take inputs of this side.
    """
    entry = backbone_entry(name)
    kind = entry.kinds[0]
    nodes = dict(entry.cubes_of_nodes(find_kind(kind), crop_px or entry.crop_px))
    layers = {layer: nodes[node] for layer, node in entry.layers.items() if node in nodes}
    for layer in entry.layers:
        if layer not in layers:
            own = entry.layer_crops.get(layer, crop_px)
            built = build_backbone(name, kind=kind, layer=layer, weights="random", precision="float32", crop_px=own)
            layers[layer] = built.cube_shape
    return {layer: layers[layer] for layer in entry.layers} | nodes


def _frozen(entry: BackboneEntry, built: BuiltNetwork, choices: Choices, pool: int | None) -> Backbone:
    dtype = torch.float32
    if built.preprocessing is not None:
        dtype = choices.dtype
        built.net.to(dtype=dtype).to(memory_format=getattr(torch, choices.kind.memory_format))
    backbone = Backbone(
        built.net, built.preprocessing, dtype, kind=choices.kind, crop_px=choices.side_px,
        resize=entry.resize_for(choices.side_px), form=built.form, pool=pool,
    )  # fmt: skip
    backbone.requires_grad_(False).eval()
    backbone.recipe = {
        "backbone": entry.name,
        "layer": built.layer,
        **built.recipe,
        "precision": str(dtype).removeprefix("torch."),
    }
    return backbone
