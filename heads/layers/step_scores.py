"""Heads that score every segment: their output and their loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..contract import HeadOutput
from ..fusion.score_fusion import fuse_probabilities
from .segments import Segments


def step_output(
    hidden: Tensor,
    step: Tensor,
    maps: Sequence[Tensor],
    segments: Segments,
    *,
    kind: str,
    last: int | None = None,
) -> HeadOutput:
    """Output of a head whose score is the mean of its steps' probabilities.

    Parameters
    ----------
    hidden : [B, T, R] float32, 0 on padding
    step : [B, T, N] float32, logits
    maps : T times [B, M, K, K] float32
    kind : "softmax" or "sigmoid"
    last : so many of a video's last steps count in the score; None = all

    Returns
    -------
    `parts`: `step` as given, and `share` [B, T], 1 / length
    """
    share = segments.uniform()
    counted = share
    if last is not None:
        left = segments.valid.flip(1).cumsum(1).flip(1)  # valid steps from here to the end
        counted = (segments.valid & (left <= last)).to(share.dtype)
        counted = counted / counted.sum(1, keepdim=True)
    return HeadOutput(
        logits=fuse_probabilities(step, kind=kind, log_weights=counted.log()),
        representation=segments.mean(hidden),
        spatial=torch.stack(list(maps), 1) * segments.valid[:, :, None, None, None],
        temporal=counted,
        parts={"step": step, "share": share},
    )


def segment_loss(logits: Tensor, target: Tensor, weights: Tensor, *, kind: str) -> Tensor:
    """`classification_loss` of every segment against its video's labels, weighted over segments, mean over videos.

    Parameters
    ----------
    logits : [B, T, N] or [B, T, M, N] float32, finite on padding too; the losses of M streams are added
    target : [B] int64, or [B, N] multi-hot of any dtype
    weights : [B, T] float32, of the segments; 0 on padding, and usually 1 / length elsewhere
    kind : "softmax" or "sigmoid"

    Returns
    -------
    () float32
    """
    logits = logits.unflatten(-1, (1, -1)) if logits.ndim == 3 else logits  # [B, T, M, N]
    hot = functional.one_hot(target, logits.shape[-1]) if target.ndim == 1 else target
    hot = hot.to(logits.dtype)[:, None, None]  # [B, 1, 1, N]
    if kind == "sigmoid":
        losses = functional.binary_cross_entropy_with_logits(logits, hot.expand_as(logits), reduction="none").mean(-1)
    else:
        losses = -(hot / hot.sum(-1, keepdim=True) * logits.log_softmax(-1)).sum(-1)  # several labels share the mass
    return (losses.sum(-1) * weights).sum() / len(logits)
