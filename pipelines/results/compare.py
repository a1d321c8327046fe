"""`vidatt compare`: runs side by side, and paired tests on the videos that they share."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from ...errors import MissingFileError, RefusedError, UsageError
from ..metrics.classification import Measures, multi_hot, summary
from ..record import Record
from ..runs.run import Run


@dataclass(frozen=True, eq=False, kw_only=True)
class Scored:
    """A run with its scores on one part of a split."""

    run: Run
    ids: np.ndarray  # [n] str
    scores: np.ndarray  # [n, N]
    hot: np.ndarray  # [n, N] bool

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


def compare(runs: Sequence[Path], *, split: str | None = None, part: str = "test") -> Comparison:
    """Set runs side by side.

    Parameters
    ----------
    runs : at least two, evaluated on the part
    split : None = each run's own

    Raises
    ------
    RefusedError
        If classes differ, or a video has other labels in another run.
    UsageError
        If a run has no scores on the part, or two runs share no video.
    """
    if len(runs) < 2:
        raise UsageError("Name at least two runs to compare.")
    scored = [_read(Run.open(path), split, part) for path in runs]
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


def _read(run: Run, split: str | None, part: str) -> Scored:
    name = f"{split or run.identity.split}-{part}"
    path = run.path / f"scores-{name}.npz"
    if not path.is_file():
        option = f" --split {split}" if split else ""
        option += f" --part {part}" if part != "test" else ""
        raise MissingFileError(f"Run {run.path} has no {path.name}; make it by `vidatt evaluate {run.path}{option}`.")
    with np.load(path, allow_pickle=False) as archive:
        ids, scores, labels = (archive[key] for key in ("ids", "scores", "labels"))
    return Scored(run=run, ids=ids, scores=scores, hot=multi_hot(labels, scores.shape[1]))


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
