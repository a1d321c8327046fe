"""`vidatt fuse`: the scores of several runs made one, with weights learned on videos that no part was fitted on."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.store import Store
from ...errors import MissingFileError, RefusedError, UnknownNameError, UsageError
from ...heads.contract import Head
from ...heads.fusion.score_rules import decision_temperature, to_probabilities
from ...heads.registry import HEADS
from ...version import __version__
from ..metrics.classification import measured, multi_hot, summary
from ..runs.identity import FusionEnvironment, FusionIdentity, PartIdentity, RunIdentity, SettingsIdentity
from ..runs.measured import Evaluation, FitMeasures, FusionMeasures, FusionResult
from ..runs.places import Place, place_of
from ..runs.run import Run, changes
from ..runs.seen import read_seen
from ..runs.seen import together as all_seen
from .fusion_methods import METHODS, Fused, Method, read_settings
from .run_scores import kept_scores, seen_of_run
from .score_files import ScoreTable, is_score_file, pair_ids, read_scores, seen_note

FILE_SCORES = ("probabilities", "logits")
"""What a file of scores may hold."""

PROBABILITIES, DECISIONS, LOGITS = Head.score_kind, "decision values", "logits"
"""What the scores of a part are."""


@dataclass(frozen=True, kw_only=True)
class FuseConfig:
    """What one fusion is asked to do.

    Raises
    ------
    UsageError
        If there are fewer than two parts, or no run among them.
    UnknownNameError
        For a method or kind of file scores that there is not.
    """

    parts: tuple[Path, ...]  # runs, RUN:BRANCH of heads that have branches, and files of scores
    method: str
    out: Path
    settings: Mapping[str, str] = field(default_factory=dict)  # texts by field of the method's settings
    file_scores: str = "probabilities"  # or "logits": what the files hold
    store: Path | None = None  # that the runs were evaluated on; None = each run's own
    ids: tuple[Path, ...] = ()  # of the `.npy` files among the parts, see `pair_ids`
    allow_seen: bool = False  # also fuse scores of videos that a part was fitted or selected on; the result says so
    command: str | None = None  # as it was typed, to be recorded

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownNameError("method", self.method, METHODS)
        if self.file_scores not in FILE_SCORES:
            raise UnknownNameError("kind of file scores", self.file_scores, FILE_SCORES)
        if len(self.parts) < 2 or all(is_score_file(part) for part in self.parts):
            raise UsageError(f"A fusion needs two or more parts, one of them a run; got {len(self.parts)}.")
        if len(set(self.parts)) < len(self.parts):
            twice = next(part for part in self.parts if self.parts.count(part) > 1)
            raise UsageError(f"{twice} is given twice; weigh it with --method weighted instead.")
        pair_ids(self.parts, self.ids)


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """One run, or one file, with the scores that take part."""

    path: Path
    kind: str  # PROBABILITIES, DECISIONS or LOGITS
    test: ScoreTable
    validation: ScoreTable | None
    run: Run | None  # None = a file
    branch: str | None = None  # of the run, whose scores these are
    listed: int  # test videos that the split of a run lists; 0 = a file
    seen: np.ndarray  # [n] bool, videos of the test scores that the run was fitted or selected on
    seen_note: str | None  # what is to be said of them

    def record(self) -> PartIdentity:
        """What of this part makes two fusions the same."""
        known = None if self.run is None else self.run.identity
        return PartIdentity(
            scores=self.kind,
            head=known.head if known else None,
            preset=known.preset if known else None,
            seed=known.seed if known else None,
            branch=self.branch,
            test=_sha256(self.test),
            validation=_sha256(self.validation) if self.validation else None,
        )


def _sha256(table: ScoreTable) -> str:
    ids = b"" if table.ids_path is None else table.ids_path.read_bytes()
    return hashlib.sha256(table.path.read_bytes() + ids).hexdigest()


@dataclass(frozen=True, eq=False, kw_only=True)
class Together:
    """Parts brought to the same videos."""

    test: np.ndarray  # [M, n, N] probabilities
    test_ids: tuple[str, ...]
    test_labels: np.ndarray  # [n, L]
    validation: np.ndarray | None  # [M, m, N] probabilities; None = not all parts have the same validation videos
    validation_ids: tuple[str, ...]
    validation_labels: np.ndarray  # [m, L]
    temperatures: list[float | None]  # per part: by which its decision values became probabilities


def fuse(config: FuseConfig) -> FusionResult:
    """Fuse the test scores of runs and files; what is learned is learned on validation scores, never on test scores.

    The parts' validation videos are whole groups of the training list that none of them was fitted on; all runs must
    hold out the same ones (same store, split, --seed and --validation) wherever they are needed.

    Raises
    ------
    RefusedError
        If the runs are of different splits or classes, were scored on different videos, or hold out different ones
        although something is to be learned; or if another fit or fusion lies in `out`.
    UsageError
        If a part has not been evaluated, a file cannot be used, or a setting is wrong; the message names the item.
    """
    started = time.monotonic()
    method = METHODS[config.method]
    settings = read_settings(config.method, config.settings)
    runs = [Run.open(_named(path)[0]) for path in config.parts if not is_score_file(path)]
    first = runs[0].identity
    _require_alike(runs)
    classes, multi_label, split = first.classes, first.multi_label, first.split
    store = None if config.store is None else Store.open(config.store)
    parts = [_open_part(path, classes, split, config, store) for path in config.parts]
    needed = method.learns or any(part.kind == DECISIONS for part in parts)
    together = _bring_together(parts, len(classes), multi_label=multi_label, needed=needed)
    held = multi_hot(together.validation_labels, len(classes))
    fused = method.fuse(settings, together.test, together.validation, held, multi_label)
    identity = _identity(config, asdict(settings), method, parts, first)
    run = Run.create(
        config.out,
        identity=identity,
        environment=FusionEnvironment(
            parts=tuple(str(part.path) for part in parts),
            command=config.command,
            versions={"vidatt": __version__},
            folder=None if config.command is None else os.getcwd(),
        ),
    )
    for note in fused.notes:
        run.say(note)
    return _finish(run, identity, config.method, fused, together, parts, started=started)


def _finish(
    run: Run, identity: FusionIdentity, method: str, fused: Fused, together: Together, parts: Sequence[Part], *,
    started: float,
) -> FusionResult:  # fmt: skip
    """Measure, and write scores and metrics."""
    split, classes, multi_label = identity.split, identity.classes, identity.multi_label
    ids, labels, test = np.array(together.test_ids), together.test_labels, Place(split=split, part="test")
    seen = np.zeros(len(ids), bool)
    for part in parts:
        seen |= part.seen[part.test.rows(together.test_ids)]
    notes = [part.seen_note for part in parts if part.seen_note]
    run.write_scores(test.name, ids=ids, scores=fused.test, labels=labels, seen=seen)
    known = [read_seen(part.run) for part in parts if part.run]
    if None not in known:
        run.write_videos(all_seen([one for one in known if one]).to_arrays())
    validation = None
    if fused.validation is not None:
        held = multi_hot(together.validation_labels, len(classes))
        validation = summary(fused.validation, held, multi_label=multi_label)
        run.write_scores(
            Place(split=split, part="validation").name,
            ids=np.array(together.validation_ids),
            scores=fused.validation,
            labels=together.validation_labels,
            seen=np.ones(len(together.validation_ids), bool),
        )
    listed = max(part.listed for part in parts)
    measures = measured(fused.test, multi_hot(labels, len(classes)), classes, multi_label=multi_label)
    evaluation = Evaluation(
        run=str(run.path),
        split=split,
        part="test",
        videos=len(ids),
        listed=listed,
        missing=listed - len(ids),
        protocol="; ".join([_protocol(method, together, split, listed=listed), *notes]),
        scores=str(run.path / test.scores),
        seen=int(seen.sum()) or None,
        seen_note="; ".join(notes) or None,
        **vars(measures),
    )
    end = FusionMeasures(
        run=str(run.path),
        head=identity.head,
        streams=identity.stream_names,
        metrics=FitMeasures(validation=validation),
        seconds=time.monotonic() - started,
        parts=tuple(str(part.path) for part in parts),
        learned=fused.learned | {"temperatures": together.temperatures},
        validation_videos=len(together.validation_ids),
        notes=fused.notes,
    )
    run.finish(end, {test.name: evaluation})
    return FusionResult(**vars(evaluation), method=method, parts=end.parts, learned=end.learned, seconds=end.seconds)


def _protocol(method: str, together: Together, split: str, *, listed: int) -> str:
    """Say in one line how the numbers were made."""
    videos = f"{len(together.test_ids)} of {listed} test videos of split {split}"
    text = f"{method} of {len(together.test)} parts on {videos}"
    if METHODS[method].learns:
        text += f"; weights learned on {len(together.validation_ids)} validation videos of the training list"
    if any(temperature is not None for temperature in together.temperatures):
        text += "; decision values become probabilities by a temperature learned on the validation videos"
    return text


def _identity(
    config: FuseConfig, settings: Mapping[str, Any], method: Method, parts: Sequence[Part], first: RunIdentity
) -> FusionIdentity:
    """Return what makes two fusions the same; the fields that fits have too mean the same."""
    runs = [part.run.identity for part in parts if part.run]
    return FusionIdentity(
        head=f"fusion-{config.method}",
        preset="paper",
        settings=SettingsIdentity(config=dict(settings), fit={}),
        stream_names=tuple(dict.fromkeys(name for identity in runs for name in identity.stream_names)),
        streams={name: stream for identity in runs for name, stream in identity.streams.items()},
        split=first.split,
        seed=first.seed,
        classes=first.classes,
        multi_label=first.multi_label,
        scores=method.gives,
        file_scores=config.file_scores,
        parts=tuple(part.record() for part in parts),
    )


def _named(part: Path) -> tuple[Path, str | None]:
    """Read `RUN` or `RUN:BRANCH`; a folder of the whole name is a run of that name."""
    folder, colon, branch = str(part).rpartition(":")
    return (Path(folder), branch) if colon and not part.exists() else (part, None)


def _require_alike(runs: Sequence[Run]) -> None:
    """Refuse runs that are not of the same task."""
    first = runs[0]
    for run in runs[1:]:
        ours, theirs = first.identity.to_dict(), run.identity.to_dict()
        for key in ("classes", "multi_label", "split"):
            if different := changes(ours[key], theirs[key], key):
                raise RefusedError(
                    f"Runs {first.path} and {run.path} cannot be fused: {different[0]} (first -> second)."
                )


def _open_part(path: Path, classes: tuple[str, ...], split: str, config: FuseConfig, store: Store | None) -> Part:
    if is_score_file(path):
        table = read_scores(path, classes, ids=pair_ids(config.parts, config.ids).get(path))
        kind = PROBABILITIES if config.file_scores == "probabilities" else LOGITS
        if kind == PROBABILITIES and not ((table.scores >= 0) & (table.scores <= 1)).all():
            bad = table.ids[int(np.flatnonzero(((table.scores < 0) | (table.scores > 1)).any(1))[0])]
            raise UsageError(
                f"{path}: the scores of video {bad!r} are no probabilities in 0..1; give --file-scores logits."
            )
        note = seen_note(table.seen, str(path), allow_seen=config.allow_seen)
        return Part(
            path=path, kind=kind, test=table, validation=table, run=None, listed=0, seen=table.seen, seen_note=note
        )
    of_run, branch = _named(path)
    run = Run.open(of_run)
    place = Place(split=split, part="test") if store is None else place_of(run, store, split, "test")
    measured_there = run.evaluation(place.name)
    if measured_there is None:
        option = "" if store is None else f" --store {store.quoted}"
        raise MissingFileError(
            f"Run {run.path} has no test scores of split {split!r} yet: run `vidatt evaluate {run.quoted}{option}`."
        )
    test = kept_scores(run, split, "test", store)
    seen, note = seen_of_run(run, test, store, allow_seen=config.allow_seen)
    held = Place(split=split, part="validation")
    identity = run.identity
    validation = kept_scores(run, split, held.part) if (run.path / held.scores).exists() else None
    return Part(
        path=path,
        kind=identity.scores if isinstance(identity, FusionIdentity) else HEADS[identity.head].head.score_kind,
        test=test if branch is None else test.branch(branch),
        validation=validation if branch is None or validation is None else validation.branch(branch),
        run=run,
        branch=branch,
        listed=measured_there.listed,
        seen=seen,
        seen_note=note,
    )


def _labels(table: ScoreTable) -> np.ndarray:
    if table.hot is None or table.labels is None:
        raise UsageError(f"{table.path} has no labels [n, L]; it is no file of a run.")
    return table.labels


def _bring_together(parts: Sequence[Part], classes: int, *, multi_label: bool, needed: bool) -> Together:
    """Order the scores of all parts alike, and make them probabilities.

    Parameters
    ----------
    needed : whether validation scores must be there
    """
    runs = [part for part in parts if part.run]
    test_ids, test_labels = _agree([part.test for part in runs], "test scores of")
    validation_ids: tuple[str, ...] = ()
    validation_labels = np.full((0, test_labels.shape[1]), -1)
    held = False
    without = [part for part in runs if part.validation is None]
    if needed and without:
        raise RefusedError(
            f"Run {without[0].path} has no validation scores, on which weights and temperatures are learned; fit it "
            "with --validation 0.2, or fuse runs and methods that need none."
        )
    if not without:
        tables = [part.validation for part in runs if part.validation]
        held = needed or all(set(table.ids) == set(tables[0].ids) for table in tables)
        held = held and (needed or all(set(tables[0].ids) <= set(part.test.ids) for part in parts if not part.run))
        if held:
            validation_ids, validation_labels = _agree(tables, "validation scores of")
    test, validation, temperatures = [], [], []
    hot = multi_hot(validation_labels, classes)
    for part in parts:
        x = part.test.of(test_ids)
        v = part.validation.of(validation_ids) if held and part.validation else None
        temperature = None
        if part.kind == DECISIONS and v is not None:
            labelled = hot.any(1)
            temperature = decision_temperature(v[labelled], hot[labelled], multi_label=multi_label)
        if part.kind != PROBABILITIES:
            x = to_probabilities(x, temperature or 1.0, multi_label=multi_label)
            v = None if v is None else to_probabilities(v, temperature or 1.0, multi_label=multi_label)
        test.append(x)
        temperatures.append(temperature)
        if v is not None:
            validation.append(v)
    return Together(
        test=np.stack(test),
        test_ids=test_ids,
        test_labels=test_labels,
        validation=np.stack(validation) if held else None,
        validation_ids=validation_ids,
        validation_labels=validation_labels,
        temperatures=temperatures,
    )


def _agree(tables: Sequence[ScoreTable], what: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the ids and labels of the first table; refuse others with other videos or labels."""
    first, labels = tables[0], _labels(tables[0])
    for table in tables[1:]:
        if odd := sorted(set(first.ids) ^ set(table.ids)):
            raise RefusedError(
                f"The {what} {first.path.parent} and {table.path.parent} are of different videos ({len(odd)} are in "
                f"one only, such as {odd[0]!r}); fit them with the same store, --split, --seed and --validation."
            )
        others = _labels(table)[table.rows(first.ids)]
        if others.shape != labels.shape or (others != labels).any():
            raise RefusedError(f"The {what} {first.path.parent} and {table.path.parent} come with different labels.")
    return first.ids, labels
