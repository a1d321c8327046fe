"""C3D against plain NumPy, the public layouts of its weights, and torchvision's video networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import get_model

from vidatt.errors import UsageError, WeightsError
from vidatt.extract.backbones.backbone import Backbone
from vidatt.extract.backbones.c3d import C3D, CONVS, LAYOUTS, LINEARS, WIDTHS, build_c3d, convert
from vidatt.extract.backbones.preprocessing import PREPROCESSINGS
from vidatt.extract.backbones.registry import backbone_entry, build_backbone
from vidatt.extract.backbones.weights import resolve_weights, weights_entry

NARROW = (4, 5, 6, 6, 7, 7, 8, 8)


def _clips(side: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 16, side, side, 3), generator=generator, dtype=torch.uint8)


def _plain_c3d(network: C3D, clip: np.ndarray) -> dict[str, np.ndarray]:
    """C3D of one clip (3, 16, S, S) by sums over kernel taps and maxima over windows, from the layer table."""
    weights = {name: value.detach().numpy() for name, value in network.state_dict().items()}

    def conv(x: np.ndarray, name: str) -> np.ndarray:
        w, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
        T, H, W = x.shape[1:]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1)))
        out = np.zeros((len(w), T * H * W), np.float32)
        for t, i, j in np.ndindex(3, 3, 3):
            out += w[:, :, t, i, j] @ padded[:, t : t + T, i : i + H, j : j + W].reshape(len(x), -1)
        return np.maximum(out.reshape(-1, T, H, W) + b[:, None, None, None], 0)

    def pool(x: np.ndarray, steps: int) -> np.ndarray:
        _, T, H, W = x.shape
        ragged = np.pad(x, ((0, 0), (0, 0), (0, H % 2), (0, W % 2)), constant_values=-np.inf)
        return ragged.reshape(len(x), T // steps, steps, (H + 1) // 2, 2, (W + 1) // 2, 2).max((2, 4, 6))

    x = pool(conv(clip, "conv1"), 1)
    x = pool(conv(x, "conv2"), 2)
    x = pool(conv(conv(x, "conv3a"), "conv3b"), 2)
    x = pool(conv(conv(x, "conv4a"), "conv4b"), 2)
    conv5b = conv(conv(x, "conv5a"), "conv5b")
    pool5 = pool(conv5b, 2)
    outputs = {"conv5b": conv5b.max(1), "pool5": pool5[:, 0]}
    if "fc6.weight" in weights:
        outputs["fc6"] = np.maximum(weights["fc6.weight"] @ pool5.ravel() + weights["fc6.bias"], 0)
    return outputs


def _check(ours: torch.Tensor, expected: np.ndarray) -> None:
    assert ours.shape == expected.shape
    assert np.abs(ours.numpy() - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.slow
def test_narrow_c3d_equals_plain_numpy_at_every_layer() -> None:
    clip = _clips(112)[0].permute(3, 0, 1, 2).float() / 64 - 2
    networks = {layer: C3D(layer, widths=NARROW, hidden=9).eval() for layer in ("fc6", "pool5", "conv5b")}
    for network in networks.values():
        network.load_state_dict({name: networks["fc6"].state_dict()[name] for name in network.state_dict()})
    expected = _plain_c3d(networks["fc6"], clip.numpy())
    assert (expected["conv5b"].shape, expected["pool5"].shape) == ((8, 7, 7), (8, 4, 4))
    for layer, network in networks.items():
        with torch.inference_mode():
            _check(network(clip[None])[0], expected[layer])


@pytest.mark.slow
def test_c3d_of_true_widths_equals_plain_numpy() -> None:
    clips = _clips(112)
    backbone = build_backbone("c3d", kind="clip", layer="fc6", weights="random", precision="float32", seed=1)
    plain = clips[0].numpy()[..., ::-1].astype(np.float32) - np.array([90.25, 97.66, 101.41], np.float32)  # BGR
    expected = _plain_c3d(backbone.net, np.ascontiguousarray(plain.transpose(3, 0, 1, 2)))
    with torch.inference_mode():
        _check(backbone(clips)[0, 0, 0], expected["fc6"])
    assert (backbone.crop_px, backbone.resize, expected["fc6"].min()) == (112, "171x128", 0)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "cells", "pool5"), [(112, 7, 4), (224, 14, 7), (96, 6, 3), (100, 7, 4)])
def test_c3d_pooling_rounds_up_and_pads_nothing(side: int, cells: int, pool5: int) -> None:
    narrow = (1,) * 8
    with torch.inference_mode():
        assert C3D("conv5b", widths=narrow)(torch.zeros(1, 3, 16, side, side)).shape == (1, 1, cells, cells)
        assert C3D("pool5", widths=narrow)(torch.zeros(1, 3, 16, side, side)).shape == (1, 1, pool5, pool5)


def _narrow_backbone() -> Backbone:
    torch.manual_seed(0)
    network = C3D("pool5", widths=NARROW).eval()
    backbone = Backbone(
        network, PREPROCESSINGS["sports1m"], torch.float32, kind="clip", crop_px=32, resize="short:256"
    ).requires_grad_(False)
    backbone.recipe = {"backbone": "c3d", "layer": "pool5"}
    return backbone


def test_c3d_sees_blue_first() -> None:
    backbone = _narrow_backbone()
    clips = _clips(32)
    by_hand = clips.flip(4).permute(0, 4, 1, 2, 3) - torch.tensor([90.25, 97.66, 101.41]).view(1, 3, 1, 1, 1)
    assert torch.allclose(backbone(clips), backbone.net(by_hand).permute(0, 2, 3, 1), rtol=1e-4, atol=1e-3)
    assert not torch.allclose(backbone(clips), backbone(clips.flip(4)), rtol=1e-2)


@pytest.mark.parametrize("frames", [14, 15, 17, 18])
def test_sixteen_frames_are_asserted(frames: int) -> None:
    with pytest.raises(UsageError, match=rf"takes \[16, 32, 32, 3\] uint8 a segment, not \[{frames}, 32, 32, 3\]"):
        _narrow_backbone()(_clips(32)[:, :1].expand(1, frames, 32, 32, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"layer": "fc6", "crop_px": 224}, "takes the 4x4 cells of 112-pixel clips, not 224", id="fc6"),
        pytest.param({"layer": "pool6"}, "Unknown layer of c3d 'pool6'. Did you mean 'pool5'", id="layer"),
        pytest.param({"layer": "fc7"}, "Unknown layer of c3d 'fc7'. Did you mean 'fc6'", id="fc7"),
        pytest.param({"name": "resnet18"}, "not on clip; for clip there are c3d, hog3d, and", id="kind"),
        pytest.param({"preprocessing": "flow-tsn"}, "Unknown preprocessing of clip streams", id="rules"),
    ],
)
def test_clip_backbone_refuses_in_one_line(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_backbone(**{"name": "c3d", "kind": "clip", "weights": "random", **arguments})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_resize_depends_on_the_crop() -> None:
    entry = backbone_entry("c3d", "clip")
    assert (entry.default_crop_px("pool5"), entry.default_crop_px("fc6")) == (224, 112)
    assert (entry.resize_for(224), entry.resize_for(112)) == ("short:256", "171x128")
    assert backbone_entry("torchvision:r3d_18").resize_for(112) == "171x128"
    assert backbone_entry("torchvision:s3d").resize_for(224) == "256x256"


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """Seeded tensors under the names here; equal over the inputs, so that their files stay small."""
    generator = torch.Generator().manual_seed(4)
    found = {}
    for name, inputs, outputs in zip(CONVS, (3, *WIDTHS), WIDTHS, strict=False):
        weight = torch.randn(outputs, 1, 3, 3, 3, generator=generator) * (2 / 27) ** 0.5 / inputs**0.5
        found[f"{name}.weight"] = weight.expand(-1, inputs, -1, -1, -1)
        found[f"{name}.bias"] = torch.randn(outputs, generator=generator)
    for name, inputs, outputs in zip(LINEARS, (8192, 4096, 4096), (4096, 4096, 487), strict=True):
        found[f"{name}.weight"] = torch.randn(outputs, 1, generator=generator).expand(-1, inputs)
        found[f"{name}.bias"] = torch.randn(outputs, generator=generator)
    return found


def _in_layout(tensors: dict[str, torch.Tensor], layout: str, prefix: str = "") -> dict[str, torch.Tensor]:
    foreign = {ours: theirs for theirs, ours in LAYOUTS[layout].items()}
    renamed = {}
    for name, value in tensors.items():
        module, _, parameter = name.rpartition(".")
        part = "" if foreign[module].startswith("cls_head") else prefix
        renamed[f"{part}{foreign[module]}.{parameter}"] = value
    return renamed


@pytest.mark.slow
def test_public_layouts_give_the_same_output(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    files = {layout: _in_layout(tensors, layout) for layout in LAYOUTS}
    files["with prefix"] = _in_layout(tensors, "mmaction2", "backbone.")
    assert {"conv1.weight", "fc8.bias"} <= set(files["c3d-pytorch"])
    assert {"features.0.weight", "features.18.bias", "classifier.3.weight"} <= set(files["torch-sequential"])
    assert {"conv1a.conv.weight", "conv5b.conv.bias", "fc7.bias"} <= set(files["mmaction2"])
    assert {"backbone.conv3a.conv.weight", "cls_head.fc_cls.weight"} <= set(files["with prefix"])
    outputs = []
    for content in files.values():
        torch.save({"state_dict": content, "meta": {"epoch": 1}}, tmp_path / "weights.pth")
        backbone = build_backbone(
            "c3d", kind="clip", weights=str(tmp_path / "weights.pth"), crop_px=32, precision="float32"
        )
        with torch.inference_mode():
            outputs.append(backbone(_clips(32)))
        assert backbone.recipe["weights"]["name"] == "weights.pth"
    assert outputs[0].any()
    assert all(torch.equal(output, outputs[0]) for output in outputs[1:])


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.slow
def test_every_c3d_tensor_is_accounted_for(layout: str, tensors: dict[str, torch.Tensor]) -> None:
    whole = _in_layout(tensors, layout)
    conv3a = next(theirs for theirs, ours in LAYOUTS[layout].items() if ours == "conv3a") + ".weight"

    def refused(given: dict[str, torch.Tensor], layer: str = "pool5") -> str:
        with pytest.raises(WeightsError) as caught:
            build_c3d(layer, side_px=112, tensors=given, source="file.pth")
        assert str(caught.value).startswith("file.pth: ")
        return str(caught.value)

    assert "such as ['conv3a.weight']" in refused({k: v for k, v in whole.items() if k != conv3a})
    assert "such as ['conv6.weight']" in refused(whole | {"conv6.weight": torch.zeros(1)})
    assert "such as ['conv3a.running_mean']" in refused(
        whole | {conv3a.replace("weight", "running_mean"): torch.zeros(1)}
    )
    assert "tensor 'conv3a.weight' is [3], the network wants [256, 128, 3, 3, 3]" in refused(
        whole | {conv3a: torch.zeros(3)}
    )
    fc7 = next(theirs for theirs, ours in LAYOUTS[layout].items() if ours == "fc7") + ".weight"
    assert "tensor 'fc7.weight' is [3]" in refused(whole | {fc7: torch.zeros(3)})  # checked, though not used
    headless = {name: value for name, value in whole.items() if "conv" in name or "features" in name}
    assert build_c3d("pool5", side_px=112, tensors=headless, source="file.pth").layer == "pool5"
    assert "such as ['fc6.bias', 'fc6.weight']" in refused(headless, "fc6")


def test_names_with_and_without_prefix_are_not_mixed() -> None:
    with pytest.raises(WeightsError, match=r"the same names with and without 'backbone\.'"):
        convert({"conv1.bias": torch.zeros(64), "backbone.conv1.bias": torch.zeros(64)}, source="file.pth")


@pytest.mark.slow
def test_a_fine_tuned_c3d_may_have_other_classes(tensors: dict[str, torch.Tensor]) -> None:
    given = tensors | {"fc8.weight": torch.zeros(101, 4096), "fc8.bias": torch.zeros(101)}
    assert build_c3d("conv5b", side_px=112, tensors=given, source="file.pth").layer == "conv5b"


def test_c3d_weights_are_registered_with_licence_and_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDATT_WEIGHTS", str(tmp_path))
    for name in ("c3d-sports1m", "c3d-sports1m-davidea", "c3d-ucf101-jfzhang95"):
        entry = weights_entry(name)
        assert (entry.network, entry.preprocessing) == ("c3d", "sports1m")
        assert "CC BY-NC 3.0" in entry.licence
    with pytest.raises(WeightsError, match=r"vidatt weights fetch c3d-sports1m") as caught:
        build_backbone("c3d", kind="clip")
    assert "dcc47ddc" in str(caught.value)
    torch.save({"x": torch.zeros(1)}, tmp_path / "mine.pth")  # an entry without a digest must not claim every file
    loaded = resolve_weights(str(tmp_path / "mine.pth"), network="c3d", seed=0, kind="clip")
    assert loaded.recipe["name"] == "mine.pth"
    assert loaded.preprocessing is PREPROCESSINGS["sports1m"]


@pytest.mark.slow
def test_torchvision_video_network_is_averaged_over_time() -> None:
    backbone = build_backbone(
        "torchvision:r3d_18", kind="clip", weights="random", precision="float32", crop_px=48, seed=6
    )
    torch.manual_seed(6)
    reference = get_model("r3d_18", weights=None).eval()
    clips = _clips(48)
    values = clips.permute(0, 4, 1, 2, 3).float() / 255
    mean, std = torch.tensor([0.43216, 0.394666, 0.37645]), torch.tensor([0.22803, 0.22145, 0.216989])
    values = (values - mean.view(1, 3, 1, 1, 1)) / std.view(1, 3, 1, 1, 1)
    with torch.inference_mode():
        for part in (reference.stem, reference.layer1, reference.layer2, reference.layer3, reference.layer4):
            values = part(values)
        ours = backbone(clips)
    assert values.shape[2] == 2
    assert torch.allclose(ours, values.mean(2).permute(0, 2, 3, 1), rtol=1e-3, atol=1e-4)
    assert (backbone.recipe["layer"], backbone.recipe["time_pooling"]) == ("layer4", "mean")


@pytest.mark.parametrize(
    ("name", "rules"), [("r2plus1d_18", "kinetics"), ("mvit_v2_s", "kinetics-mvit"), ("swin3d_t", "imagenet")]
)
def test_video_preprocessing_is_torchvisions_own(name: str, rules: str) -> None:
    assert weights_entry(f"{name}-kinetics400_v1").preprocessing == rules
    assert resolve_weights("random", network=name, seed=0, kind="clip").preprocessing is PREPROCESSINGS[rules]


@pytest.mark.slow
def test_c3d_states_how_it_pools_over_time() -> None:
    by_max = build_backbone("c3d", kind="clip", layer="conv5b", weights="random", crop_px=32)
    assert (by_max.recipe["time_pooling"], by_max.cube_shape) == ("max", (2, 2, 512))
    assert "time_pooling" not in build_backbone("c3d", kind="clip", weights="random", crop_px=32).recipe
