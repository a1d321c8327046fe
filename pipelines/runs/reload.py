"""A fitted head back from its run, and the store that it can be used on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...cache.store import Store
from ...errors import FingerprintMismatchError, RefusedError, UsageError
from ...heads.contract import Head, StreamShape
from ...heads.registry import HeadSettings, build_from_settings
from .run import Run, differences


def rebuild(identity: Mapping[str, Any]) -> Head:
    """Build the head that an identity (see `Run`) describes, with fresh weights, on the CPU."""
    recorded = identity["streams"]
    streams = [
        StreamShape(name=name, grid=recorded[name]["grid"], channels=recorded[name]["channels"])
        for name in identity["stream_names"]
    ]
    settings = HeadSettings.from_dict(identity["head"], identity["preset"], identity["settings"])
    on = rebuild(identity["on"]["identity"]) if "on" in identity else None
    return build_from_settings(settings, streams=streams, classes=len(identity["classes"]), on=on)


def require_fit(run: Run) -> None:
    """Refuse a run that holds no head but the fused scores of others.

    Raises
    ------
    UsageError
        If it is one.
    """
    if "parts" in run.identity:
        raise UsageError(
            f"Run {run.path} is a fusion of other runs' scores and holds no head; evaluate its parts, and fuse again."
        )


def recorded_store(path: Path) -> Path:
    """Return where the store of a run was when it was fitted.

    Raises
    ------
    MissingFileError, UsageError
        If there is no run, or it is no fit of a head.
    """
    run = Run.open(path)
    require_fit(run)
    return Path(run.config["environment"]["store"])


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
        If its weights do not fit its configuration, or it is no fit of a head.
    """
    run = run if isinstance(run, Run) else Run.open(Path(run))
    require_fit(run)
    head = rebuild(run.identity)
    try:
        head.load_state_dict(run.weights())
    except RuntimeError as error:
        raise UsageError(f"The weights of run {run.path} do not fit its head: {str(error).splitlines()[-1]}") from None
    return head.eval()


def open_store(run: Run, store_path: Path | None) -> Store:
    """Open the run's store, or another one that fits it: same recipes, same classes in the same order.

    Raises
    ------
    FingerprintMismatchError, RefusedError
        If it does not fit; the message says what differs.
    """
    require_fit(run)
    store = Store.open(store_path or Path(run.config["environment"]["store"]))
    for name, recorded in run.identity["streams"].items():
        stream = store.stream(name)
        if stream.fingerprint != recorded["fingerprint"]:
            raise FingerprintMismatchError(
                f"Stream {name!r} of {store.path} is not what run {run.path} was fitted on: "
                f"{'; '.join(differences(recorded['recipe'], stream.recipe))} (run -> store)."
            )
    if list(store.index.classes) != run.identity["classes"]:
        raise RefusedError(
            f"{store.path} has other classes than run {run.path}: "
            f"{differences(run.identity['classes'], list(store.index.classes), 'classes')[0]} (run -> store)."
        )
    return store
