"""The validation part of a training list: whole groups, every class in proportion, seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import UsageError


@dataclass(frozen=True, eq=False)
class Holdout:
    """Which of the given videos are kept for validation."""

    validation: np.ndarray  # [n] bool; the others train
    note: str  # one line for people: sizes, and what could not be kept to


def require_share(share: float) -> None:
    """Refuse a validation share that is out of range: more than half would leave less to learn from than to check.

    Raises
    ------
    UsageError
        If it is not 0..0.5.
    """
    if not 0 <= share <= 0.5:
        raise UsageError(f"Validation share {share}: must be 0 (none) to 0.5.")


def hold_out(hot: np.ndarray, groups: np.ndarray, *, share: float, seed: int) -> Holdout:
    """Choose a validation part.

    Groups are visited in a seeded order and taken when that brings the counts per class nearer to `share` of each
    class. A class that got none this way gives up its smallest group that leaves at least half of each of the
    group's classes for training. If that yields nothing at all, because everything is of too few groups, single
    videos are held out instead, and the note says so.

    Parameters
    ----------
    hot : [n, N] bool, the labels of the training videos
    groups : [n] str; videos of one group never part; "" = a group of its own
    share : of the videos, 0..0.5; 0 = no validation
    seed : of the order of groups

    Raises
    ------
    UsageError
        If `share` is out of range.
    """
    require_share(share)
    n = len(hot)
    if share == 0:
        return Holdout(np.zeros(n, bool), f"no validation part: all {n} videos train, the last weights are kept")
    names, codes = np.unique([str(group) for group in groups], return_inverse=True)
    group_of = np.where(names[codes] == "", len(names) + np.arange(n), codes)
    taken = _choose(hot, group_of, share=share, seed=seed)
    note = ""
    if not taken.any():
        taken = _choose(hot, np.arange(n), share=share, seed=seed)
        note = "; too few groups to keep them whole, single videos are held out: the figures will flatter"
    if not taken.any():
        return Holdout(taken, f"no validation part: {n} videos are too few, the last weights are kept")
    without = int((hot.any(0) & ~hot[taken].any(0)).sum())
    if without:
        note += f"; {without} classes have too few groups to be in it"
    return Holdout(
        taken, f"validation: {taken.sum()} of {n} training videos, {len(np.unique(group_of[taken]))} groups{note}"
    )


def _choose(hot: np.ndarray, group_of: np.ndarray, *, share: float, seed: int) -> np.ndarray:
    """[n] bool: the videos of the chosen groups."""
    ranks = np.unique(group_of, return_inverse=True)[1].reshape(-1)  # groups as 0, 1, ...
    order = np.argsort(ranks, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(ranks[order])) + 1)  # per group; counts are made as needed:
    total = hot.sum(0)  # groups x classes would not fit in memory for a million videos
    held, chosen = np.zeros(hot.shape[1]), np.zeros(len(members), bool)
    visits = np.random.default_rng(seed).permutation(len(members))
    for group in visits:
        count = hot[members[group]].sum(0)
        nearer = (count * (2 * (held - share * total) + count)).sum() < 0  # |held + count - target| < |held - target|
        if nearer and not ((held + count == total) & (count > 0)).any():  # no class loses all it has
            held, chosen[group] = held + count, True
    for label in np.flatnonzero(total > 0):
        if held[label]:
            continue
        fits = []
        for group in visits[np.isin(visits, ranks[hot[:, label]])]:
            count = hot[members[group]].sum(0)
            if (2 * (held + count) <= total)[count > 0].all():
                fits.append((int(count.sum()), int(group)))
        if fits:
            group = min(fits, key=lambda fit: fit[0])[1]
            held, chosen[group] = held + hot[members[group]].sum(0), True
    return chosen[ranks]
