"""What "Where and When to Look?" adds to the loss: smooth masks, decided masks, one peak in time (spec 6.3).

Each function returns one number per mask or weight vector; who sums over what is the head's business.
"""

from __future__ import annotations

from torch import Tensor


def total_variation(masks: Tensor) -> Tensor:
    """Eq. (8): the sum of absolute steps to the cell below and to the right (anisotropic).

    Parameters
    ----------
    masks : [..., K, K] floating, in 0..1

    Returns
    -------
    [...], 0 (constant) and up; 0 on a 1 x 1 grid
    """
    down = (masks[..., 1:, :] - masks[..., :-1, :]).abs().sum((-2, -1))
    right = (masks[..., :, 1:] - masks[..., :, :-1]).abs().sum((-2, -1))
    return down + right


def contrast(masks: Tensor, *, skip_half: bool = False) -> Tensor:
    """Eq. (9): `sum of -1/2 M B + 1/2 M (1 - B)` with `B = 1[M > 0.5]`, which gets no gradient.

    It pushes each cell to its nearer end. Its minimum is the mask of ones, and so is that of the total variation.

    Parameters
    ----------
    masks : [..., K, K] floating, in 0..1
    skip_half : leave cells of exactly 0.5 out (the authors' code) instead of counting them as background

    Returns
    -------
    [...], from -K*K/2 to K*K/4
    """
    background = masks < 0.5 if skip_half else masks <= 0.5
    sign = background.to(masks.dtype) - (masks > 0.5).to(masks.dtype)
    return 0.5 * (masks * sign).sum((-2, -1))


def unimodality(weights: Tensor) -> Tensor:
    """Eqs. (10) and (11): the sum over inner i of `max(0, w[i-1] w[i+1] - w[i]^2)`.

    0 for log-concave weights, which have one peak. Zeros on padding that follows the valid weights add nothing.

    Parameters
    ----------
    weights : [..., T] floating, 0 or more

    Returns
    -------
    [...], 0 and up
    """
    return _valleys(weights).sum(-1)


def unimodality_root(weights: Tensor, lengths: Tensor) -> Tensor:
    """What the authors' code computes for `unimodality`: the mean over inner i of the square roots.

    Its slope is unbounded where a valley begins; the gradient is taken as 0 where there is none.

    Parameters
    ----------
    weights : [..., T] floating, 0 or more, 0 on padding
    lengths : [...] true lengths; under 3 there is no inner weight and the result is 0
    """
    valleys = _valleys(weights)
    deep = valleys > 0
    roots = valleys.masked_fill(~deep, 1).sqrt() * deep
    return roots.sum(-1) / (lengths - 2).clamp_min(1)


def _valleys(weights: Tensor) -> Tensor:
    return (weights[..., :-2] * weights[..., 2:] - weights[..., 1:-1].square()).clamp_min(0)
