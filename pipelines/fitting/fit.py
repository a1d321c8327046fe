"""`vidatt fit-head`: fit one head on the cubes of a store; the same command resumes it, or says that it is done."""

from __future__ import annotations

import hashlib
import logging
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...cache.batches import Batches
from ...cache.store import Store
from ...errors import RefusedError, UsageError
from ...heads.contract import FitDefaults, StreamShape
from ...heads.registry import HeadSettings, build_from_settings, resolve_settings
from ...version import __version__
from ..metrics.classification import multi_hot, summary
from ..runs.reload import open_store, require_fit
from ..runs.run import WEIGHTS, Run
from ..runs.scoring import resolve_device, score_views
from ..runs.splits import TRAIN, choose_split
from .holdout import Holdout, hold_out
from .svm import fit_svm, require_possible
from .training import Training, TrainingData

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What one fit is asked to do.

    Raises
    ------
    UsageError
        If a number is out of range.
    """

    head: str
    store: Path
    out: Path
    streams: tuple[str, ...] | None = None  # None = all of the store
    split: str | None = None  # None = the only one, or the first by name
    preset: str = "paper"
    settings: Mapping[str, str] = field(default_factory=dict)  # texts by field of the head's Config or of its fit
    seed: int = 0
    device: str = "auto"
    validation_share: float = 0.2  # of the training videos, whole groups; 0 = none
    allow_truncated: bool = True  # use videos of which only a part could be decoded
    checkpoint_seconds: float = 60.0
    on: Path | None = None  # of head `svm`: the finished run whose representation it reads

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"Seed {self.seed}: must be 0 or more.")
        if self.checkpoint_seconds < 0:
            raise UsageError(f"Checkpoint interval {self.checkpoint_seconds} s: must be 0 or more.")


@dataclass(frozen=True, eq=False, kw_only=True)
class FitPlan:
    """A fit with every choice made."""

    store: Store
    streams: tuple[StreamShape, ...]
    split: str
    settings: HeadSettings
    train: np.ndarray  # [n] positions in the store
    validation: np.ndarray  # [m] positions in the store
    notes: tuple[str, ...]  # what was left out or could not be kept to, one line each
    on: Run | None = None  # of head `svm`: the run whose representation it reads

    @property
    def names(self) -> tuple[str, ...]:
        """The streams' names, in the head's order."""
        return tuple(stream.name for stream in self.streams)


def plan_fit(config: FitConfig) -> FitPlan:
    """Make every choice of a fit; reads the store, writes nothing.

    Raises
    ------
    RefusedError
        If the store does not fit the run that is read, or other videos would be held out than there.
    UsageError
        If the store has not the streams, the split or any training video, or a setting is wrong.
    """
    settings = resolve_settings(config.head, config.preset, config.settings)
    on = None
    if (config.head == "svm") != (config.on is not None):
        raise UsageError(f"Head {config.head!r}: only svm, and svm only, is fitted --on the run of another head.")
    if config.on is not None:
        on = Run.open(config.on)
        config = _as_in(config, on)
        open_store(on, config.store)
    store = Store.open(config.store)
    names = config.streams or tuple(store.stream_names)
    if not names:
        raise UsageError(f"Store {config.store} has no stream yet; run `vidatt extract` first.")
    shapes = {name: store.stream(name).cube_shape for name in names}
    streams = tuple(StreamShape(name=name, grid=shape[0], channels=shape[2]) for name, shape in shapes.items())
    split = choose_split(store, config.split)
    listed = store.index.splits[split] == TRAIN
    usable = store.usable(names, allow_truncated=config.allow_truncated)
    labelled = (store.index.labels >= 0).any(1)
    videos = np.flatnonzero(listed & usable & labelled)
    notes = [
        f"{count} of {listed.sum()} training videos left out: {why}"
        for count, why in (
            ((listed & ~usable).sum(), f"no segments in every one of {', '.join(names)}"),
            ((listed & usable & ~labelled).sum(), "no label"),
        )
        if count
    ]
    if not len(videos):
        raise UsageError(
            f"Split {split!r} of {config.store} has no training video with a label and all of {', '.join(names)} "
            f"({listed.sum()} are listed, {(listed & usable).sum()} are extracted)."
        )
    held: Holdout = hold_out(
        multi_hot(store.index.labels[videos], len(store.index.classes)),
        store.index.groups[videos],
        share=config.validation_share,
        seed=config.seed,
    )
    plan = FitPlan(
        store=store,
        streams=streams,
        split=split,
        settings=settings,
        train=videos[~held.validation],
        validation=videos[held.validation],
        notes=(*notes, held.note),
        on=on,
    )
    if on is not None and ids_digest(store.index.ids[plan.validation]) != on.identity["validation"]["digest"]:
        raise RefusedError(
            f"Run {on.path} holds out other videos for validation than this fit would, and was fitted on some of them; "
            f"give its --seed {on.identity['seed']}, --validation {on.identity['validation_share']} and "
            f"--skip-truncated{' only if it had it' if on.identity['allow_truncated'] else ''}."
        )
    return plan


def _as_in(config: FitConfig, on: Run) -> FitConfig:
    """Take streams and split from the run whose representation is read; refuse others, and unfinished runs."""
    require_fit(on)
    on.metrics()
    theirs = {"streams": tuple(on.identity["stream_names"]), "split": on.identity["split"]}
    for name, value in theirs.items():
        if getattr(config, name) not in (None, value):
            raise UsageError(
                f"--{name} {getattr(config, name)!r}: run {on.path} was fitted on {value!r}; leave it out with --on."
            )
    return replace(config, streams=theirs["streams"], split=theirs["split"])


def identity(config: FitConfig, plan: FitPlan) -> dict[str, Any]:
    """Return what makes two fits the same: with equal identities, device and versions they give equal weights."""
    index = plan.store.index
    return {
        "head": config.head,
        "preset": config.preset,
        "settings": plan.settings.to_dict(),
        "stream_names": list(plan.names),
        "streams": {
            stream.name: {
                "grid": stream.grid,
                "channels": stream.channels,
                "fingerprint": plan.store.stream(stream.name).fingerprint,
                "recipe": plan.store.stream(stream.name).recipe,
            }
            for stream in plan.streams
        },
        "split": plan.split,
        "seed": config.seed,
        "classes": list(index.classes),
        "multi_label": index.multi_label,
        "views": plan.store.views,
        "allow_truncated": config.allow_truncated,
        "validation_share": config.validation_share,
        "train": {"videos": len(plan.train), "digest": ids_digest(index.ids[plan.train])},
        "validation": {"videos": len(plan.validation), "digest": ids_digest(index.ids[plan.validation])},
        **({} if plan.on is None else {"on": _read_run(plan.on)}),
    }


def _read_run(on: Run) -> dict[str, Any]:
    """Return what a fit depends on in the run whose representation it reads, wherever that run lies."""
    return {"identity": on.identity, "weights": hashlib.sha256((on.path / WEIGHTS).read_bytes()).hexdigest()}


def ids_digest(ids: np.ndarray) -> str:
    """SHA-256 of a list of video ids: what a run keeps of its training and validation videos."""
    return hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    return {
        "vidatt": __version__, "torch": torch.__version__, "numpy": np.__version__,
        "python": platform.python_version(),
    }  # fmt: skip


def fit(config: FitConfig) -> dict[str, Any]:
    """Fit a head, or continue, or return the result of the finished run of the same fit.

    Returns
    -------
    `{"run", "head", "streams", "metrics": {"validation": {...} or None}, "seconds"}` and `best_step, steps,
    selected_by, train_videos, validation_videos, notes, finished_before`. Validation figures average all views.

    Raises
    ------
    RefusedError
        If another fit lies in `out`.
    InterruptedRunError
        After SIGTERM, SIGUSR1 or Ctrl-C, with a checkpoint written; the same call continues.
    NotFiniteError
        If the loss becomes NaN or infinite.
    UsageError
        If what is asked for cannot be.
    """
    device = resolve_device(config.device)
    plan = plan_fit(config)
    environment = {"store": str(config.store), "device": str(device), "versions": versions(), "notes": list(plan.notes)}
    if not isinstance(plan.settings.fit, FitDefaults):
        require_possible(plan)
    run = Run.create(config.out, identity=identity(config, plan), environment=environment)
    if run.finished:
        log.info("run %s is finished already; nothing to do", run.path)
        return run.metrics()["fit"] | {"finished_before": True}
    for note in plan.notes:
        run.say(note)
    with deterministic(device):
        how = plan.settings.fit
        if isinstance(how, FitDefaults):
            result = _train(config, plan, how, run, device)
        else:
            result = fit_svm(config, plan, how, run, device)
    # last of all: this file says that the run is finished
    run.write_metrics({"fit": result, "evaluations": {}})
    run.drop_checkpoint()
    return result | {"finished_before": False}


def _train(config: FitConfig, plan: FitPlan, how: FitDefaults, run: Run, device: torch.device) -> dict[str, Any]:
    index = plan.store.index
    torch.manual_seed(config.seed)
    head = build_from_settings(plan.settings, streams=plan.streams, classes=len(index.classes)).to(device)
    head.load_pretrained()
    data = _training_data(config, plan, device)
    training = Training(head, how, data, run, checkpoint_seconds=config.checkpoint_seconds)
    run.say(
        f"{config.head} ({config.preset}) on {', '.join(plan.names)}: {len(plan.train)} videos, {how.steps} steps of "
        f"{how.batch_videos} on {device}, {sum(p.numel() for p in head.parameters()):,} parameters; "
        f"cubes {data.train.description}" + (f"; continues after step {training.step}" if training.resumed else "")
    )
    training.train()
    run.write_weights(head.state_dict())
    measured = None
    if len(plan.validation):
        scores = score_views(
            head, plan.store, plan.names, plan.validation, device=device, batch_videos=how.batch_videos
        )  # fmt: skip
        measured = summary(scores, data.hot, multi_label=index.multi_label)
        ids, labels = index.ids[plan.validation], index.labels[plan.validation]
        run.write_scores(f"{plan.split}-validation", ids=ids, scores=scores, labels=labels)
    return {
        "run": str(run.path),
        "head": config.head,
        "streams": list(plan.names),
        "metrics": {"validation": measured},
        "seconds": training.elapsed(),
        "steps": how.steps,
        "best_step": training.best["step"] if training.best else how.steps,
        "selected_by": f"{data.measure} of the first view, ties by lower loss" if training.best else "last step",
        "train_videos": len(plan.train),
        "validation_videos": len(plan.validation),
        "notes": list(plan.notes),
    }


def _training_data(config: FitConfig, plan: FitPlan, device: torch.device) -> TrainingData:
    """Open the batches and lay out the labels."""
    store, index, batch_videos = plan.store, plan.store.index, plan.settings.fit.batch_videos
    train = Batches(
        store,
        plan.names,
        videos=plan.train,
        batch_videos=batch_videos,
        seed=config.seed,
        view="random" if store.views > 1 else 0,
        device=device,
    )
    validation = None
    if len(plan.validation):
        validation = Batches(
            store, plan.names, videos=plan.validation, batch_videos=batch_videos, shuffle=False, device=device
        )  # fmt: skip
    hot = multi_hot(index.labels, len(index.classes))
    targets = hot.astype(np.float32) if index.multi_label else index.labels[:, 0].astype(np.int64)
    return TrainingData(
        train=train,
        validation=validation,
        validation_videos=plan.validation,
        targets=torch.from_numpy(targets).to(device),
        hot=hot[plan.validation],
        ids=index.ids,
        measure="map" if index.multi_label else "top1",
    )


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Let PyTorch choose reproducible algorithms; on a GPU it has none for everything, and nothing is changed."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
