"""torchvision's networks cut at a node, and what turns an image network into one for optical flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UnknownNameError, UsageError, WeightsError
from .weights import LoadedWeights, load_into


def build_network(
    network: str, *, title: str, layers: Mapping[str, str], layer: str, loaded: LoadedWeights, seed: int,
    flow_channels: int | None, flow_rescale: bool,
) -> tuple[nn.Module, str, dict[str, Any]]:  # fmt: skip
    """Build one of torchvision's networks, load it and cut it.

    Parameters
    ----------
    network, title : torchvision's name, and the name to use in messages
    layers : public layer names -> nodes; other names are taken as nodes
    layer : empty for the whole convolutional part, where the network names one
    flow_channels : give the first convolution this many inputs; None leaves its three

    Returns
    -------
    The cut network, the layer's name, and the weights' recipe

    Raises
    ------
    UsageError, WeightsError
    """
    from torchvision.models import get_model
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_model(network, weights=None, **_constructor_settings(network))
    tensors, recipe = loaded.tensors, dict(loaded.recipe)
    source = str(recipe["name"])
    if flow_channels is not None:
        name, conv = _first_conv(model, title)
        if tensors is not None:
            tensors, recipe["conv1"] = flow_tensors(
                tensors, f"{name}.weight", channels=flow_channels, rescale=flow_rescale, source=source
            )
        else:
            recipe["conv1"] = _origin(flow_rescale, flow_channels)
        conv.weight = nn.Parameter(cross_modality(conv.weight.detach(), flow_channels, rescale=flow_rescale))
        conv.in_channels = flow_channels
    node = layers.get(layer, layer)
    if not node:  # torchvision:MODEL alone
        parts = [name for name in ("features", "layer4") if hasattr(model, name)]
        if not parts:
            raise UsageError(f"Backbone {title!r} needs a layer: write {title}:NODE or --layer NODE.")
        node = parts[0]
    try:
        cut = create_feature_extractor(model.eval(), {node: "cube"}, suppress_diff_warning=True)
    except ValueError as error:
        nodes = [*layers, *get_graph_node_names(model, suppress_diff_warning=True)[1]]
        raise UnknownNameError(f"layer of {title}", layer, nodes) from error
    if tensors is not None:
        # the cut shares its modules with the network, so loading into the whole loads into the cut
        load_into(model, tensors, needed=set(cut.state_dict()), source=source)
    return _Single(cut), layer or node, recipe


def cross_modality(weight: Tensor, channels: int, *, rescale: bool = False) -> Tensor:
    """Turn a first convolution's RGB kernels into kernels over flow, after TSN (Wang et al. 2016).

    The mean over the three inputs is copied to every channel; the response to equal channels grows by channels / 3,
    which a batch normalisation behind it absorbs and VGG-16, which has none, does not. `rescale` takes it back.

    Parameters
    ----------
    weight : (out, 3, h, w)

    Returns
    -------
    (out, channels, h, w), same dtype
    """
    mean = weight.double().mean(1, keepdim=True) * (3 / channels if rescale else 1.0)
    return mean.to(weight.dtype).repeat(1, channels, 1, 1)


def flow_tensors(
    tensors: Mapping[str, Tensor], key: str, *, channels: int, rescale: bool, source: str
) -> tuple[dict[str, Tensor], str]:
    """Fit the first convolution of a weights file to flow; weights that were trained on flow are taken as they are.

    Returns
    -------
    The tensors, and where the convolution comes from: "flow" or "cross-modality"

    Raises
    ------
    WeightsError
        If the file has other channels than the stream's or RGB's.
    """
    given = tensors.get(key)
    if given is None or given.dim() != 4:
        raise WeightsError(f"{source}: the first convolution {key!r} is missing or misshapen.")
    if given.shape[1] == channels:
        if rescale:
            raise WeightsError(f"{source} was trained on flow: there is nothing to rescale, leave --flow-rescale out.")
        return dict(tensors), "flow"
    if given.shape[1] != 3:
        raise WeightsError(
            f"{source}: {key!r} takes {given.shape[1]} channels; the flow stream gives {channels} ({channels // 2} "
            "fields, x and y). Give weights for that many, or RGB weights, which are converted."
        )
    return {**tensors, key: cross_modality(given, channels, rescale=rescale)}, _origin(rescale, channels)


def _origin(rescale: bool, channels: int) -> str:
    return f"cross-modality, times 3 / {channels}" if rescale else "cross-modality"


def _first_conv(model: nn.Module, title: str) -> tuple[str, nn.Conv2d]:
    for name, module in model.named_modules():  # torchvision names modules in the order of use
        if isinstance(module, nn.Conv2d):
            if module.in_channels != 3 or module.groups != 1:
                break
            return name, module
    raise UsageError(f"Backbone {title!r} does not begin with a convolution over RGB and cannot be turned to flow.")


def _constructor_settings(network: str) -> dict[str, Any]:
    # GoogLeNet and Inception warn and spend minutes on a truncated-normal draw unless told what to do
    return {"init_weights": True, "aux_logits": True} if network in ("googlenet", "inception_v3") else {}


class _Single(nn.Module):
    """Unwraps the one entry of torchvision's feature dictionary."""

    def __init__(self, cut: nn.Module) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, pixels: Tensor) -> Tensor:
        output: Tensor = self.cut(pixels)["cube"]
        return output
