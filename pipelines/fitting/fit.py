"""`vidatt fit-head`: fit one head on the cubes of a store; the same command resumes it, or says that it is done."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from ...cache.batches import Batches
from ...heads.contract import FitDefaults
from ...heads.registry import build_from_settings
from ...version import __version__
from ..metrics.classification import multi_hot, summary
from ..runs.identity import FitEnvironment, FitIdentity, OnIdentity, SettingsIdentity, StreamIdentity, VideosIdentity
from ..runs.measured import FitMeasures, FitResult
from ..runs.places import Place
from ..runs.reload import require_fit
from ..runs.run import CHECKPOINT, Run
from ..runs.scoring import score_views
from ..runs.seen import ids_digest, seen_videos, store_digest
from ..runs.views import sampled
from .choice import Material, choice_line
from .plan import FitConfig, FitPlan, plan_fit
from .start import seen_before, take_what_fits, weights_digest
from .svm import fit_svm, require_possible
from .training import Training, TrainingData

log = logging.getLogger(__name__)


def identity(config: FitConfig, plan: FitPlan) -> FitIdentity:
    """Return what makes two fits the same: with equal identities, device and versions they give equal weights."""
    index = plan.store.index
    return FitIdentity(
        head=config.head,
        preset=plan.settings.preset,
        settings=SettingsIdentity(**plan.settings.to_dict()),
        stream_names=plan.names,
        streams={
            stream.name: StreamIdentity(
                grid=stream.grid,
                channels=stream.channels,
                fingerprint=plan.store.stream(stream.name).fingerprint,
                recipe=plan.store.stream(stream.name).recipe,
            )
            for stream in plan.streams
        },
        split=plan.split,
        seed=config.seed,
        classes=tuple(index.classes),
        multi_label=index.multi_label,
        views=len(plan.views.views),
        view_set=plan.views.told,
        allow_truncated=config.allow_truncated,
        validation_share=config.validation_share,
        train=VideosIdentity(videos=len(plan.train), digest=ids_digest(index.ids[plan.train])),
        validation=VideosIdentity(videos=len(plan.validation), digest=ids_digest(index.ids[plan.validation])),
        on=None if plan.on is None else _read_run(plan.on),
        start=None if plan.start is None else weights_digest(plan.start),
    )


def _read_run(on: Run) -> OnIdentity:
    return OnIdentity(identity=require_fit(on), weights=weights_digest(on))


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    return {
        "vidatt": __version__, "torch": torch.__version__, "numpy": np.__version__,
        "python": platform.python_version(),
    }  # fmt: skip


def fit(config: FitConfig) -> FitResult:
    """Fit a head, or continue, or return the result of the finished run of the same fit.

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
    plan = plan_fit(config)
    device = plan.device
    environment = FitEnvironment(
        store=os.path.abspath(config.store),
        device=str(device),
        versions=versions(),
        notes=tuple(plan.notes),
        store_digest=store_digest(plan.store),
        sampled=sampled(plan.store, plan.test_views.name),
        command=config.command,
        folder=None if config.command is None else os.getcwd(),
    )
    if not isinstance(plan.settings.fit, FitDefaults):
        require_possible(plan)
    run = Run.create(config.out, identity=identity(config, plan), environment=environment)
    if run.finished:
        log.info("run %s is finished already; nothing to do", run.path)
        return replace(run.fit_result(), finished_before=True)
    if plan.automatic and not (run.path / CHECKPOINT).exists():
        run.say(_chosen(config, plan))
    for note in plan.notes:
        run.say(note)
    with deterministic(device):
        how = plan.settings.fit
        if isinstance(how, FitDefaults):
            result = _train(config, plan, how, run, device)
        else:
            result = fit_svm(config, plan, how, run, device)
    seen = seen_videos(
        plan.store, plan.names[0], train=plan.train, validation=plan.validation, before=seen_before(plan)
    )
    run.write_videos(seen.to_arrays())
    # last of all: this file says that the run is finished
    run.finish(result)
    run.drop_checkpoint()
    return replace(result, finished_before=False)


def _chosen(config: FitConfig, plan: FitPlan) -> str:
    """Say which preset was chosen, and what it costs."""
    index = plan.store.index
    material = Material(
        streams=plan.streams,
        classes=len(index.classes),
        multi_label=index.multi_label,
        segments=int(np.median(index.length[plan.train])),
        listed=len(plan.train) + len(plan.validation),
        videos=len(plan.train),
        device=plan.device,
    )
    return choice_line(plan.settings, config.settings, material)


def _train(config: FitConfig, plan: FitPlan, how: FitDefaults, run: Run, device: torch.device) -> FitResult:
    index = plan.store.index
    torch.manual_seed(config.seed)
    head = build_from_settings(plan.settings, streams=plan.streams, classes=len(index.classes)).to(device)
    head.load_pretrained()
    begun = [] if plan.start is None else take_what_fits(head, plan.start)
    for line in begun:
        run.say(line)
    data = _training_data(config, plan, device)
    training = Training(head, how, data, run, checkpoint_seconds=config.checkpoint_seconds)
    run.say(
        f"{config.head} ({plan.settings.preset}) on {', '.join(plan.names)}: {len(plan.train)} videos, "
        f"{how.steps} steps of {how.batch_videos} on {device}, "
        f"{sum(p.numel() for p in head.parameters()):,} parameters; "
        f"cubes {data.train.description}" + (f"; continues after step {training.step}" if training.resumed else "")
    )
    training.train()
    run.write_weights(head.state_dict())
    measured = None
    if len(plan.validation):
        scored = score_views(
            head, plan.store, plan.names, plan.validation, views=plan.test_views.views, device=device,
            batch_videos=how.batch_videos,
        )  # fmt: skip
        measured = summary(scored.probabilities, data.hot, multi_label=index.multi_label)
        ids, labels = index.ids[plan.validation], index.labels[plan.validation]
        place = Place(split=plan.split, part="validation").name
        run.write_scores(
            place, ids=ids, scores=scored.probabilities, labels=labels, seen=np.ones(len(ids), bool),
            branches=scored.branches,
        )  # fmt: skip
    return FitResult(
        run=str(run.path),
        head=config.head,
        streams=plan.names,
        metrics=FitMeasures(validation=measured),
        seconds=training.elapsed(),
        steps=training.step,
        best_step=training.best["step"] if training.best else training.step,
        selected_by=f"{data.measure} of the first view, ties by lower loss" if training.best else "last step",
        classes=len(index.classes),
        train_videos=len(plan.train),
        validation_videos=len(plan.validation),
        notes=(*plan.notes, *begun, *([training.stopped_early] if training.stopped_early else [])),
    )


def _training_data(config: FitConfig, plan: FitPlan, device: torch.device) -> TrainingData:
    """Open the batches and lay out the labels."""
    store, index, batch_videos = plan.store, plan.store.index, plan.settings.fit.batch_videos
    train = Batches(
        store,
        plan.names,
        videos=plan.train,
        batch_videos=batch_videos,
        seed=config.seed,
        view=plan.views.views,
        device=device,
    )
    validation = None
    if len(plan.validation):
        validation = Batches(
            store, plan.names, videos=plan.validation, batch_videos=batch_videos, shuffle=False,
            view=plan.test_views.views.start, device=device,
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
