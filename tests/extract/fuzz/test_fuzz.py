"""Some broken videos of every form; by hand for more: `python -m tests.extract.fuzz --videos 10000 --jobs 2`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_every_broken_video_ends_in_an_outcome_within_the_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.extract.fuzz", "--videos", "150", "--seed", "7"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    figures = json.loads(done.stdout)
    assert figures["wrong"] == []
    assert done.returncode == 0, done.stderr
    assert sum(figures["outcomes"].values()) == figures["videos"] == 150
    assert figures["forms"] > 40
    assert figures["sound"] > 0
    assert {"ok", "truncated", "unreadable"} <= set(figures["outcomes"])
    assert 0 < figures["peak_bytes"] < 1.5e9
