"""What a fit is asked to do, and every choice of it made: streams, split, settings, videos to train and to hold out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ...cache.store import Store
from ...errors import RefusedError, UsageError
from ...heads.contract import FitDefaults, StreamShape
from ...heads.registry import HeadSettings, default_preset, resolve_settings
from ..metrics.classification import multi_hot
from ..runs.identity import FitIdentity
from ..runs.reload import require_fit, sampled_settings, store_for
from ..runs.run import CONFIG, Run
from ..runs.scoring import resolve_device
from ..runs.seen import ids_digest
from ..runs.splits import TRAIN, choose_split
from ..runs.views import ChosenViews, choose_views
from .choice import Choice, choose_preset, chosen_before
from .holdout import Holdout, hold_out, require_share


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
    views: str | None = None  # the set of the store's views to fit on; None = random crops if there are some
    preset: str | None = "paper"  # None = by the videos there are and the device, see `choose_preset`
    settings: Mapping[str, str] = field(default_factory=dict)  # texts by field of the head's Config or of its fit
    seed: int = 0
    device: str = "auto"
    validation_share: float = 0.2  # of the training videos, whole groups; 0 = none
    allow_truncated: bool = True  # use videos of which only a part could be decoded
    checkpoint_seconds: float = 60.0
    on: Path | None = None  # of head `svm`: the finished run whose representation it reads
    start: Path | None = None  # the finished run whose weights it starts from, as far as they fit
    command: str | None = None  # as it was typed, to be recorded

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"Seed {self.seed}: must be 0 or more.")
        require_share(self.validation_share)
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
    views: ChosenViews  # that it is fitted on
    test_views: ChosenViews  # that it is validated on
    notes: tuple[str, ...]  # what was left out or could not be kept to, one line each
    on: Run | None = None  # of head `svm`: the run whose representation it reads
    start: Run | None = None  # whose weights it starts from
    device: torch.device
    automatic: bool = False  # whether the preset was chosen by videos and device

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
    resolve_settings(config.head, config.preset or default_preset(config.head), config.settings)  # wrong ones first
    device = resolve_device(config.device)
    on = None
    if (config.head == "svm") != (config.on is not None):
        raise UsageError(f"Head {config.head!r}: only svm, and svm only, is fitted --on the run of another head.")
    if config.on is not None:
        on = Run.open(config.on)
        config = _as_in(config, on)
        store_for(on, config.store)
    store = Store.open(config.store)
    names = config.streams or tuple(store.stream_names)
    if not names:
        raise UsageError(f"Store {config.store} has no stream yet; run `vidatt extract` first.")
    shapes = {name: store.stream(name).cube_shape for name in names}
    split = choose_split(store, config.split)
    views, test_views = choose_views(store, config.views, train=True), choose_views(store)
    videos, notes = _training_list(config, store, names, split)
    choice = _choice(config, len(videos), device)
    settings = resolve_settings(config.head, choice.preset, {**choice.settings, **config.settings})
    settings, sampled = sampled_settings(settings, store)
    held: Holdout = hold_out(
        multi_hot(store.index.labels[videos], len(store.index.classes)),
        store.index.groups[videos],
        share=config.validation_share,
        seed=config.seed,
    )
    plan = FitPlan(
        store=store,
        streams=tuple(StreamShape(name=name, grid=shape[0], channels=shape[2]) for name, shape in shapes.items()),
        split=split,
        settings=settings,
        train=videos[~held.validation],
        validation=videos[held.validation],
        views=views,
        test_views=test_views,
        notes=(*([sampled] if sampled else []), *_said_of(views, test_views), *notes, held.note),
        on=on,
        start=_start(config, settings),
        device=device,
        automatic=choice.automatic,
    )
    if on is not None:
        _require_same_validation(require_fit(on), on.path, ids_digest(store.index.ids[plan.validation]))
    return plan


def _choice(config: FitConfig, videos: int, device: torch.device) -> Choice:
    """Return the preset: the one that is asked for, that of the run which is continued, or one by videos and device."""
    if config.preset is not None:
        return Choice(preset=config.preset)
    before = [path for path in (config.out, config.start) if path is not None and (path / CONFIG).exists()]
    known = (chosen_before(config.head, Run.open(path)) for path in before)
    return next((choice for choice in known if choice), None) or choose_preset(
        config.head, videos=videos, device=device
    )


def _start(config: FitConfig, settings: HeadSettings) -> Run | None:
    """Open the run that the fit starts from."""
    if config.start is None:
        return None
    if not isinstance(settings.fit, FitDefaults):
        raise UsageError(f"--from is for heads that are trained step by step, and {config.head!r} is not one.")
    run = Run.open(config.start)
    require_fit(run)
    run.require_finished()
    return run


def _said_of(views: ChosenViews, test_views: ChosenViews) -> list[str]:
    return [] if views.only else [f"fitted on views {views.name}, validated on views {test_views.name}"]


def _training_list(config: FitConfig, store: Store, names: tuple[str, ...], split: str) -> tuple[np.ndarray, list[str]]:
    """Return the positions of the videos to fit on, validation videos included, and what was left out."""
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
    return videos, notes


def _require_same_validation(theirs: FitIdentity, path: Path, digest: str) -> None:
    if digest != theirs.validation.digest:
        raise RefusedError(
            f"Run {path} holds out other videos for validation than this fit would, and was fitted on some of them; "
            f"give its --seed {theirs.seed}, --validation {theirs.validation_share} and "
            f"--skip-truncated{' only if it had it' if theirs.allow_truncated else ''}."
        )


def _as_in(config: FitConfig, on: Run) -> FitConfig:
    """Take streams, split and views from the run whose representation is read; refuse others, and unfinished runs."""
    theirs = require_fit(on)
    on.require_finished()
    for name, value in (("streams", theirs.stream_names), ("split", theirs.split)):
        if getattr(config, name) not in (None, value):
            raise UsageError(
                f"--{name} {getattr(config, name)!r}: run {on.path} was fitted on {value!r}; leave it out with --on."
            )
    views = config.views or (theirs.view_set and theirs.view_set.partition(":")[0])
    return replace(config, streams=theirs.stream_names, split=theirs.split, views=views)
