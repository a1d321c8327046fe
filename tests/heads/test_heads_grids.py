"""Grids of vision transformers, 14x14 and 16x16, alone and beside a smaller one, in every registered head."""

from __future__ import annotations

import pytest
import torch

from vidatt.errors import UsageError
from vidatt.heads.contract import Head, StreamShape
from vidatt.heads.registry import HEADS, build_from_settings, build_head, head_names, resolve_settings
from vidatt.heads.svm.machines import Svm, SvmOn

B, T, D, N = 2, 3, 4, 3
VECTORS_ONLY = {"svm-fc6"}


def _build(name: str, streams: list[StreamShape]) -> Head:
    torch.manual_seed(0)
    if not issubclass(HEADS[name].head, SvmOn):
        return build_head(name, streams=streams, classes=N, preset="small")
    base = build_head("stan", streams=streams, classes=N, preset="small")
    return build_from_settings(resolve_settings(name), streams=streams, classes=N, on=base)


@pytest.mark.parametrize("grids", [(14,), (16,), (16, 7)], ids=str)
@pytest.mark.parametrize("name", head_names())
def test_head_takes_the_grid_of_a_vision_transformer_or_refuses_it_in_one_line(
    name: str, grids: tuple[int, ...]
) -> None:
    grids = (grids * 2)[: HEADS[name].head.stream_count or len(grids)]
    streams = [StreamShape(name=s, grid=K, channels=D) for s, K in zip(("rgb", "flow"), grids, strict=False)]
    if name in VECTORS_ONLY:
        with pytest.raises(UsageError) as caught:
            _build(name, streams)
        assert f"a grid of {grids[0]} x {grids[0]}" in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    head = _build(name, streams)
    cubes = [torch.rand(B, T, K, K, D) for K in grids]
    output = head(cubes, torch.tensor([[True] * T, [True, False, False]]))
    assert output.logits.shape == (B, N)
    assert output.logits.isfinite().all()
    K = max(grids)
    assert output.spatial is None or output.spatial.shape == (B, T, len(grids), K, K)
    if not isinstance(head, Svm):  # its weights are solved for, not learned by gradient
        output.logits.square().sum().backward()
        assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)
        assert any(p.grad is not None and p.grad.any() for p in head.parameters())
