"""Layers with the starting weights that the heads use where a paper states none (spec section 0)."""

from __future__ import annotations

from torch import nn


def he_conv(channels_in: int, channels_out: int, *, kernel: int, bias: bool = True) -> nn.Conv2d:
    """Convolution that keeps the grid (stride 1, padding kernel // 2); He-normal weights, zero bias or none."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=bias)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def classifier(channels: int, classes: int) -> nn.Linear:
    """Final linear layer; weights from N(0, 0.01^2), zero bias: all classes start equally likely."""
    linear = nn.Linear(channels, classes)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear
