"""One epoch of chaos; by hand for longer: `python -m tests.chaos --minutes 30`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from testkit.disks import small_disk

pytestmark = [pytest.mark.slow, pytest.mark.long]

REPOSITORY = Path(__file__).resolve().parents[2]


def test_after_chaos_the_commands_mend_the_store_to_the_last_byte(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=8) as disk:
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos", "--minutes", "0", "--disk", disk],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["stores equal to the undisturbed one, byte for byte"] == figures["epochs"] == 1
    assert figures["fits with the weights of an undisturbed one"] == 1
    assert sum(count for what, count in figures.items() if what.startswith("kills of")) > 3
