"""Which way to learn linear SVMs of the size of a data set: on a Gram matrix, or on the vectors.

Generates vectors of length 1 (a class's mean, noise, a ReLU), as the encoded baselines have them, and measures:

- gram: `vidatt.heads.svm.solver`, the way of `fit-head --head svm-*`: the Gram matrix once, then all classes for
  each C;
- liblinear: scikit-learn's LinearSVC (dual, squared hinge) on the vectors, for `--rivals` of the classes, the time of
  all classes being that times classes / rivals.

Each in a process of its own, whose peak memory is reported.

Example: `python benchmarks/svm.py --videos 3000 --dims 8192 --rivals 2`; the size of UCF101 is the default.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
from sklearn.svm import LinearSVC

from vidatt.heads.svm.solver import gram_matrix, machine_count, solve


def generate(videos: int, dims: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors [videos, dims] float32 of length 1 and labels; nothing of their size is made twice."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, videos)
    means = 0.25 * random.standard_normal((classes, dims), np.float32)
    x = np.empty((videos, dims), np.float32)
    for i, label in enumerate(labels):
        random.standard_normal(dims, np.float32, out=x[i])
        x[i] += means[label] - 0.3
        np.maximum(x[i], 0, out=x[i])
        x[i] /= np.linalg.norm(x[i])
    return x, labels


def measure(way: str, given: argparse.Namespace) -> dict[str, object]:
    """Measure one way in this process."""
    x, labels = generate(given.videos, given.dims, given.classes)
    jobs = len(os.sched_getaffinity(0))
    result: dict[str, object] = {"way": way, "generated_gb": round(x.nbytes / 1e9, 3), "threads": jobs}
    if way == "gram":
        hot = np.eye(given.classes, dtype=bool)[labels]
        start = time.perf_counter()
        kernel = gram_matrix(x)
        result["gram_s"] = round(time.perf_counter() - start, 2)
        for C in given.C:
            start = time.perf_counter()
            machines = solve(kernel, hot, form=given.form, C=C, jobs=jobs)
            result[f"C={C:g}_s"] = round(time.perf_counter() - start, 2)
        start = time.perf_counter()
        weights = machines.coefficients(x)
        result |= {"weights_s": round(time.perf_counter() - start, 2), "weights_gb": round(weights.nbytes / 1e9, 3)}
        result["machines"] = machine_count(given.classes, given.form)
    else:
        for C in given.C:
            start = time.perf_counter()
            for label in range(given.rivals):
                LinearSVC(C=C, dual=True, max_iter=10_000).fit(x, np.where(labels == label, 1, -1))
            each = (time.perf_counter() - start) / given.rivals
            result[f"C={C:g}_s_per_class"] = round(each, 2)
            result[f"C={C:g}_s_all_classes"] = round(each * given.classes, 1)
    result["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=9537)
    parser.add_argument("--dims", type=int, default=25_088)
    parser.add_argument("--classes", type=int, default=101)
    parser.add_argument("--C", type=float, nargs="+", default=[0.1, 1.0, 10.0, 100.0])
    parser.add_argument("--form", choices=["one-vs-rest", "one-vs-one"], default="one-vs-rest")
    parser.add_argument("--rivals", type=int, default=1, help="classes that liblinear learns; 0 = leave it out")
    parser.add_argument("--way", choices=["gram", "liblinear"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(given.way, given)))
        return
    for way in ["gram", "liblinear"][: 2 if given.rivals else 1]:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--way", way], check=True)


if __name__ == "__main__":
    main()
