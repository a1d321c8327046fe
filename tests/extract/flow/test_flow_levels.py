"""Flow in 8-bit levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidatt.errors import UsageError
from vidatt.extract.flow import dequantise, quantise

PIXELS = [-30, -20, -0.01, 0, 7.3, 20, 30]
LEVELS = [0, 0, 127, 128, 174, 255, 255]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_quantise_gives_the_published_levels(dtype: type) -> None:
    levels = quantise(np.array(PIXELS, dtype))
    assert levels.dtype == np.uint8
    assert levels.tolist() == LEVELS


def test_quantise_of_a_tensor_equals_that_of_an_array() -> None:
    flow = np.random.default_rng(0).uniform(-25, 25, (3, 2, 40, 50)).astype(np.float32)
    assert quantise(torch.tensor(PIXELS)).tolist() == LEVELS
    for bound in (20.0, 15.0):
        np.testing.assert_array_equal(
            quantise(torch.from_numpy(flow), bound=bound).numpy(), quantise(flow, bound=bound)
        )


@pytest.mark.parametrize("bound", [15.0, 20.0, 32.0])
def test_dequantise_returns_every_level_and_stays_within_half_a_level(bound: float) -> None:
    levels = np.arange(256, dtype=np.uint8)
    pixels = dequantise(levels, bound=bound)
    assert pixels.dtype == np.float32
    assert (pixels[0], pixels[255]) == pytest.approx((-bound, bound), abs=1e-5)
    np.testing.assert_array_equal(quantise(pixels, bound=bound), levels)
    np.testing.assert_array_equal(dequantise(torch.from_numpy(levels), bound=bound).numpy(), pixels)
    flow = np.random.default_rng(1).uniform(-bound, bound, 1000).astype(np.float32)
    assert np.abs(dequantise(quantise(flow, bound=bound), bound=bound) - flow).max() <= bound / 255 + 1e-5


def test_levels_refuse_what_they_cannot_map() -> None:
    with pytest.raises(UsageError, match="quantised already"):
        quantise(np.zeros(3, np.uint8))
    with pytest.raises(UsageError, match="quantised already"):
        quantise(torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(UsageError, match="positive number of pixels"):
        quantise(np.zeros(3, np.float32), bound=0)
    with pytest.raises(UsageError, match="NaN"):
        quantise(np.array([np.nan], np.float32))
    with pytest.raises(UsageError, match="NaN"):
        quantise(torch.tensor([float("nan")]))
    with pytest.raises(UsageError, match="call quantise first"):
        dequantise(np.zeros(3, np.float32))
