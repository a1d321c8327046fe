"""timm's models against timm's own forward on seeded random weights, and their weights from files and from a hub."""

from __future__ import annotations

import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vidatt.errors import UnknownNameError, UsageError, WeightsError
from vidatt.extract.backbones.networks import cross_modality
from vidatt.extract.backbones.registry import backbone_entry, build_backbone, fetch_weights

timm = pytest.importorskip("timm", reason="needs timm: pip install 'vidatt[timm]'")

VIT = "timm:vit_tiny_patch16_224"
SMALL = {"crop_px": 64, "precision": "float32"}


def _frames(side: int, channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (1, side, side, channels), generator=torch.Generator().manual_seed(1)).byte()


def _pixels(frames: Tensor, model: Any) -> Tensor:
    data = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(data[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (frames.permute(0, 3, 1, 2).float() / 255 - mean) / std


def _reference(name: str, *, seed: int = 0, side: int | None = None, **settings: Any) -> Any:
    """timm's own model, made by timm alone."""
    torch.manual_seed(seed)
    model = timm.create_model(name, **settings).eval()
    if side is not None:
        model.set_input_size(img_size=(side, side))
    return model


@pytest.mark.parametrize(
    ("name", "side", "settings", "grid"),
    [
        pytest.param("vit_tiny_patch16_224", 64, {"side": 64}, 4, id="vit"),
        pytest.param(
            "vit_small_patch14_reg4_dinov2", 70, {"side": 70, "weight_init": "skip"}, 5, id="dinov2-registers"
        ),
        pytest.param("convnext_atto", 64, {}, 2, id="convnext"),
        pytest.param("swin_tiny_patch4_window7_224", 224, {"weight_init": "skip"}, 7, id="swin"),
        pytest.param("vit_xsmall_patch16_clip_224", 64, {"side": 64, "weight_init": "skip"}, 4, id="clip"),
        pytest.param("resnet50_clip", 64, {}, 2, id="clip-resnet"),
        pytest.param("vit_base_patch32_siglip_256", 64, {"side": 64, "weight_init": "skip"}, 2, id="siglip"),
    ],
)
@pytest.mark.slow
def test_timm_backbone_equals_timms_own_forward(name: str, side: int, settings: dict[str, Any], grid: int) -> None:
    backbone = build_backbone(f"timm:{name}", weights="random", precision="float32", crop_px=side, seed=3)
    model = _reference(name, seed=3, **settings)
    if "weight_init" in settings:  # large ones are not drawn twice
        model.load_state_dict(backbone.net.model.state_dict(), strict=False)
    frames = _frames(side)
    with torch.inference_mode():
        pixels = _pixels(frames, model)
        expected = model.forward_intermediates(pixels, indices=1, norm=True, intermediates_only=True)[0]
        whole = model.forward_features(pixels)
        ours = backbone(frames)
    assert backbone.cube_shape == (grid, grid, expected.shape[1])
    assert torch.allclose(ours, expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    if whole.dim() == 3:  # tokens: those of the class and the registers come first
        whole = whole[:, model.num_prefix_tokens :].unflatten(1, (grid, grid))
    elif whole.shape[1:3] != (grid, grid):
        whole = whole.permute(0, 2, 3, 1)
    assert torch.allclose(ours, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_timm_layers_are_those_that_timm_lists() -> None:
    backbone = build_backbone(f"{VIT}:blocks.4", weights="random", **SMALL)
    assert backbone_entry(f"{VIT}:blocks.4").default_layer == backbone.recipe["layer"] == "blocks.4"
    model, frames = _reference("vit_tiny_patch16_224", side=64), _frames(64)
    with torch.inference_mode():
        features = model.forward_intermediates(_pixels(frames, model), indices=[4], norm=True, intermediates_only=True)
        assert torch.allclose(backbone(frames), features[0].permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    assert not any(name.startswith("model.blocks.5") for name, _ in backbone.net.named_parameters())
    assert build_backbone("timm:convnext_atto", layer="stages.1", weights="random", **SMALL).cube_shape == (8, 8, 80)


@pytest.mark.parametrize(
    ("name", "side", "resize"),
    [
        ("vit_base_patch14_dinov2", 518, "short:518"),
        ("convnext_atto", 224, "short:256"),
        ("vit_base_patch32_siglip_256", 256, "short:284"),
        ("vit_so400m_patch14_siglip_384", 384, None),
    ],
)
def test_side_and_resize_are_the_models_own(name: str, side: int, resize: str | None) -> None:
    entry = backbone_entry(f"timm:{name}")
    data = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    made = timm.data.create_transform(**data).transforms[0].size  # what timm itself resizes to
    words = f"short:{made}" if isinstance(made, int) else f"{made[1]}x{made[0]}"
    assert entry.default_crop_px() == side == data["input_size"][1]
    assert entry.resize_for(side) == words
    assert resize in (None, words)


def test_a_tag_chooses_preprocessing_and_published_weights() -> None:
    augreg, dino = backbone_entry("timm:vit_small_patch16_224"), backbone_entry("timm:vit_small_patch16_224.dino")
    assert (augreg.rules.mean, dino.rules.mean) == ((0.5, 0.5, 0.5), (0.485, 0.456, 0.406))
    assert dino.hub_file.repository == "timm/vit_small_patch16_224.dino"
    assert augreg.name == dino.name


def test_timm_flow_converts_the_patch_embedding() -> None:
    backbone = build_backbone(VIT, kind="flow", weights="random", **SMALL)
    model = _reference("vit_tiny_patch16_224", side=64)
    proj = model.patch_embed.proj
    proj.weight = torch.nn.Parameter(cross_modality(proj.weight.detach(), 20))
    frames = _frames(64, 20)
    with torch.inference_mode():
        values = (frames.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.226
        expected = model.forward_intermediates(values, indices=1, norm=True, intermediates_only=True)[0]
        assert torch.allclose(backbone(frames), expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    assert backbone.recipe["weights"]["conv1"] == "cross-modality"
    assert backbone.recipe["preprocessing"]["order"] == "xy"


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """The state_dict of timm's vit_tiny_patch16_224 with seeded random weights."""
    return _reference("vit_tiny_patch16_224", seed=5).state_dict()


class TestWeights:
    """Files in timm's layout and in others; every tensor has a place."""

    def test_a_file_is_loaded_and_its_digest_recorded(self, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
        path = tmp_path / "mine.safetensors"
        save_file({name: value for name, value in tensors.items() if not name.startswith("head.")}, path)
        backbone = build_backbone(VIT, weights=str(path), **SMALL)
        seeded = build_backbone(VIT, weights="random", seed=5, **SMALL)
        assert backbone.recipe["weights"] == {
            "name": "mine.safetensors", "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }  # fmt: skip
        with torch.inference_mode():
            assert torch.equal(backbone(_frames(64)), seeded(_frames(64)))

    @pytest.mark.parametrize("trained_on", [3, 20])
    def test_flow_takes_files_over_rgb_and_over_flow(
        self, tmp_path: Path, tensors: dict[str, Tensor], trained_on: int
    ) -> None:
        key = "patch_embed.proj.weight"
        given = tensors if trained_on == 3 else tensors | {key: torch.randn(192, 20, 16, 16)}
        save_file(given, tmp_path / "weights.safetensors")
        backbone = build_backbone(VIT, kind="flow", weights=str(tmp_path / "weights.safetensors"), **SMALL)
        loaded = backbone.net.model.state_dict()[key]
        assert torch.equal(loaded, given[key] if trained_on == 20 else cross_modality(given[key], 20))
        assert backbone.recipe["weights"]["conv1"] == ("flow" if trained_on == 20 else "cross-modality")

    def test_a_publishers_layout_is_converted_by_timm(self, tmp_path: Path) -> None:
        name = "vit_xsmall_patch16_clip_224"
        model = _reference(name, seed=7)
        own = model.state_dict()
        own["norm.weight"] = torch.rand(256)
        open_clip = {"visual.ln_post.weight": own.pop("norm.weight"), "visual.ln_post.bias": own.pop("norm.bias")}
        open_clip |= {
            "visual.ln_pre.weight": own.pop("norm_pre.weight"), "visual.ln_pre.bias": own.pop("norm_pre.bias"),
            "visual.class_embedding": own.pop("cls_token")[0, 0],
            "visual.conv1.weight": own.pop("patch_embed.proj.weight"),
            "visual.positional_embedding": own.pop("pos_embed")[0],
            "visual.proj": own.pop("head.weight").T.contiguous(),
        }  # fmt: skip
        swaps = {"blocks.": "transformer.resblocks.", "norm1": "ln_1", "norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
                 "mlp.fc2": "mlp.c_proj", "attn.proj": "attn.out_proj", "attn.qkv.": "attn.in_proj_"}  # fmt: skip
        for ours, theirs in swaps.items():
            own = {key.replace(ours, theirs): value for key, value in own.items()}
        open_clip |= {f"visual.{key}": value for key, value in own.items()}
        save_file(open_clip, tmp_path / "open_clip.safetensors")
        backbone = build_backbone(f"timm:{name}", weights=str(tmp_path / "open_clip.safetensors"), **SMALL)
        model.set_input_size(img_size=(64, 64))
        model.norm.weight = torch.nn.Parameter(open_clip["visual.ln_post.weight"])
        with torch.inference_mode():
            pixels = _pixels(_frames(64), model)
            expected = model.forward_intermediates(pixels, indices=1, norm=True, intermediates_only=True)[0]
            assert torch.allclose(backbone(_frames(64)), expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            pytest.param({"extra.weight": torch.zeros(3)}, "1 tensors have no place in the network", id="surplus"),
            pytest.param({"norm.weight": torch.zeros(3)}, r"'norm.weight' is \[3\], the network wants", id="shape"),
            pytest.param({"norm.weight": None}, "tensors of the network are missing, such as", id="missing"),
        ],
    )
    def test_every_tensor_is_accounted_for(
        self, tmp_path: Path, tensors: dict[str, Tensor], change: dict[str, Tensor | None], message: str
    ) -> None:
        save_file({k: v for k, v in (tensors | change).items() if v is not None}, tmp_path / "odd.safetensors")
        with pytest.raises(WeightsError, match=message) as caught:
            build_backbone(VIT, weights=str(tmp_path / "odd.safetensors"), **SMALL)
        assert "odd.safetensors" in str(caught.value)
        assert "\n" not in str(caught.value)


class _Hub(http.server.BaseHTTPRequestHandler):
    """The two requests of the hub's protocol: what a file is, and its bytes."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.files.get(self.path, b""))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """Files by path of a hub on this machine; what is fetched from it goes to a folder of the test."""
    monkeypatch.setenv("VIDATT_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(_Hub, "files", {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield _Hub.files
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_published_weights_are_fetched_once_and_their_digest_recorded(tmp_path: Path, hub: dict[str, bytes]) -> None:
    save_file(_reference("vit_tiny_patch16_224", seed=6).state_dict(), tmp_path / "published.safetensors")
    repository = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    content = (tmp_path / "published.safetensors").read_bytes()
    hub[f"/{repository}/resolve/main/model.safetensors"] = content
    path = fetch_weights(VIT)
    assert path.read_bytes() == content
    hub.clear()
    assert fetch_weights(repository) == path
    for choice in ("default", repository):
        backbone = build_backbone(VIT, weights=choice, **SMALL)
        assert backbone.recipe["weights"] == {"name": repository, "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.slow
def test_repositories_without_safetensors_give_the_next_file(tmp_path: Path, hub: dict[str, bytes]) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.bin")
    hub["/someone/tuned/resolve/main/pytorch_model.bin"] = (tmp_path / "x.bin").read_bytes()
    assert fetch_weights("someone/tuned").name == "pytorch_model.bin"
    with pytest.raises(WeightsError, match=r"it has none of model.safetensors, pytorch_model.bin"):
        fetch_weights("someone/else")


def test_without_a_network_one_line_names_file_and_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDATT_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    address = "https://huggingface.co/timm/convnext_atto.d2_in1k/resolve/main/model.safetensors"
    for attempt, words in (
        (lambda: build_backbone("timm:convnext_atto"), "run `vidatt weights fetch timm:convnext_atto`"),
        (lambda: fetch_weights("timm:convnext_atto"), "could not be fetched"),
    ):
        with pytest.raises(WeightsError, match=words) as caught:
            attempt()
        assert address in str(caught.value)
        assert "--weights PATH" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "timm:convnext_ato"}, "Unknown timm model 'convnext_ato'. Did you mean 'convnext_atto'?"),
        ({"name": "timm:convnext_atto.d3_in1k"}, "Unknown timm model 'convnext_atto.d3_in1k'. Did you mean"),
        ({"name": "timm:convnext_atto:stages.9"}, "Unknown layer of timm:convnext_atto 'stages.9'. Did you mean 'stag"),
        ({"name": "timm:convnext_atto", "kind": "clip"}, "works on rgb and flow, not on clip"),
        ({"name": "timm:convnext_atto", "preprocessing": "flow-tsn"}, "Unknown preprocessing of rgb streams"),
        ({"name": "timm:convnext_atto", "weights": "nowhere.pth"}, "neither a file nor a repository of the hub"),
        ({"name": "timm:deepseek_vit_412m"}, "frames its inputs with a border"),
        ({"name": "timm:"}, "Unknown backbone 'timm:'. Known: c3d, hof"),
    ],
    ids=["model", "tag", "layer", "kind", "rules", "weights", "border", "empty"],
)
def test_timm_backbone_refuses_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_backbone(**{"weights": "random", **arguments})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_timm_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as Python does for a module that must not be imported
    with pytest.raises(UsageError, match=r"need timm, which is not installed: pip install 'vidatt\[timm\]'"):
        backbone_entry("timm:convnext_pico")
    with pytest.raises(UnknownNameError):
        backbone_entry("tim:convnext_pico")
