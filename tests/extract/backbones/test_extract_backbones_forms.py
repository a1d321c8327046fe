"""Maps, maps with channels last, tokens and vectors by declaration; grids averaged to smaller ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import get_model

from vidatt.errors import UsageError
from vidatt.extract.backbones.families import FAMILIES, family_of
from vidatt.extract.backbones.forms import CHANNELS_LAST, MAP, VECTOR, OutputForm, to_cubes, tokens
from vidatt.extract.backbones.preprocessing import IMAGENET
from vidatt.extract.backbones.registry import BACKBONES, build_backbone, register
from vidatt.extract.streams import StreamConfig


def _numbers(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def _frames(side: int = 224) -> Tensor:
    return torch.randint(0, 256, (1, side, side, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def _pixels(frames: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    return (frames.permute(0, 3, 1, 2).float() / 255 - mean) / std


class TestForms:
    """One output, read as declared."""

    def test_maps_of_either_order_and_tokens_of_one_grid_give_one_cube(self) -> None:
        cubes = _numbers(2, 3, 3, 5)
        assert torch.equal(to_cubes(cubes, CHANNELS_LAST), cubes)
        assert torch.equal(to_cubes(cubes.permute(0, 3, 1, 2), MAP), cubes)
        row_by_row = torch.cat([_numbers(2, 4, 5), cubes.flatten(1, 2)], dim=1)
        assert torch.equal(to_cubes(row_by_row, tokens(prefix=4)), cubes)

    def test_a_square_map_is_read_as_declared(self) -> None:
        output = _numbers(1, 4, 4, 4)  # no shape tells its axes apart
        assert torch.equal(to_cubes(output, CHANNELS_LAST), output)
        assert torch.equal(to_cubes(output, MAP), output.permute(0, 2, 3, 1))

    def test_time_steps_are_averaged_in_each_form(self) -> None:
        clips = _numbers(2, 4, 3, 3, 5)  # b, T', K, K, D
        expected = clips.mean(1)
        assert torch.allclose(to_cubes(clips, CHANNELS_LAST), expected)
        assert torch.allclose(to_cubes(clips.permute(0, 4, 1, 2, 3), MAP), expected)
        flat = torch.cat([_numbers(2, 1, 5), clips.flatten(1, 3)], dim=1)
        assert torch.allclose(to_cubes(flat, tokens(prefix=1, time_steps=4)), expected)

    @pytest.mark.parametrize("form", [MAP, CHANNELS_LAST, VECTOR, tokens(prefix=1)], ids=str)
    def test_a_vector_is_a_grid_of_one_cell(self, form: OutputForm) -> None:
        assert torch.equal(to_cubes(_numbers(2, 5), form), _numbers(2, 1, 1, 5))

    @pytest.mark.parametrize(
        ("shape", "form"),
        [((2, 5, 3, 3), VECTOR), ((2, 9, 5), MAP), ((2, 5, 3, 3), tokens(prefix=1)), ((2, 9, 5), tokens(prefix=1)),
         ((2, 1, 5), tokens(prefix=1)), ((2, 9, 5), CHANNELS_LAST)],
    )  # fmt: skip
    def test_another_form_than_the_declared_is_none(self, shape: tuple[int, ...], form: OutputForm) -> None:
        assert to_cubes(_numbers(*shape), form) is None


@pytest.mark.slow
def test_torchvision_vit_gives_its_grid_without_the_class_token() -> None:
    backbone = build_backbone("torchvision:vit_b_32", weights="random", precision="float32", crop_px=96, seed=4)
    torch.manual_seed(4)
    reference = get_model("vit_b_32", weights=None, image_size=96).eval()
    frames = _frames(96)
    with torch.inference_mode():
        patches = reference._process_input(_pixels(frames))
        expected = reference.encoder(torch.cat([reference.class_token, patches], dim=1))
        ours = backbone(frames)
    assert (backbone.recipe["layer"], ours.shape) == ("encoder", (1, 3, 3, 768))
    assert torch.allclose(ours.flatten(1, 2), expected[:, 1:], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_torchvision_swin_gives_channels_last() -> None:
    backbone = build_backbone("torchvision:swin_t", weights="random", precision="float32", crop_px=96, seed=4)
    torch.manual_seed(4)
    reference = get_model("swin_t", weights=None).eval()
    frames = _frames(96)
    with torch.inference_mode():
        expected = reference.norm(reference.features(_pixels(frames)))
        ours = backbone(frames)
    assert (backbone.recipe["layer"], ours.shape) == ("norm", (1, 3, 3, 768))
    assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "side", "kind", "shape"),
    [
        ("torchvision:vit_b_32:encoder.layers.encoder_layer_2", 96, "rgb", (3, 3, 768)),
        ("torchvision:vit_b_32:conv_proj", 96, "rgb", (3, 3, 768)),
        ("torchvision:vit_b_32:getitem_5", 96, "rgb", (1, 1, 768)),  # the class token
        ("torchvision:vit_b_32", 96, "flow", (3, 3, 768)),
        ("torchvision:swin_t:features.3", 96, "rgb", (12, 12, 192)),
        ("torchvision:swin_t:features.0.0", 96, "rgb", (24, 24, 96)),
        ("torchvision:swin_t:permute", 96, "rgb", (3, 3, 768)),
        ("torchvision:swin_t", 96, "flow", (3, 3, 768)),
        ("torchvision:swin3d_t", 64, "clip", (2, 2, 768)),
        ("torchvision:shufflenet_v2_x0_5", 64, "rgb", (2, 2, 1024)),
        ("torchvision:regnet_y_400mf", 64, "rgb", (2, 2, 440)),
    ],
)
@pytest.mark.slow
def test_torchvision_nodes_give_the_grid_of_their_architecture(
    name: str, side: int, kind: str, shape: tuple[int, ...]
) -> None:
    backbone = build_backbone(name, kind=kind, weights="random", crop_px=side)
    assert backbone.cube_shape == shape
    assert backbone.recipe.get("time_pooling") == ("mean" if kind == "clip" else None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"name": "torchvision:vit_b_32", "crop_px": 100}, "cannot take 100-pixel inputs", id="patch"),
        pytest.param(
            {"name": "torchvision:vit_b_32:reshape", "crop_px": 96},
            "Layer 'reshape' of 'torchvision:vit_b_32' gives [1, 768, 9] for 1 segments, neither tokens [1 + K * K, D]",
            id="tokens",
        ),
        pytest.param({"name": "torchvision:vit_b_32:getattr_1", "crop_px": 96}, "gives a Size for 1", id="no-tensor"),
        pytest.param({"name": "torchvision:swin_t:norm.99"}, "Unknown layer of torchvision:swin_t 'norm.99'", id="B6"),
        pytest.param({"name": "resnet18", "pool": 3, "crop_px": 64}, "--pool 3: layer 'conv5' of 'resnet18' gives a "
                     "grid of 2x2, which is averaged to smaller ones only", id="pool"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_what_does_not_fit_is_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_backbone(weights="random", **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not str(caught.value).endswith(f"Did you mean '{arguments['name'].rpartition(':')[2]}'?")


@pytest.mark.parametrize("node", [family.node for family in FAMILIES], ids=[family.models[0] for family in FAMILIES])
def test_every_family_names_a_node_of_its_models(node: str) -> None:
    family = next(family for family in FAMILIES if family.node == node)
    assert family_of(f"{family.models[0]}x") is not family_of("raft_small")
    assert family.form_of(node) is family.form


@pytest.mark.slow
def test_pool_averages_windows_exactly_where_it_divides() -> None:
    whole = build_backbone("resnet18", weights="random", precision="float32", crop_px=128)
    pooled = build_backbone("resnet18", weights="random", precision="float32", crop_px=128, pool=2)
    frames = _frames(128)
    with torch.inference_mode():
        grid, smaller = whole(frames), pooled(frames)
    assert pooled.cube_shape == (2, 2, 512)
    assert torch.allclose(smaller, grid.unflatten(2, (2, 2)).unflatten(1, (2, 2)).mean((2, 4)), atol=1e-5)
    assert pooled.recipe == whole.recipe | {"pool": 2}
    assert "pool" not in whole.recipe


def test_pool_is_part_of_a_streams_recipe_only_when_given() -> None:
    plain = StreamConfig(name="rgb", backbone="hog", crop_px=56).setup("cpu")
    pooled = StreamConfig(name="rgb", backbone="hog", crop_px=56, pool=4).setup("cpu")
    assert "pool" not in plain.recipe
    assert pooled.recipe == plain.recipe | {"pool": 4}
    assert pooled.backbone.cube_shape == (4, 4, 36)


def test_register_refuses_names_of_others() -> None:
    with pytest.raises(UsageError, match="Backbone 'hog' is registered already"):
        register(BACKBONES["hog"])
    with pytest.raises(UsageError, match="names with a colon belong to families"):
        register(type(BACKBONES["hog"])(name="timm:x", summary="", kinds=("rgb",), make=lambda choices: None))
