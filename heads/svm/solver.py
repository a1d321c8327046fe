"""Linear support vector machines on a Gram matrix that is computed once; scikit-learn's SVC (LIBSVM) does the learning.

Where there are fewer videos than numbers in a vector, this takes a fraction of the time and memory of LIBLINEAR on the
vectors (docs/svm.md), and cross-validation needs no other products. The matrix is what limits the number of videos.

The squared hinge is LIBSVM's hinge without a bound, on a kernel with 1 / (2 C) added to its diagonal (Cortes and
Vapnik 1995; Schoelkopf and Smola, Learning with Kernels, section 7.5): min 1/2 |w|^2 + C sum max(0, 1 - y f)^2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
from joblib import Parallel, delayed

from ...errors import UsageError

if TYPE_CHECKING:  # scikit-learn takes a second to import, and every head's registry comes by here
    from scipy import sparse

Form = Literal["one-vs-rest", "one-vs-one"]

_UNBOUNDED = 1e10
"""As C of LIBSVM: no dual coefficient of vectors of length 1 comes near."""

_CACHE_MB = 200
"""Of LIBSVM, each thread; a row that is not in it is copied from the matrix, which costs little."""

_NEVER = -1e3
"""Decision value of a class without positives; the machine's own -1 would often be the largest of all."""


@dataclass(frozen=True, eq=False)
class Machines:
    """P linear machines in terms of their n training vectors: f_p(x) = sum_i dual[p, i] <x_i, x> + intercepts[p]."""

    dual: sparse.csr_array  # [P, n] float64, label times dual coefficient
    intercepts: np.ndarray  # [P] float64

    def decide(self, kernel: np.ndarray) -> np.ndarray:
        """Decision values [m, P] from the kernel [m, n] of m vectors with the training vectors."""
        return (self.dual @ kernel.T).T + self.intercepts

    def coefficients(self, vectors: np.ndarray) -> np.ndarray:
        """The machines as weights [P, R] float32 on vectors [n, R]."""
        return np.asarray(self.dual.astype(np.float32) @ vectors)


def gram_matrix(vectors: np.ndarray) -> np.ndarray:
    """All products of vectors [n, R] float32 with each other, [n, n] float64 as LIBSVM wants it."""
    return (vectors @ vectors.T).astype(np.float64)


def machine_count(classes: int, form: Form) -> int:
    """P: one machine per class, or one per pair of classes."""
    return classes if form == "one-vs-rest" else classes * (classes - 1) // 2


def peak_bytes(videos: int, length: int, *, machines: int, jobs: int) -> int:
    """Return about how much memory a fit takes: vectors, three Gram matrices (all, training part, fold) and weights.

    Parameters
    ----------
    videos : n
    length : R of a video vector
    machines : P
    jobs : threads; each has LIBSVM's cache
    """
    cache = min(_CACHE_MB * 1_000_000, 4 * videos**2)
    return 4 * videos * length + 3 * 8 * videos**2 + 2 * 4 * length * machines + jobs * cache


def solve(
    kernel: np.ndarray,
    hot: np.ndarray,
    *,
    form: Form,
    C: float,
    jobs: int = 1,
    solved: Callable[[], None] = lambda: None,
) -> Machines:
    """Learn the machines of all classes.

    Parameters
    ----------
    kernel : [n, n] float64, C-contiguous; its diagonal is changed while this runs, and restored
    hot : [n, N] bool labels; one-vs-one needs one label each. A class without positives is never decided for.
    form : one-vs-rest with squared hinge, or LIBSVM's one-vs-one with hinge
    C : weight of the losses
    jobs : threads
    solved : called after each machine, from the calling thread

    Raises
    ------
    UsageError
        For one-vs-one with several labels or none.
    """
    classes = hot.shape[1]
    if form == "one-vs-one":
        if (hot.sum(1) != 1).any():
            raise UsageError("One-vs-one needs exactly one label per video; use form=one-vs-rest.")
        labels = hot.argmax(1)
        members = [np.flatnonzero(labels == n) for n in range(classes)]
        problems = [
            (np.concatenate([members[i], members[j]]), np.repeat([1, -1], [len(members[i]), len(members[j])]))
            for i, j in combinations(range(classes), 2)
        ]
        results = _run(
            (delayed(_machine)(kernel[np.ix_(rows, rows)], signs, C) for rows, signs in problems), jobs, solved
        )
        return _gather(results, [rows for rows, _ in problems], len(kernel))
    diagonal = np.diag_indices(len(kernel))
    before = kernel[diagonal].copy()
    kernel[diagonal] += 1 / (2 * C)
    try:
        signs_of = np.where(hot, 1, -1).T
        results = _run((delayed(_machine)(kernel, signs, _UNBOUNDED) for signs in signs_of), jobs, solved)
    finally:
        kernel[diagonal] = before
    machines = _gather(results, [np.arange(len(kernel))] * classes, len(kernel))
    machines.intercepts[~hot.any(0)] = _NEVER
    return machines


def _run(tasks: object, jobs: int, solved: Callable[[], None]) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Run the tasks in threads (LIBSVM leaves the interpreter's lock), their results in order."""
    results = []
    for result in Parallel(n_jobs=jobs, prefer="threads", return_as="generator")(tasks):
        results.append(result)
        solved()
    return results


def _machine(kernel: np.ndarray, signs: np.ndarray, C: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Return support vectors, signed dual coefficients and intercept of one machine; signs are 1 and -1."""
    if (signs == signs[:1]).all():  # one side only: always decide for it
        return np.zeros(0, np.int64), np.zeros(0), float(signs[0]) if len(signs) else 0.0
    from sklearn.svm import SVC

    machine = SVC(C=C, kernel="precomputed", cache_size=_CACHE_MB).fit(kernel, signs)
    return machine.support_, machine.dual_coef_[0], float(machine.intercept_[0])


def _gather(results: list[tuple[np.ndarray, np.ndarray, float]], rows: list[np.ndarray], n: int) -> Machines:
    from scipy.sparse import csr_array

    columns = [of[support] for of, (support, _, _) in zip(rows, results, strict=True)]
    starts = np.cumsum([0, *map(len, columns)])
    values = np.concatenate([dual for _, dual, _ in results])
    dual = csr_array((values, np.concatenate(columns), starts), shape=(len(results), n))
    return Machines(dual, np.array([intercept for _, _, intercept in results]))
