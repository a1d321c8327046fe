"""`extract --like STORE|RUN`: the features that a store or a run has, of another data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...cache.store import Store
from ...errors import UsageError, nearest_key_error
from ...extract.streams import StreamConfig
from ..prediction.making import Choices, config_of, making_of
from ..runs.run import CONFIG, Run


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """What an extraction takes from another one; None = the other does not say."""

    streams: tuple[StreamConfig, ...]
    sampler: str | None
    window_frames: int | None
    views: str | None
    seed: int


def likeness(path: Path, *, streams: Sequence[str] | None, weights: Mapping[str, Path]) -> Likeness:
    """Read how the features of a store, or those that a run was fitted on, are made and where they are sampled.

    Parameters
    ----------
    streams : those wanted; None = all
    weights : files of weights that vidatt does not know by name, by stream; others are found by their digest

    Raises
    ------
    StoreNotFoundError
        If the path is neither.
    UnknownNameError
        If it has not that stream.
    RefusedError
        If a stream was imported.
    UsageError
        If weights are not found, or a run does not say where its segments lie.
    """
    if (path / CONFIG).is_file():
        made = {making.name: making for making in making_of(Run.open(path), Choices(weights=dict(weights)))}
        nearest_key_error(f"stream of run {path}:", streams or (), made)
        chosen = [made[name] for name in streams or made]
        sampling = chosen[0].sampling
        return Likeness(
            streams=tuple(making.config for making in chosen),
            sampler=str(sampling.sampler),
            window_frames=sampling.window_frames,
            views=str(sampling.views),
            seed=sampling.seed,
        )
    store = Store.open(path)
    names = list(streams or store.stream_names)
    store.require_streams(names)
    if not names:
        raise UsageError(f"The store {path} has no stream yet; --like takes one that has.")
    plan = store.plan
    return Likeness(
        streams=tuple(config_of(name, store.stream(name).recipe, weights.get(name)) for name in names),
        sampler=plan.sampler,
        window_frames=plan.window_frames,
        views=plan.view_rule,
        seed=plan.seed or 0,
    )
