"""GLKA against the oracles of the specification (section 5), and what its printed form does wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vidatt.heads.contract import HeadOutput, StreamShape
from vidatt.heads.glka import Glka
from vidatt.heads.layers.glka_attention import LearnedAttention, StatisticAttention, fuse_features
from vidatt.heads.layers.segments import Segments
from vidatt.heads.registry import build_head

TINY = {"hidden": "6", "layers": "2", "la_hidden": "4", "rnn_dropout": "0"}
N, D = 4, 5


def glka(name: str = "glka", *, streams: int = 1, **settings: str) -> Glka:
    torch.manual_seed(0)
    shapes = [StreamShape(name=f"s{m}", grid=3, channels=D) for m in range(streams)]
    head = build_head(name, streams=shapes, classes=N, settings=TINY | settings)
    assert isinstance(head, Glka)
    for model in head.models.values():
        torch.nn.init.normal_(model.classifier.weight)  # starts near zero: all scores would be alike
    return head.eval()


def batch(T: int = 4, B: int = 2, streams: int = 1) -> tuple[list[Tensor], Tensor]:
    return [torch.rand(B, T, 3, 3, D) for _ in range(streams)], torch.ones(B, T, dtype=torch.bool)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("reduction", "weights"), [("sum", [0.2689, 0.7311]), ("mean", [0.3775, 0.6225])])
def test_statistic_attention_of_two_cells_is_the_stated_one(reduction, weights):
    attention = StatisticAttention(reduction=reduction, learned_scale=False)
    made = attention(torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]))
    torch.testing.assert_close(made, torch.tensor([weights]), atol=5e-5, rtol=0)
    assert count(attention) == 0


def test_statistic_attention_ignores_the_order_and_the_sign_of_channels():
    attention, cells = StatisticAttention(reduction="sum", learned_scale=False), torch.randn(3, 9, 6)
    changed = cells[..., torch.randperm(6)] * torch.tensor([1.0, -1, -1, 1, -1, 1])
    torch.testing.assert_close(attention(changed), attention(cells))


def test_statistic_attention_with_the_printed_sum_is_an_argmax():
    """512 channels after a ReLU, each cell's gain varied by a tenth: the sum picks one cell, the mean hardly any."""
    gains = 1 + 0.1 * torch.randn(20, 49, 1)
    cells = torch.randn(20, 49, 512).relu() * gains
    sharp, flat = (StatisticAttention(reduction=r, learned_scale=False)(cells).amax(1) for r in ("sum", "mean"))
    assert sharp.median() > 0.99
    assert flat.max() < 2 / 49
    assert (cells.square().sum(-1).mean() - 256).abs() < 10


def test_statistic_attention_can_learn_its_temperature():
    attention, cells = StatisticAttention(reduction="mean", learned_scale=True), torch.rand(2, 9, 6)
    with torch.no_grad():
        attention.scale.fill_(6.0)
    torch.testing.assert_close(attention(cells), StatisticAttention(reduction="sum", learned_scale=False)(cells))


def test_statistic_attention_of_float16_cubes_does_not_overflow():
    cubes = torch.full((1, 2, 3, 3, D), 300.0, dtype=torch.float16)  # 300^2 is beyond float16
    output = glka("glka-sa")([cubes], torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(output.spatial, torch.full((1, 2, 1, 3, 3), 1 / 9))
    assert output.logits.isfinite().all()


def test_learned_attention_has_the_stated_parameters_and_form():
    assert count(LearnedAttention(512, 128, outer_tanh=False)) == 65_793
    attention, cells = LearnedAttention(D, 4, outer_tanh=False), torch.randn(2, 9, D)
    scores = [
        [attention.outer.weight[0] @ torch.tanh(attention.inner.weight @ f + attention.inner.bias) for f in video]
        for video in cells
    ]
    torch.testing.assert_close(attention(cells), torch.stack([torch.stack(row) for row in scores]).softmax(-1))


def test_learned_attention_outer_tanh_bounds_the_ratio_of_weights():
    cells = 50 * torch.randn(20, 49, D)
    for outer_tanh in (True, False):
        attention = LearnedAttention(D, 16, outer_tanh=outer_tanh)
        with torch.no_grad():
            attention.outer.weight.mul_(10)
        weights = attention(cells)
        ratio = weights.amax(1) / weights.amin(1)
        assert (ratio <= torch.e**2 * 1.001).all() == outer_tanh
        assert attention.outer.bias.requires_grad == outer_tanh  # inert without the outer tanh


def test_glka_descriptors_of_equal_cells_are_the_common_vector():
    head, vector = glka(parts="gp,sa,la"), torch.rand(D)
    vectors, _ = head.attention([vector.expand(2, 4, 3, 3, D)], Segments(torch.ones(2, 4, dtype=torch.bool)))
    for kind in ("gp", "sa", "la"):
        torch.testing.assert_close(vectors[kind], vector.expand(2, 4, D))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("concatenation", [1, 4, 3, 2]), ("average", [2, 3]), ("max", [3, 4]), ("multiply", [3, 8])],
)
def test_composite_features_are_those_of_the_tables(rule, expected):
    fused = fuse_features(torch.tensor([[[1.0, 4.0]]]), torch.tensor([[[3.0, 2.0]]]), rule=rule)
    assert fused.flatten().tolist() == expected


@pytest.mark.parametrize(("rule", "width"), [("concatenation", 2 * D), ("average", D), ("max", D), ("multiply", D)])
def test_glka_composite_models_are_as_wide_as_their_feature(rule, width):
    head = glka(feature_fusion=rule, streams=2)
    assert head.models["gs"].temporal.layers[0].weight.shape[-1] == 2 * width  # two streams side by side
    assert head.models["gp"].temporal.layers[0].weight.shape[-1] == 2 * D
    cubes, valid = batch(streams=2)
    assert head(cubes, valid).spatial.shape == (2, 4, 2, 3, 3)


def test_glka_of_the_paper_has_the_stated_parameters():
    with torch.device("meta"):
        head = build_head("glka", streams=[StreamShape(name="rgb", grid=7, channels=512)], classes=101)
    assert count(head.attention) == 65_793  # statistic attention has none
    by_part = {part: count(model.temporal) for part, model in head.models.items()}
    assert by_part == {"gp": 8_394_752, "gs": 9_443_328, "gl": 9_443_328}
    assert count(head) == 65_793 + sum(by_part.values()) + 3 * (1024 + 1) * 101


def test_glka_follows_equations_2_to_19_written_out():
    """One video, loops over segments and cells as the paper writes them; recurrent layers have tests of their own."""
    head = glka()
    cubes, valid = batch(T=3, B=1)
    output = head(cubes, valid)
    learned, pooled, composite = head.attention.by_kind["la"][0], [], {"gs": [], "gl": []}
    for t in range(3):
        cells = cubes[0][0, t].flatten(0, 1)  # [9, D]
        r_gp = sum(cells) / 9  # (2)
        m_sa = torch.stack([(f**2).sum() for f in cells])  # (3)
        m_la = torch.stack([learned.outer(torch.tanh(learned.inner(f)))[0] for f in cells])  # (6)
        for part, kind, m in (("gs", "sa", m_sa), ("gl", "la", m_la)):
            weights = m.exp() / m.exp().sum()  # (4), (7)
            torch.testing.assert_close(output.parts[f"spatial_{kind}"][0, t, 0].flatten(), weights)
            composite[part].append(torch.cat([r_gp, weights @ cells]))  # (5), (8), (9), (10)
        pooled.append(r_gp)
    probabilities = []
    for part, vectors in {"gp": pooled, **composite}.items():
        model = head.models[part]
        outputs = model.temporal(torch.stack(vectors).unsqueeze(0))[0]  # (11)-(15)
        logits = sum(model.classifier(s) for s in outputs) / 3
        probabilities.append(logits.exp() / logits.exp().sum())  # (16)
    torch.testing.assert_close(head.probabilities(output.logits)[0], sum(probabilities) / 3)  # (19)
    both = (output.parts["spatial_sa"] + output.parts["spatial_la"]) / 2
    torch.testing.assert_close(output.spatial, both)


def test_glka_averages_logits_over_time_and_not_probabilities():
    head = glka("glka-gp")
    cubes, valid = batch()
    outputs = head.models["gp"].temporal(cubes[0].mean((2, 3)))
    steps = head.models["gp"].classifier(outputs)
    output = head(cubes, valid)
    torch.testing.assert_close(head.probabilities(output.logits), steps.mean(1).softmax(-1))
    assert not torch.allclose(head.probabilities(output.logits), steps.softmax(-1).mean(1), atol=1e-3)


@pytest.mark.parametrize("rule", ["average", "max", "multiply"])
def test_glka_late_fuses_probabilities_by_the_rule(rule):
    head = glka("glka-late", score_fusion=rule)
    output = head(*batch())
    p = output.parts["part_logits"][:, 0].softmax(-1)  # [B, 3, N]
    fused = {"average": p.mean(1), "max": p.amax(1), "multiply": p.prod(1)}[rule]
    torch.testing.assert_close(head.probabilities(output.logits), fused / fused.sum(-1, keepdim=True))


def test_glka_fused_logits_differ_from_fused_probabilities():
    cubes_valid = batch()
    probabilities, logits = glka(), glka(fuse="logits")
    logits.load_state_dict(probabilities.state_dict())
    part_logits = logits(*cubes_valid).parts["part_logits"]
    torch.testing.assert_close(logits(*cubes_valid).logits, part_logits[:, 0].mean(1))
    one, other = (head.probabilities(head(*cubes_valid).logits) for head in (logits, probabilities))
    assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("aggregator", ["sru", "lstm", "mean"])
def test_glka_takes_another_model_of_time(aggregator):
    head = glka("glka-gp", aggregator=aggregator)
    cubes, valid = batch()
    backwards = [cube.flip(1) for cube in cubes]
    same = torch.allclose(head(cubes, valid).logits, head(backwards, valid).logits, atol=1e-5)
    assert same == (aggregator == "mean")


def scored(p_gp: float, p_gs: float, p_gl: float) -> HeadOutput:
    """One video of class 0 with these probabilities of its class; four classes."""
    p = torch.tensor([p_gp, p_gs, p_gl]).unsqueeze(1)
    logits = torch.cat([p, (1 - p).expand(3, 3) / 3], 1).log()[None, None]
    parts = {"part_logits": logits, "clip_weights": torch.ones(1, 1)}
    return HeadOutput(logits[:, 0].mean(1), torch.zeros(1, 1), None, torch.ones(1, 1), parts=parts)


@pytest.mark.parametrize(
    ("p", "expected"), [((0.6, 0.5, 0.8), 0.2), ((0.3, 0.3, 0.3), 0.2), ((1.0 - 1e-6, 1e-6, 1e-6), 2.2), ((0, 1, 1), 0)]
)
def test_glka_regularisation_is_the_stated_one(p, expected):
    """.6, .5, .8: terms .2 and 0; equal ones: the margin twice; the range of a term is 0 to 1.1."""
    output = scored(*(min(max(x, 1e-6), 1 - 1e-6) for x in p))
    with_, without = (glka(ga_weight=w).loss(output, torch.tensor([0])) for w in ("1", "0"))
    assert (with_ - without).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["mean_logits", "mean_probability", "sum"])
def test_glka_loss_is_equation_18_written_out(kind):
    head = glka(cross_entropy=kind)
    output, target = head(*batch()), torch.tensor([1, 3])
    logits = output.parts["part_logits"][:, 0]  # [B, 3, N]
    p_gp, p_gs, p_gl = (logits[:, i].softmax(-1)[[0, 1], target] for i in range(3))
    ga = (p_gp - p_gs + 0.1).relu() + (p_gp - p_gl + 0.1).relu()
    ce = {
        "mean_logits": functional.cross_entropy(logits.mean(1), target),
        "mean_probability": functional.nll_loss(logits.softmax(-1).mean(1).log(), target),
        "sum": sum(functional.cross_entropy(logits[:, i], target) for i in range(3)),
    }[kind]
    torch.testing.assert_close(head.loss(output, target), ce + ga.mean())


@pytest.mark.slow
def test_glka_regularisation_is_satisfied_by_lowering_the_reference_unless_detached():
    """Eq. (17) alone, minimised: the paper's form makes the global model worse, the detached one leaves it alone."""
    target = torch.tensor([0, 1])
    for detached in ("false", "true"):
        head = glka(detach_reference=detached)
        before = head.models["gp"].classifier.weight.clone()
        cubes_valid = batch()
        optimiser = torch.optim.SGD(head.parameters(), lr=0.5)
        hot = functional.one_hot(target, N).float().unsqueeze(1)

        def reference(head: Glka = head, cubes_valid=cubes_valid) -> Tensor:
            return head(*cubes_valid).parts["part_logits"][:, 0, 0].softmax(-1)[[0, 1], target].mean()

        start = reference().item()
        for _ in range(20):
            optimiser.zero_grad()
            head._regularisation(head(*cubes_valid).parts["part_logits"], hot).mean().backward()
            optimiser.step()
        assert torch.equal(before, head.models["gp"].classifier.weight) == (detached == "true")
        assert (reference().item() < start - 0.02) == (detached == "false")


def test_glka_regularises_composites_only():
    """The late fusion of figure 6 has no regularisation, and a single model has no reference."""
    for name in ("glka-late", "glka-gs", "glka-gp"):
        one, other = (glka(name, ga_weight=w) for w in ("0", "5"))
        cubes_valid = batch()
        target = torch.tensor([0, 1])
        assert torch.equal(one.loss(one(*cubes_valid), target), other.loss(other(*cubes_valid), target))


def test_glka_late_trains_its_models_as_if_each_were_alone():
    late, target = glka("glka-late"), torch.tensor([2, 0])
    cubes_valid = batch()
    late.loss(late(*cubes_valid), target).backward()
    for part in ("gp", "sa", "la"):
        alone = glka(f"glka-{part}")
        own = {key: value for key, value in late.state_dict().items() if key in alone.state_dict()}
        alone.load_state_dict(own)
        alone.loss(alone(*cubes_valid), target).backward()
        together = dict(late.named_parameters())
        for name, parameter in alone.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(parameter.grad, together[name].grad)


@pytest.mark.slow
def test_glka_rate_of_the_paper_leaves_fresh_recurrent_layers_untrained():
    """1e-5 trains a backbone along in the paper; on cubes it takes the step of 1e-3 a hundredfold less far."""
    left = {}
    for lr in (1e-5, 1e-3):
        torch.manual_seed(0)
        stream, settings = StreamShape(name="s", grid=3, channels=D), {"hidden": "32"}
        head = build_head("glka-gp", streams=[stream], classes=N, settings=settings).train()
        codes = torch.randn(N, D)
        target = torch.arange(32) % N
        cubes = codes[target][:, None, None, None].expand(32, 4, 3, 3, D) + 0.1 * torch.randn(32, 4, 3, 3, D)
        valid, optimiser, losses = torch.ones(32, 4, dtype=torch.bool), torch.optim.Adam(head.parameters(), lr=lr), []
        for _ in range(150):
            loss = head.loss(head([cubes], valid), target)
            losses.append(loss.item())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        left[lr] = losses[-1] / losses[0]
    assert left[1e-5] > 0.95
    assert left[1e-3] < 0.5


def test_glka_several_labels_share_the_loss_of_their_classes():
    """Cross-entropy against the normalised labels, and the regularisation's mean over them."""
    output, head = scored(0.6, 0.5, 0.8), glka()
    both = torch.tensor([[1, 1, 0, 0]])
    logits = output.parts["part_logits"][0, 0]
    p = logits.softmax(-1)
    ga = sum((p[0, :2] - p[i, :2] + 0.1).relu().mean() for i in (1, 2))
    ce = -logits.mean(0).log_softmax(-1)[:2].mean()
    torch.testing.assert_close(head.loss(output, both), ce + ga)


@pytest.mark.slow
def test_glka_planted_cell_is_found_by_attention_and_missed_by_pooling():
    """Each segment has one marked cell with the class's code and two unmarked decoys."""
    torch.manual_seed(0)
    codes = 4 * functional.normalize(torch.randn(N, 12), dim=1)

    def cubes(target: Tensor) -> tuple[Tensor, Tensor]:
        B, T, K = len(target), 4, 4
        made = torch.randn(B, T, K * K, 13)
        place = torch.randint(K * K, (B, T))
        for _ in range(2):
            made[torch.arange(B)[:, None], torch.arange(T), torch.randint(K * K, (B, T)), :12] += codes[
                torch.randint(N, (B, T))
            ]
        made[torch.arange(B)[:, None], torch.arange(T), place, :12] += codes[target][:, None]
        made[torch.arange(B)[:, None], torch.arange(T), place, 12] += 4
        return made.unflatten(2, (K, K)), place

    right = {}
    for name in ("glka-gp", "glka-la"):
        torch.manual_seed(1)
        stream = StreamShape(name="s", grid=4, channels=13)
        head = build_head(name, streams=[stream], classes=N, preset="small", settings={"hidden": "32", "layers": "1"})
        optimiser, valid = torch.optim.Adam(head.parameters(), lr=3e-3), torch.ones(64, 4, dtype=torch.bool)
        for _ in range(150):
            target = torch.randint(N, (64,))
            loss = head.loss(head.train()([cubes(target)[0]], valid), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        target = torch.randint(N, (64,))
        made, place = cubes(target)
        output = head.eval()([made], valid)
        right[name] = (output.logits.argmax(1) == target).float().mean()
        if name == "glka-la":
            assert (output.spatial.flatten(2).argmax(2) == place).float().mean() > 0.9
    assert right["glka-la"] > 0.95
    assert right["glka-gp"] < 0.9
