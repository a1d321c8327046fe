"""Where a network can be cut: what is listed is what an extraction gives there."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from vidatt.cli.main import main
from vidatt.errors import UnknownNameError, UsageError
from vidatt.extract.backbones.registry import BACKBONES, build_backbone, layer_cubes

pytestmark = pytest.mark.slow


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "side", "nodes"),
    [
        ("resnet18", 96, ["conv5", "conv1", "layer1", "layer2.0.add", "layer4", "avgpool", "fc"]),
        ("vgg16", 64, ["pool3", "pool5", "fc6", "features", "features.30", "classifier.6"]),
        ("torchvision:vit_b_32", 64, ["conv_proj", "encoder.ln", "encoder"]),
        ("torchvision:swin_t", 64, ["features.0.0", "features.3.0.add", "norm", "permute"]),
        ("torchvision:r3d_18", 64, ["stem", "layer2", "layer4"]),
        ("c3d", 112, ["conv5b", "pool5", "fc6"]),
        ("hog3d", 56, ["blocks"]),
    ],
)
def test_listed_cubes_are_those_of_the_network(name, side, nodes):
    listed = layer_cubes(name, crop_px=side)
    for node in nodes:
        kind = "clip" if name in ("c3d", "hog3d", "torchvision:r3d_18") else "rgb"
        built = build_backbone(name, kind=kind, layer=node, weights="random", precision="float32", crop_px=side)
        assert listed[node] == built.cube_shape, node


def test_every_public_layer_is_listed_first():
    for name in ("vgg16", "resnet50", "c3d", "hof"):
        layers = list(BACKBONES[name].layers)
        assert list(layer_cubes(name))[: len(layers)] == layers


def test_timm_layers_are_listed():
    pytest.importorskip("timm")
    listed = layer_cubes("timm:resnet18", crop_px=96)
    assert list(listed) == ["act1", "layer1", "layer2", "layer3", "layer4"]
    for layer in ("act1", "layer4"):
        built = build_backbone("timm:resnet18", layer=layer, weights="random", precision="float32", crop_px=96)
        assert listed[layer] == built.cube_shape


def test_the_command_says_it_and_refuses_what_cannot_be():
    done = CliRunner().invoke(main, ["backbones", "resnet18", "--crop", "64"], prog_name="vidatt")
    assert done.exit_code == 0, done.stderr
    assert any(line.split() == ["layer3", "4x4x256"] for line in done.stdout.splitlines())
    done = CliRunner().invoke(main, ["backbones", "resnet18", "--json"], prog_name="vidatt")
    told = json.loads(done.stdout)
    assert told["layers"]["conv5"] == [7, 7, 512]
    assert told["crop_px"] == 224
    with pytest.raises(UnknownNameError, match="resnet18"):
        layer_cubes("resnet81")
    for name, side in (("torchvision:vit_b_32", 65), ("torchvision:alexnet", 8)):
        with pytest.raises(UsageError, match=f"{side}-pixel inputs"):
            layer_cubes(name, crop_px=side)
