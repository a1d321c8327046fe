"""`vidatt compare`: runs side by side, and paired tests on the videos that they share."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from ...errors import MissingFileError, RefusedError, UsageError
from ..metrics.classification import multi_hot, summary
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


def compare(runs: Sequence[Path], *, split: str | None = None, part: str = "test") -> dict[str, Any]:
    """Set runs side by side.

    Parameters
    ----------
    runs : at least two, evaluated on the part
    split : None = each run's own

    Returns
    -------
    `{"split", "part", "runs", "pairs", "fingerprints_equal"}`. A run is `run, head, preset, streams, fingerprints,
    split, seed, videos, metrics`; a pair is `a, b` (places in `runs`), `shared, only_a, only_b` (videos),
    `top1_a, top1_b` (on the shared ones), `a_right_b_wrong, b_right_a_wrong` and `p_value` of McNemar's exact test.

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
        if other.identity["classes"] != first.identity["classes"]:
            ours, theirs = first.identity["classes"], other.identity["classes"]
            odd = next((pair for pair in itertools.zip_longest(ours, theirs) if pair[0] != pair[1]), None)
            raise RefusedError(
                f"Run {other.path} has other classes than {first.path}: {len(theirs)} and {len(ours)}, "
                f"the first difference is {odd[1]!r} for {odd[0]!r}."  # type: ignore[index]
            )
    rows = [_row(one) for one in scored]
    prints = [row["fingerprints"] for row in rows]
    return {
        "split": split or (rows[0]["split"] if len({row["split"] for row in rows}) == 1 else None),
        "part": part,
        "runs": rows,
        "pairs": [
            {"a": a, "b": b} | _pair(scored[a], scored[b]) for a, b in itertools.combinations(range(len(scored)), 2)
        ],
        "fingerprints_equal": all(_agree(one, other) for one, other in itertools.combinations(prints, 2)),
    }


def _agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def _read(run: Run, split: str | None, part: str) -> Scored:
    name = f"{split or run.identity['split']}-{part}"
    path = run.path / f"scores-{name}.npz"
    if not path.is_file():
        option = f" --split {split}" if split else ""
        option += f" --part {part}" if part != "test" else ""
        raise MissingFileError(f"Run {run.path} has no {path.name}; make it by `vidatt evaluate {run.path}{option}`.")
    with np.load(path, allow_pickle=False) as archive:
        ids, scores, labels = (archive[key] for key in ("ids", "scores", "labels"))
    return Scored(run=run, ids=ids, scores=scores, hot=multi_hot(labels, scores.shape[1]))


def _row(scored: Scored) -> dict[str, Any]:
    identity = scored.run.identity
    return {
        "run": str(scored.run.path),
        "head": identity.get("head"),
        "preset": identity.get("preset"),
        "streams": list(identity.get("stream_names", ())),
        "fingerprints": {name: entry["fingerprint"] for name, entry in identity.get("streams", {}).items()},
        "split": identity.get("split"),
        "seed": identity.get("seed"),
        "videos": len(scored.ids),
        "metrics": summary(scored.scores, scored.hot, multi_label=bool(identity.get("multi_label"))),
    }


def _pair(one: Scored, other: Scored) -> dict[str, Any]:
    shared, a, b = np.intersect1d(one.ids, other.ids, return_indices=True)
    names = f"{one.run.path} and {other.run.path}"
    if not len(shared):
        raise UsageError(f"{names} share no video; compare runs of the same split.")
    if (differ := (one.hot[a] != other.hot[b]).any(1)).any():
        raise RefusedError(f"{names} have other labels for video {str(shared[differ][0])!r}; they cannot be compared.")
    labelled = one.hot[a].any(1)
    right_a, right_b = one.right[a][labelled], other.right[b][labelled]
    gained, lost = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    return {
        "shared": len(shared),
        "only_a": len(one.ids) - len(shared),
        "only_b": len(other.ids) - len(shared),
        "top1_a": float(right_a.mean()) if len(right_a) else None,
        "top1_b": float(right_b.mean()) if len(right_b) else None,
        "a_right_b_wrong": gained,
        "b_right_a_wrong": lost,
        "p_value": float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0,
    }
