"""One run as a chapter of the report: everything that the page shows of it, as typed records."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.store import Store
from ...errors import UsageError
from ..localisation.detect import DetectionResult
from ..localisation.locate import LocationResult
from ..localisation.reading import kept_results
from ..runs.identity import FitEnvironment, FusionEnvironment, FusionIdentity
from ..runs.measured import Evaluation, FitMeasures
from ..runs.reload import acting_settings
from ..runs.run import HISTORY, Run
from .again import commands
from .intervals import Interval, of_share
from .looks import Looks, look_at
from .plots import Line, Plot, lines, precision_recall
from .scored import Figure, Scored, figures, read_scored

MOST_CLASSES = 110
"""Up to which the confusion matrix and the curves of single classes are drawn; beyond, the pairs most confused."""
MOST_CONFUSIONS = 12
COLUMNS = {
    "train_loss": "training loss", "validation_loss": "validation loss", "map": "mAP", "top1": "top-1",
    "lr": "learning rate",
}  # fmt: skip
"""Of `history.csv`, as the page calls them; others are what heads log."""
MOST_LISTED = 4_000
"""Videos in the table of a run; of more, all the wrong ones first."""


@dataclass(frozen=True, kw_only=True)
class StreamShown:
    """A stream as the run was fitted on it."""

    name: str
    grid: int
    channels: int
    fingerprint: str
    recipe: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class ClassBar:
    """A row of the bars per class."""

    name: str
    videos: int
    value: float | None  # accuracy within the class; average precision where videos have several labels
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Who was taken for whom; places among the classes."""

    matrix: tuple[tuple[int, ...], ...] | None  # rows = true; None for too many classes to draw
    pairs: tuple[tuple[int, int, int], ...]  # true, said, videos; the most frequent mistakes


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The videos of a run's table."""

    rows: tuple[tuple[str, tuple[int, ...], int, float, float, str], ...]
    """Id, true classes, class said, its score, the best true class's score, key of the picture of it or ""."""
    of: int  # videos there are


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """What the page shows of one run."""

    key: str  # unique in the page
    name: str
    path: str
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    streams: tuple[StreamShown, ...]
    commands: tuple[str, ...]
    curves: tuple[Plot, ...]
    evaluate: str  # the command that measures the run on the part
    split: str
    part: str
    classes: tuple[str, ...]
    multi_label: bool
    evaluation: Evaluation | None
    score_kind: str
    figures: tuple[Figure, ...]
    bars: tuple[ClassBar, ...]
    confusion: Confusion | None
    recall: Plot | None
    listed: Listed | None
    looks: Looks
    detections: tuple[DetectionResult, ...]
    locations: tuple[LocationResult, ...]

    def figure(self, key: str) -> Figure | None:
        """Return a measure by its key."""
        return next((figure for figure in self.figures if figure.key == key), None)


@dataclass(frozen=True, kw_only=True)
class LookConfig:
    """How the videos are chosen and drawn; `each` of 0 = none."""

    videos: Path | None
    each: int
    seed: int
    device: str


def read_chapter(
    run: Run, *, key: str, name: str, split: str, part: str, store: Store | None, missing: str, look: LookConfig
) -> Chapter:
    """Read a finished run.

    Parameters
    ----------
    key, name : of the run in the page
    store : None = it is not at hand, because of `missing`; then no video is shown
    """
    identity = run.identity
    scored = read_scored(run, split, part)
    looks = Looks(videos=(), streams=(), notes=(missing,) if missing and look.each else ())
    if scored is not None and store is not None and look.each:
        looks = look_at(run, store, scored, look.videos, key=key, each=look.each, seed=look.seed, device=look.device)
    return Chapter(
        key=key,
        name=name,
        path=str(run.path),
        facts=_facts(run),
        settings=_pairs(acting_settings(run)),
        streams=tuple(
            StreamShown(
                name=stream, grid=of.grid, channels=of.channels, fingerprint=of.fingerprint, recipe=_pairs(of.recipe)
            )
            for stream, of in identity.streams.items()
        ),
        commands=commands(run, split, part),
        curves=curves(run, key),
        evaluate=_evaluate(run, split, part),
        split=split,
        part=part,
        classes=identity.classes,
        multi_label=identity.multi_label,
        evaluation=None if scored is None else scored.evaluation,
        score_kind="" if scored is None else scored.kind,
        figures=() if scored is None else figures(scored, multi_label=identity.multi_label),
        bars=() if scored is None else _bars(scored.evaluation),
        confusion=None if scored is None else _confusion(scored.evaluation),
        recall=_recall(f"{key}-pr", scored),
        listed=None if scored is None else _listed(scored, looks),
        looks=looks,
        detections=kept_results(run, "detections", split, part, DetectionResult),
        locations=kept_results(run, "boxes", split, part, LocationResult),
    )


def fit_measures(run: Run) -> FitMeasures:
    """Return what was measured at the end of a fit or a fusion; raises as `Run.metrics`."""
    where = f"{run.path / 'metrics.json'}: fit"
    fit = run.metrics()["fit"]
    if not isinstance(fit, dict):
        raise UsageError(f"{where} must be an object; the file is damaged: fit again with another --out.")
    return FitMeasures.from_dict(fit.get("metrics"), f"{where}.metrics")


def curves(run: Run, key: str) -> tuple[Plot, ...]:
    """Draw `history.csv`: losses, the measure on the validation videos, the learning rate; nothing without one.

    Raises
    ------
    UsageError
        If the file is damaged.
    """
    path = run.path / HISTORY
    if not path.is_file():
        return ()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        columns = {name: [float(row[name] or math.nan) for row in rows] for name in (rows[0] if rows else {})}
        steps = columns.pop("step")
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is damaged ({error}); fit again with another --out.") from None
    best = None if isinstance(run.identity, FusionIdentity) else run.fit_result().best_step
    mark = None if best is None else (float(best), f"kept: step {best}")
    left = [name for name in columns if name not in (*COLUMNS, "seconds")]
    groups = [
        ("loss", "Loss", ["train_loss", "validation_loss"], False),
        ("held", "On the validation videos", ["top1", "map"], True),
        ("rate", "Learning rate", ["lr"], False),
        *((f"log{n}", name, [name], False) for n, name in enumerate(left)),
    ]
    plots = []
    for name, title, names, share in groups:
        there = [c for c in names if c in columns and not all(map(math.isnan, columns[c]))]
        if there:
            drawn = [Line(name=COLUMNS.get(c, c), x=steps, y=columns[c]) for c in there]
            plots.append(
                lines(
                    f"{key}-{name}",
                    title,
                    drawn,
                    x_label="step",
                    share=share,
                    y_label="share" if share else title.lower(),
                    mark=mark if name in ("loss", "held") else None,
                )
            )
    return tuple(plots)


def _facts(run: Run) -> tuple[tuple[str, str], ...]:
    identity, environment, fit = run.identity, run.environment, run.metrics()["fit"]
    facts = [
        ("run", str(run.path)),
        ("head", f"{identity.head}, preset {identity.preset}"),
        ("streams", ", ".join(identity.stream_names)),
        ("split, seed", f"{identity.split}, {identity.seed}"),
        ("classes", f"{len(identity.classes)}{', several labels each' if identity.multi_label else ''}"),
    ]
    if isinstance(environment, FusionEnvironment):
        facts.append(("fused from", ", ".join(environment.parts)))
    if not isinstance(identity, FusionIdentity) and isinstance(environment, FitEnvironment):
        facts += [
            ("store", environment.store),
            ("fitted on", f"{identity.train.videos} videos (ids {identity.train.digest[:12]})"),
            (
                "selected on",
                f"{identity.validation.videos} held-out training videos (ids {identity.validation.digest[:12]})",
            ),
            ("device", environment.device),
            ("versions", ", ".join(f"{name} {version}" for name, version in environment.versions.items())),
        ]
        if identity.on is not None:
            facts.append(("stands on", f"{identity.on.identity.head} with weights {identity.on.weights[:12]}"))
        facts += [("selected by", str(fit.get("selected_by", "")))] if fit.get("selected_by") else []
    facts += [("time of the fit", f"{float(fit['seconds']):.0f} s")] if "seconds" in fit else []
    return (*facts, *(("note", str(note)) for note in fit.get("notes", ())))


def _pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, value if isinstance(value, str) else json.dumps(value)) for key, value in values.items())


def _evaluate(run: Run, split: str, part: str) -> str:
    found = f"vidatt evaluate {run.quoted}"
    found += "" if split == run.identity.split else f" --split {split}"
    return found + ("" if part == "test" else f" --part {part} --allow-seen")


def _bars(evaluation: Evaluation) -> tuple[ClassBar, ...]:
    one_each = evaluation.confusion is not None
    return tuple(
        ClassBar(
            name=row.name,
            videos=row.videos,
            value=row.accuracy if one_each else row.average_precision,
            interval=of_share(round(row.accuracy * row.videos), row.videos)
            if one_each and row.videos and row.accuracy is not None
            else None,
        )
        for row in evaluation.per_class
    )


def _confusion(evaluation: Evaluation) -> Confusion | None:
    if evaluation.confusion is None:
        return None
    matrix = np.array(evaluation.confusion)
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    rows, columns = np.unravel_index(order, wrong.shape)
    pairs = [(int(t), int(s), int(wrong[t, s])) for t, s in zip(rows, columns, strict=True) if wrong[t, s]]
    return Confusion(matrix=evaluation.confusion if len(matrix) <= MOST_CLASSES else None, pairs=tuple(pairs))


def _recall(name: str, scored: Scored | None) -> Plot | None:
    if scored is None or len(scored.classes) > MOST_CLASSES or not scored.hot.any():
        return None
    return precision_recall(name, scored.scores, scored.hot, scored.classes)


def _listed(scored: Scored, looks: Looks) -> Listed:
    pictures = {look.id: look.key for look in looks.videos}
    order = np.lexsort((scored.margins, scored.right))[:MOST_LISTED]  # wrong ones first, the worst first of all
    rows = []
    for row in order.tolist():
        true, said = np.flatnonzero(scored.hot[row]).tolist(), int(scored.scores[row].argmax())
        own = max((float(scored.scores[row, n]) for n in true), default=0.0)
        id = str(scored.ids[row])
        score = float(scored.scores[row, said])
        rows.append((id, tuple(true), said, round(score, 4), round(own, 4), pictures.get(id, "")))
    return Listed(rows=tuple(rows), of=len(scored.ids))
