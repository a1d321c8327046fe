"""The convolutional LSTM against the LSTM, its equations and its parameter count (spec P3)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidatt.heads.layers.convlstm import ConvLSTM


def as_lstm(conv: ConvLSTM) -> nn.LSTM:
    """PyTorch's LSTM with the weights of the centre tap; its gates come in the order i, f, g, o."""
    C, H, centre = conv.input_channels, conv.hidden, conv.gates.kernel_size[0] // 2
    order = torch.cat([torch.arange(H) + gate * H for gate in (0, 1, 3, 2)])
    lstm = nn.LSTM(C, H, batch_first=True)
    with torch.no_grad():
        taps = conv.gates.weight[order, :, centre, centre]
        lstm.weight_ih_l0.copy_(taps[:, :C])
        lstm.weight_hh_l0.copy_(taps[:, C:])
        lstm.bias_ih_l0.copy_(conv.gates.bias[order])
        lstm.bias_hh_l0.zero_()
    return lstm


@pytest.mark.parametrize("kernel", [1, 3])
def test_convlstm_on_one_cell_is_the_lstm(kernel):
    """On a 1 x 1 grid only the centre tap of a 3 x 3 kernel meets anything but padding."""
    conv = ConvLSTM(5, 4, kernel)
    x, valid = torch.randn(2, 6, 5, 1, 1), torch.ones(2, 6, dtype=torch.bool)
    states, (h, c) = conv(x, valid)
    expected, (last_h, last_c) = as_lstm(conv)(x.flatten(2))
    torch.testing.assert_close(states.flatten(2), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(h.flatten(1), last_h[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(c.flatten(1), last_c[0], atol=1e-6, rtol=1e-5)


def test_convlstm_with_only_the_centre_tap_is_one_lstm_per_cell():
    conv = ConvLSTM(3, 4, 3)
    with torch.no_grad():
        weight = conv.gates.weight.clone()
        conv.gates.weight.zero_()
        conv.gates.weight[:, :, 1, 1] = weight[:, :, 1, 1]
    x = torch.randn(2, 5, 3, 4, 4)
    states, _ = conv(x, torch.ones(2, 5, dtype=torch.bool))
    cells = x.permute(0, 3, 4, 1, 2).flatten(0, 2)  # [B*K*K, T, C]
    expected = as_lstm(conv)(cells)[0].unflatten(0, (2, 4, 4)).permute(0, 3, 4, 1, 2)
    torch.testing.assert_close(states, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("peepholes", [False, True])
def test_convlstm_is_one_convolution_over_input_and_state(peepholes):
    conv = ConvLSTM(3, 2, 3, peepholes)
    if conv.peepholes is not None:
        nn.init.normal_(conv.peepholes)
    p = [0, 0, 0] if conv.peepholes is None else list(conv.peepholes)
    x = torch.randn(2, 4, 3, 5, 5)
    h, c = torch.randn(2, 2, 5, 5), torch.randn(2, 2, 5, 5)
    states, last = conv(x, torch.ones(2, 4, dtype=torch.bool), (h, c))
    for t in range(4):
        i, f, o, g = conv.gates(torch.cat([x[:, t], h], 1)).chunk(4, 1)
        i, f = (i + p[0] * c).sigmoid(), (f + p[1] * c).sigmoid()
        c = f * c + i * g.tanh()
        h = (o + p[2] * c).sigmoid() * c.tanh()
        torch.testing.assert_close(states[:, t], h, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(last, (h, c), atol=1e-6, rtol=1e-5)


def test_convlstm_stops_at_the_true_length():
    conv = ConvLSTM(3, 2)
    x = torch.randn(2, 5, 3, 4, 4)
    valid = torch.arange(5) < torch.tensor([[3], [5]])
    spoilt = x.clone()
    spoilt[0, 3:] = float("nan")
    states, (h, c) = conv(spoilt, valid)
    alone, (alone_h, alone_c) = conv(x[:1, :3], valid[:1, :3])
    torch.testing.assert_close(states[:1, :3], alone)
    torch.testing.assert_close((h[:1], c[:1]), (alone_h, alone_c))
    assert torch.equal(states[0, 3], states[0, 2])
    assert torch.equal(states[0, 4], states[0, 2])


def test_convlstm_padding_gets_no_gradient_and_spoils_none():
    conv = ConvLSTM(3, 2)
    x = torch.randn(1, 4, 3, 2, 2)
    x[0, 2:] = float("nan")
    x.requires_grad_()
    states, _ = conv(x, torch.tensor([[True, True, False, False]]))
    states.sum().backward()
    assert (x.grad[0, 2:] == 0).all()
    assert all(p.grad.isfinite().all() for p in conv.parameters())


@pytest.mark.slow
def test_convlstm_has_the_stated_parameters_and_start():
    assert sum(p.numel() for p in ConvLSTM(2048, 512).parameters()) == 47_187_968
    conv = ConvLSTM(6, 4)
    assert conv.gates.bias.tolist() == [0] * 4 + [1] * 4 + [0] * 8
    for gate in conv.gates.weight[:, 6:].flatten(1).chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(4))


def test_convlstm_refuses_an_even_kernel():
    with pytest.raises(ValueError, match="kernel=2 must be odd"):
        ConvLSTM(3, 2, 2)
