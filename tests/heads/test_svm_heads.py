"""What support vector machines share with every head: shapes, padding, single videos, attention, refusals."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from vidatt.errors import UsageError
from vidatt.heads.contract import FitDefaults, StreamShape
from vidatt.heads.registry import HEADS, build_from_settings, build_head, head_names, resolve_settings
from vidatt.heads.svm.machines import Svm, SvmFit

N = 5
NAMES = sorted(name for name in head_names() if issubclass(HEADS[name].fit, SvmFit) and name != "svm")
machines = pytest.mark.parametrize("name", NAMES)


def build(name: str, form: str = "one-vs-rest") -> Svm:
    grids = (1, 1) if name == "svm-fc6" else (4, 2)
    streams = [StreamShape(name=s, grid=K, channels=6) for s, K in zip(("rgb", "flow"), grids, strict=True)]
    head = build_head(name, streams=streams, classes=N, preset="small", settings={"form": form}).eval()
    generator = torch.Generator().manual_seed(1)
    for buffer in head.buffers():
        buffer.copy_(torch.randn(buffer.shape, generator=generator))
    return head


def batch(head: Svm, lengths: list[int]):
    T = max(lengths)
    cubes = [torch.rand(len(lengths), T, s.grid, s.grid, s.channels) for s in head.streams]
    return cubes, torch.arange(T) < torch.tensor(lengths).unsqueeze(1)


def test_names_of_the_paper_are_there():
    assert NAMES == ["svm-fc6", "svm-pool5-flat", "svm-pool5-mean", "svm-vlad"]
    vlad = resolve_settings("svm-vlad")
    assert (vlad.config.pca, vlad.config.clusters, vlad.config.descriptors) == (256, 128, 1_000_000)
    assert not set(vlad.config.__dataclass_fields__) & set(FitDefaults.__dataclass_fields__)


def test_vlad_of_512_channels_has_32768_numbers():
    head = build_head("svm-vlad", streams=[StreamShape(name="rgb", grid=7, channels=512)], classes=2)
    assert head.coefficients.shape == (2, 32_768)


@machines
@pytest.mark.parametrize("form", ["one-vs-rest", "one-vs-one"])
def test_svm_scores_a_video_alone_as_in_a_padded_batch_with_garbage(name, form):
    head = build(name, form)
    cubes, valid = batch(head, [2, 5, 1])
    spoilt = [cube.masked_fill(~valid[:, :, None, None, None], float("nan")) for cube in cubes]
    together = head(spoilt, valid)
    assert together.logits.shape == (3, N)
    torch.testing.assert_close(together.representation.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(together.temporal.sum(1), torch.ones(3))
    for b, length in enumerate([2, 5, 1]):
        alone = head([cube[b : b + 1, :length] for cube in cubes], valid[b : b + 1, :length])
        torch.testing.assert_close(alone.logits[0], together.logits[b], atol=1e-5, rtol=1e-5)
    halves = [cube.half() for cube in cubes]
    torch.testing.assert_close(head(halves, valid).logits, head([c.float() for c in halves], valid).logits)


@machines
def test_svm_saved_and_loaded_weights_score_equally(name, tmp_path):
    head = build(name)
    save_file(head.state_dict(), tmp_path / "w.safetensors")
    other = build_head(name, streams=head.streams, classes=N, preset="small")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    inputs = batch(head, [3, 4])
    assert torch.equal(other.eval()(*inputs).logits, head(*inputs).logits)


def test_svm_on_a_head_keeps_it_frozen_and_needs_it():
    streams = [StreamShape(name="rgb", grid=4, channels=6)]
    base = build_head("stan", streams=streams, classes=N, preset="small", settings={"conv6": "8", "lstm": "4"})
    settings = resolve_settings("svm")
    head = build_from_settings(settings, streams=streams, classes=N, on=base).train()
    head.coefficients.normal_()
    inputs = batch(head, [3, 4])
    assert not any(p.requires_grad for p in head.parameters())
    assert torch.equal(head(*inputs).logits, head(*inputs).logits)  # no dropout
    assert torch.equal(head(*inputs).spatial, base(*inputs).spatial)
    with pytest.raises(UsageError, match=r"only svm, and svm only, is fitted --on"):
        build_from_settings(settings, streams=streams, classes=N)
    with pytest.raises(UsageError, match=r"only svm, and svm only, is fitted --on"):
        build_head("svm", streams=streams, classes=N)
