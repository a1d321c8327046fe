"""How the cubes were made that a run was fitted on, so that those of new videos are made alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cache.fingerprint import fingerprint
from ...cache.store import Store
from ...errors import (
    FingerprintMismatchError,
    MissingFileError,
    RefusedError,
    StoreNotFoundError,
    UsageError,
)
from ...extract.sampling import Sampler
from ...extract.streams import StreamConfig
from ...extract.views import CENTER, Views, feature
from ..extraction.remake import stream_of
from ..runs.identity import FitEnvironment
from ..runs.measured import Sampled
from ..runs.reload import require_fit
from ..runs.run import Run, changes
from ..runs.views import choose_views, sampled
from .weights_search import find_weights

if TYPE_CHECKING:
    import torch

    from ...extract.extractor import StreamSetup


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Where in a video its features are taken."""

    sampler: Sampler
    window_frames: int  # kept free behind a segment's first frame
    views: Views
    seed: int  # of random crops and segments

    @property
    def moments(self) -> tuple[Sampler, int]:
        """What streams share that can be decoded together."""
        return self.sampler, self.window_frames


@dataclass(frozen=True, kw_only=True)
class StreamMaking:
    """One stream of a run: its recipe, and where it is sampled."""

    name: str
    recipe: Mapping[str, Any]
    config: StreamConfig
    sampling: Sampling

    @property
    def key(self) -> str:
        """What two streams share whose cubes of a video are the same."""
        return fingerprint({**feature(self.recipe), **self.sampling.views.recipe(self.sampling.seed)})

    def setup(self, device: torch.device) -> tuple[StreamSetup, str | None]:
        """Build the backbone; and return what is to be said of it.

        Raises
        ------
        FingerprintMismatchError
            If what is built here gives other features than the recipe says; the message says what differs.
        """
        weights = self.recipe.get("weights") or {}
        seed = int(weights["seed"]) if "seed" in weights else self.sampling.seed
        config, note = self._on(device)
        made = config.setup(device, views=self.sampling.views, seed=seed)
        if different := changes(_comparable(self.recipe), _comparable(made.recipe)):
            raise FingerprintMismatchError(
                f"Stream {self.name!r} cannot be made here as it was for the run: {'; '.join(different)} (run -> here)."
            )
        return made, note

    def _on(self, device: torch.device) -> tuple[StreamConfig, str | None]:
        """Return the configuration for a device: an engine of flow that cannot run there gives way to its neighbour."""
        from ...extract.flow.engines import choose_engine

        if not self.config.kind.flow_fields:
            return self.config, None
        was = self.config.flow_engine
        try:
            choose_engine(was, device)
        except UsageError:
            here = choose_engine("auto", device)
            note = (
                f"stream {self.name!r}: flow by the engine {here}, the run's by {was}, which does not run on "
                f"{device.type}: fields differ by some 0.03 pixels on average"
            )
            return replace(self.config, flow_engine=here), note
        return self.config, None


def _comparable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes the feature, without a file's name, whose digest counts, and the engine, which `_on` tells."""
    told = feature(recipe)
    for part, key in (("weights", "name"), ("flow", "engine")):
        if isinstance(told.get(part), Mapping) and (part != "weights" or told[part].get("sha256")):
            told[part] = {name: value for name, value in told[part].items() if name != key}
    return told


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user says beside the run.

    Raises
    ------
    UsageError
        For a sampler or views that there are not.
    """

    sampler: str | None = None  # None = the run's
    views: str | None = None  # None = the set that its store is evaluated by
    weights: Mapping[str, Path] = field(default_factory=dict)  # by stream

    def __post_init__(self) -> None:
        if self.sampler is not None:
            Sampler.parse(self.sampler)
        if self.views is not None:
            Views.parse(self.views)


def making_of(run: Run, choices: Choices) -> tuple[StreamMaking, ...]:
    """Return how the cubes of a run's streams are made, in the head's order.

    Raises
    ------
    RefusedError
        If a stream was imported: no extraction made it.
    UsageError
        If weights are not found, or nobody knows where the run's segments lie.
    """
    identity = require_fit(run)
    configs = {}
    for name in identity.stream_names:
        try:
            configs[name] = config_of(name, identity.streams[name].recipe, choices.weights.get(name))
        except RefusedError:
            raise RefusedError(
                f"Stream {name!r} of run {run.path} was imported, so its cubes cannot be made of a new video; import "
                "those of the new videos with `vidatt cache import` and name the store with --store."
            ) from None
    sampling = _sampling(run, choices)
    made = []
    for name, config in configs.items():
        recipe = identity.streams[name].recipe
        own = replace(sampling, seed=int(recipe["view_seed"])) if "view_seed" in recipe else sampling
        made.append(StreamMaking(name=name, recipe=recipe, config=config, sampling=own))
    return tuple(made)


def config_of(name: str, recipe: Mapping[str, Any], named: Path | None) -> StreamConfig:
    """Return the configuration that a recipe was written by, with the file of its weights wherever that lies now."""
    file = None if "imported" in recipe else find_weights(name, recipe, named)
    return stream_of(name, recipe, weights=file)


def _sampling(run: Run, choices: Choices) -> Sampling:
    """Return where the run's features were taken: as chosen, else as the run or its store says."""
    told = _recorded(run)
    rule = choices.sampler or (told.sampler if told else None)
    if rule is None:
        raise MissingFileError(
            f"Run {run.path} does not say where its segments lie, and its store is not where it was: name the rule "
            "with --sampler, such as --sampler uniform:25."
        )
    seed = told.seed if told and told.seed is not None else 0
    identity = require_fit(run)
    widest = max(int(stream.recipe.get("window_frames", 1)) for stream in identity.streams.values())
    return Sampling(
        sampler=Sampler.parse(rule, seed=seed),
        window_frames=told.window_frames if told and told.window_frames else widest,
        views=Views.parse(choices.views or (told.views if told else None) or str(CENTER)),
        seed=seed,
    )


def _recorded(run: Run) -> Sampled | None:
    """Return what a run says of its store's sampling, else what the store says, if it is where it was."""
    assert isinstance(run.environment, FitEnvironment)
    if run.environment.sampled is not None:
        return run.environment.sampled
    try:
        store = Store.open(Path(run.environment.store))
    except StoreNotFoundError:
        return None
    return sampled(store, choose_views(store).name)


def require_alike(runs: list[Run]) -> None:
    """Refuse runs whose scores cannot be averaged: of other classes, or of one and of several labels.

    Raises
    ------
    RefusedError
        With what differs.
    """
    first = require_fit(runs[0])
    for run in runs[1:]:
        other = require_fit(run)
        for key in ("classes", "multi_label"):
            ours, theirs = getattr(first, key), getattr(other, key)
            plain = [list(x) if isinstance(x, tuple) else x for x in (ours, theirs)]
            if different := changes(plain[0], plain[1], key):
                raise RefusedError(
                    f"Runs {runs[0].path} and {run.path} cannot be fused: {different[0]} (first -> second)."
                )
