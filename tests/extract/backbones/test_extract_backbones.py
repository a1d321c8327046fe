"""Frozen networks: torchvision's on frames, and weights with every tensor accounted for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from vidatt.errors import UnknownNameError, UsageError, WeightsError
from vidatt.extract.backbones.backbone import working_precision
from vidatt.extract.backbones.preprocessing import IMAGENET, PREPROCESSINGS
from vidatt.extract.backbones.registry import build_backbone
from vidatt.extract.backbones.weights import fetch, resolve_weights, weights_entry
from vidatt.extract.backbones.weights_files import read_tensors
from vidatt.extract.streams import StreamConfig


def _noise(count: int = 1, side: int = 224) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


@pytest.mark.slow
def test_vgg16_fc6_equals_torchvision_on_the_same_frames() -> None:
    backbone = build_backbone("vgg16", layer="fc6", weights="random", precision="float32", seed=3)
    torch.manual_seed(3)
    reference = get_model("vgg16", weights=None).eval()
    frames = _noise()
    pixels = frames.permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(IMAGENET.mean).view(1, 3, 1, 1)) / torch.tensor(IMAGENET.std).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = reference.classifier[:2](torch.flatten(reference.features(pixels), 1))
        ours = backbone(frames)[:, 0, 0]
    assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    assert expected.min() == 0  # read behind its ReLU


@pytest.mark.slow
def test_random_weights_follow_their_seed() -> None:
    frames = _noise(side=64)
    with torch.inference_mode():
        a, b, c = (build_backbone("resnet18", weights="random", seed=seed, crop_px=64)(frames) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.slow
def test_bfloat16_is_close_to_float32() -> None:
    frames = _noise(2, side=64)
    with torch.inference_mode():
        exact, short = (
            build_backbone("resnet18", weights="random", precision=precision, crop_px=64)(frames).float()
            for precision in ("float32", "bfloat16")
        )
    assert 0 < ((short - exact).norm() / exact.norm()).item() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(
    "frames", [torch.zeros(1, 64, 64, 3), torch.zeros(1, 32, 32, 3, dtype=torch.uint8)], ids=["dtype", "side"]
)
def test_backbone_refuses_other_inputs_than_its_own(frames: torch.Tensor) -> None:
    backbone = build_backbone("resnet18", weights="random", crop_px=64)
    with pytest.raises(UsageError, match=r"'resnet18' takes \[64, 64, 3\] uint8 a segment, not \["):
        backbone(frames)


@pytest.mark.parametrize("network", ["googlenet", "inception_v3"])
def test_networks_from_tensorflow_take_values_around_zero(network: str) -> None:
    loaded = resolve_weights("random", network=network, seed=0)
    assert loaded.preprocessing is PREPROCESSINGS["symmetric"]
    assert weights_entry(f"{network}-imagenet1k_v1").preprocessing == "symmetric"


def test_precision_auto_is_one_of_two() -> None:
    assert working_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    with pytest.raises(UnknownNameError, match=r"Unknown precision 'float16'"):
        working_precision("float16", torch.device("cpu"))


@pytest.mark.slow
def test_any_torchvision_model_is_cut_at_any_node() -> None:
    assert build_backbone("torchvision:squeezenet1_1:features.12", weights="random").cube_shape == (13, 13, 512)
    whole = build_backbone("torchvision:squeezenet1_1", weights="random")
    assert (whole.cube_shape, whole.recipe["layer"]) == ((13, 13, 512), "features")
    assert build_backbone("torchvision:mobilenet_v3_small:features.8", weights="random").cube_shape[2] == 48


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"name": "vgg17"}, "Unknown backbone 'vgg17'. Did you mean 'vgg16'?", id="backbone"),
        pytest.param({"name": "resnet18", "layer": "conv6"}, "Unknown layer of resnet18 'conv6'. Did you", id="layer"),
        pytest.param({"name": "torchvision:resnet51:x"}, "Unknown torchvision model 'resnet51'", id="model"),
        pytest.param(
            {"name": "torchvision:vgg11:features.99"},
            "Unknown layer of torchvision:vgg11 'features.99'. Did you mean 'features.9'?",
            id="node",
        ),
        pytest.param({"name": "torchvision:raft_small"}, "needs a layer", id="no-layer"),
        pytest.param({"name": "hog", "layer": "cells"}, "Unknown layer of hog 'cells'", id="descriptor-layer"),
        pytest.param({"name": "torchvision:squeezenet1_1", "crop_px": 4}, "cannot take 4-pixel inputs", id="small"),
        pytest.param({"name": "c3d"}, "'c3d' works on clip, not on rgb; for rgb there are hog, resnet101", id="kind"),
        pytest.param({"name": "hog", "crop_px": 100}, "a crop of 100 pixels is no multiple of 14", id="uneven"),
        pytest.param({"name": "vgg16", "preprocessing": "flow-tsn"}, "Unknown preprocessing of rgb", id="rules"),
    ],
)
def test_backbone_refuses_in_one_line(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_backbone(weights="random", **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_real_squeezenet_weights_are_recognised_and_carry_their_preprocessing(shared_data: Path) -> None:
    path = shared_data / "weights" / "squeezenet1_1_features.npz"
    backbone = build_backbone("torchvision:squeezenet1_1:features.12", weights=str(path), precision="float32")
    assert backbone.recipe["weights"]["name"] == "squeezenet1_1-caffe-features"
    assert backbone.recipe["weights"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone.recipe["preprocessing"]["order"] == "BGR"
    assert backbone.recipe["preprocessing"]["mean"] == [104.0, 117.0, 123.0]
    # against torchvision's own network, fed by hand as the weights' publisher fed his
    network = get_model("squeezenet1_1", weights=None).eval()
    network.load_state_dict(read_tensors(path), strict=False)
    frames = _noise(2)
    pixels = frames.flip(3).permute(0, 3, 1, 2).float() - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = network.features(pixels)
        ours = backbone(frames).permute(0, 3, 1, 2)
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-3)


def test_preprocessing_can_be_overridden(shared_data: Path) -> None:
    path = shared_data / "weights" / "squeezenet1_1_features.npz"
    loaded = resolve_weights(str(path), network="squeezenet1_1", seed=0, preprocessing="imagenet")
    assert loaded.preprocessing is IMAGENET


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """The state_dict of a ResNet-18 with seeded random weights."""
    torch.manual_seed(5)
    return get_model("resnet18", weights=None).state_dict()


class TestWeightsFiles:
    """What a file may be, and what it is refused for."""

    @pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", "-wrapped.pth"])
    def test_formats_load_alike(self, tmp_path: Path, tensors: dict[str, torch.Tensor], suffix: str) -> None:
        path = tmp_path / f"weights{suffix}"
        if suffix == ".safetensors":
            save_file(tensors, path)
        elif suffix == ".npz":
            np.savez(path, **{k: v.numpy() for k, v in tensors.items()})
        elif suffix == ".pth":
            torch.save(tensors, path)
        else:
            torch.save({"state_dict": {f"module.{k}": v for k, v in tensors.items()}, "epoch": 3}, path)
        backbone = build_backbone("resnet18", weights=str(path))
        loaded = backbone.net.cut.state_dict()
        assert all(torch.equal(v, tensors[k].to(v.dtype)) for k, v in loaded.items())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            pytest.param(lambda t: t | {"extra.weight": torch.zeros(3)}, "1 tensors have no place", id="surplus"),
            pytest.param(lambda t: {k: v for k, v in t.items() if k != "conv1.weight"}, "are missing", id="missing"),
            pytest.param(lambda t: t | {"conv1.weight": torch.zeros(64, 20, 7, 7)}, r"\[64, 20, 7, 7\]", id="shape"),
        ],
    )
    def test_every_tensor_is_accounted_for(self, tmp_path: Path, tensors: dict, change: object, message: str) -> None:
        save_file(change(tensors), tmp_path / "changed.safetensors")
        with pytest.raises(WeightsError, match=message):
            build_backbone("resnet18", weights=str(tmp_path / "changed.safetensors"))

    def test_parameters_that_the_layer_does_not_need_may_be_absent(self, tmp_path: Path, tensors: dict) -> None:
        save_file({k: v for k, v in tensors.items() if not k.startswith("fc.")}, tmp_path / "headless.safetensors")
        assert build_backbone("resnet18", weights=str(tmp_path / "headless.safetensors")).cube_shape == (7, 7, 512)

    def test_pickled_code_is_never_executed(self, tmp_path: Path) -> None:
        proof = tmp_path / "executed"

        class Trap:
            def __reduce__(self) -> tuple:
                return Path.touch, (proof,)

        torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pth")
        with pytest.raises(WeightsError, match="never executed"):
            build_backbone("resnet18", weights=str(tmp_path / "trap.pth"))
        assert not proof.exists()

    @pytest.mark.parametrize("name", ["noise.pth", "noise.npz", "noise.safetensors", "empty.pth"])
    def test_damaged_files_are_one_line(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"not weights at all" * 10)
        with pytest.raises(WeightsError, match=r"cannot be read|never executed") as caught:
            build_backbone("resnet18", weights=str(tmp_path / name))
        assert "\n" not in str(caught.value)

    def test_missing_default_weights_name_file_digest_and_command(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VIDATT_WEIGHTS", str(tmp_path))
        with pytest.raises(WeightsError) as caught:
            build_backbone("vgg16")
        for part in (str(tmp_path / "vgg16-397923af.pth"), "397923af", "vidatt weights fetch vgg16-imagenet1k_v1"):
            assert part in str(caught.value)

    def test_a_damaged_download_is_recognised(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VIDATT_WEIGHTS", str(tmp_path))
        (tmp_path / "vgg16-397923af.pth").write_bytes(b"half of it")
        for attempt in (lambda: build_backbone("vgg16"), lambda: fetch("vgg16-imagenet1k_v1")):
            with pytest.raises(WeightsError, match="the registry says 397923af"):
                attempt()

    def test_a_file_that_is_there_and_right_is_not_fetched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path
    ) -> None:
        monkeypatch.setenv("VIDATT_WEIGHTS", str(tmp_path))
        entry = weights_entry("squeezenet1_1-caffe-features")
        entry.path.write_bytes((shared_data / "weights" / entry.file_name).read_bytes())
        assert fetch(entry.name) == tmp_path / entry.file_name

    def test_unknown_weights_are_refused(self) -> None:
        with pytest.raises(WeightsError, match="neither a file nor a known name"):
            build_backbone("vgg16", weights="imagnet")
        with pytest.raises(UnknownNameError, match=r"Did you mean 'vgg16-imagenet1k_v1'"):
            fetch("vgg16-imagenet1k_v2")


def test_stream_config_refuses_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown stream 'rgbb'. Did you mean 'rgb'"):
        StreamConfig(name="rgbb", backbone="hog")
