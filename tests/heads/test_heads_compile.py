"""torch.compile on the heads: the same results, and graph breaks at the listed places only.

No head is one graph, and each place has its reason. `check_batch` and `attention_weights` refuse a bad batch, so they
look at values; `Segments` drops padding, so the number of rows depends on values, and so does that of GLKA's `Clips`;
torch's own LSTM is not traced. What lies between is one graph, and so are the layers that do the work.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vidatt.heads.contract import StreamShape
from vidatt.heads.layers.convlstm import ConvLSTM
from vidatt.heads.layers.glka_attention import LearnedAttention, StatisticAttention
from vidatt.heads.layers.sru import Sru
from vidatt.heads.registry import HEADS, build_head, trained_head_names
from vidatt.heads.stan import SanConfig, SpatialAttention
from vidatt.heads.videolstm import ConvAttention
from vidatt.heads.where_and_when import MaskNetwork, StartNetwork

VALUES, PADDING, LSTM = ("contract.py", "check_batch"), ("segments.py", "__init__"), ("recurrent.py", "forward")
WEIGHTS, CLIPS = ("attention.py", "attention_weights"), {("clips.py", "__init__"), ("clips.py", "by_video")}
BREAKS = {
    "convlstm": {VALUES, PADDING},
    "glka": {VALUES, PADDING, *CLIPS},
    "lstm": {VALUES, PADDING, LSTM},
    "mean": {VALUES, PADDING},
    "san": {VALUES, PADDING},
    "soft-attention": {VALUES, PADDING},
    "sru": {VALUES, PADDING},
    "stan": {VALUES, PADDING, LSTM, WEIGHTS},
    "tclsta": {VALUES, PADDING, LSTM, WEIGHTS},
    "tclsta-cln": {VALUES, PADDING, LSTM, WEIGHTS},
    "untrimmed": {VALUES, PADDING, WEIGHTS},
    "videolstm": {VALUES, PADDING},
    "where-and-when": {VALUES, PADDING, WEIGHTS},
}


# variants of glka differ in their settings alone
ONE_OF_EACH = [name for name in trained_head_names() if not name.startswith("glka-")]


def small_batch(name: str) -> tuple[tuple[StreamShape, ...], list[Tensor], Tensor]:
    streams = (StreamShape(name="rgb", grid=3, channels=4), StreamShape(name="flow", grid=2, channels=5))
    streams = streams[: HEADS[name].head.stream_count or 1]
    cubes = [torch.rand(2, 3, s.grid, s.grid, s.channels).half() for s in streams]
    return streams, cubes, torch.tensor([[True] * 3, [True, True, False]])


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_compiled_head_breaks_its_graph_at_the_listed_places(name):
    streams, cubes, valid = small_batch(name)
    head = build_head(name, streams=streams, classes=3, preset="small").eval()
    with torch.no_grad():  # dynamo looks at .grad where a graph goes on, and warns about tensors that are no leaves
        explained = torch._dynamo.explain(head)(cubes, valid)
    found = set()
    for reason in explained.break_reasons:
        inside = [frame for frame in reason.user_stack if "heads" in Path(frame.filename).parts]
        if inside and not inside[-1].name.startswith("torch_dynamo_resume"):
            place = Path(inside[-1].filename).name, inside[-1].name
            found.add(("clips.py", "__init__") if place == ("clips.py", "clip_starts") else place)  # torch 2.4 goes in
    assert found == BREAKS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stan", "glka"])
def test_compiled_head_scores_as_eager_with_padding(name):
    streams, cubes, valid = small_batch(name)
    head = build_head(name, streams=streams, classes=3, preset="small").eval()
    with torch.no_grad():
        compiled = torch.compile(head, backend="eager")(cubes, valid)
    torch.testing.assert_close(compiled.logits, head(cubes, valid).logits)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (SpatialAttention(4, SanConfig(conv6=6)), [(5, 3, 3, 4)]),
        (Sru(4, 6, 2), [(2, 5, 4)]),
        (Sru(4, 6, 2, version="v2"), [(2, 5, 4)]),
        (MaskNetwork(4, (6, 5)), [(5, 4, 3, 3)]),
        (StartNetwork(4, 6, 5), [(2, 4, 3, 3)]),
        (ConvAttention(4, 6, 5), [(2, 4, 3, 3), (2, 6, 3, 3)]),
        (StatisticAttention(reduction="sum", learned_scale=True), [(5, 9, 4)]),
        (LearnedAttention(4, 3, outer_tanh=False), [(5, 9, 4)]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_compiled_layer_is_one_graph_with_the_gradients_of_eager(layer, inputs):
    given = [torch.rand(shape, requires_grad=True) for shape in inputs]

    def gradients(run) -> tuple[Tensor, ...]:
        out = run(*given)
        out = out[0] if isinstance(out, tuple) else out
        return out, *torch.autograd.grad(out.square().sum(), given)

    layer.eval()
    for one, other in zip(
        gradients(torch.compile(layer, backend="eager", fullgraph=True)), gradients(layer), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_compiled_convlstm_step_is_one_graph_with_the_states_of_eager():
    layer = ConvLSTM(4, 6)
    maps, state = torch.rand(2, 4, 3, 3), (torch.rand(2, 6, 3, 3), torch.rand(2, 6, 3, 3))
    compiled = torch.compile(layer.step, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(maps, state), layer.step(maps, state))
