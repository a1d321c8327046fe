"""What all tests share: the real material, seeds that never leak, and the switch for tests that need a GPU."""

from __future__ import annotations

import os

# Tests run side by side, one core each: threads would only wait for each other, in the children too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with long tests first where several processes share the tests: none of them waits long for another."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (item.path not in long, "demo" not in item.path.name))


_LONG_SECONDS = 1.0
_unmarked: list[tuple[float, str]] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.duration > _LONG_SECONDS and "slow" not in report.keywords:
        _unmarked.append((report.duration, f"{report.nodeid} ({report.when})"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that `make check` should leave out; a busy machine makes no test fail for it."""
    if _unmarked:
        terminalreporter.section(f"longer than {_LONG_SECONDS:g} s and not marked slow")
        for seconds, name in sorted(_unmarked, reverse=True):
            terminalreporter.write_line(f"{seconds:6.1f} s  {name}")
