"""TCLSTA and its collaborative learning network against the oracles of the specification: sections 7.1 to 7.4."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vidatt.errors import UsageError
from vidatt.heads.cln import CollaborativeLearning, TclstaCln, TclstaClnConfig
from vidatt.heads.contract import StreamShape
from vidatt.heads.layers.attention import attention_weights
from vidatt.heads.layers.recurrent import Lstm
from vidatt.heads.layers.starting import he_conv
from vidatt.heads.registry import build_head, resolve_settings
from vidatt.heads.tclsta import Tclsta, TclstaConfig, class_map, normalised_entropy, relevance

TINY = {"cam": "6", "lstm": "4"}
TWO = (StreamShape(name="rgb", grid=4, channels=5), StreamShape(name="flow", grid=2, channels=3))


def tclsta(settings: dict[str, str] | None = None, *, streams: int = 1, classes: int = 3) -> Tclsta:
    torch.manual_seed(0)
    shapes = [StreamShape(name=f"s{m}", grid=4, channels=5) for m in range(streams)]
    made = build_head("tclsta", streams=shapes, classes=classes, settings=TINY | (settings or {})).eval()
    assert isinstance(made, Tclsta)
    for classifier in (m for m in made.modules() if isinstance(m, nn.Linear)):
        nn.init.normal_(classifier.weight)  # the start is near zero: every map would be flat, every class alike
    return made


def cln(settings: dict[str, str] | None = None) -> TclstaCln:
    torch.manual_seed(0)
    made = build_head("tclsta-cln", streams=TWO, classes=3, settings=TINY | {"cln": "6"} | (settings or {})).eval()
    assert isinstance(made, TclstaCln)
    return made


def batch(videos: int = 2, segments: int = 4) -> tuple[list[Tensor], Tensor]:
    return [torch.rand(videos, segments, 4, 4, 5)], torch.ones(videos, segments, dtype=torch.bool)


def two(videos: int = 2, segments: int = 4) -> tuple[list[Tensor], Tensor]:
    cubes = [torch.rand(videos, segments, s.grid, s.grid, s.channels) for s in TWO]
    return cubes, torch.ones(videos, segments, dtype=torch.bool)


# spatial attention


def test_tclsta_layers_have_the_stated_parameters():
    with torch.device("meta"):
        cam = he_conv(2048, 1024, kernel=3)
    assert sum(p.numel() for p in cam.parameters()) == 18_875_392
    assert sum(p.numel() for p in Lstm(2048, 512).parameters()) == 5_246_976


def test_class_map_has_the_class_score_as_its_mean_and_the_specified_normal_form():
    activations, weights = torch.rand(2, 6, 4, 4), torch.randn(2, 6)
    score = (activations.mean((2, 3)) * weights).sum(1)
    torch.testing.assert_close(class_map(activations, weights).mean((1, 2)), score)
    m = class_map(torch.tensor([[[[0.0, math.log(3)]]]]), torch.ones(1, 1))  # [1, 1, 2]
    torch.testing.assert_close(2 * attention_weights(m.flatten(1)), torch.tensor([[0.5, 1.5]]))  # Eq (3) with g = 2


def test_flat_map_is_plain_pooling():
    made = tclsta()
    with torch.no_grad():
        made.branches[0].cam_classifier.weight.zero_()
    cubes, valid = batch()
    torch.testing.assert_close(made(cubes, valid).parts["segments"], cubes[0].mean((2, 3)))


def test_tclsta_follows_equations_1_to_6_written_out():
    """One video, loops over t and cells as the paper writes them."""
    made = tclsta()
    branch, (cubes, valid) = made.branches[0], batch(videos=1, segments=3)
    output = made(cubes, valid)
    alpha, frame_logits, g = [], [], 16
    for t in range(3):
        a = branch.cam_conv(cubes[0][0, t].permute(2, 0, 1).unsqueeze(0)).relu()[0]  # [k, K, K]
        scores = branch.cam_classifier(a.mean((1, 2)))
        torch.testing.assert_close(output.parts["cam"][0, t, 0], scores)
        c = int(scores.argmax())
        m = torch.stack([branch.cam_classifier.weight[c] @ a[:, i, j] for i in range(4) for j in range(4)])  # (2)
        tilde = g * m.exp() / m.exp().sum()  # (3)
        assert tilde.mean().item() == pytest.approx(1)
        torch.testing.assert_close(output.spatial[0, t, 0].flatten() * g, tilde)
        alpha.append((tilde.unsqueeze(1) * cubes[0][0, t].flatten(0, 1)).sum(0) / g)
        frame_logits.append(branch.frame_classifier(alpha[-1]))
    h = branch.lstm(torch.stack(alpha).unsqueeze(0))[0].T  # H, [n, T]
    c = (h.T @ h).tanh()  # (4)
    gamma = torch.ones(3) @ c  # (5)
    weights = gamma.exp() / gamma.exp().sum()
    torch.testing.assert_close(output.temporal_raw[0], gamma)
    torch.testing.assert_close(output.temporal[0], weights)
    beta = torch.stack([alpha[i] * weights[i] for i in range(3)])  # (6)
    torch.testing.assert_close(output.parts["beta"][0], beta)
    torch.testing.assert_close(output.parts["beta_hat"][0], 3 * beta)
    scores = sum(weights[i] * frame_logits[i] for i in range(3))
    torch.testing.assert_close(output.logits.softmax(1)[0], scores.softmax(0))


def test_soft_maps_mix_the_classes_by_their_probabilities():
    hard, soft = tclsta(), tclsta({"cam_class": "soft"})
    cubes, valid = batch(videos=1, segments=1)
    branch = soft.branches[0]
    a = branch.cam_conv(cubes[0][0].permute(0, 3, 1, 2)).relu()
    p = branch.cam_classifier(a.mean((2, 3))).softmax(1)[0]
    maps = torch.stack([class_map(a, branch.cam_classifier.weight[c : c + 1]) for c in range(3)])
    mixed = torch.einsum("c,csyx->syx", p, maps)
    torch.testing.assert_close(soft(cubes, valid).spatial[0, 0, 0].flatten(), mixed.flatten().softmax(0))
    assert not torch.allclose(hard(cubes, valid).spatial, soft(cubes, valid).spatial)


def test_detached_maps_send_no_gradient_to_the_classifier():
    cubes, valid = batch()
    for detach in ("no", "yes"):
        made = tclsta({"detach_map": detach})
        output = made(cubes, valid)
        assert output.parts["segments"].requires_grad == (detach == "no")
        made.loss(output, torch.tensor([0, 1])).backward()  # the maps' own loss still trains them
        assert made.branches[0].cam_classifier.weight.grad.any()


# the label leak


def leaky(seed: int, videos: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Cells that tell nothing but where they are, and labels that tell nothing at all."""
    generator = torch.Generator().manual_seed(seed)
    cells = 0.3 * torch.randn(videos, 2, 4, 8, generator=generator)
    cells[..., :4] += 3 * torch.eye(4)
    target = torch.randint(4, (videos,), generator=generator)
    return [cells.unflatten(2, (2, 2))], torch.ones(videos, 2, dtype=torch.bool), target


def fitted_on_random_labels(cam_class: str) -> Tclsta:
    torch.manual_seed(0)
    settings = {"cam": "8", "lstm": "4", "cam_class": cam_class}
    made = build_head("tclsta", streams=[StreamShape(name="rgb", grid=2, channels=8)], classes=4, settings=settings)
    assert isinstance(made, Tclsta)
    optimiser = torch.optim.Adam(made.train().parameters(), 1e-2)
    for step in range(150):
        cubes, valid, target = leaky(step, 64)  # new videos at every step: nothing to learn by heart
        optimiser.zero_grad()
        made.loss(made(cubes, valid), target, step=step).backward()
        optimiser.step()
    return made


@pytest.mark.slow
def test_true_class_maps_leak_the_label_in_training_and_never_beyond():
    """With the true class's map the label is read off the place it attends to; unseen videos stay at chance."""
    cubes, valid, target = leaky(10_000, 400)
    frame_loss = {}
    for cam_class in ("predicted", "gt_train"):
        made = fitted_on_random_labels(cam_class)
        seen = (
            made._with_true_class(made(cubes, valid), target) if cam_class == "gt_train" else made(cubes, valid).parts
        )
        frame_loss[cam_class] = cross_entropy(seen["frame"][:, 0, 0], target).item()
        accuracy = (made.eval()(cubes, valid).logits.argmax(1) == target).float().mean().item()
        assert abs(accuracy - 0.25) < 0.09, cam_class  # four standard errors
    assert frame_loss["predicted"] > 1.3  # log 4 = 1.386: nothing is known
    assert frame_loss["gt_train"] < 0.7  # told by the label itself


def test_true_class_maps_are_taken_in_training_only():
    made = tclsta({"cam_class": "gt_train"})
    plain = tclsta()
    cubes, valid = batch(segments=3)
    target = torch.tensor([0, 2])
    losses = {}
    for mode in (True, False):
        made.train(mode)
        plain.train(mode)
        losses[mode] = made.loss(made(cubes, valid), target), plain.loss(plain(cubes, valid), target)
    assert losses[True][0] != losses[True][1]
    assert torch.equal(*losses[False])
    made.train()
    output = made(cubes, valid)
    hot = torch.nn.functional.one_hot(target, 3)
    torch.testing.assert_close(made.loss(output, target), made.loss(output, hot))
    c = made.branches[0].cam_classifier.weight[target]  # [B, k]
    a = made.branches[0].cam_conv(cubes[0].flatten(0, 1).permute(0, 3, 1, 2)).relu()
    maps = attention_weights(class_map(a, c.repeat_interleave(3, 0)).flatten(1))
    alpha = torch.einsum("sl,sld->sd", maps, cubes[0].flatten(0, 1).flatten(1, 2))
    told = made._with_true_class(output, target)["frame"].flatten(0, 2)
    torch.testing.assert_close(told, made.branches[0].frame_classifier(alpha))


# temporal attention


def test_relevance_has_the_specified_values():
    states, valid = torch.tensor([[[1.0], [1.0], [-1.0]]]), torch.ones(1, 3, dtype=torch.bool)
    gamma = relevance(states, valid)
    torch.testing.assert_close(gamma, torch.tensor([[0.76159, 0.76159, -0.76159]]), atol=1e-5, rtol=0)
    expected = torch.tensor([[0.45085, 0.45085, 0.09829]])
    torch.testing.assert_close(attention_weights(gamma), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(relevance(states, valid, mean=True), gamma / 3)


def test_relevance_ignores_the_sign_of_all_states_and_padding():
    states, valid = torch.randn(2, 5, 8), torch.arange(5) < torch.tensor([[5], [3]])
    torch.testing.assert_close(relevance(states, valid), relevance(-states, valid))
    torch.testing.assert_close(relevance(states, valid)[1:, :3], relevance(states[1:, :3], valid[1:, :3]))
    scaled = relevance(states, valid, scale=True)
    torch.testing.assert_close(scaled, relevance(states / 8**0.25, valid))


def test_paper_affinity_saturates():
    """512 units: alike states give exactly uniform attention, unlike ones leave a few frames; scaling softens it."""
    valid = torch.ones(8, 25, dtype=torch.bool)
    alike = 0.5 + 0.25 * torch.randn(8, 25, 512)
    unlike = torch.randn(8, 25, 512) * 0.6
    entropy = {}
    for name, states in (("alike", alike), ("unlike", unlike)):
        for scale in (False, True):
            gamma = relevance(states, valid, scale=scale)
            entropy[name, scale] = normalised_entropy(attention_weights(gamma, valid), valid).mean().item()
    torch.testing.assert_close(relevance(alike, valid), torch.full((8, 25), 25.0))
    assert entropy["alike", False] == pytest.approx(1)
    assert entropy["unlike", False] < 0.6
    assert entropy["unlike", True] > entropy["unlike", False] + 0.15
    mean = relevance(unlike, valid, mean=True)
    assert normalised_entropy(attention_weights(mean, valid), valid).min() > 0.98  # at most e^2 between two weights


def test_normalised_entropy_is_one_for_uniform_and_zero_for_one_frame():
    weights = torch.tensor([[0.25] * 4, [0.5, 0.5, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]])
    valid = torch.arange(4) < torch.tensor([[4], [2], [4], [1]])
    assert normalised_entropy(weights, valid).tolist() == pytest.approx([1, 1, 0, 1])
    made = tclsta()
    cubes, _ = batch()
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    output = made(cubes, valid)
    expected = normalised_entropy(output.temporal, valid)
    torch.testing.assert_close(output.parts["entropy"][:, 0, 0], expected)


# losses, streams, ablations


@pytest.mark.parametrize("step_loss", ["mean", "last"])
def test_loss_is_the_sum_of_three_cross_entropies(step_loss):
    made = tclsta({"step_loss": step_loss})
    cubes, _ = batch()
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    output, target = made(cubes, valid), torch.tensor([0, 2])
    expected = torch.zeros(())
    for name in ("frame", "cam", "step"):
        for b, length in enumerate([4, 2]):
            losses = cross_entropy(output.parts[name][b, :length, 0], target[b].expand(length), reduction="none")
            expected = expected + (losses[-1] if (name, step_loss) == ("step", "last") else losses.mean()) / 2
    torch.testing.assert_close(made.loss(output, target), expected)


def test_two_identical_streams_score_as_one():
    one, both = tclsta(), tclsta(streams=2)
    for branch in both.branches:
        branch.load_state_dict(one.branches[0].state_dict())
    cubes, valid = batch()
    single, double = one(cubes, valid), both(cubes * 2, valid)
    torch.testing.assert_close(both.probabilities(double.logits), one.probabilities(single.logits))
    torch.testing.assert_close(double.temporal, single.temporal)
    target = torch.tensor([0, 1])
    torch.testing.assert_close(both.loss(double, target), 2 * one.loss(single, target))


def test_streams_are_fused_by_the_mean_of_their_probabilities():
    both = tclsta(streams=2)
    cubes, valid = batch()
    cubes = [cubes[0], torch.rand_like(cubes[0])]
    output = both(cubes, valid)
    alone = []
    for branch, cube in zip(both.branches, cubes, strict=True):
        one = tclsta()
        one.branches[0].load_state_dict(branch.state_dict())
        alone.append(one(([cube]), valid))
    probabilities = torch.stack([o.logits.softmax(1) for o in alone]).mean(0)
    torch.testing.assert_close(both.probabilities(output.logits), probabilities)
    torch.testing.assert_close(output.temporal, torch.stack([o.temporal for o in alone]).mean(0))
    torch.testing.assert_close(output.spatial, torch.cat([o.spatial for o in alone], 2))


def test_without_both_attentions_it_is_plain_pooling():
    made = tclsta({"spatial": "no", "temporal": "no"})
    cubes, valid = batch()
    output = made(cubes, valid)
    mean = cubes[0].mean((1, 2, 3))
    torch.testing.assert_close(output.representation, mean)
    expected = made.branches[0].frame_classifier(mean).softmax(1)
    torch.testing.assert_close(output.logits.softmax(1), expected)
    assert output.spatial is None
    assert set(made.branches[0].state_dict()) == {"frame_classifier.weight", "frame_classifier.bias"}
    target = torch.tensor([0, 1])
    frames = output.parts["frame"].flatten(0, 2)
    torch.testing.assert_close(made.loss(output, target), cross_entropy(frames, target.repeat_interleave(4)))


def test_tclsta_presets_are_the_specification():
    settings = resolve_settings("tclsta")
    config, fit = settings.config, settings.fit
    assert isinstance(config, TclstaConfig)
    assert (config.cam, config.lstm, config.cam_class, config.step_loss) == (1024, 512, "predicted", "mean")
    assert (config.affinity_scale, config.gamma_mean) == (False, False)
    assert (fit.optimiser, fit.lr, fit.weight_decay, fit.steps) == ("sgd", 1e-3, 1e-4, 30_000)
    assert (fit.schedule, fit.batch_videos) == ("plateau", 2)
    other = resolve_settings("tclsta-cln")
    assert isinstance(other.config, TclstaClnConfig)
    assert (other.config.cln, other.config.rounds, other.fit.batch_videos) == (512, 1, 64)
    assert other.config.first == "motion"  # Algorithm 1, lines 3 and 4
    assert resolve_settings("tclsta", "paper-flow").fit.steps == 60_000


# collaborative learning


def test_cln_needs_two_streams():
    for streams in (TWO[:1], (*TWO, StreamShape(name="clip", grid=1, channels=2))):
        with pytest.raises(UsageError, match=f"needs 2 streams, got {len(streams)}"):
            build_head("tclsta-cln", streams=streams, classes=3, settings=TINY)


def test_cln_with_zero_weights_is_the_mean():
    network = CollaborativeLearning((5, 3), 6)
    for p in network.parameters():
        nn.init.zeros_(p)
    static, motion = torch.randn(2, 4, 5), torch.randn(2, 4, 3)
    agreed = network(static, motion, torch.ones(2, 4, dtype=torch.bool))
    for z in agreed.z:
        torch.testing.assert_close(z, torch.full((2, 4), 0.25))
    torch.testing.assert_close(agreed.features[0], static.mean(1))
    torch.testing.assert_close(agreed.features[1], motion.mean(1))
    assert agreed.settled.all()


def test_cln_follows_equations_7_to_9_written_out():
    network = CollaborativeLearning((5, 3), 6)
    static, motion = torch.randn(4, 5), torch.randn(4, 3)
    agreed = network(static.unsqueeze(0), motion.unsqueeze(0), torch.ones(1, 4, dtype=torch.bool))
    guide = static.mean(0)  # O^s with z^s = 1 / N
    for which, side, frames in ((1, network.motion, motion), (0, network.static, static)):
        spread = torch.outer(side.of_guide.weight @ guide, torch.ones(4))  # (W_o O) 1^T
        hidden = torch.tanh(side.of_frames.weight @ frames.T + spread)  # (7)
        z = (side.of_hidden.weight @ hidden).softmax(1)[0]  # (8)
        torch.testing.assert_close(agreed.z[which][0], z)
        guide = z @ frames  # (9)
        torch.testing.assert_close(agreed.features[which][0], guide)


def small_weights(scale: float, *, width: int = 32, channels: int = 64, rounds: int = 5) -> CollaborativeLearning:
    network = CollaborativeLearning((channels, channels), width, rounds=rounds)
    for p in network.parameters():
        nn.init.normal_(p, std=scale)
    return network


def test_cln_swapped_streams_and_parameters_swap_what_they_agree_on():
    """Where the rounds converge, it does not matter which stream begins."""
    network, swapped = small_weights(0.05), small_weights(0.05)
    swapped.static.load_state_dict(network.motion.state_dict())
    swapped.motion.load_state_dict(network.static.state_dict())
    static, motion, valid = torch.randn(3, 25, 64), torch.randn(3, 25, 64), torch.ones(3, 25, dtype=torch.bool)
    one, other = network(static, motion, valid), swapped(motion, static, valid)
    assert one.settled.all()
    assert other.settled.all()
    for m in range(2):
        torch.testing.assert_close(one.z[m], other.z[1 - m], atol=2e-4, rtol=0)
        torch.testing.assert_close(one.features[m], other.features[1 - m], atol=2e-3, rtol=0)
    assert (one.z[0] - 1 / 25).abs().max() > 1e-3  # not the trivial agreement


def test_cln_duplicate_frames_get_equal_weights():
    network = small_weights(0.3)
    static, motion = torch.randn(1, 6, 64), torch.randn(1, 6, 64)
    static[:, 3], motion[:, 5] = static[:, 1], motion[:, 0]
    agreed = network(static, motion, torch.ones(1, 6, dtype=torch.bool))
    torch.testing.assert_close(agreed.z[0][:, 3], agreed.z[0][:, 1])
    torch.testing.assert_close(agreed.z[1][:, 5], agreed.z[1][:, 0])


def test_cln_rounds_settle_for_small_weights_and_report_where_they_do_not():
    static, motion, valid = torch.randn(20, 25, 64), torch.randn(20, 25, 64), torch.ones(20, 25, dtype=torch.bool)
    assert small_weights(0.05)(static, motion, valid).settled.all()
    assert not small_weights(1.0)(static, motion, valid).settled.all()
    assert not small_weights(0.05, rounds=1)(static, motion, valid).settled.any()


@pytest.mark.parametrize("first", ["static", "motion"])
def test_cln_trains_the_streams_in_turn_and_never_through_the_guide(first):
    made = cln({"first": first}).train()
    cubes, valid = two()
    target = torch.tensor([0, 1])
    both = [("collaboration.static", "static_classifier"), ("collaboration.motion", "motion_classifier")]
    turns = both if first == "static" else both[::-1]
    for step in range(4):
        made.zero_grad(set_to_none=True)
        made.loss(made(cubes, valid), target, step=step).backward()
        trained = {key for key, p in made.named_parameters() if p.grad is not None and not key.startswith("branches")}
        assert trained == {key for key, _ in made.named_parameters() if key.startswith(turns[step % 2])}
        assert all(p.grad is not None for p in made.branches.parameters())


@pytest.mark.parametrize("joint", ["no", "yes"])
def test_cln_trains_the_branches_only_if_joint(joint):
    made = cln({"joint": joint}).train()
    made(*two()).parts["static"].square().sum().backward()
    reached = any(p.grad is not None and bool(p.grad.any()) for p in made.branches.parameters())
    assert reached == (joint == "yes")


def test_cln_evaluation_loss_has_both_streams():
    made = cln()
    output, target = made(*two()), torch.tensor([0, 1])
    assert torch.equal(made.loss(output, target, step=0), made.loss(output, target, step=1))
    both = torch.stack([output.parts["static"], output.parts["motion"]], 2)[:, 0]
    expected = Tclsta.loss(made, output, target) + sum(cross_entropy(both[:, m], target) for m in range(2))
    torch.testing.assert_close(made.loss(output, target), expected)
    torch.testing.assert_close(output.logits.softmax(1), both.softmax(-1).mean(1))


@pytest.mark.parametrize("rounds", ["0", "6"])
def test_cln_rounds_are_capped(rounds):
    with pytest.raises(UsageError, match="rounds"):
        resolve_settings("tclsta-cln", "paper", {"rounds": rounds})
