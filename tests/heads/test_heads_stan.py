"""STAN against the oracles of the specification: sections 2 (P1, P4), 3.1, 3.2 and 3.3."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vidatt.heads.contract import Head, HeadOutput, StreamShape, classification_loss
from vidatt.heads.layers.attention import AttCell, attention_pool, attention_weights, resample_maps
from vidatt.heads.layers.recurrent import Lstm
from vidatt.heads.registry import build_head
from vidatt.pipelines.results.fusion_methods import METHODS

TINY = {"conv6": "8", "lstm": "6"}


def stan(settings: dict[str, str] | None = None, *, grid: int = 4, channels: int = 5, streams: int = 1) -> Head:
    torch.manual_seed(0)
    shapes = [StreamShape(name=f"s{m}", grid=grid, channels=channels) for m in range(streams)]
    return build_head("stan", streams=shapes, classes=3, settings=TINY | (settings or {})).eval()


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_lstm_equals_its_equations():
    torch.manual_seed(1)
    cell, x = Lstm(5, 4).double(), torch.randn(2, 7, 5, dtype=torch.float64)
    w = dict(cell.lstm.named_parameters())
    h = c = torch.zeros(2, 4, dtype=torch.float64)
    expected = []
    for t in range(7):
        gates = x[:, t] @ w["weight_ih_l0"].T + h @ w["weight_hh_l0"].T + w["bias_ih_l0"] + w["bias_hh_l0"]
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        expected.append(h)
    torch.testing.assert_close(cell(x), torch.stack(expected, 1), atol=1e-6, rtol=0)


def test_lstm_starts_orthogonal_with_forget_bias_one():
    weights = dict(Lstm(6, 4).lstm.named_parameters())
    for gate in weights["weight_hh_l0"].chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(4))
    assert weights["bias_ih_l0"].tolist() == [0] * 4 + [1] * 4 + [0] * 8
    assert not weights["bias_hh_l0"].any()


@pytest.mark.slow
@pytest.mark.parametrize(("streams", "parameters"), [(1, 8_396_800), (2, 12_591_104), (3, 16_785_408)])
def test_lstm_has_the_stated_parameters(streams, parameters):
    assert count(Lstm(1024 * streams, 1024)) == parameters


@pytest.mark.slow
def test_stan_has_the_stated_parameters():
    head = build_head("stan", streams=[StreamShape(name="rgb", grid=7, channels=512)], classes=101)
    by_name = {name: p.numel() for name, p in head.named_parameters()}
    conv6 = by_name["spatial.attentions.0.conv6.weight"] + by_name["spatial.attentions.0.conv6.bias"]
    assert conv6 == 4_719_616
    assert by_name["spatial.attentions.0.cell.weight"] == by_name["temporal.weight"] == 1024  # D + 1 with b = 0 frozen
    assert count(head) == 4_719_616 + 1024 + 8_396_800 + 1024 + 1025 * 101


def test_attcell_with_zero_weights_is_the_plain_mean():
    descriptors = torch.randn(3, 7, 5)
    weights = attention_weights(AttCell(5, init="zeros")(descriptors))
    torch.testing.assert_close(weights, torch.full((3, 7), 1 / 7))
    torch.testing.assert_close(attention_pool(descriptors, weights), descriptors.mean(1))


def test_attention_weights_ignore_a_constant_shift():
    scores, valid = torch.randn(4, 6), torch.arange(6) < torch.tensor([[6], [3], [1], [4]])
    torch.testing.assert_close(attention_weights(scores, valid), attention_weights(scores + 17.0, valid))


def test_attention_weights_survive_large_scores_and_refuse_empty_rows():
    assert attention_weights(torch.tensor([[1e30, -1e30]])).tolist() == [[1, 0]]
    with pytest.raises(ValueError, match="no valid position"):
        attention_weights(torch.zeros(2, 3), torch.tensor([[True, False, False], [False] * 3]))


def test_stan_with_zero_attention_is_the_mean_of_relu_conv6():
    head = stan({"attention_init": "zeros"})
    cubes, valid = torch.randn(2, 3, 4, 4, 5), torch.ones(2, 3, dtype=torch.bool)
    conv6 = head.spatial.attentions[0].conv6
    maps = conv6(cubes.flatten(0, 1).permute(0, 3, 1, 2)).relu().unflatten(0, (2, 3))  # [B, T, conv6, K, K]
    torch.testing.assert_close(head([cubes], valid).representation, maps.mean((1, 3, 4)))


def test_stan_follows_equations_1_to_8_written_out():
    """One video, two streams, loops over t, m, i, j as the paper writes them."""
    head = stan(streams=2)
    cubes = [torch.randn(1, 3, 4, 4, 5) for _ in range(2)]
    output = head(cubes, torch.ones(1, 3, dtype=torch.bool))
    x = []
    for t in range(3):
        attended = []
        for m, attention in enumerate(head.spatial.attentions):
            planes = torch.nn.functional.pad(cubes[m][0, t], (0, 0, 1, 1, 1, 1))  # [K + 2, K + 2, D]
            weight, bias = attention.conv6.weight, attention.conv6.bias
            f = {  # (3): conv6, cell by cell
                (i, j): (torch.einsum("ocyx,yxc->o", weight, planes[i : i + 3, j : j + 3]) + bias).relu()
                for i in range(4)
                for j in range(4)
            }
            s = torch.stack([attention.cell.weight @ f[cell] for cell in f])  # (2)
            alpha = s.exp() / s.exp().sum()  # (1), (4)
            torch.testing.assert_close(output.spatial[0, t, m].flatten(), alpha)
            attended.append(sum(alpha[n] * f[cell] for n, cell in enumerate(f)))  # (5)
        x.append(torch.cat(attended))  # (6)
    h = head.lstm(torch.stack(x).unsqueeze(0))[0]
    k = h @ head.temporal.weight
    beta = k.exp() / k.exp().sum()  # (7)
    f_att = sum(beta[t] * x[t] for t in range(3))  # (8)
    torch.testing.assert_close(output.temporal_raw[0], k)
    torch.testing.assert_close(output.temporal[0], beta)
    torch.testing.assert_close(output.representation[0], f_att)
    torch.testing.assert_close(output.logits[0], head.classifier(f_att))


def test_stan_with_1x1_conv6_ignores_the_order_of_cells():
    head = stan({"kernel": "1"})
    cubes, valid = torch.randn(2, 3, 4, 4, 5), torch.ones(2, 3, dtype=torch.bool)
    order = torch.randperm(16)
    shuffled = cubes.flatten(2, 3)[:, :, order].unflatten(2, (4, 4))
    one, other = head([cubes], valid), head([shuffled], valid)
    torch.testing.assert_close(one.representation, other.representation)
    torch.testing.assert_close(one.spatial.flatten(3)[..., order], other.spatial.flatten(3))


def test_stan_with_3x3_conv6_sees_the_order_of_cells():
    head = stan()
    cubes, valid = torch.randn(1, 2, 4, 4, 5), torch.ones(1, 2, dtype=torch.bool)
    shuffled = cubes.flatten(2, 3)[:, :, torch.randperm(16)].unflatten(2, (4, 4))
    assert not torch.allclose(head([cubes], valid).representation, head([shuffled], valid).representation)


def test_stan_single_segment_has_beta_one():
    output = stan()([torch.randn(2, 1, 4, 4, 5)], torch.ones(2, 1, dtype=torch.bool))
    assert output.temporal.tolist() == [[1.0], [1.0]]


def test_stan_late_fusion_of_two_identical_streams_is_the_single_stream():
    """As `vidatt fuse --method mean` does it: two streams of the same cubes, each with a head of the same weights."""
    head = stan()
    cubes, valid = torch.randn(3, 4, 4, 4, 5), torch.ones(3, 4, dtype=torch.bool)
    scores = head.scores(head([cubes], valid).logits).detach().numpy()
    other = np.roll(scores, 1, axis=1)
    mean = METHODS["mean"]
    for parts, expected in (([scores, scores], scores), ([scores, other], (scores + other) / 2)):
        fused = mean.fuse(mean.settings(), np.stack(parts), None, np.zeros((0, 3), bool), False)
        np.testing.assert_allclose(fused.test, expected, rtol=1e-6)


def test_stan_without_relu_keeps_negative_descriptors():
    cubes, valid = torch.randn(1, 2, 4, 4, 5), torch.ones(1, 2, dtype=torch.bool)
    assert (stan()([cubes], valid).representation >= 0).all()
    assert (stan({"relu": "no"})([cubes], valid).representation < 0).any()


def test_san_is_stan_with_uniform_temporal_attention():
    head = stan({"attention_init": "normal"})
    with torch.no_grad():
        head.temporal.weight.zero_()
    san = build_head("san", streams=head.streams, classes=3, settings={"conv6": "8"}).eval()
    san.load_state_dict({k: v for k, v in head.state_dict().items() if not k.startswith(("lstm", "temporal"))})
    cubes = [torch.randn(2, 4, 4, 4, 5)]
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    torch.testing.assert_close(san(cubes, valid).logits, head(cubes, valid).logits)
    torch.testing.assert_close(san(cubes, valid).temporal, head(cubes, valid).temporal)


@pytest.mark.parametrize(("k", "K"), [(1, 7), (4, 7), (7, 4), (7, 14), (2, 2)])
def test_resampled_maps_keep_their_mass(k, K):
    maps = torch.rand(3, 2, k, k)
    torch.testing.assert_close(resample_maps(maps, grid=K).sum((-2, -1)), maps.sum((-2, -1)))
    uniform = resample_maps(torch.full((k, k), 1 / k**2), grid=K)
    torch.testing.assert_close(uniform, torch.full((K, K), 1 / K**2))


def test_resampled_maps_share_a_cell_by_area():
    maps = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    expected = torch.tensor([[4, 2, 0], [2, 1, 0], [0, 0, 0]]) / 9
    torch.testing.assert_close(resample_maps(maps, grid=3), expected)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("softmax", -(0.5 * torch.log_softmax(torch.tensor([1.0, 2, 0]), 0)[:2]).sum().item()), ("sigmoid", 0.3777790)],
)
def test_loss_of_two_labels_is_the_specified_one(kind, expected):
    """Softmax: target multi-hot / sum. Sigmoid: mean of log(1 + e^-1), log(1 + e^-2), log 2."""
    loss = classification_loss(torch.tensor([[1.0, 2, 0]]), torch.tensor([[1, 1, 0]]), kind=kind)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"logits": torch.zeros(2)},
        {"representation": torch.zeros(3, 4)},
        {"temporal": torch.zeros(3, 5)},
        {"temporal_raw": torch.zeros(2, 4)},
        {"spatial": torch.zeros(2, 5, 4, 4)},
        {"spatial": torch.zeros(2, 5, 1, 4, 3)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_head_output_refuses_contradicting_shapes(wrong: dict[str, Tensor]):
    good = {"logits": torch.zeros(2, 3), "representation": torch.zeros(2, 4), "spatial": None}
    good |= {"temporal": torch.zeros(2, 5)}
    with pytest.raises(ValueError, match=r"HeadOutput\(logits="):
        HeadOutput(**(good | wrong))
