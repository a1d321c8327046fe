"""Video vectors from cubes without training by gradient: the encoded baselines of STAN (Li et al., IEEE TMM 2019).

The mean over segments of a vector (fc6), of a flattened grid (pool5, 25,088 numbers) or of a grid averaged over its
cells (512 numbers), and VLAD over all local descriptors of a video. One video at a time: lengths differ, and the
float32 copy of a padded batch of long videos would not fit anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import UsageError
from ..contract import StreamShape


def flat_mean(cube: Tensor) -> Tensor:
    """Mean over segments of the flattened grid.

    Parameters
    ----------
    cube : [T, K, K, D] of any floating dtype, valid segments only

    Returns
    -------
    [K * K * D] float32
    """
    return cube.mean(0, dtype=torch.float32).flatten()  # float16 sums would lose digits


def cell_mean(cube: Tensor) -> Tensor:
    """Mean over segments and cells: [T, K, K, D] -> [D] float32."""
    return cube.mean((0, 1, 2), dtype=torch.float32)


def vlad(
    descriptors: Tensor,
    centres: Tensor,
    *,
    signed_root: bool = True,
    intra: bool = True,
    overall: bool = True,
) -> Tensor:
    """Vector of locally aggregated descriptors: per centre, the sum of what its descriptors differ from it by.

    Parameters
    ----------
    descriptors : [L, P] float32
    centres : [k, P] float32; each descriptor counts for the nearest one
    signed_root : v -> sign(v) sqrt(|v|), first
    intra : each centre's part to length 1, then; parts that are zero stay zero
    overall : the whole to length 1, last

    Returns
    -------
    [k * P] float32, the parts in the order of the centres
    """
    # |x - c|^2 up to |x|^2, which moves no minimum
    nearest = (centres.square().sum(1) - 2 * descriptors @ centres.T).argmin(1)
    chosen = functional.one_hot(nearest, len(centres)).to(descriptors.dtype)  # [L, k]
    parts = chosen.T @ descriptors - chosen.sum(0).unsqueeze(1) * centres  # [k, P]
    if signed_root:
        parts = parts.sign() * parts.abs().sqrt()
    if intra:
        parts = functional.normalize(parts, dim=1)
    vector = parts.flatten()
    return functional.normalize(vector, dim=0) if overall else vector


@dataclass(frozen=True, eq=False)
class Codebook:
    """What VLAD learns from a sample of descriptors."""

    mean: Tensor  # [D] float32
    projection: Tensor  # [P, D] float32: principal components in rows
    centres: Tensor  # [k, P] float32, in the projected space


class Vlad(nn.Module):
    """VLAD of a stream: projection, nearest centre, normalisations; its codebook is kept in buffers.

    Parameters
    ----------
    stream : whose descriptors
    components : P, at most D
    clusters : k
    signed_root, intra, overall : see `vlad`
    """

    mean: Tensor
    projection: Tensor
    centres: Tensor

    def __init__(
        self, stream: StreamShape, *, components: int, clusters: int, signed_root: bool, intra: bool, overall: bool
    ) -> None:
        super().__init__()
        D, P = stream.channels, min(components, stream.channels)
        self.length = clusters * P
        self.options = {"signed_root": signed_root, "intra": intra, "overall": overall}
        self.register_buffer("mean", torch.zeros(D))
        self.register_buffer("projection", torch.zeros(P, D))
        self.register_buffer("centres", torch.zeros(clusters, P))

    def take(self, codebook: Codebook) -> None:
        """Take over a codebook that was learned.

        Raises
        ------
        UsageError
            If its shapes are not those of this encoder.
        """
        for name in ("mean", "projection", "centres"):
            mine, learned = getattr(self, name), getattr(codebook, name)
            if mine.shape != learned.shape:
                raise UsageError(f"The codebook's {name} is {list(learned.shape)}, the encoder's {list(mine.shape)}.")
            mine.copy_(learned)

    def project(self, descriptors: Tensor) -> Tensor:
        """[L, D] of any floating dtype -> [L, P] float32."""
        return (descriptors.float() - self.mean) @ self.projection.T

    def forward(self, cube: Tensor) -> Tensor:
        """[T, K, K, D] -> [k * P] float32."""
        return vlad(self.project(cube.flatten(0, 2)), self.centres, **self.options)


class Flat(nn.Module):
    """`flat_mean` of a stream."""

    def __init__(self, stream: StreamShape) -> None:
        super().__init__()
        self.length = stream.grid**2 * stream.channels

    def forward(self, cube: Tensor) -> Tensor:
        """[T, K, K, D] -> [K * K * D] float32."""
        return flat_mean(cube)


class CellMean(nn.Module):
    """`cell_mean` of a stream."""

    def __init__(self, stream: StreamShape) -> None:
        super().__init__()
        self.length = stream.channels

    def forward(self, cube: Tensor) -> Tensor:
        """[T, K, K, D] -> [D] float32."""
        return cell_mean(cube)


class FullyConnected(Flat):
    """The mean over segments of a vector layer such as fc6.

    Raises
    ------
    UsageError
        If the stream has a grid.
    """

    def __init__(self, stream: StreamShape) -> None:
        super().__init__(stream)
        if stream.grid != 1:
            raise UsageError(
                f"Head svm-fc6 needs a vector per segment, and stream {stream.name!r} has a grid of {stream.grid} x "
                f"{stream.grid}; extract a layer such as fc6, or take svm-pool5-mean or svm-pool5-flat."
            )
