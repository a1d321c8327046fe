"""The attention baselines of other papers against their equations: section 8 of the specification."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vidatt.errors import UsageError
from vidatt.heads.contract import Head, StreamShape, classification_loss
from vidatt.heads.layers.step_scores import segment_loss
from vidatt.heads.registry import build_head, resolve_settings
from vidatt.heads.soft_attention import SoftAttentionConfig
from vidatt.heads.videolstm import VideoLstmConfig

TINY = {"attention": "4", "lstm": "4", "output": "6"}
STREAMS = (StreamShape(name="rgb", grid=4, channels=5), StreamShape(name="flow", grid=2, channels=3))
rivals = pytest.mark.parametrize("name", ["soft-attention", "videolstm"])


def rival(name: str, settings: dict[str, str] | None = None, *, streams: int = 1) -> Head:
    torch.manual_seed(0)
    return build_head(name, streams=STREAMS[:streams], classes=3, settings=TINY | (settings or {})).eval()


def batch(videos: int = 1, segments: int = 3, streams: int = 1) -> tuple[list[Tensor], Tensor]:
    cubes = [torch.rand(videos, segments, s.grid, s.grid, s.channels) for s in STREAMS[:streams]]
    return cubes, torch.ones(videos, segments, dtype=torch.bool)


def test_soft_attention_follows_its_equations_written_out():
    """One video, two streams; the state before a segment attends to its cells."""
    head = rival("soft-attention", streams=2)
    cubes, valid = batch(streams=2)
    output = head(cubes, valid)
    mean = torch.cat([cube[0].mean((0, 1, 2)) for cube in cubes])
    h, c = head.start_h(mean).tanh(), head.start_c(mean).tanh()
    steps = []
    for t in range(3):
        context = []
        for m, attention in enumerate(head.attentions):
            cells = cubes[m][0, t].flatten(0, 1)  # [L, D]
            scores = [attention.u((attention.of_cells(x) + attention.of_state(h)).tanh()) for x in cells]
            alpha = torch.cat(scores).softmax(0)
            context.append(alpha @ cells)
            if m == 0:
                torch.testing.assert_close(output.spatial[0, t, 0].flatten(), alpha)
        _, (h_n, c_n) = head.lstm.lstm(torch.cat(context)[None, None], (h[None, None], c[None, None]))
        h, c = h_n[0, 0], c_n[0, 0]
        steps.append(head.classifier(head.output(h).tanh()))
    torch.testing.assert_close(output.parts["step"][0], torch.stack(steps))
    torch.testing.assert_close(output.logits.softmax(1)[0], torch.stack(steps).softmax(1).mean(0))


def test_soft_attention_goes_deeper_as_the_authors_code():
    """Three attention layers, tanh after the second alone of those of the cells; the last segments make the score."""
    head = rival("soft-attention", {"attention_layers": "3", "last_segments": "2"})
    (cubes,), valid = batch(videos=2, segments=4)
    valid[1, 3] = False
    output, attention = head([cubes], valid), head.attentions[0]
    mean = cubes[0].mean((0, 1, 2))
    h = head.start_h(mean).tanh()
    cells = cubes[0, 0].flatten(0, 1)
    first = attention.of_cells(cells) @ attention.deeper[0].weight.T + attention.deeper[0].bias
    second = first.tanh() @ attention.deeper[1].weight.T + attention.deeper[1].bias
    alpha = attention.u((second + attention.of_state(h)).tanh())[:, 0].softmax(0)
    torch.testing.assert_close(output.spatial[0, 0, 0].flatten(), alpha)
    steps = output.parts["step"].softmax(-1)
    expected = torch.stack([steps[0, 2:4].mean(0), steps[1, 1:3].mean(0)])
    torch.testing.assert_close(output.logits.softmax(1), expected)
    torch.testing.assert_close(output.temporal, torch.tensor([[0, 0, 0.5, 0.5], [0, 0.5, 0.5, 0]]))


def test_soft_attention_drops_out_the_states_and_the_hidden_layer():
    head, shapes = rival("soft-attention", {"dropout": "0.5"}).train(), []
    head.dropout.register_forward_hook(lambda module, inputs, output: shapes.append(inputs[0].shape))
    cubes, valid = batch(videos=2)
    head(cubes, valid)
    assert shapes == [(2, 3, head.config.lstm), (2, 3, head.config.output)]


def test_soft_attention_adds_up_the_loss_where_the_authors_do():
    mean, total = rival("soft-attention"), rival("soft-attention", {"reduction": "sum"})
    cubes, valid = batch(videos=2)
    valid[1, 2] = False
    output, target = mean(cubes, valid), torch.tensor([0, 1])
    steps = -output.parts["step"].log_softmax(-1)
    torch.testing.assert_close(total.loss(output, target), steps[0, :, 0].sum() + steps[1, :2, 1].sum())


def test_videolstm_follows_its_equations_written_out():
    head = rival("videolstm", streams=2)
    cubes, valid = batch(streams=2)
    output = head(cubes, valid)
    rgb = cubes[0][0].permute(0, 3, 1, 2)
    flow = cubes[1][0].permute(0, 3, 1, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)  # on the grid of rgb
    mean = torch.cat([rgb, flow], 1).mean(0, keepdim=True)
    h, c = head.start_h(mean).tanh(), head.start_c(mean).tanh()
    steps = []
    for t in range(3):
        attended = []
        for m, x in enumerate((rgb[t : t + 1], flow[t : t + 1])):
            attention = head.attentions[m]
            scores = attention.u((attention.of_cells(x) + attention.of_state(h)).tanh())
            alpha = scores.flatten().softmax(0).view(1, 1, 4, 4)
            torch.testing.assert_close(output.spatial[0, t, m], alpha[0, 0])
            attended.append(x * alpha)
        i, f, o, g = head.convlstm.gates(torch.cat([*attended, h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        steps.append(head.classifier(head.output(h.flatten()).tanh()))
    torch.testing.assert_close(output.parts["step"][0], torch.stack(steps))
    torch.testing.assert_close(output.logits.softmax(1)[0], torch.stack(steps).softmax(1).mean(0))


def test_videolstm_rescaled_and_pooled():
    plain, rescaled = rival("videolstm", {"pooling": "mean"}), rival("videolstm", {"pooling": "mean", "rescale": "yes"})
    assert plain.output.weight.shape == (6, 4)
    assert rival("videolstm").output.weight.shape == (6, 4 * 16)
    cubes, valid = batch()
    with torch.no_grad():
        rescaled.convlstm.gates.weight[:, :5] /= 16
    torch.testing.assert_close(rescaled(cubes, valid).logits, plain(cubes, valid).logits)


@rivals
def test_rival_loss_is_the_cross_entropy_of_every_step(name):
    head = rival(name)
    cubes, _ = batch(videos=2, segments=4)
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    output, target = head(cubes, valid), torch.tensor([0, 2])
    expected = sum(
        cross_entropy(output.parts["step"][b, :length], target[b].expand(length)) / 2 for b, length in enumerate([4, 2])
    )
    torch.testing.assert_close(head.loss(output, target), expected)
    mean = torch.stack([output.parts["step"][b, :n].softmax(1).mean(0) for b, n in enumerate([4, 2])])
    torch.testing.assert_close(head.probabilities(output.logits), mean)


@rivals
def test_rival_yes_no_scores_are_the_mean_of_the_steps(name):
    head = rival(name, {"loss": "sigmoid"})
    cubes, valid = batch(videos=2)
    output = head(cubes, valid)
    torch.testing.assert_close(head.probabilities(output.logits), output.parts["step"].sigmoid().mean(1))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_segment_loss_of_single_segments_is_the_classification_loss(kind):
    logits, hot = torch.randn(5, 1, 4), torch.tensor([[1, 1, 0, 0]] * 5)
    expected = classification_loss(logits[:, 0], hot, kind=kind)
    torch.testing.assert_close(segment_loss(logits, hot, torch.ones(5, 1), kind=kind), expected)
    two = torch.stack([logits, logits], 2)  # two streams
    torch.testing.assert_close(segment_loss(two, hot, torch.ones(5, 1), kind=kind), 2 * expected)


def test_soft_attention_penalty_counts_unseen_cells():
    head, free = rival("soft-attention", {"attention_penalty": "2"}), rival("soft-attention")
    cubes, valid = batch(videos=2)
    output, target = head(cubes, valid), torch.tensor([0, 1])
    unseen = (1 - output.spatial[:, :, 0].sum(1)).square().sum((1, 2)).mean()
    torch.testing.assert_close(head.loss(output, target), free.loss(output, target) + 2 * unseen)


@rivals
def test_rival_attends_by_its_state(name):
    """Two equal segments: the state has moved on, and so has the attention."""
    head = rival(name)
    cubes, valid = batch(segments=2)
    cubes[0][:, 1] = cubes[0][:, 0]
    spatial = head(cubes, valid).spatial
    assert not torch.allclose(spatial[:, 0], spatial[:, 1], atol=1e-6)


def test_rival_presets_are_the_specification():
    sharma, videolstm = resolve_settings("soft-attention"), resolve_settings("videolstm")
    assert isinstance(sharma.config, SoftAttentionConfig)
    assert (sharma.config.lstm, sharma.config.output, sharma.config.attention_penalty) == (512, 512, 0)
    assert (sharma.fit.optimiser, sharma.fit.lr, sharma.fit.batch_videos, sharma.fit.weight_decay) == (
        "adam",
        1e-4,
        128,
        1e-5,
    )
    hmdb51 = resolve_settings("soft-attention", "hmdb51")
    assert isinstance(hmdb51.config, SoftAttentionConfig)
    assert (hmdb51.config.attention_layers, hmdb51.config.lstm, hmdb51.config.last_segments) == (3, 1024, 16)
    assert (hmdb51.fit.optimiser, hmdb51.fit.lr, hmdb51.config.reduction) == ("sgd", 1e-5, "sum")
    assert isinstance(videolstm.config, VideoLstmConfig)
    assert (videolstm.config.lstm, videolstm.config.output, videolstm.config.dropout) == (512, 1024, 0.7)
    assert (videolstm.fit.lr, videolstm.fit.batch_videos) == (1e-3, 128)


def test_wrong_settings_are_refused():
    for name, settings, message in (
        ("soft-attention", {"attention_penalty": "-1"}, "at least 0"),
        ("soft-attention", {"lstm": "0"}, "lstm=0: must be at least 1"),
        ("videolstm", {"pooling": "max"}, "must be one of flat, mean"),
    ):
        with pytest.raises(UsageError, match=message):
            resolve_settings(name, "paper", settings)
