"""Image networks turned to optical flow: cross-modality weights, flow-trained files, and values without motion at 0."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from vidatt.errors import UsageError, WeightsError
from vidatt.extract.backbones.networks import cross_modality
from vidatt.extract.backbones.preprocessing import PREPROCESSINGS
from vidatt.extract.backbones.registry import build_backbone
from vidatt.extract.backbones.weights import resolve_weights

SQUEEZENET = "torchvision:squeezenet1_1:features.12"
CONV1 = "features.0.weight"


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """The state_dict of a SqueezeNet with seeded random weights; its first convolution has a bias."""
    torch.manual_seed(5)
    network = get_model("squeezenet1_1", weights=None)
    torch.nn.init.normal_(network.features[0].bias)
    return network.state_dict()


@pytest.fixture(scope="module")
def stack() -> torch.Tensor:
    return torch.randint(0, 256, (2, 64, 64, 20), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


@pytest.mark.parametrize(("rescale", "growth"), [(False, 20 / 3), (True, 1.0)])
def test_cross_modality_sums_grow_by_two_l_over_three(rescale: bool, growth: float) -> None:
    rgb = torch.rand(64, 3, 7, 7) + 0.1
    flow = cross_modality(rgb, 20, rescale=rescale)
    assert flow.shape == (64, 20, 7, 7)
    assert torch.equal(flow, flow[:, :1].expand(-1, 20, -1, -1))
    ratio = flow.double().sum(1) / rgb.double().sum(1)
    assert torch.allclose(ratio, torch.full_like(ratio, growth), rtol=1e-6, atol=0)


@pytest.mark.parametrize("rescale", [False, True])
def test_rgb_weights_are_converted_and_the_rest_kept(tmp_path: Path, tensors: dict, rescale: bool) -> None:
    save_file(tensors, tmp_path / "rgb.safetensors")
    backbone = build_backbone(
        SQUEEZENET, kind="flow", weights=str(tmp_path / "rgb.safetensors"), precision="float32", crop_px=64,
        flow_rescale=rescale,
    )  # fmt: skip
    loaded = backbone.net.cut.state_dict()
    assert torch.equal(loaded[CONV1], cross_modality(tensors[CONV1], 20, rescale=rescale))
    assert all(torch.equal(value, tensors[name]) for name, value in loaded.items() if name != CONV1)
    assert backbone.recipe["weights"]["conv1"] == ("cross-modality, times 3 / 20" if rescale else "cross-modality")


@pytest.mark.parametrize("rules", [None, "flow-caffe"])
def test_output_equals_the_network_fed_by_hand(
    tmp_path: Path, tensors: dict, stack: torch.Tensor, rules: str | None
) -> None:
    save_file(tensors, tmp_path / "rgb.safetensors")
    backbone = build_backbone(
        SQUEEZENET, kind="flow", weights=str(tmp_path / "rgb.safetensors"), preprocessing=rules,
        precision="float32", crop_px=64,
    )  # fmt: skip
    reference = get_model("squeezenet1_1", weights=None).eval()
    reference.features[0] = torch.nn.Conv2d(20, 64, 3, stride=2)
    reference.load_state_dict(tensors | {CONV1: tensors[CONV1].mean(1, keepdim=True).expand(-1, 20, -1, -1)})
    values = stack.permute(0, 3, 1, 2).float()
    values = values - 128 if rules else (values / 255 - 0.5) / ((0.229 + 0.224 + 0.225) / 3)
    with torch.inference_mode():
        expected = reference.features(values)
        ours = backbone(stack).permute(0, 3, 1, 2)
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_weights_trained_on_flow_are_taken_as_they_are(tmp_path: Path, tensors: dict) -> None:
    own = torch.randn(64, 20, 3, 3)
    save_file(tensors | {CONV1: own}, tmp_path / "flow.safetensors")
    backbone = build_backbone(
        SQUEEZENET, kind="flow", weights=str(tmp_path / "flow.safetensors"), precision="float32", crop_px=64
    )
    assert torch.equal(backbone.net.cut.state_dict()[CONV1], own)
    assert backbone.recipe["weights"]["conv1"] == "flow"


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        pytest.param({CONV1: torch.zeros(64, 10, 3, 3)}, {}, "takes 10 channels; the flow stream gives 20", id="ten"),
        pytest.param({CONV1: torch.zeros(64, 20, 3, 3)}, {"flow_rescale": True}, "nothing to rescale", id="rescale"),
        pytest.param({CONV1: torch.zeros(64)}, {}, "'features.0.weight' is missing or misshapen", id="misshapen"),
    ],
)
def test_other_first_convolutions_are_refused_in_one_line(
    tmp_path: Path, tensors: dict, change: dict, settings: dict, message: str
) -> None:
    save_file(tensors | change, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match=message) as caught:
        build_backbone(SQUEEZENET, kind="flow", weights=str(tmp_path / "odd.safetensors"), **settings)
    assert "odd.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"name": "hog"}, "'hog' works on rgb, not on flow; for flow there are hof, resnet101", id="hog"),
        pytest.param({"name": "c3d"}, "'c3d' works on clip, not on flow", id="c3d"),
        pytest.param({"name": "torchvision:r3d_18"}, "torchvision:MODEL:NODE with an image MODEL", id="video"),
        pytest.param({"name": "vgg16", "kind": "flows"}, "Unknown stream 'flows'. Did you mean", id="kind"),
        pytest.param({"name": "vgg16", "preprocessing": "imagenet"}, "Known: flow-caffe, flow-tsn", id="rules"),
        pytest.param({"name": "hof", "layer": "cells"}, "Unknown layer of hof 'cells'", id="layer"),
    ],
)
def test_flow_backbone_refuses_in_one_line(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_backbone(weights="random", **{"kind": "flow", **arguments})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flow_backbone_refuses_other_stacks() -> None:
    backbone = build_backbone("hof", kind="flow", crop_px=28)
    with pytest.raises(UsageError, match=r"'hof' takes \[28, 28, 20\] uint8 a segment, not \[28, 28, 10\]"):
        backbone(torch.zeros(1, 28, 28, 10, dtype=torch.uint8))


def test_preprocessing_follows_the_range_of_the_rgb_weights(shared_data: Path) -> None:
    caffe = shared_data / "weights" / "squeezenet1_1_features.npz"
    loaded = resolve_weights(str(caffe), network="squeezenet1_1", seed=0, kind="flow")
    assert loaded.preprocessing is PREPROCESSINGS["flow-caffe"]
    loaded = resolve_weights("random", network="squeezenet1_1", seed=0, kind="flow")
    assert loaded.preprocessing is PREPROCESSINGS["flow-tsn"]


@pytest.mark.slow
def test_first_convolutions_are_found_in_other_families() -> None:
    for network in ("densenet121", "mobilenet_v3_small", "regnet_y_400mf"):
        node = {"densenet121": "features.pool0", "mobilenet_v3_small": "features.0", "regnet_y_400mf": "stem"}[network]
        backbone = build_backbone(f"torchvision:{network}:{node}", kind="flow", weights="random", crop_px=64)
        assert backbone.recipe["weights"]["conv1"] == "cross-modality"
        first = next(p for p in backbone.net.parameters() if p.dim() == 4)
        assert first.shape[1] == 20


def test_hof_recipe_states_its_bound() -> None:
    recipe = build_backbone("hof", kind="flow", flow_bound_px=15).recipe
    assert (recipe["flow_bound_px"], recipe["still_px"]) == (15, 1.0)
