"""Checks that every head that is trained must pass: registering one tests it (test_svm_heads.py checks the others)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidatt.errors import UsageError
from vidatt.heads.contract import Head, HeadOutput, StreamShape
from vidatt.heads.registry import (
    HEADS,
    build_from_settings,
    build_head,
    preset_names,
    resolve_settings,
    trained_head_names,
)

ONE = (StreamShape(name="rgb", grid=4, channels=6),)
THREE = (
    StreamShape(name="rgb", grid=7, channels=6),
    StreamShape(name="flow", grid=4, channels=5),
    StreamShape(name="clip", grid=2, channels=9),
)
N = 5

heads = pytest.mark.parametrize("name", trained_head_names())


def few(name: str) -> tuple[StreamShape, ...]:
    """One stream, or as many as the head is defined for."""
    return (*ONE, StreamShape(name="flow", grid=2, channels=5))[: HEADS[name].head.stream_count or 1]


layouts = pytest.mark.parametrize(
    ("name", "streams"),
    [
        pytest.param(name, streams, id=f"{name}-{len(streams)}")
        for name in trained_head_names()
        for streams in ([few(name), THREE] if HEADS[name].head.stream_count is None else [few(name)])
    ],
)


def build(name: str, streams: Sequence[StreamShape] | None = None, preset: str = "small") -> Head:
    torch.manual_seed(0)
    return build_head(name, streams=streams or few(name), classes=N, preset=preset).eval()


def batch(streams: Sequence[StreamShape], lengths: Sequence[int], dtype: torch.dtype = torch.float32):
    T = max(lengths)
    cubes = [torch.rand(len(lengths), T, s.grid, s.grid, s.channels).to(dtype) for s in streams]
    return cubes, torch.arange(T) < torch.tensor(lengths).unsqueeze(1)


def tensors(output: HeadOutput) -> dict[str, Tensor]:
    made = {"logits": output.logits, "representation": output.representation, "temporal": output.temporal}
    made |= {"spatial": output.spatial, "temporal_raw": output.temporal_raw, **output.parts}
    return {key: value for key, value in made.items() if value is not None}


@layouts
def test_head_output_has_the_promised_shapes_and_is_float32_for_float16_cubes(name, streams):
    cubes, valid = batch(streams, [3, 5], torch.float16)
    output = build(name, streams)(cubes, valid)
    K = max(stream.grid for stream in streams)
    assert output.logits.shape == (2, N)
    assert output.representation.shape[0] == 2
    assert output.temporal.shape == (2, 5)
    assert output.spatial is None or output.spatial.shape == (2, 5, len(streams), K, K)
    assert {value.dtype for value in tensors(output).values()} == {torch.float32}
    assert "logits=[2, 5]" in repr(output)


@layouts
def test_head_float16_cubes_score_as_their_float32_copies(name, streams):
    cubes, valid = batch(streams, [4, 2], torch.float16)
    head = build(name, streams)
    torch.testing.assert_close(head(cubes, valid).logits, head([cube.float() for cube in cubes], valid).logits)


@layouts
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 6e4])
def test_head_ignores_the_content_of_padding(name, streams, garbage):
    head = build(name, streams)
    cubes, valid = batch(streams, [2, 5, 1])
    clean = tensors(head(cubes, valid))
    spoilt = tensors(head([cube.masked_fill(~valid[:, :, None, None, None], garbage) for cube in cubes], valid))
    for key, value in clean.items():
        assert value.isfinite().all(), key
        assert torch.equal(value, spoilt[key]), key


@layouts
def test_head_scores_a_video_alone_as_in_a_padded_batch(name, streams):
    head = build(name, streams)
    cubes, valid = batch(streams, [2, 6, 4])
    together = tensors(head(cubes, valid))
    for b, length in enumerate([2, 6, 4]):
        alone = tensors(head([cube[b : b + 1, :length] for cube in cubes], valid[b : b + 1, :length]))
        for key in ("logits", "representation"):
            torch.testing.assert_close(alone[key][0], together[key][b], atol=1e-6, rtol=1e-5)
        for key in alone.keys() - {"logits", "representation"}:
            torch.testing.assert_close(alone[key][0], together[key][b][:length], atol=1e-6, rtol=1e-5)


@layouts
def test_head_attention_sums_to_one_over_valid_positions_and_is_zero_on_padding(name, streams):
    head = build(name, streams)
    cubes, valid = batch(streams, [2, 6, 4])
    output = head(cubes, valid)
    torch.testing.assert_close(output.temporal.sum(1), torch.ones(3))
    assert (output.temporal[~valid] == 0).all()
    assert (output.temporal >= 0).all()
    if output.spatial is not None:
        assert (output.spatial[~valid] == 0).all()
        assert (output.spatial >= 0).all()
        if head.spatial_sums_to_one:
            mass = output.spatial[valid].sum((-2, -1))
            torch.testing.assert_close(mass, torch.ones_like(mass))
        else:
            assert (output.spatial <= 1).all()


@layouts
def test_head_gradient_reaches_every_parameter_but_the_inert_ones(name, streams):
    head = build(name, streams).train()
    cubes, valid = batch(streams, [4, 5, 5, 3])
    for step in range(2):  # heads that train their branches in turn need both
        head.loss(head(cubes, valid), torch.tensor([0, 1, 2, 3]), step=step).backward()
    names = dict(head.named_parameters())
    without = {key for key, p in names.items() if p.requires_grad and (p.grad is None or not p.grad.any())}
    assert without == head.inert & names.keys()
    assert all(p.grad is None or p.grad.isfinite().all() for p in names.values())


@layouts
def test_head_saved_and_loaded_weights_score_equally(name, streams, tmp_path: Path):
    head, cubes_valid = build(name, streams), batch(streams, [3, 4])
    save_file(head.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(7)
    other = build_head(name, streams=streams, classes=N, preset="small").eval()
    assert not torch.equal(other(*cubes_valid).logits, head(*cubes_valid).logits)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(other(*cubes_valid).logits, head(*cubes_valid).logits)


@heads
def test_head_single_segment_gets_all_temporal_attention(name):
    output = build(name)(*batch(few(name), [1, 1]))
    torch.testing.assert_close(output.temporal, torch.ones(2, 1))


@heads
@pytest.mark.parametrize("grid", [1, 4, 14])
def test_head_takes_any_grid(name, grid):
    streams = [replace(stream, grid=grid) for stream in few(name)]
    output = build(name, streams)(*batch(streams, [2, 2]))
    assert output.logits.isfinite().all()
    assert output.spatial is None or output.spatial.shape[-2:] == (grid, grid)


@heads
def test_head_is_deterministic_with_a_seed_in_training_too(name):
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        cubes, valid = batch(few(name), [3, 4, 4])
        head = build_head(name, streams=few(name), classes=N, preset="small").train()
        losses.append(head.loss(head(cubes, valid), torch.tensor([0, 1, 2])).detach())
    assert torch.equal(*losses)


@heads
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_head_loss_takes_indices_and_multi_hot_alike(name, kind):
    head = build_head(name, streams=few(name), classes=N, preset="small", settings={"loss": kind}).eval()
    output = head(*batch(few(name), [3, 4]))
    target = torch.tensor([1, 4])
    hot = torch.nn.functional.one_hot(target, N)
    loss = head.loss(output, target)
    assert loss.shape == ()
    torch.testing.assert_close(loss, head.loss(output, hot))
    torch.testing.assert_close(loss, head.loss(output, hot.bool()))


@heads
def test_head_probabilities_follow_the_loss(name):
    logits = torch.tensor([[1.0, 2, 3, 0, 0]])
    soft = build(name).probabilities(logits)
    sigmoid = build_head(name, streams=few(name), classes=N, settings={"loss": "sigmoid"}, preset="small")
    torch.testing.assert_close(soft.sum(1), torch.ones(1))
    torch.testing.assert_close(sigmoid.probabilities(logits)[0, 0], torch.tensor(0.7310586))


@heads
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cubes, valid: (cubes * 2, valid), r"reads \d streams"),
        (lambda cubes, valid: (cubes, valid.float()), "valid must be"),
        (lambda cubes, valid: (cubes, valid[:, :2]), r"'rgb': expected floating \[2, 2, 4, 4, 6\]"),
        (lambda cubes, valid: ([cube.int() for cube in cubes], valid), "int32"),
        (lambda cubes, valid: (cubes, valid & False), "one or more valid segments"),
        (lambda cubes, valid: (cubes, torch.tensor([[True, False, True]] * 2)), "only follow"),
    ],
    ids=["streams", "dtype-valid", "segments", "dtype-cubes", "empty", "hole"],
)
def test_head_refuses_a_batch_that_breaks_the_rules(name, change, message):
    cubes, valid = change(*batch(few(name), [3, 3]))
    with pytest.raises(ValueError, match=message):
        build(name)(cubes, valid)


@heads
@pytest.mark.parametrize(
    ("streams", "classes", "message"),
    [((), 3, "one or more"), (ONE * 2, 3, "different"), (None, 1, "two or more classes")],
)
def test_head_refuses_impossible_shapes(name, streams, classes, message):
    with pytest.raises(UsageError, match=message):
        build_head(name, streams=few(name) if streams is None else streams, classes=classes)


@heads
def test_head_settings_survive_plain_types_and_rebuild_the_head(name):
    for preset in preset_names(name):
        settings = resolve_settings(name, preset, {"dropout": "0.25", "milestones": "10,20"})
        again = type(settings).from_dict(name, preset, settings.to_dict())
        assert again == settings
        assert again.fit.milestones == (10, 20)
    assert isinstance(build_from_settings(settings, streams=few(name), classes=N), HEADS[name].head)


@layouts
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_head_branches_are_what_its_scores_are_the_mean_of(name, streams, kind):
    """Heads with branches only: TCLSTA's per stream, GLKA's models."""
    settings = resolve_settings(name, "small", {"loss": kind})
    torch.manual_seed(0)
    head = build_from_settings(settings, streams=streams, classes=N).eval()
    cubes, valid = batch(streams, [3, 5])
    output = head(cubes, valid)
    branches = head.branch_logits(output)
    assert len(branches) != 1
    if branches:
        assert {scores.shape for scores in branches.values()} == {(2, N)}
        mean = torch.stack([head.scores(scores) for scores in branches.values()]).mean(0)
        torch.testing.assert_close(head.scores(output.logits), mean)
        assert not torch.allclose(*[head.scores(scores) for scores in list(branches.values())[:2]])


@heads
def test_head_entry_says_what_it_is(name):
    entry = HEADS[name]
    assert entry.summary
    assert entry.paper
    assert "\n" not in entry.summary
    assert {"paper", "small"} <= entry.presets.keys()
