"""Where-and-when against the oracles of the specification: section 6."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidatt.errors import UsageError
from vidatt.heads.contract import StreamShape
from vidatt.heads.layers.attention import attention_weights
from vidatt.heads.layers.grids import on_grid
from vidatt.heads.layers.regularisers import contrast, total_variation, unimodality, unimodality_root
from vidatt.heads.registry import build_head, preset_names, resolve_settings
from vidatt.heads.where_and_when import (
    AdditiveEnergy,
    BahdanauEnergy,
    MapNorm,
    MaskNetwork,
    StartNetwork,
    WhereAndWhen,
    WhereAndWhenConfig,
)

TINY = {"filters": "6,5", "lstm": "4", "energy": "3"}


def head(settings: dict[str, str] | None = None, *, streams: int = 1, grid: int = 4) -> WhereAndWhen:
    torch.manual_seed(0)
    shapes = [StreamShape(name=f"s{m}", grid=grid, channels=5) for m in range(streams)]
    made = build_head("where-and-when", streams=shapes, classes=3, settings=TINY | (settings or {}), preset="default")
    assert isinstance(made, WhereAndWhen)
    return made.eval()


def batch(videos: int = 2, segments: int = 4, grid: int = 4) -> tuple[list[torch.Tensor], torch.Tensor]:
    return [torch.rand(videos, segments, grid, grid, 5)], torch.ones(videos, segments, dtype=torch.bool)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_regularisers_have_the_specified_values():
    assert total_variation(torch.tensor([[0.0, 1], [0, 1]])).item() == 2
    assert contrast(torch.tensor([[0.9, 0.2], [0.5, 0.6]])).item() == pytest.approx(-0.40)
    assert contrast(torch.tensor([[0.9, 0.2], [0.5, 0.6]]), skip_half=True).item() == pytest.approx(-0.65)
    assert unimodality(torch.tensor([0.5, 0.1, 0.4])).item() == pytest.approx(0.19)
    assert unimodality(torch.tensor([0.2, 0.6, 0.2])).item() == 0
    assert unimodality(torch.full((9,), 1 / 9)).item() == pytest.approx(0, abs=1e-8)
    bell = torch.exp(-torch.linspace(-2, 2, 25, dtype=torch.float64).square())
    assert unimodality(bell / bell.sum()).item() == 0
    assert unimodality(torch.tensor([1.0, 0, 0, 1])).item() == 0  # two peaks: zeros inside hide the valley


def test_regularisers_are_smallest_for_the_mask_of_ones():
    """The collapse that only the classification opposes: no mask does better than no attention at all."""
    ones, masks = torch.ones(4, 4), torch.rand(200, 4, 4)
    best = 1e-5 * total_variation(ones) + 1e-4 * contrast(ones)
    assert (best < 1e-5 * total_variation(masks) + 1e-4 * contrast(masks)).all()
    assert contrast(ones).item() == -8  # -K*K/2, the least there is


def test_contrast_drives_a_mask_apart_with_slope_one_half():
    mask = torch.tensor([[0.9, 0.2], [0.5, 0.6]], requires_grad=True)
    contrast(mask).backward()
    assert mask.grad.tolist() == [[-0.5, 0.5], [0.5, -0.5]]


def test_unimodality_root_is_the_mean_of_roots_with_a_finite_gradient():
    weights = torch.tensor([[0.4, 0.1, 0.3, 0.2, 0.0], [0.5, 0.5, 0.0, 0.0, 0.0]], requires_grad=True)
    value = unimodality_root(weights, torch.tensor([4, 2]))
    assert value.tolist() == pytest.approx([(0.4 * 0.3 - 0.1**2) ** 0.5 / 2, 0])  # its other inner weight is no valley
    value.sum().backward()
    assert weights.grad.isfinite().all()


def test_mask_and_start_networks_have_the_stated_parameters():
    with torch.device("meta"):
        mask, start = MaskNetwork(2048, (1024, 512)), StartNetwork(2048, 1024, 512)
    assert count(mask) == 23_600_640
    assert count(start) == 23_596_032


def test_mask_lies_inside_zero_and_one_and_is_half_with_a_zero_last_convolution():
    made = head()
    cubes, valid = batch()
    spatial = made(cubes, valid).spatial
    assert ((spatial > 0) & (spatial < 1)).all()
    with torch.no_grad():
        made.masks[0].layers[-1].weight.zero_()
    halved = made(cubes, valid)
    assert (halved.spatial == 0.5).all()
    assert (halved.parts["mask_mean"] == 0.5).all()
    plain = head({"spatial": "no"})
    plain.load_state_dict({key: v for key, v in made.state_dict().items() if not key.startswith("masks")})
    torch.testing.assert_close(plain([cubes[0] / 2], valid).logits, halved.logits)  # X~ = X / 2
    assert plain(cubes, valid).spatial is None


def test_paper_temporal_attention_does_not_depend_on_time():
    """The printed energy is a sum of a term without i and one without t: the softmax over i cancels the state."""
    frames, states = torch.randn(2, 6, 5), torch.randn(2, 7, 4)
    paper, cited = AdditiveEnergy(5, 4), BahdanauEnergy(5, 4, 3)
    w = torch.stack([attention_weights(paper(states[:, t], frames)) for t in range(7)], 1)
    torch.testing.assert_close(w, w[:, :1].expand_as(w))
    other = torch.stack([attention_weights(cited(states[:, t], frames)) for t in range(7)], 1)
    assert not torch.allclose(other, other[:, :1].expand_as(other), atol=1e-3)
    with torch.no_grad():
        cited.of_state.weight.zero_()
    still = torch.stack([attention_weights(cited(states[:, t], frames)) for t in range(7)], 1)
    torch.testing.assert_close(still, still[:, :1].expand_as(still))


@pytest.mark.parametrize("temporal", ["bahdanau", "paper", "post_lstm", "none"])
def test_one_segment_has_weight_one(temporal):
    output = head({"temporal": temporal})(batch(segments=1)[0], torch.ones(2, 1, dtype=torch.bool))
    assert output.temporal.tolist() == [[1.0], [1.0]]
    cubes, valid = batch(segments=3)
    valid[1, 1:] = False
    assert head({"temporal": temporal})(cubes, valid).temporal[1].tolist() == [1.0, 0.0, 0.0]


def test_paper_temporal_attention_does_not_train_the_state_term():
    cubes, valid = batch()
    for temporal, trained in (("paper", False), ("bahdanau", True)):
        made = head({"temporal": temporal}).train()
        made.loss(made(cubes, valid), torch.tensor([0, 1])).backward()
        state, frames = (getattr(made.energy, name).weight.grad.abs().max() for name in ("of_state", "of_frames"))
        assert (state > 1e-3 * frames) == trained, temporal


def test_where_and_when_follows_equations_1_to_6_written_out():
    """One video, loops over t and i as the paper writes them; the energy is the cited one."""
    made = head()
    nn.init.normal_(made.energy.v.weight, std=30)  # attention that is sharp and moves, so that its penalty counts
    nn.init.normal_(made.energy.of_state.weight, std=3)
    cubes, valid = batch(videos=1, segments=3)
    output = made(cubes, valid)
    x = cubes[0][0].permute(0, 3, 1, 2)  # [T, D, K, K]
    masks = [torch.sigmoid(made.masks[0].layers(x[i : i + 1]))[0] for i in range(3)]
    attended = torch.stack([x[i] * masks[i] for i in range(3)])  # (1)
    torch.testing.assert_close(output.spatial[0], torch.stack(masks))
    mean = attended.mean(0, keepdim=True)
    h, c = made.start_h(mean), made.start_c(mean)  # (5)
    energy, states, weights = made.energy, [], []
    for _ in range(3):
        e = torch.stack(
            [
                energy.v(
                    (energy.of_state(h.mean((2, 3))[0]) + energy.of_frames(attended[i].mean((1, 2)))).tanh()
                ).squeeze()
                for i in range(3)
            ]
        )  # (2)
        w = e.exp() / e.exp().sum()  # (3)
        y = sum(w[i] * attended[i] for i in range(3))  # (4), without its 1 / n
        i_, f, o, g = made.convlstm.gates(torch.cat([y.unsqueeze(0), h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i_.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h[0])
        weights.append(w)
    representation = torch.stack(states).mean(0).mean((1, 2))  # (6)
    torch.testing.assert_close(output.temporal[0], torch.stack(weights).mean(0))
    torch.testing.assert_close(output.representation[0], representation)
    torch.testing.assert_close(output.logits[0], made.classifier(representation))
    penalty = sum(max(0.0, (w[0] * w[2] - w[1] ** 2).item()) for w in weights)  # (10): over t, and i = 2 .. n - 1
    assert penalty > 0
    assert output.parts["unimodality"].sum().item() == pytest.approx(penalty, rel=1e-4)


def test_divide_by_n_feeds_the_convlstm_an_nth():
    plain, divided = head(), head({"divide_by_n": "yes"})
    cubes, valid = batch(segments=4)
    assert not torch.allclose(plain(cubes, valid).logits, divided(cubes, valid).logits)
    with torch.no_grad():
        divided.convlstm.gates.weight[:, :5] *= 4
    torch.testing.assert_close(plain(cubes, valid).logits, divided(cubes, valid).logits)


def test_post_lstm_attention_weights_the_states():
    made = head({"temporal": "post_lstm"})
    cubes, valid = batch(videos=1)
    output = made(cubes, valid)
    x = cubes[0].permute(0, 1, 4, 2, 3) * output.spatial[0].unsqueeze(0)
    mean = x.mean(1)
    states, _ = made.convlstm(x, valid, (made.start_h(mean), made.start_c(mean)))
    pooled = states[0].mean((2, 3))  # [T, H]
    scores = pooled @ made.energy.weight[0]
    torch.testing.assert_close(output.temporal_raw[0], scores)
    torch.testing.assert_close(output.temporal[0], scores.softmax(0))
    torch.testing.assert_close(output.representation[0], scores.softmax(0) @ pooled)


def test_temporal_none_is_the_mean_state():
    attended, plain = head({"temporal": "post_lstm"}), head({"temporal": "none"})
    with torch.no_grad():
        attended.energy.weight.zero_()
    plain.load_state_dict({key: v for key, v in attended.state_dict().items() if not key.startswith("energy")})
    cubes, valid = batch()
    torch.testing.assert_close(plain(cubes, valid).logits, attended(cubes, valid).logits)
    assert plain(cubes, valid).temporal_raw is None


@pytest.mark.parametrize("temporal", ["bahdanau", "post_lstm"])
def test_loss_adds_the_regularisers_with_their_weights(temporal):
    settings = {"temporal": temporal, "total_variation": "2", "contrast": "3", "unimodality": "500"}
    made = head(settings)
    with torch.no_grad():  # make the attention over segments uneven, so that its penalty counts
        (made.energy.v if temporal == "bahdanau" else made.energy).weight.mul_(50)
    cubes, valid = batch(videos=3)
    output, target = made(cubes, valid), torch.tensor([0, 1, 2])
    smooth, decided = total_variation(output.spatial).sum(), contrast(output.spatial).sum()
    peaks = output.parts["unimodality"].sum()
    assert peaks > 0
    if temporal == "post_lstm":
        torch.testing.assert_close(peaks, unimodality(output.temporal).sum())
    expected = nn.functional.cross_entropy(output.logits, target) + (2 * smooth + 3 * decided + 500 * peaks) / 3
    torch.testing.assert_close(made.loss(output, target), expected)
    repo = head(settings | {"regularisers": "repo"})
    repo.load_state_dict(made.state_dict())
    output = repo(cubes, valid)
    roots = unimodality_root(output.temporal, valid.sum(1)).sum()
    expected = nn.functional.cross_entropy(output.logits, target) + 2 * smooth + (3 * decided + 500 * roots) / 3
    torch.testing.assert_close(repo.loss(output, target), expected)  # its total variation grows with the batch


def test_batch_statistics_hold_no_padding():
    made = head({"dropout": "0"}).train()
    cubes, _ = batch(videos=2, segments=4)
    valid = torch.tensor([[True, True, False, False], [True] * 4])
    cubes[0][0, 2:] = 1e4
    norm, conv = made.masks[0].layers[0][1], made.masks[0].layers[0][0]
    made(cubes, valid)
    seen = conv(cubes[0][valid].permute(0, 3, 1, 2))  # [S, filters, K, K]
    torch.testing.assert_close(norm.running_mean, 0.1 * seen.mean((0, 2, 3)))


def test_training_takes_a_last_batch_of_one_video_on_one_cell():
    made = head(grid=1).train()
    cubes, valid = batch(videos=1, segments=1, grid=1)
    loss = made.loss(made(cubes, valid), torch.tensor([1]))
    loss.backward()
    assert loss.isfinite()
    norm, one = MapNorm(3).train(), torch.rand(1, 3, 1, 1)
    torch.testing.assert_close(norm(one), one / (1 + norm.eps) ** 0.5)  # by the running statistics, 0 and 1


def test_streams_have_masks_of_their_own_on_their_own_grids():
    shapes = [StreamShape(name="rgb", grid=4, channels=5), StreamShape(name="clip", grid=2, channels=3)]
    made = build_head("where-and-when", streams=shapes, classes=3, settings=TINY, preset="default").eval()
    cubes = [torch.rand(2, 3, 4, 4, 5), torch.rand(2, 3, 2, 2, 3)]
    spatial = made(cubes, torch.ones(2, 3, dtype=torch.bool)).spatial
    small = made.masks[1](cubes[1].flatten(0, 1).permute(0, 3, 1, 2)).unflatten(0, (2, 3))
    torch.testing.assert_close(spatial[:, :, 1], small[:, :, 0].repeat_interleave(2, -1).repeat_interleave(2, -2))


@pytest.mark.parametrize(("k", "K"), [(1, 7), (4, 7), (7, 4), (7, 14), (3, 3)])
def test_maps_on_another_grid_keep_their_values(k, K):
    maps = torch.rand(2, 3, k, k)
    torch.testing.assert_close(on_grid(maps, grid=K).mean((-2, -1)), maps.mean((-2, -1)))
    torch.testing.assert_close(on_grid(torch.full((k, k), 0.7), grid=K), torch.full((K, K), 0.7))


def test_presets_are_the_specification():
    assert preset_names("where-and-when") == ["default", "paper", "repo", "small"]
    kinds = {}
    for preset in ("default", "paper", "repo"):
        settings = resolve_settings("where-and-when", preset)
        config, fit = settings.config, settings.fit
        assert isinstance(config, WhereAndWhenConfig)
        kinds[preset] = (config.temporal, config.regularisers)
        assert (config.total_variation, config.contrast, config.unimodality) == (1e-5, 1e-4, 1)
        assert (config.lstm, config.filters, config.dropout) == (512, (1024, 512), 0.2)
        assert (fit.optimiser, fit.lr, fit.weight_decay, fit.batch_videos) == ("adam", 1e-4, 1e-4, 30)
        assert (fit.schedule, fit.patience) == ("plateau", 5)
    assert kinds == {"default": ("bahdanau", "paper"), "paper": ("paper", "paper"), "repo": ("post_lstm", "repo")}


def wave(tensor: torch.Tensor, phase: int) -> torch.Tensor:
    """Numbers that anybody can make again: half a sine, 0.7 a step."""
    return (0.5 * torch.sin(torch.arange(tensor.numel(), dtype=torch.float32) * 0.7 + phase)).reshape(tensor.shape)


# logits, attention of the first video, mean mask, one cell of it, unimodality; computed with the authors' public code,
# github.com/LiliMeng/spatial_temporal_att_ucf101_24 at 56becb4, Action_Att_LSTM with 2048, 1024, 512 channels and
# 7 x 7 cells replaced by 6, 5, 4 and 3 x 3, no dropout, in evaluation and in training mode
AUTHORS = {
    False: (
        [[-0.599502, -0.292612, -0.149842], [-0.762688, -0.134943, -0.283775]],
        [0.180465, 0.190097, 0.205033, 0.213061, 0.211344], 0.454591, 0.837468, 0.03300861641764641,
        0.0004552145255729556, -0.0009041628800332546, 1.2423336505889893,
    ),
    True: (
        [[-0.583781, -0.294499, -0.162008], [-0.699734, -0.184375, -0.253577]],
        [0.197261, 0.193746, 0.198981, 0.203804, 0.206207], 0.476548, 0.703114, 0.03176574409008026,
        0.000249241478741169, -0.00023270957171916962, 1.2181192636489868,
    ),
}  # fmt: skip


@pytest.mark.parametrize("training", [False, True])
def test_preset_repo_computes_what_the_authors_code_does(training):
    made = build_head(
        "where-and-when", streams=[StreamShape(name="rgb", grid=3, channels=6)], classes=3, preset="repo",
        settings={"filters": "5,4", "lstm": "4", "dropout": "0"},
    )  # fmt: skip
    assert isinstance(made, WhereAndWhen)
    layers = made.masks[0].layers
    weights = [
        layers[0][0].weight, layers[0][1].weight, layers[0][1].bias, layers[1][0].weight, layers[1][1].weight,
        layers[1][1].bias, layers[2].weight, made.convlstm.gates.weight, made.convlstm.gates.bias, made.energy.weight,
        made.classifier.weight, made.classifier.bias,
    ]  # fmt: skip
    assert sum(w.numel() for w in weights) == count(made)
    with torch.no_grad():
        for phase, weight in enumerate(weights):
            weight.copy_(wave(weight, phase))
        made.energy.weight.mul_(4)
    cubes = (4 * wave(torch.zeros(2, 5, 6, 3, 3), 99).abs()).permute(0, 1, 3, 4, 2)
    target = torch.tensor([2, 0])
    logits, attention, mask_mean, cell, root, smooth, decided, loss = AUTHORS[training]
    output = made.train(training)([cubes], torch.ones(2, 5, dtype=torch.bool))
    torch.testing.assert_close(output.logits, torch.tensor(logits), atol=1e-6, rtol=0)
    torch.testing.assert_close(output.temporal[0], torch.tensor(attention), atol=1e-6, rtol=0)
    assert output.spatial is not None
    assert output.spatial.mean().item() == pytest.approx(mask_mean, abs=1e-6)
    assert output.spatial[1, 3, 0, 2, 1].item() == pytest.approx(cell, abs=1e-6)
    assert output.parts["unimodality"].sum().item() / 2 == pytest.approx(root, rel=1e-4)
    assert 1e-5 * output.parts["total_variation"].sum().item() == pytest.approx(smooth, rel=1e-5)
    assert 1e-4 * output.parts["contrast"].sum().item() / 2 == pytest.approx(decided, rel=1e-4)
    assert made.loss(output, target).item() == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": "8"}, "filters=.*must be two numbers"),
        ({"temporal": "after"}, "must be one of bahdanau"),
        ({"contrast": "-1"}, "contrast=-1.0: must be at least 0"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        resolve_settings("where-and-when", "paper", settings)


@pytest.mark.slow
def test_mask_finds_the_marked_cell():
    """Four classes told by one marked cell of each frame among noise: after a short fit the mask is largest there."""
    torch.manual_seed(0)
    codes = 3 * torch.randn(4, 8)
    target, place = torch.arange(32) % 4, torch.randint(16, (32, 3))
    cells = torch.randn(32, 3, 16, 8)
    cells.scatter_add_(
        2, place[..., None, None].expand(-1, -1, 1, 8), codes[target][:, None, None].expand(-1, 3, 1, -1)
    )
    cubes, valid = [cells.unflatten(2, (4, 4))], torch.ones(32, 3, dtype=torch.bool)
    shapes = [StreamShape(name="rgb", grid=4, channels=8)]
    made = build_head("where-and-when", streams=shapes, classes=4, preset="small", settings={"dropout": "0"}).train()
    optimiser = torch.optim.Adam(made.parameters(), 3e-3)
    for step in range(60):
        optimiser.zero_grad()
        loss = made.loss(made(cubes, valid), target, step=step)
        loss.backward()
        optimiser.step()
    output = made.eval()(cubes, valid)
    assert (output.logits.argmax(1) == target).float().mean() > 0.9
    assert (output.spatial[:, :, 0].flatten(2).argmax(2) == place).float().mean() > 0.6  # 1/16 by chance
