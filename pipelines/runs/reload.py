"""A fitted head back from its run, and the store that it can be used on."""

from __future__ import annotations

from pathlib import Path

from ...cache.store import Store
from ...errors import FingerprintMismatchError, NotFiniteError, RefusedError, UsageError
from ...heads.contract import Head, StreamShape
from ...heads.registry import HeadSettings, build_from_settings
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


def rebuild(identity: FitIdentity) -> Head:
    """Build the head that an identity describes, with fresh weights, on the CPU."""
    recorded = identity.streams
    streams = [
        StreamShape(name=name, grid=recorded[name].grid, channels=recorded[name].channels)
        for name in identity.stream_names
    ]
    on = None if identity.on is None else rebuild(identity.on.identity)
    return build_from_settings(settings_of(identity), streams=streams, classes=len(identity.classes), on=on)


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


def load_head(run: Run | str | Path) -> Head:
    """Build the head of a run with its fitted weights, on the CPU, in evaluation mode.

    Parameters
    ----------
    run : or its folder

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
        head = rebuild(identity)
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
    """Open the run's store, or another one that fits it: same recipes, same classes in the same order.

    Raises
    ------
    FingerprintMismatchError, RefusedError
        If it does not fit; the message says what differs.
    """
    identity = require_fit(run)
    store = Store.open(store_path or store_of(run))
    for name, recorded in identity.streams.items():
        stream = store.stream(name)
        if stream.fingerprint != recorded.fingerprint:
            raise FingerprintMismatchError(
                f"Stream {name!r} of {store.path} is not what run {run.path} was fitted on: "
                f"{'; '.join(changes(recorded.recipe, stream.recipe))} (run -> store)."
            )
    ours, theirs = list(identity.classes), list(store.index.classes)
    if ours != theirs:
        raise RefusedError(
            f"{store.path} has other classes than run {run.path}: {changes(ours, theirs, 'classes')[0]} (run -> store)."
        )
    return store
