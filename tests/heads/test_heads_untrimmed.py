"""UntrimmedNet's soft selection, and the fusion of probabilities behind it (section 8 of the specification)."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vidatt.errors import UsageError
from vidatt.heads.contract import Head, StreamShape
from vidatt.heads.fusion.score_fusion import fuse_probabilities
from vidatt.heads.registry import build_head, resolve_settings
from vidatt.heads.untrimmed import UntrimmedConfig

N = 4
VALID = torch.tensor([[True] * 5, [True, True, False, False, False]])


def untrimmed(settings: dict[str, str] | None = None) -> Head:
    torch.manual_seed(0)
    stream = StreamShape(name="rgb", grid=2, channels=6)
    head = build_head("untrimmed", streams=[stream], classes=N, settings={"dropout": "0", **(settings or {})})
    torch.nn.init.normal_(head.attention.weight)
    torch.nn.init.normal_(head.classifier.weight)
    return head


def parts(head: Head, cubes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pooled = cubes.mean((2, 3))
    return pooled, head.classifier(pooled), pooled @ head.attention.weight


def test_untrimmed_trains_on_the_attended_mixture_of_class_probabilities():
    head, cubes = untrimmed().train(), torch.randn(2, 5, 2, 2, 6)
    output = head([cubes], VALID)
    pooled, logits, scores = parts(head, cubes)
    target = torch.tensor([1, 3])
    expected = []
    for b, length in enumerate([5, 2]):
        weights = scores[b, :length].softmax(0)
        mixture = weights @ logits[b, :length].softmax(-1)
        torch.testing.assert_close(head.probabilities(output.logits)[b], mixture)
        torch.testing.assert_close(output.temporal[b, :length], weights)
        torch.testing.assert_close(output.representation[b], weights @ pooled[b, :length])
        expected.append(-mixture[target[b]].log())
    torch.testing.assert_close(head.loss(output, target), torch.stack(expected).mean())


def test_untrimmed_scores_a_video_by_logits_under_a_softer_attention():
    head, cubes = untrimmed().eval(), torch.randn(2, 5, 2, 2, 6)
    output = head([cubes], VALID)
    _, logits, scores = parts(head, cubes)
    for b, length in enumerate([5, 2]):
        weights = (scores[b, :length] / 3).softmax(0)
        torch.testing.assert_close(output.logits[b], weights @ logits[b, :length])
        torch.testing.assert_close(output.temporal[b, :length], weights)
        torch.testing.assert_close(output.temporal_raw[b, :length], scores[b, :length])


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_untrimmed_can_score_as_it_trains(loss):
    head, cubes = untrimmed({"scoring": "probabilities", "loss": loss}), [torch.randn(2, 5, 2, 2, 6)]
    assert torch.equal(head.train()(cubes, VALID).logits, head.eval()(cubes, VALID).logits)


def test_untrimmed_gradients_are_finite_with_padding_and_certain_segments():
    head = untrimmed().train()
    with torch.no_grad():
        head.classifier.weight.mul_(1e3)
        head.attention.weight.mul_(1e3)
    head.loss(head([torch.randn(2, 5, 2, 2, 6)], VALID), torch.tensor([0, 1])).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_untrimmed_attention_finds_the_segment_that_tells():
    """One segment of six carries the class and a mark; the others carry another class."""
    torch.manual_seed(0)
    head = build_head(
        "untrimmed", streams=[StreamShape(name="s", grid=1, channels=N + 1)], classes=N, settings={"dropout": "0"}
    )
    optimiser = torch.optim.Adam(head.parameters(), lr=0.1)
    valid = torch.ones(32, 6, dtype=torch.bool)

    def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        target, decoy, place = torch.randint(N, (32,)), torch.randint(N, (32, 6)), torch.randint(6, (32,))
        classes = decoy.scatter(1, place[:, None], target[:, None])
        mark = functional.one_hot(place, 6).unsqueeze(-1)
        return torch.cat([functional.one_hot(classes, N), mark], -1)[:, :, None, None].float(), target, place

    for _ in range(60):
        cubes, target, _ = batch()
        loss = head.loss(head.train()([cubes], valid), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    cubes, target, place = batch()
    output = head.eval()([cubes], valid)
    assert (output.temporal.argmax(1) == place).all()
    assert (output.logits.argmax(1) == target).all()


def test_untrimmed_paper_preset_is_the_solver_of_the_code():
    settings = resolve_settings("untrimmed")
    assert settings.config == UntrimmedConfig(dropout=0.8, scoring="logits", temperature=3.0)
    fit = settings.fit
    assert (fit.optimiser, fit.lr, fit.momentum, fit.weight_decay) == ("sgd", 1e-3, 0.9, 5e-4)
    assert (fit.steps, fit.milestones, fit.factor) == (15_000, (6_000, 12_000), 0.1)


def test_untrimmed_refuses_a_temperature_of_zero():
    with pytest.raises(UsageError, match=r"temperature=0\.0: must be more than 0"):
        resolve_settings("untrimmed", "paper", {"temperature": "0"})


@pytest.mark.parametrize("rule", ["average", "max", "multiply"])
def test_fused_probabilities_are_those_of_the_rule(rule):
    logits = torch.randn(5, 3, N)
    p = logits.softmax(-1)
    fused = {"average": p.mean(1), "max": p.amax(1), "multiply": p.prod(1)}[rule]
    torch.testing.assert_close(
        fuse_probabilities(logits, kind="softmax", rule=rule).softmax(-1), fused / fused.sum(-1, keepdim=True)
    )
    yes, no = logits.sigmoid(), (-logits).sigmoid()
    y, n = ({"average": q.mean(1), "max": q.amax(1), "multiply": q.prod(1)}[rule] for q in (yes, no))
    torch.testing.assert_close(fuse_probabilities(logits, kind="sigmoid", rule=rule).sigmoid(), y / (y + n))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("rule", ["average", "max", "multiply"])
def test_fused_scores_of_one_model_are_its_own_and_certain_ones_stay_finite(kind, rule):
    logits = torch.randn(2, 1, N)
    shift = fuse_probabilities(logits, kind=kind, rule=rule) - logits[:, 0]
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift))  # softmax: up to a constant
    certain = torch.tensor([[[500.0, -500, 0, 1], [-500, 500, 2, 0]]], requires_grad=True)
    fused = fuse_probabilities(certain, kind=kind, rule=rule)
    fused.sum().backward()
    assert fused.isfinite().all()
    assert certain.grad.isfinite().all()


def test_fused_average_takes_weights_and_leaves_out_what_has_none():
    logits, weights = torch.randn(3, N), torch.tensor([0.25, 0.75, 0.0])
    fused = fuse_probabilities(logits, kind="softmax", log_weights=weights.log())
    torch.testing.assert_close(fused.exp(), weights @ logits.softmax(-1))
