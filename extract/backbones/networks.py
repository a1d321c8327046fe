"""torchvision's networks cut at a node, and what turns an image network into one for optical flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UnknownNameError, UsageError, WeightsError
from ..windows import StreamKind
from .entry import BackboneEntry, BuiltNetwork, Choices
from .families import family_of
from .forms import to_cubes
from .weights import load_into, resolve_weights


@dataclass(frozen=True, kw_only=True)
class TorchvisionEntry(BackboneEntry):
    """One of torchvision's networks; beside its public layers it can be cut at any node of its feature extraction."""

    def build(self, choices: Choices) -> BuiltNetwork:
        """Build the network, load it and cut it; an image network takes flow by `flow_channels` first inputs.

        Raises
        ------
        UsageError
            If no layer is given and the architecture names none, or flow is wanted of a network that does not begin
            with a convolution over RGB.
        UnknownNameError
            For a node that the network does not have.
        WeightsError
        """
        network = str(self.network)
        family = family_of(network)
        node = self.layers.get(choices.layer, choices.layer) or family.node
        if not node:
            raise UsageError(f"Backbone {self.name!r} needs a layer: write {self.name}:NODE or --layer NODE.")
        loaded = resolve_weights(
            choices.weights,
            network=network,
            kind=choices.kind.seen_as,
            seed=choices.seed,
            preprocessing=choices.preprocessing,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(choices.seed)
            model = self._model(choices.side_px)
        tensors, recipe = loaded.tensors, dict(loaded.recipe)
        if choices.first_channels is not None:
            tensors, recipe["conv1"] = to_flow(model, first_conv(model, self.name), tensors, choices, recipe["name"])
        cut = self._cut(model, node, choices.layer)
        if tensors is not None:
            # the cut shares its modules with the network, so loading into the whole loads into the cut
            load_into(model, tensors, needed=set(cut.state_dict()), source=str(recipe["name"]))
        form = self.forms.get(choices.layer, family.form_of(node))
        facts = {"weights": recipe, "preprocessing": loaded.preprocessing.to_dict()}
        return BuiltNetwork(_Single(cut), choices.layer or node, form, facts, loaded.preprocessing)

    def cubes_of_nodes(self, kind: StreamKind, side_px: int) -> Mapping[str, tuple[int, int, int]]:
        """Return (K, K, D) of every node and stage that gives a square grid or a vector, in the network's order.

        Raises
        ------
        UsageError
            If the network cannot take inputs of this side.
        """
        from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

        with torch.device("meta"):  # shapes only
            model = self._model(side_px).eval()
            nodes = get_graph_node_names(model, suppress_diff_warning=True)[1]
            inputs = torch.zeros(1, *kind.input_shape(side_px)).movedim(-1, 1)
            try:
                outputs = create_feature_extractor(model, nodes, suppress_diff_warning=True)(inputs)
            except (RuntimeError, AssertionError) as error:
                reason = str(error).splitlines()[0]
                raise UsageError(f"Backbone {self.name!r} cannot take {side_px}-pixel inputs: {reason}") from error
        family = family_of(str(self.network))
        forms = {node: self.forms[layer] for layer, node in self.layers.items() if layer in self.forms}
        shapes: dict[str, tuple[int, int, int]] = {}
        behind = {node.partition(".")[0]: node for node in nodes if "." in node}  # a stage is cut at its last node
        for node, output in list(outputs.items())[1:]:  # the first is the input
            cubes = to_cubes(output, forms.get(node, family.form_of(node))) if isinstance(output, Tensor) else None
            if cubes is None or len(cubes) != 1 or cubes.shape[1] != cubes.shape[2]:
                continue
            shapes[node] = (cubes.shape[1], cubes.shape[2], cubes.shape[3])
            stage = node.partition(".")[0]
            if behind.get(stage) == node:
                shapes[stage] = shapes[node]
        return shapes

    def _model(self, side_px: int) -> nn.Module:
        from torchvision.models import get_model

        family = family_of(str(self.network))
        size = {"image_size": side_px} if family.takes_size else {}
        try:
            return get_model(str(self.network), weights=None, **family.settings, **size)
        except (ValueError, AssertionError) as error:  # of a vision transformer whose patches do not fit the side
            raise UsageError(f"Backbone {self.name!r} cannot take {side_px}-pixel inputs: {error}") from error

    def _cut(self, model: nn.Module, node: str, layer: str) -> nn.Module:
        from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

        try:
            return create_feature_extractor(model.eval(), {node: "cube"}, suppress_diff_warning=True)
        except ValueError as error:
            nodes = [*self.layers, *get_graph_node_names(model, suppress_diff_warning=True)[1]]
            raise UnknownNameError(f"layer of {self.name}", layer, nodes) from error


@cache
def torchvision_entry(rest: str) -> TorchvisionEntry:
    """Return the entry of `torchvision:MODEL[:NODE]` by what follows the first colon.

    Raises
    ------
    UnknownNameError
    """
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
    return TorchvisionEntry(
        name=f"torchvision:{network}",
        summary=f"torchvision's {network}",
        kinds=kinds,
        layers={},
        default_layer=node,
        network=network,
        crop_px=crop_px,
        resizes=resizes,
    )


def first_conv(model: nn.Module, title: str) -> str:
    """Return the name of a network's first convolution, which is one over RGB.

    Raises
    ------
    UsageError
        If it does not begin with one.
    """
    for name, module in model.named_modules():  # in the order of use
        if isinstance(module, nn.Conv2d):
            if module.in_channels != 3 or module.groups != 1:
                break
            return name
    raise UsageError(f"Backbone {title!r} does not begin with a convolution over RGB and cannot be turned to flow.")


def to_flow(
    model: nn.Module, name: str, tensors: Mapping[str, Tensor] | None, choices: Choices, source: str
) -> tuple[dict[str, Tensor] | None, str]:
    """Give a network's convolution `name` the flow's channels, and fit a file's tensors to it; see `flow_tensors`.

    Returns
    -------
    The tensors, None if there are none, and where the convolution comes from

    Raises
    ------
    WeightsError
    """
    channels, rescale = choices.kind.channels, choices.flow_rescale
    origin, converted = _origin(rescale, channels), None
    if tensors is not None:
        converted, origin = flow_tensors(tensors, f"{name}.weight", channels=channels, rescale=rescale, source=source)
    conv: Any = model.get_submodule(name)
    conv.weight = nn.Parameter(cross_modality(conv.weight.detach(), channels, rescale=rescale))
    conv.in_channels = channels
    return converted, origin


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


class _Single(nn.Module):
    """Unwraps the one entry of torchvision's feature dictionary."""

    def __init__(self, cut: nn.Module) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, pixels: Tensor) -> Tensor:
        output: Tensor = self.cut(pixels)["cube"]
        return output
