"""`vidatt evaluate` on a file of scores as large as Sports-1M's test list: seconds, seconds of a core, and peak memory.

    python benchmarks/scores.py [--videos 200000] [--classes 487] [--csv]

Writes random multi-label scores, runs the command in a process of its own, and beside it, in another one,
scikit-learn's average_precision_score per class on the same file; says how far the two mAP are apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SKLEARN = """
import json, sys
import numpy as np
from sklearn.metrics import average_precision_score
with np.load(sys.argv[1]) as file:
    scores, labels = file["scores"], file["labels"]
hot = np.zeros(scores.shape, bool)
for column in labels.T:
    hot[np.flatnonzero(column >= 0), column[column >= 0]] = True
values = [average_precision_score(hot[:, n], scores[:, n]) for n in range(scores.shape[1]) if hot[:, n].any()]
print(json.dumps({"metrics": {"map": float(np.mean(values))}}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=487)
    parser.add_argument("--csv", action="store_true", help="also the same scores as CSV")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.npz"
        ids, scores, labels = make(given.videos, given.classes)
        np.savez(path, ids=ids, scores=scores, labels=labels)
        rows = [("scikit-learn, average precision only", [sys.executable, "-c", SKLEARN, str(path)], path)]
        rows.append(("vidatt evaluate, npz", [sys.executable, "-m", "vidatt", "evaluate", str(path), "--json"], path))
        if given.csv:
            table = Path(folder) / "scores.csv"
            write_csv(table, ids, scores, labels)
            command = [sys.executable, "-m", "vidatt", "evaluate", str(table), "--json"]
            rows.append(("vidatt evaluate, csv", command, table))
        del scores
        reference = None
        for name, command, file in rows:
            seconds, busy, peak, result = measure(command)
            reference = reference or (busy, result["metrics"]["map"])
            apart, size = abs(result["metrics"]["map"] - reference[1]), file.stat().st_size
            print(
                f"{name} ({size / 1e9:.2f} GB): {seconds:.1f} s, of a core {busy:.1f} s, {busy / reference[0]:.2f} of "
                f"scikit-learn; peak {peak / 1e9:.2f} GB; mAP differs by {apart:.1e}"
            )


def make(videos: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores that know a little of one or two labels of each video."""
    generator = np.random.default_rng(0)
    scores = generator.random((videos, classes), dtype=np.float32)
    labels = generator.integers(0, classes, (videos, 2)).astype(np.int32)
    labels[generator.random(videos) < 0.9, 1] = -1
    scores[np.arange(videos), labels[:, 0]] += generator.random(videos, dtype=np.float32)
    return np.array([f"video{i:07d}" for i in range(videos)]), scores, labels


def write_csv(path: Path, ids: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> None:
    with path.open("w") as file:
        file.write(",".join(["id", "labels", *(f"class{n}" for n in range(scores.shape[1]))]) + "\n")
        for id, row, own in zip(ids, scores, labels, strict=True):
            named = ";".join(f"class{n}" for n in own if n >= 0)
            file.write(f"{id},{named}," + ",".join([f"{score:.9g}" for score in row.tolist()]) + "\n")


def measure(command: list[str]) -> tuple[float, float, int, dict]:
    """Run a command; its seconds, those of a core (which other programs do not lengthen), its peak bytes, its JSON."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        text = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:4]} ended with {process.returncode}")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss << 10, json.loads(text)


if __name__ == "__main__":
    main()
