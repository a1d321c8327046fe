"""Simple recurrent units against the oracles of the specification (section 2, P2) and against the published package."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vidatt.heads.layers.sru import Sru, SruLayer, recurrence, recurrence_scan, recurrence_seen


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def set_weights(layer: SruLayer, **values: object) -> SruLayer:
    with torch.no_grad():
        for name, value in values.items():
            getattr(layer, name).copy_(torch.as_tensor(value))
    return layer


def written_out(layer: SruLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Eqs. (11) to (15) step by step for one video [T, n_in]; v2 as spec P2 tells it."""
    W, W_f, W_r, *W_p = layer.weight
    (b_f, b_r), v2 = layer.bias, layer.version == "v2"
    v_f, v_r = layer.state_weight if v2 else torch.zeros(2, len(b_f))
    c, outputs, states = torch.zeros(len(b_f)), [], []
    for x_t in x:
        f = torch.sigmoid(W_f @ x_t + v_f * c + b_f)
        r = torch.sigmoid(W_r @ x_t + v_r * c + b_r)
        c = f * c + (1 - f) * (W @ x_t)
        highway = W_p[0] @ x_t if W_p else x_t * (math.sqrt(3) if v2 else 1)
        outputs.append(r * (c if v2 else c.tanh()) + (1 - r) * highway)
        states.append(c)
    return torch.stack(outputs), torch.stack(states)


def test_sru_scalar_is_the_stated_one():
    layer = set_weights(SruLayer(1, 1), weight=[[[1.0]], [[0.0]], [[0.0]]], bias=[[0.0], [0.0]])
    h, c = layer(torch.tensor([[[1.0], [2.0]]]))
    torch.testing.assert_close(h.flatten(), torch.tensor([0.7310585786, 1.4241418200]))
    assert c.flatten().tolist() == [0.5, 1.25]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("channels", [6, 5], ids=["identity", "projection"])
def test_sru_follows_its_equations_written_out(version, channels):
    layer = SruLayer(channels, 6, version=version)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 7, channels)
    h, c = layer(x)
    for b in range(2):
        outputs, states = written_out(layer, x[b])
        torch.testing.assert_close(h[b], outputs, atol=1e-6, rtol=0)
        torch.testing.assert_close(c[b], states, atol=1e-6, rtol=0)


PACKAGE = {  # printed by sru 2.6.0 on a CPU for the weights below: outputs of four steps, and the last state
    ("v1", 2): ("-.1813088 -.7793126 .0690725 .1205549 .2128298 .4781938 .1687451 .0523633", "-.5361222 -.0709084"),
    ("v1", 3): ("0.2290895 -.6276916 .4641372 .3175615 -.0119363 .5624877 -.5874789 -.0800352", "-.7059768 -.1740106"),
    ("v2", 2): ("-.4366674 -1.3287965 .002748 .1696991 .3828659 .7731873 .4929491 .1181005", "-.5295538 -.0827268"),
    ("v2", 3): ("0.2339506 -.6277189 .4639215 .3123128 -.0019521 .5951877 -.6222624 -.0816995", "-.6993854 -.1989389"),
}


@pytest.mark.parametrize(("version", "channels"), PACKAGE)
def test_sru_gives_the_numbers_of_the_published_package(version, channels):
    """v1: v1=True, use_tanh=True, rescale=False; v2: its defaults. Its weight is [n_in, unit * k + matrix]."""
    layer = SruLayer(channels, 2, version=version)
    theirs = torch.linspace(-1, 1, layer.weight.numel()).view(channels, 2, len(layer.weight))
    set_weights(layer, weight=theirs.permute(2, 1, 0), bias=[[0.1, -0.2], [0.3, -0.4]])
    if version == "v2":
        set_weights(layer, state_weight=[[0.5, -0.6], [0.7, -0.8]])
    h, c = layer(torch.linspace(-2, 3, 4 * channels).view(1, 4, channels).sin())
    outputs, state = (torch.tensor([float(n) for n in text.split()]) for text in PACKAGE[version, channels])
    torch.testing.assert_close(h.flatten(), outputs, atol=1e-6, rtol=0)
    torch.testing.assert_close(c[0, -1], state, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("channels", "parameters"), [(512, 8_394_752), (1024, 9_443_328)])
def test_sru_of_glka_has_the_stated_parameters(channels, parameters):
    """The global stream reads 512 channels into 1024 units: eq. (15) is not defined there without a 4th matrix."""
    with torch.device("meta"):
        assert count(Sru(channels, 1024, 3)) == parameters


@pytest.mark.parametrize(("channels", "matrices"), [(5, 3), (4, 4)])
def test_sru_layer_has_three_matrices_or_four(channels, matrices):
    layer = SruLayer(channels, 5)
    assert count(layer) == channels * 5 * matrices + 2 * 5
    assert layer.projects == (matrices == 4)
    assert count(SruLayer(channels, 5, version="v2")) == count(layer) + 2 * 5


@pytest.mark.parametrize("T", [1, 2, 3, 7, 8, 30])
@pytest.mark.parametrize("sharpness", [1.0, 60.0], ids=["soft", "saturated"])
def test_sru_scan_agrees_with_the_loop_in_values_and_gradients(T, sharpness):
    forget = (sharpness * torch.randn(3, T, 5)).requires_grad_()
    candidate = torch.randn(3, T, 5, requires_grad=True)
    pull = torch.randn(3, T, 5)
    loop, scan = (run(forget.sigmoid(), candidate) for run in (recurrence, recurrence_scan))
    torch.testing.assert_close(scan, loop, atol=1e-6, rtol=0)
    for one, other in zip(
        *(torch.autograd.grad((states * pull).sum(), [forget, candidate]) for states in (loop, scan)), strict=True
    ):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)


def test_sru_scan_and_loop_are_the_same_network():
    x = torch.randn(2, 9, 5)
    loop, scan = Sru(5, 6, 3), Sru(5, 6, 3, scan=True)
    scan.load_state_dict(loop.state_dict())
    torch.testing.assert_close(scan(x), loop(x), atol=1e-6, rtol=1e-5)


def test_sru_recurrence_treats_units_apart():
    order = torch.randperm(6)
    forget, candidate, weight = torch.rand(2, 5, 6), torch.randn(2, 5, 6), torch.randn(6)
    for run in (recurrence, recurrence_scan):
        assert torch.equal(run(forget, candidate)[..., order], run(forget[..., order], candidate[..., order]))
    whole = recurrence_seen(forget, candidate, weight)
    assert torch.equal(whole[..., order], recurrence_seen(forget[..., order], candidate[..., order], weight[order]))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_sru_states_stop_at_the_true_length_and_never_look_ahead(version):
    stack, x = Sru(4, 5, 2, version=version), torch.randn(3, 6, 4)
    valid = torch.arange(6) < torch.tensor([[6], [2], [4]])
    together = stack(x * valid.unsqueeze(-1), valid)
    assert (together[~valid] == 0).all()
    for b, length in enumerate([6, 2, 4]):
        torch.testing.assert_close(together[b, :length], stack(x[b : b + 1, :length])[0])


def test_sru_rnn_dropout_spares_the_identity_highway():
    """Zero weights leave h = x' / 2: the whole input where x' is x itself, half of its channels where it is W_p x."""
    x = torch.randn(4, 3, 8)
    identity = set_weights(SruLayer(8, 8, rnn_dropout=0.5), weight=torch.zeros(3, 8, 8)).train()
    torch.testing.assert_close(identity(x)[0], x / 2)
    weight = torch.zeros(4, 9, 8)
    weight[3, :8] = torch.eye(8)
    projected = set_weights(SruLayer(8, 9, rnn_dropout=0.5), weight=weight).train()(x)[0][..., :8]
    kept = (projected / (x / 2)).round(decimals=4)  # 0, or 1 / (1 - rate)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(kept, kept[:, :1].expand_as(kept))  # one mask for all segments
    assert not torch.equal(kept[0], kept[1])  # another one for every video


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_sru_dropout_is_one_mask_per_video_and_unit(version):
    """v1 drops g(c) inside the highway, v2 the whole step away from it: the package changed between them."""
    layer, x = SruLayer(16, 16, version=version, dropout=0.5), torch.randn(2, 4, 16)
    clean, states = layer.eval()(x)
    noisy, _ = layer.train()(x)
    highway = x * layer.highway_scale
    before = torch.nn.functional.pad(states[:, :-1], (0, 0, 1, 0))
    seen = before * layer.state_weight[1] if version == "v2" else 0
    gate = (x @ layer.weight[2].T + layer.bias[1] + seen).sigmoid()
    value = states.tanh() if version == "v1" else states
    dropped = (1 - gate) * highway if version == "v1" else highway
    kept = gate * 2 * value + (1 - gate) * highway if version == "v1" else highway + 2 * gate * (value - highway)
    is_dropped = torch.isclose(noisy, dropped, atol=1e-5).all(1, keepdim=True)  # [2, 1, 16]: in every segment
    assert 0 < is_dropped.float().mean() < 1
    torch.testing.assert_close(noisy, torch.where(is_dropped, dropped, kept))
    assert not torch.allclose(noisy, clean)


def test_sru_last_layer_and_scoring_have_no_dropout():
    x = torch.randn(2, 4, 5)
    single = Sru(5, 6, 1, dropout=0.9)
    assert torch.equal(single.train()(x), single.eval()(x))
    double = Sru(5, 6, 2, dropout=0.9, rnn_dropout=0.9)
    assert not torch.equal(double.train()(x), double.eval()(x))
    assert torch.equal(double.eval()(x), double.eval()(x))


def test_sru_starts_as_the_package_does():
    """All matrices have variance 1 / n_in in v1; v2 halves that of the gates and triples the highway's."""
    torch.manual_seed(0)
    v1 = SruLayer(300, 200).weight.detach()
    assert v1.abs().max() <= math.sqrt(3 / 300)
    torch.testing.assert_close(v1.std((1, 2)), torch.full((4,), 300**-0.5), rtol=0.02, atol=0)
    v2 = SruLayer(300, 200, version="v2", dropout=0.5)
    factors = v2.weight.detach().var((1, 2)) * 300
    torch.testing.assert_close(factors, torch.tensor([0.5, 0.5, 0.5, 3.0]), rtol=0.03, atol=0)
    assert v2.highway_scale == 1  # in W_p already
    assert SruLayer(5, 5, version="v2").highway_scale == math.sqrt(3)
    assert not v2.bias.any()
