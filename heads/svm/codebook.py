"""Learning VLAD's codebook from descriptors that come in pieces: principal components, then k-means centres."""

from __future__ import annotations

import numpy as np
import torch

from ...errors import UsageError
from .encodings import Codebook

_PIECE = 16_384
"""Descriptors of one step of k-means: large enough that the order of the sample does not matter."""


class Covariance:
    """Mean and covariance of descriptors in one pass; exact, unlike incremental PCA, and D x D numbers large.

    Parameters
    ----------
    channels : D
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self._sum = np.zeros(channels)
        self._products = np.zeros((channels, channels))

    def add(self, descriptors: np.ndarray) -> None:
        """Take in [L, D] descriptors of any floating dtype."""
        x = descriptors.astype(np.float64)
        self.count += len(x)
        self._sum += x.sum(0)
        self._products += x.T @ x

    def components(self, count: int, *, whiten: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean [D] and the projection [count, D] on the principal components, largest variance first.

        Parameters
        ----------
        count : at most D
        whiten : scale each component to variance 1

        Raises
        ------
        UsageError
            If there were fewer than two descriptors.
        """
        if self.count < 2:
            raise UsageError(f"Principal components of {self.count} descriptors: there must be at least 2.")
        mean = self._sum / self.count
        covariance = (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)
        variances, vectors = np.linalg.eigh(covariance)  # ascending
        projection = vectors[:, ::-1][:, :count].T
        if whiten:
            largest = max(float(variances[-1]), np.finfo(np.float64).tiny)
            # a component without variance is noise of the sum: leave it small
            projection = projection / np.sqrt(np.maximum(variances[::-1][:count], 1e-9 * largest))[:, None]
        return mean, projection


def learn_centres(points: np.ndarray, *, clusters: int, seed: int) -> np.ndarray:
    """k-means++ and mini-batch k-means.

    Parameters
    ----------
    points : [L, P] float32
    clusters : k
    seed : of the choice of first centres and of the pieces

    Returns
    -------
    [k, P] float32

    Raises
    ------
    UsageError
        If there are fewer points than clusters.
    """
    if len(points) < clusters:
        raise UsageError(
            f"{clusters} clusters of {len(points)} descriptors: there must be at least one each; lower it with --set "
            "clusters=..."
        )
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(
        clusters, init="k-means++", n_init=1, batch_size=_PIECE, random_state=seed, compute_labels=False
    )
    return means.fit(points).cluster_centers_.astype(np.float32)


def assemble(mean: np.ndarray, projection: np.ndarray, centres: np.ndarray) -> Codebook:
    """Return the three arrays of a codebook as float32 tensors."""
    return Codebook(*(torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in (mean, projection, centres)))
