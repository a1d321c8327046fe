"""Attention that knows nothing in the place of a head's: the floor under every number of detection and localisation."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from ..cache.store import Store
from ..errors import UnknownNameError
from .evaluate import VideoAttention
from .run import Run

ATTENTIONS = ("head", "random", "uniform")
"""What can be looked at: the head's attention, numbers from a seed, or the same everywhere."""


class Substitute:
    """Puts random or uniform attention in the place of a head's; what it says of classes stays.

    Parameters
    ----------
    kind : one of `ATTENTIONS`. "random": raw scores from a standard normal distribution and their softmax, maps from
        0..1 evenly; each video's depend on the seed and its id only. "uniform": raw scores and maps of 1
    seed : of "random"

    Raises
    ------
    UnknownNameError
        For another kind.
    """

    def __init__(self, kind: str, *, seed: int, run: Run, store: Store) -> None:
        if kind not in ATTENTIONS:
            raise UnknownNameError("attention", kind, ATTENTIONS)
        self.kind, self.seed = kind, seed
        names = run.identity["stream_names"]
        K = max(store.stream(name).cube_shape[0] for name in names)
        self._map_shape = (len(names), K, K)

    def __call__(self, attention: VideoAttention) -> VideoAttention:
        """Return the attention to look at."""
        T = len(attention.temporal)
        shape = (T, *self._map_shape)
        if self.kind == "head":
            return attention
        if self.kind == "uniform":
            return replace(
                attention,
                temporal=np.full(T, 1 / T, np.float32),
                temporal_raw=np.ones(T, np.float32),
                spatial=np.ones(shape, np.float32),
            )
        random = np.random.default_rng([self.seed, zlib.crc32(attention.id.encode())])
        raw = random.standard_normal(T).astype(np.float32)
        weights = np.exp(raw - raw.max())
        spatial = random.random(shape, np.float32)
        return replace(attention, temporal=weights / weights.sum(), temporal_raw=raw, spatial=spatial)
