"""The rivals without attention: what they pool, what they run, and how they are read out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidatt.errors import UsageError
from vidatt.heads.contract import Head, StreamShape
from vidatt.heads.layers.grids import on_grid
from vidatt.heads.registry import build_head, resolve_settings

VALID = torch.tensor([[True] * 5, [True, True, True, False, False]])
TWO = (StreamShape(name="rgb", grid=4, channels=3), StreamShape(name="flow", grid=2, channels=5))
names = pytest.mark.parametrize("name", ["lstm", "sru", "convlstm"])


def build(name: str, **settings: str) -> Head:
    torch.manual_seed(0)
    return build_head(name, streams=TWO, classes=3, settings={"hidden": "6", **settings}).eval()


def batch() -> list[Tensor]:
    return [torch.randn(2, 5, s.grid, s.grid, s.channels) for s in TWO]


@pytest.mark.parametrize("name", ["lstm", "sru"])
def test_aggregator_reads_the_cell_means_of_all_streams(name):
    head, cubes = build(name, layers="2"), batch()
    pooled = torch.cat([cube.mean((2, 3)) for cube in cubes], -1)
    output = head(cubes, VALID)
    torch.testing.assert_close(output.parts["segments"][0], head.stack(pooled[:1])[0])
    torch.testing.assert_close(output.parts["segments"][1, :3], head.stack(pooled[1:, :3])[0])


def test_convlstm_keeps_the_finest_grid_until_after_the_recurrence():
    head, cubes = build("convlstm"), batch()
    fine, coarse = (cube.permute(0, 1, 4, 2, 3) for cube in cubes)
    states, _ = head.stack(torch.cat([fine, on_grid(coarse, grid=4)], 2), VALID)
    assert states.shape == (2, 5, 6, 4, 4)
    means = states.mean((3, 4)) * VALID.unsqueeze(-1)
    torch.testing.assert_close(head(cubes, VALID).parts["segments"], means)
    order = torch.randperm(16)
    shuffled = cubes[0].flatten(2, 3)[:, :, order].unflatten(2, (4, 4))
    assert not torch.allclose(head([shuffled, cubes[1]], VALID).logits, head(cubes, VALID).logits)


@names
@pytest.mark.parametrize(("readout", "expected"), [("mean", [1 / 3] * 3), ("last", [0, 0, 1])])
def test_aggregator_readout_is_the_mean_or_the_last_valid_output(name, readout, expected):
    head, cubes = build(name, readout=readout), batch()
    output = head(cubes, VALID)
    torch.testing.assert_close(output.temporal[1], torch.tensor([*expected, 0.0, 0.0]))
    outputs = output.parts["segments"][1, :3]
    torch.testing.assert_close(output.representation[1], outputs.mean(0) if readout == "mean" else outputs[2])
    torch.testing.assert_close(output.logits, head.classifier(output.representation))


@names
def test_aggregator_hears_the_order_of_segments_and_the_mean_does_not(name):
    cubes, backwards = batch(), torch.arange(4, -1, -1)
    all_valid = torch.ones(2, 5, dtype=torch.bool)
    turned = [cube[:, backwards] for cube in cubes]
    head, mean = build(name), build_head("mean", streams=TWO, classes=3).eval()
    assert not torch.allclose(head(turned, all_valid).logits, head(cubes, all_valid).logits, atol=1e-5)
    torch.testing.assert_close(mean(turned, all_valid).logits, mean(cubes, all_valid).logits)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lstm", {"layers": "0"}, "layers=0: must be at least 1"),
        ("lstm", {"sru": "v2"}, "Unknown setting of head 'lstm' 'sru'"),
        ("sru", {"sru": "v3"}, "must be one of v1, v2"),
        ("sru", {"rnn_dropout": "1"}, "rnn_dropout=1.0: must be"),
        ("sru", {"readout": "first"}, "must be one of mean, last"),
        ("convlstm", {"kernel": "2"}, "kernel=2: must be odd"),
        ("convlstm", {"layers": "2"}, "Unknown setting of head 'convlstm' 'layers'"),
    ],
)
def test_aggregator_refuses_wrong_settings_in_one_line(name, settings, message):
    with pytest.raises(UsageError, match=message):
        resolve_settings(name, "paper", settings)
