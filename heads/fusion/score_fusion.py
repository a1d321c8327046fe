"""Class scores of several models or clips made one: GLKA eqs. (19) and (20), and the soft selection of UntrimmedNet."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from torch.nn import functional

Rule = Literal["average", "max", "multiply"]


def fuse_probabilities(
    logits: Tensor, *, kind: str, rule: Rule = "average", log_weights: Tensor | None = None
) -> Tensor:
    """Fuse class probabilities and return them as logits, so that a head's `probabilities` give them back.

    All is done with logarithms, so that confident scores neither vanish nor saturate. The results of `max` and
    `multiply` are scaled to sum to one again, over the classes (softmax) or over yes and no (sigmoid).

    Parameters
    ----------
    logits : [..., S, N], the scores of S models or clips
    kind : "softmax" or "sigmoid", see `HeadConfig.loss`
    rule : how
    log_weights : of `average`, [..., S]; their exp sums to 1, and -inf leaves one out. None = all alike

    Returns
    -------
    [..., N]
    """
    if kind == "softmax":
        return _fuse(logits.log_softmax(-1), rule, log_weights)
    return _fuse(functional.logsigmoid(logits), rule, log_weights) - _fuse(
        functional.logsigmoid(-logits), rule, log_weights
    )


def _fuse(log_probabilities: Tensor, rule: Rule, log_weights: Tensor | None) -> Tensor:
    if rule == "max":
        return log_probabilities.amax(-2)
    if rule == "multiply":
        return log_probabilities.sum(-2)
    if log_weights is None:
        return log_probabilities.logsumexp(-2) - math.log(log_probabilities.shape[-2])
    return (log_probabilities + log_weights.unsqueeze(-1)).logsumexp(-2)
