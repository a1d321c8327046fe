"""A fitted head back from its run, and the store that it can be used on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ...cache.store import Store
from ...errors import FingerprintMismatchError, NotFiniteError, RefusedError, UsageError
from ...extract.sampling import Sampler
from ...extract.views import feature
from ...heads.contract import Head, StreamShape
from ...heads.registry import HeadSettings, build_from_settings
from ..placing import stored_sampler
from .identity import FitIdentity, FusionEnvironment, FusionIdentity
from .run import CONFIG, WEIGHTS, Run, changes


def settings_of(identity: FitIdentity) -> HeadSettings:
    """Return the head's settings.

    Raises
    ------
    UnknownNameError
        If this version has no such head or setting.
    """
    return HeadSettings.from_dict(identity.head, identity.preset, identity.settings.to_dict())


def acting_settings(run: Run) -> dict[str, Any]:
    """Return the recorded settings without those that do nothing beside the others, such as the momentum of Adam."""
    identity = run.identity
    settings = {**identity.settings.config, **identity.settings.fit}
    if not isinstance(identity, FitIdentity):
        return settings
    try:
        inert = settings_of(identity).fit.inert
    except UsageError:  # recorded by a version with other heads or settings: all are told
        return settings
    return {key: value for key, value in settings.items() if key not in inert}


def sampled_settings(settings: HeadSettings, store: Store) -> tuple[HeadSettings, str | None]:
    """Return the settings on the segments that a store has, and what is to be said about that.

    Raises
    ------
    UsageError
        If the store's segments are windows of another length than the head's clips.
    """
    return settings_on(settings, stored_sampler(store.plan))


def settings_on(settings: HeadSettings, sampler: Sampler | None) -> tuple[HeadSettings, str | None]:
    """Do as `sampled_settings` does, on the segments of a sampler; None = nobody knows them."""
    windows = None if sampler is None else sampler.window_segments
    if windows is None:
        return settings, None
    if settings.config.reads_windows:
        said = f"clips are the store's windows of {windows} frames ({sampler})"
        return replace(settings, config=settings.config.on_windows(windows)), said
    return settings, (
        f"the store's segments are windows of {windows} frames end to end ({sampler}); head {settings.name} reads them "
        "as one sequence"
    )


def rebuild(identity: FitIdentity, sampler: Sampler | None = None) -> Head:
    """Build the head that an identity describes, with fresh weights, on the CPU.

    Parameters
    ----------
    sampler : of what it is to read: where the segments lie decides on the clips of a head that has some
    """
    recorded = identity.streams
    streams = [
        StreamShape(name=name, grid=recorded[name].grid, channels=recorded[name].channels)
        for name in identity.stream_names
    ]
    on = None if identity.on is None else rebuild(identity.on.identity, sampler)
    settings, _ = settings_on(settings_of(identity), sampler)
    return build_from_settings(settings, streams=streams, classes=len(identity.classes), on=on)


def require_fit(run: Run) -> FitIdentity:
    """Return the identity of a fit; refuse a run that holds no head but the fused scores of others.

    Raises
    ------
    UsageError
        If it is one.
    """
    if isinstance(run.identity, FusionIdentity):
        raise UsageError(
            f"Run {run.path} is a fusion of other runs' scores and holds no head; evaluate its parts, and fuse again."
        )
    return run.identity


def store_of(run: Run) -> Path:
    """Return where the store of a fit was when it was fitted; raises as `require_fit`."""
    require_fit(run)
    assert not isinstance(run.environment, FusionEnvironment)
    return Path(run.environment.store)


def recorded_store(path: Path) -> Path:
    """Return where the store of a run was when it was fitted.

    Raises
    ------
    MissingFileError, UsageError
        If there is no run, or it is no fit of a head.
    """
    return store_of(Run.open(path))


def load_head(run: Run | str | Path, store: Store | None = None, *, sampler: Sampler | None = None) -> Head:
    """Build the head of a run with its fitted weights, on the CPU, in evaluation mode.

    Parameters
    ----------
    run : or its folder
    store : that it is to read, whose sampler counts; see `rebuild`
    sampler : of what it is to read, where that is no store

    Raises
    ------
    MissingFileError
        If there is no run, or it has no weights yet.
    UsageError
        If its weights are damaged or do not fit its configuration, or it is no fit of a head.
    NotFiniteError
        If its weights hold NaN.
    """
    run = run if isinstance(run, Run) else Run.open(Path(run))
    identity = require_fit(run)
    try:
        head = rebuild(identity, sampler if store is None else stored_sampler(store.plan))
    except (RuntimeError, MemoryError) as error:  # PyTorch: there is not so much memory
        said = str(error).splitlines()[0] if str(error) else "out of memory"
        raise UsageError(f"{run.path / CONFIG}: no head of these settings can be built here ({said}).") from None
    weights = run.weights()
    if bad := [name for name, tensor in weights.items() if tensor.is_floating_point() and tensor.isnan().any()]:
        raise NotFiniteError(
            f"The weights of run {run.path} hold NaN ({bad[0]!r} and {len(bad) - 1} other tensors in {WEIGHTS}): the "
            "head is at fault, not the store. Fit again with another --out."
        )
    try:
        head.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(f"The weights of run {run.path} do not fit its head: {str(error).splitlines()[-1]}") from None
    return head.eval()


def store_for(run: Run, store_path: Path | None) -> Store:
    """Open the run's store, or another one that fits it: equal features, same classes in the same order.

    Where a store samples its features, views and segments, need not agree: results name it.

    Raises
    ------
    FingerprintMismatchError, RefusedError
        If it does not fit; the message says what differs.
    """
    store = Store.open(store_path or store_of(run))
    require_features(run, store)
    identity = require_fit(run)
    ours, theirs = list(identity.classes), list(store.index.classes)
    if ours != theirs:
        raise RefusedError(
            f"{store.path} has other classes than run {run.path}: {changes(ours, theirs, 'classes')[0]} (run -> store)."
        )
    return store


def require_features(run: Run, store: Store) -> None:
    """Refuse a store that has other features than a run was fitted on.

    Raises
    ------
    FingerprintMismatchError
        With what differs.
    """
    for name, recorded in require_fit(run).streams.items():
        stream = store.stream(name)
        if different := changes(feature(recorded.recipe), feature(stream.recipe)):
            raise FingerprintMismatchError(
                f"Stream {name!r} of {store.path} is not what run {run.path} was fitted on: "
                f"{'; '.join(different)} (run -> store)."
            )
