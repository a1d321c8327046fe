"""What all tests share: the real material, seeds that never leak, and the switch for tests that need a GPU."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos, annotations, features and weights that lies beside a checkout."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real test material (shared/data beside the checkout), which is not on this machine")
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test starts from the same random state and leaves the outer one as it was."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.random.set_rng_state(states[2])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `cuda` skip without a GPU, unless FAIL_WITHOUT_CUDA is set."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available() and not os.environ.get("FAIL_WITHOUT_CUDA"):
        pytest.skip("needs an NVIDIA GPU, and this machine has none")
