"""The page for Python runs: its blocks, in order, as one program in a folder of real videos."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vidatt.extract.datasets.generator import generate

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"

RUNS = {"peak": 20, "stan": 10}
CHECKS = """
assert all(isinstance(part, np.ndarray) for part in (video.cubes, video.frames, video.seconds, video.valid))
assert video.cubes.shape == (4, K, K, D) and video.valid.all() and (np.diff(video.seconds) > 0).all()
assert torch.isfinite(loss)
assert abs(scores.sum().item() - 1) < 1e-4 and len(run.classes) == len(scores)
assert looked.spatial.shape == (4, 1, K, K) and abs(looked.temporal.sum() - 1) < 1e-4
"""


@pytest.mark.slow
def test_blocks_of_the_page_run_in_order(tmp_path: Path) -> None:
    generate(tmp_path / "clips", videos=12, shapes=2, motions=1, frames=24, n_jobs=1)
    lines, program, inside = PAGE.read_text().splitlines(), [], False
    for line in lines:  # prose becomes empty lines: a traceback names the line of the page
        inside = inside and line != "```"
        program.append(line if inside else "")
        inside = inside or line == "```python"
    path = tmp_path / "python.md.py"
    path.write_text("\n".join(program) + CHECKS)
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps = {run: json.loads((tmp_path / "runs" / run / "metrics.json").read_text())["fit"]["steps"] for run in RUNS}
    assert steps == RUNS


def test_page_shows_the_five_things() -> None:
    headings = re.findall(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    assert headings == [
        "Your own dataset",
        "The cubes of a video",
        "Your own training loop on the batches",
        "Your own head",
        "One video through a fitted head",
        "Attention as arrays",
    ]
