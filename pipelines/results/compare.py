"""`vidatt compare`: runs and files of scores side by side, and paired tests on the videos that they share."""

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
from ..runs.identity import RunIdentity
from ..runs.run import Run
from ..truth import NOWHERE, Truth, TruthSource
from .run_scores import kept_scores, seen_of_run
from .score_evaluation import Labels, by_itself, by_labels, require_as_written
from .score_files import is_score_file, pair_ids, read_scores, seen_note


@dataclass(frozen=True, eq=False, kw_only=True)
class Scored:
    """A run, or a file, with its scores on one part of a split."""

    name: str  # folder of the run, or the file
    identity: RunIdentity | None  # None = a file
    classes: tuple[str, ...] | None  # None = a file that does not name them
    multi_label: bool
    split: str
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
    """A run, or a file of scores, among others."""

    run: str
    head: str  # "file" of a file
    preset: str
    streams: tuple[str, ...]
    fingerprints: Mapping[str, str]  # by stream
    split: str
    seed: int | None = field(default=None, metadata=OPTIONAL)  # of a run
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
    source: TruthSource = NOWHERE,
    ids: Sequence[Path] = (),
    allow_seen: bool = False,
) -> Comparison:
    """Set runs and files of scores side by side.

    Parameters
    ----------
    runs : at least two: runs evaluated on the part, and files of scores
    split : None = each run's own
    source : the store that runs were evaluated on (None = each run's own); it, or a dataset, says the labels of files,
        which are their own otherwise, or those of the runs
    ids : of `.npy` files, see `pair_ids`
    allow_seen : also take scores of videos that a run was fitted or selected on; the result says so

    Raises
    ------
    RefusedError
        If classes differ, a video has other labels in another run, or a run has seen videos of the part.
    UsageError
        If a run has no scores on the part, a file of scores is damaged or nobody knows its labels, or two runs share no
        video.
    """
    if len(runs) < 2:
        raise UsageError("Name at least two runs to compare.")
    truth, lists = source.open(), pair_ids(runs, ids)
    store = None if truth is None else truth.store
    found = {
        path: _of_run(Run.open(path), split, part, store, allow_seen=allow_seen)
        for path in runs
        if not is_score_file(path)
    }
    known = tuple(found.values())
    labels = None if len(known) == len(runs) else _labels(truth, split or _one(known), part, known)
    for path in runs:
        if path not in found:
            found[path] = _of_file(path, lists.get(path), labels, told=truth is not None, allow_seen=allow_seen)
    scored = [found[path] for path in runs]
    for other in scored[1:]:
        _require_same_classes(scored[0], other)
    rows = [_row(one) for one in scored]
    prints = [row.fingerprints for row in rows]
    return Comparison(
        split=split or (rows[0].split if len({row.split for row in rows}) == 1 else None),
        part=part,
        runs=tuple(rows),
        pairs=tuple(_pair(scored, a, b) for a, b in itertools.combinations(range(len(scored)), 2)),
        fingerprints_equal=all(_agree(one, other) for one, other in itertools.combinations(prints, 2)),
    )


def _require_same_classes(first: Scored, other: Scored) -> None:
    widths = first.scores.shape[1], other.scores.shape[1]
    if widths[0] == widths[1] and (None in (first.classes, other.classes) or first.classes == other.classes):
        return
    ours, theirs = (one.classes or ("?",) * width for one, width in zip((first, other), widths, strict=True))
    odd = next(pair for pair in itertools.zip_longest(ours, theirs) if pair[0] != pair[1])
    raise RefusedError(
        f"Run {other.name} has other classes than {first.name}: {len(theirs)} and {len(ours)}, "
        f"the first difference is {odd[1]!r} for {odd[0]!r}."
    )


def _agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def _of_run(run: Run, split: str | None, part: str, store: Store | None, *, allow_seen: bool) -> Scored:
    identity = run.identity
    table = kept_scores(run, split or identity.split, part, store)
    hot = table.hot
    if hot is None:
        raise UsageError(f"{table.path} has no labels; it is no file of a run.")
    seen, note = seen_of_run(run, table, store, allow_seen=allow_seen)
    return Scored(
        name=str(run.path), identity=identity, classes=identity.classes, multi_label=identity.multi_label,
        split=identity.split, ids=np.array(table.ids, str), scores=table.scores, hot=hot,
        seen=int(seen.sum()) or None, seen_note=note,
    )  # fmt: skip


def _one(runs: Sequence[Scored]) -> str | None:
    """Return the split of the runs, None if they have several or are none."""
    splits = {one.split for one in runs}
    return splits.pop() if len(splits) == 1 else None


def _labels(truth: Truth | None, split: str | None, part: str, runs: Sequence[Scored]) -> Labels | None:
    """Return the labels that files are held to: of the truth, else those that the runs beside them have."""
    if truth is not None:
        return Labels.of_part(truth.part(split, part))
    if not runs:
        return None
    ids, hot = np.concatenate([run.ids for run in runs]), np.concatenate([run.hot for run in runs])
    ids, first = np.unique(ids, return_index=True)
    return Labels(
        ids=ids, hot=hot[first], names=runs[0].classes or (), multi_label=runs[0].multi_label, split=runs[0].split,
        part=part, where=f"run {runs[0].name}",
    )  # fmt: skip


def _of_file(path: Path, ids: Path | None, labels: Labels | None, *, told: bool, allow_seen: bool) -> Scored:
    """Return a file of scores, held to the labels of the truth if that was `told`, else its own, else the runs'."""
    require_as_written(path)
    table = read_scores(path, labels.names if labels else None, ids=ids)
    own = labels is None or (table.labels is not None and not told)
    judged = by_itself(table) if labels is None or own else by_labels(table, labels)
    note = seen_note(judged.seen, str(path), allow_seen=allow_seen)
    return Scored(
        name=str(path), identity=None, classes=labels.names if labels else table.classes,
        multi_label=labels.multi_label if labels else judged.multi_label, split=labels.split if labels else "-",
        ids=judged.ids, scores=judged.scores, hot=judged.hot, seen=int(judged.seen.sum()) or None, seen_note=note,
    )  # fmt: skip


def _row(scored: Scored) -> ComparedRun:
    identity = scored.identity
    return ComparedRun(
        run=scored.name,
        head=identity.head if identity else "file",
        preset=identity.preset if identity else "-",
        streams=identity.stream_names if identity else (),
        fingerprints={name: stream.fingerprint for name, stream in identity.streams.items()} if identity else {},
        split=scored.split,
        seed=identity.seed if identity else None,
        videos=len(scored.ids),
        metrics=summary(scored.scores, scored.hot, multi_label=scored.multi_label),
        seen=scored.seen,
        seen_note=scored.seen_note,
    )


def _pair(scored: Sequence[Scored], a: int, b: int) -> ComparedPair:
    one, other = scored[a], scored[b]
    shared, rows_a, rows_b = np.intersect1d(one.ids, other.ids, return_indices=True)
    names = f"{one.name} and {other.name}"
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
