"""`vidatt compare`: runs side by side, and paired tests on the videos that they share."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from ...cache.store import Store
from ...errors import RefusedError, UsageError
from ..metrics.classification import Measures, summary
from ..record import OPTIONAL, Record
from ..runs.run import Run
from .run_scores import kept_scores, seen_of_run


@dataclass(frozen=True, eq=False, kw_only=True)
class Scored:
    """A run with its scores on one part of a split."""

    run: Run
    ids: np.ndarray  # [n] str
    scores: np.ndarray  # [n, N]
    hot: np.ndarray  # [n, N] bool
    seen: int | None  # videos that the run was fitted or selected on; None = none
    seen_note: str | None

    @property
    def right(self) -> np.ndarray:
        """Whether the best class is a true one, [n] bool."""
        return self.hot[np.arange(len(self.ids)), self.scores.argmax(1)]


@dataclass(frozen=True, kw_only=True)
class ComparedRun(Record):
    """A run among others."""

    run: str
    head: str
    preset: str
    streams: tuple[str, ...]
    fingerprints: Mapping[str, str]  # by stream
    split: str
    seed: int
    videos: int
    metrics: Measures
    seen: int | None = field(
        default=None, metadata=OPTIONAL
    )  # with `--allow-seen`: videos it was fitted or selected on
    seen_note: str | None = field(default=None, metadata=OPTIONAL)  # the same in words, or why nobody knows


@dataclass(frozen=True, kw_only=True)
class ComparedPair(Record):
    """Two runs on the videos that both have scores of."""

    a: int  # places among the runs
    b: int
    shared: int  # videos
    only_a: int
    only_b: int
    top1_a: float | None  # on the shared ones
    top1_b: float | None
    a_right_b_wrong: int
    b_right_a_wrong: int
    p_value: float  # McNemar's exact test


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """Runs side by side, and each pair of them."""

    split: str | None  # None: the runs' own, which differ
    part: str
    runs: tuple[ComparedRun, ...]
    pairs: tuple[ComparedPair, ...]
    fingerprints_equal: bool  # of the streams that two runs share


def compare(
    runs: Sequence[Path],
    *,
    split: str | None = None,
    part: str = "test",
    store_path: Path | None = None,
    allow_seen: bool = False,
) -> Comparison:
    """Set runs side by side.

    Parameters
    ----------
    runs : at least two, evaluated on the part
    split : None = each run's own
    store_path : the store that they were evaluated on; None = each run's own
    allow_seen : also take scores of videos that a run was fitted or selected on; the result says so

    Raises
    ------
    RefusedError
        If classes differ, a video has other labels in another run, or a run has seen videos of the part.
    UsageError
        If a run has no scores on the part, its file of scores is damaged, or two runs share no video.
    """
    if len(runs) < 2:
        raise UsageError("Name at least two runs to compare.")
    store = None if store_path is None else Store.open(store_path)
    scored = [_read(Run.open(path), split, part, store, allow_seen=allow_seen) for path in runs]
    first = scored[0].run
    for other in (s.run for s in scored[1:]):
        if other.identity.classes != first.identity.classes:
            ours, theirs = first.identity.classes, other.identity.classes
            odd = next((pair for pair in itertools.zip_longest(ours, theirs) if pair[0] != pair[1]), None)
            raise RefusedError(
                f"Run {other.path} has other classes than {first.path}: {len(theirs)} and {len(ours)}, "
                f"the first difference is {odd[1]!r} for {odd[0]!r}."  # type: ignore[index]
            )
    rows = [_row(one) for one in scored]
    prints = [row.fingerprints for row in rows]
    return Comparison(
        split=split or (rows[0].split if len({row.split for row in rows}) == 1 else None),
        part=part,
        runs=tuple(rows),
        pairs=tuple(_pair(scored, a, b) for a, b in itertools.combinations(range(len(scored)), 2)),
        fingerprints_equal=all(_agree(one, other) for one, other in itertools.combinations(prints, 2)),
    )


def _agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def _read(run: Run, split: str | None, part: str, store: Store | None, *, allow_seen: bool) -> Scored:
    table = kept_scores(run, split or run.identity.split, part, store)
    hot = table.hot
    if hot is None:
        raise UsageError(f"{table.path} has no labels; it is no file of a run.")
    seen, note = seen_of_run(run, table, store, allow_seen=allow_seen)
    ids = np.array(table.ids, str)
    return Scored(run=run, ids=ids, scores=table.scores, hot=hot, seen=int(seen.sum()) or None, seen_note=note)


def _row(scored: Scored) -> ComparedRun:
    identity = scored.run.identity
    return ComparedRun(
        run=str(scored.run.path),
        head=identity.head,
        preset=identity.preset,
        streams=identity.stream_names,
        fingerprints={name: stream.fingerprint for name, stream in identity.streams.items()},
        split=identity.split,
        seed=identity.seed,
        videos=len(scored.ids),
        metrics=summary(scored.scores, scored.hot, multi_label=identity.multi_label),
        seen=scored.seen,
        seen_note=scored.seen_note,
    )


def _pair(scored: Sequence[Scored], a: int, b: int) -> ComparedPair:
    one, other = scored[a], scored[b]
    shared, rows_a, rows_b = np.intersect1d(one.ids, other.ids, return_indices=True)
    names = f"{one.run.path} and {other.run.path}"
    if not len(shared):
        raise UsageError(f"{names} share no video; compare runs of the same split.")
    if (differ := (one.hot[rows_a] != other.hot[rows_b]).any(1)).any():
        raise RefusedError(f"{names} have other labels for video {str(shared[differ][0])!r}; they cannot be compared.")
    labelled = one.hot[rows_a].any(1)
    right_a, right_b = one.right[rows_a][labelled], other.right[rows_b][labelled]
    gained, lost = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    return ComparedPair(
        a=a,
        b=b,
        shared=len(shared),
        only_a=len(one.ids) - len(shared),
        only_b=len(other.ids) - len(shared),
        top1_a=float(right_a.mean()) if len(right_a) else None,
        top1_b=float(right_b.mean()) if len(right_b) else None,
        a_right_b_wrong=gained,
        b_right_a_wrong=lost,
        p_value=float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0,
    )
