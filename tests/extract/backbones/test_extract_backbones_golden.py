"""Every registered backbone: declared geometry, frozen, and the recorded numbers of its seeded random weights."""

from __future__ import annotations

import pytest
import torch

from vidatt.extract.backbones.registry import BACKBONES, backbone_names, build_backbone

CASES: dict[tuple[str, str, str, int], tuple[tuple[int, int, int], list[float]]] = {
    ("rgb", "vgg16", "pool3", 224): ((28, 28, 256), [0.2349, 0.29395, 0.25678, 0.26513, 0.25313, 0.19076]),
    ("rgb", "vgg16", "pool4", 224): ((14, 14, 512), [0.16123, 0.21535, 0.1553, 0.16146, 0.15807, 0.16856]),
    ("rgb", "vgg16", "conv5_3", 224): ((14, 14, 512), [0.14252, 0.20647, 0.14809, 0.18964, 0.1636, 0.14584]),
    ("rgb", "vgg16", "pool5", 224): ((7, 7, 512), [0.18808, 0.22988, 0.16376, 0.2075, 0.18385, 0.16415]),
    ("rgb", "vgg16", "fc6", 224): ((1, 1, 4096), [0.18438, 0.27617, 0.18085, 0.18305, 0.18128, 0.19234]),
    ("rgb", "resnet18", "conv5", 224): ((7, 7, 512), [2.5653, 3.1309, 3.5248, 3.0653, 2.8729, 3.6586]),
    ("rgb", "resnet34", "conv5", 224): ((7, 7, 512), [105.12, 136.8, 143.64, 149.77, 161.04, 128.3]),
    ("rgb", "resnet50", "conv5", 224): ((7, 7, 2048), [38.116, 44.855, 47.745, 45.242, 49.37, 47.751]),
    ("rgb", "resnet101", "conv5", 224): ((7, 7, 2048), [32553, 41268, 43424, 45935, 47259, 44344]),
    ("rgb", "resnet152", "conv5", 224): (
        (7, 7, 2048),
        [6.3329e07, 7.667e07, 9.4282e07, 9.0528e07, 9.2159e07, 8.7685e07],
    ),
    ("rgb", "hog", "blocks", 224): ((7, 7, 36), [0.16439, 0.027398, 0.16539, 0.1648, 0.16419, 0.16308]),
    ("flow", "vgg16", "pool5", 224): ((7, 7, 512), [0.29031, 0.35331, 0.24452, 0.32136, 0.2957, 0.24823]),
    ("flow", "resnet18", "conv5", 224): ((7, 7, 512), [3.8097, 4.6157, 4.863, 4.3494, 4.3336, 5.4286]),
    ("flow", "resnet50", "conv5", 224): ((7, 7, 2048), [59.748, 70.358, 75.167, 70.83, 77.49, 74.07]),
    ("flow", "hof", "blocks", 224): ((7, 7, 72), [0.1092, 0.044299, 0.10844, 0.11003, 0.10873, 0.10994]),
    ("clip", "c3d", "conv5b", 112): ((7, 7, 512), [164.96, 177.67, 200.52, 195.82, 222.1, 199.3]),
    ("clip", "c3d", "pool5", 112): ((4, 4, 512), [197.28, 186.59, 239.95, 241.61, 253.62, 246.33]),
    ("clip", "c3d", "fc6", 112): ((1, 1, 4096), [120.46, 174.95, 114.05, 121.73, 116.73, 129.34]),
    ("clip", "torchvision:r3d_18", "layer4", 112): (
        (7, 7, 512),
        [0.54058, 0.55416, 0.64303, 0.67388, 0.60417, 0.62191],
    ),
    ("clip", "torchvision:s3d", "features", 224): (
        (7, 7, 1024),
        [2.32e-07, 4.7504e-07, 4.2131e-07, 2.3073e-07, 5.7843e-08, 2.077e-07],
    ),
    ("clip", "hog3d", "blocks", 224): ((7, 7, 80), [0.10376, 0.041631, 0.097094, 0.11515, 0.095399, 0.10841]),
}


def test_every_registered_backbone_layer_and_kind_has_a_case() -> None:
    seen = {(kind, name, layer) for kind, name, layer, _ in CASES}
    wanted = {("rgb", name, layer) for name in backbone_names("rgb") for layer in BACKBONES[name].layers}
    wanted |= {("clip", name, layer) for name in backbone_names("clip") for layer in BACKBONES[name].layers}
    wanted |= {("flow", name, BACKBONES[name].default_layer) for name in backbone_names("flow")}
    deep = {("flow", name, "conv5") for name in ("resnet34", "resnet101", "resnet152")}  # rgb's, but for conv1
    assert seen >= wanted - deep


def _summary(cube: torch.Tensor) -> list[float]:
    """Mean, deviation, and the mean of each quarter of the centre cell's channels."""
    K, _, D = cube.shape
    cube = cube.double()
    return [cube.mean().item(), cube.std().item(), *cube[K // 2, K // 2].view(4, D // 4).mean(1).tolist()]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_backbone_is_frozen_and_gives_the_recorded_numbers(case: tuple[str, str, str, int]) -> None:
    kind, name, layer, side = case
    shape, recorded = CASES[case]
    backbone = build_backbone(name, kind=kind, layer=layer, weights="random", precision="float32", crop_px=side)
    assert backbone.cube_shape == shape
    assert not backbone.training
    assert not any(p.requires_grad for p in backbone.parameters())
    inputs = torch.randint(
        0, 256, (1, *backbone.input_shape), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    with torch.inference_mode():
        output = backbone(inputs)
    assert output.shape == (1, *shape)
    scale = max(abs(recorded[0]), recorded[1])
    assert _summary(output[0]) == pytest.approx(recorded, rel=1e-3, abs=1e-3 * scale)


@pytest.mark.slow
def test_c3d_pool5_is_a_seven_by_seven_grid_at_224() -> None:
    assert build_backbone("c3d", kind="clip", weights="random").cube_shape == (7, 7, 512)
