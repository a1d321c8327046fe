"""GLKA's protocols: clips, attention and reference models trained elsewhere and frozen, settings and presets."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vidatt.errors import UsageError, WeightsError
from vidatt.heads.contract import StreamShape
from vidatt.heads.glka import VARIANTS, Glka
from vidatt.heads.layers.clips import Clips, clip_starts
from vidatt.heads.registry import HEADS, build_head, resolve_settings
from vidatt.pipelines.fitting.training import build_optimiser

TINY = {"hidden": "6", "layers": "2", "la_hidden": "4", "rnn_dropout": "0"}
N, D = 4, 5


def glka(name: str = "glka", *, channels: int = D, **settings: str) -> Glka:
    torch.manual_seed(0)
    stream = StreamShape(name="s", grid=3, channels=channels)
    head = build_head(name, streams=[stream], classes=N, settings=TINY | settings)
    assert isinstance(head, Glka)
    for model in head.models.values():
        torch.nn.init.normal_(model.classifier.weight)  # starts near zero: all scores would be alike
    return head.eval()


def batch(T: int = 4, B: int = 2) -> tuple[list[Tensor], Tensor]:
    return [torch.rand(B, T, 3, 3, D)], torch.ones(B, T, dtype=torch.bool)


@pytest.mark.parametrize(
    ("total", "most", "starts"),
    [
        (12, 20, [0]),
        (30, 20, [0]),
        (31, 20, [0, 1]),
        (45, 20, [0, 15]),
        (50, 20, [0, 15, 20]),
        (150, 5, [0, 30, 60, 90, 120]),
        (90, 2, [0, 60]),
        (90, 1, [30]),
    ],
)
def test_clip_starts_are_the_stated_ones(total, most, starts):
    assert clip_starts(total, length=30, stride=15, most=most) == starts


@pytest.mark.parametrize("total", range(1, 400, 7))
def test_clip_starts_leave_no_segment_out_unless_there_are_too_many(total):
    starts = clip_starts(total, length=30, stride=15, most=20)
    assert starts == sorted(set(starts))
    assert (starts[0], starts[-1]) == (0, max(0, total - 30))
    assert len(starts) <= 20
    assert max((b - a for a, b in pairwise(starts)), default=0) <= (15 if total <= 315 else 30)


def test_clips_score_each_window_and_average_the_probabilities():
    head = glka(clip_segments="3", clip_stride="2")
    cubes, _ = batch(T=7)
    valid = torch.arange(7) < torch.tensor([[7], [4]])
    output = head(cubes, valid)
    whole = glka(clip_segments="none")
    whole.load_state_dict(head.state_dict())
    for b, windows in enumerate([[0, 2, 4], [0, 1]]):
        clips = [whole.probabilities(whole([cubes[0][b : b + 1, s : s + 3]], valid[:1, :3]).logits)[0] for s in windows]
        torch.testing.assert_close(head.probabilities(output.logits)[b], torch.stack(clips).mean(0))
    torch.testing.assert_close(output.parts["clip_weights"], torch.tensor([[1 / 3] * 3, [1 / 2, 1 / 2, 0]]))
    torch.testing.assert_close(output.temporal[0] * 9, torch.tensor([1.0, 1, 2, 1, 2, 1, 1]))
    torch.testing.assert_close(output.temporal[1] * 6, torch.tensor([1.0, 2, 2, 1, 0, 0, 0]))


def test_clips_are_samples_of_their_own_in_the_loss_and_videos_count_alike():
    head, whole = glka(clip_segments="3", clip_stride="2"), glka(clip_segments="none")
    whole.load_state_dict(head.state_dict())
    cubes, _ = batch(T=5)
    valid, target = torch.arange(5) < torch.tensor([[5], [3]]), torch.tensor([2, 1])
    expected = []
    for b, windows in enumerate([[0, 2], [0]]):
        outputs = [whole([cubes[0][b : b + 1, s : s + 3]], valid[:1, :3]) for s in windows]
        expected.append(torch.stack([whole.loss(output, target[b : b + 1]) for output in outputs]).mean())
    torch.testing.assert_close(head.loss(head(cubes, valid), target), torch.stack(expected).mean())
    assert not torch.allclose(head.loss(head(cubes, valid), target), whole.loss(whole(cubes, valid), target))


def test_clips_of_short_videos_are_the_videos():
    valid = torch.arange(6) < torch.tensor([[6], [2]])
    clips = Clips(valid, length=30, stride=15, most=20)
    values = torch.randn(2, 6, 3)
    assert clips.cut(values) is values
    assert torch.equal(clips.by_video(values[:, 0]), values[:, :1])
    torch.testing.assert_close(clips.temporal(), valid / valid.sum(1, keepdim=True))


def saved(head: Glka, folder: Path) -> str:
    folder.mkdir()
    save_file(head.state_dict(), folder / "weights.safetensors")
    return str(folder)


def trained_la(tmp_path: Path) -> tuple[Glka, str]:
    head = glka("glka-la")
    torch.nn.init.normal_(head.attention.by_kind["la"][0].inner.weight)
    return head, saved(head, tmp_path / "la")


def step(head: Glka) -> dict[str, Tensor]:
    """One step of the training loop's optimiser; returns the weights before it."""
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    optimiser = build_optimiser(head, resolve_settings("glka").fit)
    head.train()
    head.loss(head(*batch()), torch.tensor([0, 1])).backward()
    optimiser.step()
    return before


@pytest.mark.parametrize("as_folder", [True, False])
def test_glka_trained_attention_is_loaded_and_stays_frozen(tmp_path, as_folder):
    """Tables II and III: attention trained in a model of its own, then only recurrent layers and classifiers."""
    source, path = trained_la(tmp_path)
    path = path if as_folder else f"{path}/weights.safetensors"
    head = glka("glka-gl", attention_from=path, freeze_attention="true")
    head.load_pretrained()
    before = step(head)
    trained = source.state_dict()
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("attention."), name
        if name.startswith("attention."):
            assert torch.equal(tensor, trained[name])


def test_glka_attention_comes_from_several_runs(tmp_path):
    _, la = trained_la(tmp_path)
    source = glka("glka-sa", sa_scale="true")
    with torch.no_grad():
        source.attention.by_kind["sa"][0].scale.fill_(7.0)
    sa = saved(source, tmp_path / "sa")
    head = glka(sa_scale="true", attention_from=f"{la},{sa}")
    head.load_pretrained()
    assert head.attention.by_kind["sa"][0].scale.item() == 7
    before = step(head)
    assert not torch.equal(before["attention.by_kind.sa.0.scale"], head.attention.by_kind["sa"][0].scale)  # not frozen


def test_glka_table_four_trains_the_attention_model_against_a_frozen_reference(tmp_path):
    source = glka("glka-gp")
    gp = saved(source, tmp_path / "gp")
    settings = {"parts": "gp,gs", "predict": "gs", "reference_from": gp, "freeze_reference": "true"}
    head = glka(**settings, rnn_dropout="0.5", detach_reference="true")
    head.load_pretrained()
    cubes_valid = batch()
    output = head.train()(*cubes_valid)
    reference = source(*cubes_valid).parts["part_logits"][:, :, 0]
    torch.testing.assert_close(output.parts["part_logits"][:, :, 0], reference)  # no dropout in what is frozen
    torch.testing.assert_close(head.probabilities(output.logits), output.parts["part_logits"][:, 0, 1].softmax(-1))
    before = step(head)
    changed = {name for name, tensor in head.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("models.gs.")}
    one, other = (glka(**settings, ga_weight=w) for w in ("1", "0"))
    for head in (one, other):
        head.load_pretrained()
    target = torch.tensor([0, 1])
    assert one.loss(one(*cubes_valid), target) > other.loss(other(*cubes_valid), target)


def test_glka_scores_without_the_files_it_was_fitted_from(tmp_path):
    _, la = trained_la(tmp_path)
    head = glka("glka-gl", attention_from=la, freeze_attention="true")
    head.load_pretrained()
    again = glka("glka-gl", attention_from=str(tmp_path / "moved"), freeze_attention="true")
    again.load_state_dict(head.state_dict())
    cubes_valid = batch()
    assert torch.equal(again(*cubes_valid).logits, head(*cubes_valid).logits)


def test_glka_refuses_files_that_do_not_fit(tmp_path):
    _, la = trained_la(tmp_path)
    (tmp_path / "noise.safetensors").write_bytes(b"no tensors here")
    wide = saved(glka("glka-la", channels=D + 1), tmp_path / "wide")
    for sources, message in (
        (str(tmp_path / "none"), "none is not there: give a finished run's folder"),
        (str(tmp_path / "noise.safetensors"), "cannot be read as safetensors"),
        (wide, r"is \[4, 6\], this head wants \[4, 5\]; was it fitted on other streams"),
        (saved(glka("glka-gp"), tmp_path / "gp"), "no tensor 'attention.by_kind.la.0.inner.bias'"),
        (f"{la},{saved(glka('glka-gl'), tmp_path / 'gl')}", "Both .* and .* have the tensor"),
    ):
        with pytest.raises(WeightsError, match=message) as caught:
            glka("glka-gl", attention_from=sources).load_pretrained()
        assert "\n" not in str(caught.value)


def test_glka_is_not_trained_before_its_files_are_loaded(tmp_path):
    _, la = trained_la(tmp_path)
    head = glka("glka-gl", attention_from=la)
    with pytest.raises(WeightsError, match="after `load_pretrained` only"):
        head.train()(*batch())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": "gp,gp"}, "parts=gp,gp: must be different ones of gp, sa, la, gs, gl"),
        ({"parts": ""}, "must be different ones of"),
        ({"parts": "gp,xy"}, "parts='xy': must be one of"),
        ({"predict": "sa"}, "predict=sa: must be some of gp, gs, gl"),
        ({"predict": "gs,gl"}, "nothing trains gp; drop it"),
        ({"parts": "gp,sa,la", "predict": "gp,sa"}, "nothing trains la"),
        ({"clip_segments": "10"}, "clip_stride=15: must be at most clip_segments=10"),
        ({"clip_segments": "0"}, "clip_segments=0: must be at least 1"),
        ({"fuse": "logits", "score_fusion": "max"}, "score_fusion=max: needs fuse=probabilities"),
        ({"freeze_reference": "true"}, "needs a part gp and reference_from"),
        ({"parts": "gs", "reference_from": "x"}, "reference_from: needs a part gp"),
        ({"ga_margin": "-1"}, "ga_margin=-1.0: must be at least 0"),
        ({"rnn_dropout": "1"}, "rnn_dropout=1.0: must be"),
        ({"layers": "0"}, "layers=0: must be at least 1"),
    ],
    ids=str,
)
def test_glka_refuses_wrong_settings_in_one_line(settings, message):
    with pytest.raises(UsageError, match=message) as caught:
        resolve_settings("glka", "paper", settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("glka-gl", {"freeze_attention": "true"}, "needs attention_from, or it would stay as it starts"),
        ("glka-gs", {"attention_from": "x"}, "the attention of gs has nothing to load"),
    ],
)
def test_glka_refuses_to_freeze_or_load_what_is_not_there(name, settings, message):
    with pytest.raises(UsageError, match=message):
        glka(name, **settings)


def test_glka_statistic_attention_of_the_paper_needs_no_file_to_be_frozen():
    assert not list(glka("glka-gs", freeze_attention="true").attention.parameters())


def test_glka_names_reach_every_model():
    parts = {name: resolve_settings(name).config.parts for name in VARIANTS}
    assert parts == {
        "glka": ("gp", "gs", "gl"), "glka-late": ("gp", "sa", "la"), "glka-gp": ("gp",), "glka-sa": ("sa",),
        "glka-la": ("la",), "glka-gs": ("gs",), "glka-gl": ("gl",),
    }  # fmt: skip
    for name, of_name in parts.items():
        assert tuple(glka(name).models) == of_name
        assert glka(name)(*batch()).spatial is None or name != "glka-gp"
        assert set(HEADS[name].presets) == {"paper", "repo", "small"}


def test_glka_presets_are_the_specification():
    paper, repo = resolve_settings("glka"), resolve_settings("glka", "repo")
    c, f = paper.config, paper.fit
    assert (c.sa_reduction, c.sa_scale, c.la_hidden, c.la_outer_tanh) == ("sum", False, 128, False)
    assert (c.hidden, c.layers, c.sru, c.rnn_dropout, c.sru_dropout, c.dropout) == (1024, 3, "v1", 0.6, 0, 0)
    assert (c.clip_segments, c.clip_stride, c.max_clips) == (30, 15, 20)
    assert (c.fuse, c.cross_entropy, c.ga_weight, c.ga_margin) == ("probabilities", "mean_logits", 1, 0.1)
    assert not c.detach_reference
    assert (f.optimiser, f.lr, f.batch_videos, f.weight_decay, f.schedule) == ("adam", 1e-3, 28, 0, "cosine")
    c, f = repo.config, repo.fit
    assert (c.sa_reduction, c.sa_scale, c.la_outer_tanh, c.fuse) == ("mean", True, True, "logits")
    assert (c.sru, c.sru_dropout, c.rnn_dropout, c.dropout, c.clip_segments) == ("v2", 0.5, 0, 0.5, None)
    assert (f.optimiser, f.lr, f.momentum, f.weight_decay, f.batch_videos) == ("sgd", 1e-3, 0.9, 1e-5, 30)
