"""Folds of a list of videos for cross-validation: whole groups, every class in proportion, seeded."""

from __future__ import annotations

import numpy as np


def deal_folds(hot: np.ndarray, groups: np.ndarray, *, folds: int, seed: int) -> tuple[np.ndarray, str]:
    """Deal the groups of a list to folds.

    Groups come in a seeded order, the largest first; each goes to the fold that has least of its classes so far.

    Parameters
    ----------
    hot : [n, N] bool labels
    groups : [n] str; videos of one group share a fold; "" = a group of its own
    folds : at least 2
    seed : of the order of equally large groups

    Returns
    -------
    [n] int64, the fold of each video, and one line for people. With fewer groups than folds, single videos are dealt.
    """
    n = len(hot)
    names, codes = np.unique([str(group) for group in groups], return_inverse=True)
    codes = np.where(names[codes] == "", len(names) + np.arange(n), codes)
    ranks = np.unique(codes, return_inverse=True)[1].reshape(-1)
    note = f"{folds} folds of whole groups"
    if ranks.max() + 1 < folds:
        ranks, note = np.arange(n), f"{folds} folds of single videos, as there are too few groups: C may be too large"
    order = np.argsort(ranks, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(ranks[order])) + 1)
    visits = np.random.default_rng(seed).permutation(len(members))
    visits = visits[np.argsort([-len(members[group]) for group in visits], kind="stable")]
    fold_of, counts, sizes = np.zeros(n, np.int64), np.zeros((folds, hot.shape[1])), np.zeros(folds)
    for group in visits:
        count = hot[members[group]].sum(0)
        fold = np.lexsort((sizes, counts @ count))[0]  # ties: the smallest fold
        fold_of[members[group]] = fold
        counts[fold], sizes[fold] = counts[fold] + count, sizes[fold] + len(members[group])
    return fold_of, note
