"""Multiple kernel learning with an Lp norm: one kernel per stream, their weights learned with the machines (spec 7.6).

Kloft, Brefeld, Sonnenburg and Zien, lp-Norm Multiple Kernel Learning, JMLR 2011: for fixed weights a support vector
machine on the weighted sum of the kernels, for a fixed machine the weights in closed form (their eq. 22), in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import UsageError
from ..svm.solver import Machines, solve

MOST_ROUNDS = 100
"""The alternation converges, but nothing says how fast."""


@dataclass(frozen=True, eq=False)
class KernelMachines:
    """Machines on a weighted sum of kernels."""

    weights: np.ndarray  # [M] float64, 0 or more, of Lp norm 1; of kernels divided by `scales`
    scales: np.ndarray  # [M] float64, mean of the diagonal of each training kernel
    machines: Machines
    rounds: int
    converged: bool  # False: stopped at MOST_ROUNDS

    def decide(self, kernels: np.ndarray) -> np.ndarray:
        """Decision values [m, N] from kernels [M, m, n] with the training videos."""
        return self.machines.decide(_combine(kernels, self.weights / self.scales))


def learn_kernel_weights(
    kernels: np.ndarray, hot: np.ndarray, *, p: float = 2.0, C: float = 1.0, tolerance: float = 1e-4
) -> KernelMachines:
    """Alternate between the machines of all classes and the weights that they share.

    Parameters
    ----------
    kernels : [M, n, n] float64, symmetric and positive semidefinite
    hot : [n, N] bool labels
    p : of the norm, 1 or more; towards 1 kernels are selected, towards infinity all count alike
    C : of the machines, on kernels with a mean diagonal of 1
    tolerance : of the weights, by which the alternation ends

    Raises
    ------
    UsageError
        If shapes contradict each other, p is below 1, or a kernel is zero.
    """
    M, n = kernels.shape[:2]
    if kernels.shape != (M, n, n) or len(hot) != n:
        raise UsageError(f"Kernels must be [M, n, n] and labels [n, N]; got {kernels.shape} and {hot.shape}.")
    if p < 1:
        raise UsageError(f"p={p}: must be 1 or more.")
    scales = np.einsum("mii->m", kernels) / n
    if not (scales > 0).all():
        raise UsageError(f"Kernel {int(np.argmin(scales))} is zero everywhere: its scores say nothing.")
    weights = np.full(M, M ** (-1 / p))
    rounds, change = 0, np.inf
    while rounds < MOST_ROUNDS and change > tolerance:
        machines = solve(_combine(kernels, weights / scales), hot, form="one-vs-rest", C=C)
        dual = machines.dual.toarray()  # [N, n]
        squares = np.array([np.einsum("cn,nk,ck->", dual, kernel, dual) for kernel in kernels]) / scales
        lengths = weights * np.sqrt(np.maximum(squares, 0))  # |w_m| over all classes
        powers = lengths ** (2 / (p + 1))
        if not powers.any():
            change = 0.0  # no machine needs any kernel: nothing to learn
        else:
            following = powers / (powers**p).sum() ** (1 / p)
            change, weights = float(np.abs(following - weights).max()), following
        rounds += 1
    machines = solve(_combine(kernels, weights / scales), hot, form="one-vs-rest", C=C)
    return KernelMachines(weights, scales, machines, rounds, change <= tolerance)


def _combine(kernels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.tensordot(weights, kernels, 1))
