"""The commands that make a run again, from what it records."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ...heads.registry import HEADS, resolve_settings
from ..runs.identity import FitIdentity, FusionEnvironment, FusionIdentity
from ..runs.run import Run


def commands(run: Run, split: str, part: str) -> tuple[str, ...]:
    """Return the commands that make a run again and measure it; none where its record does not hold what they need.

    They are made from the run's identity: `fit-head` with them finds the finished run, or fits the same one elsewhere.
    """
    made = _fused(run) if isinstance(run.identity, FusionIdentity) else _fitted(run, run.identity)
    if made is None:
        return () if run.environment.again is None else (run.environment.again,)
    if isinstance(run.identity, FusionIdentity):
        return (shlex.join(made),)
    measured = ["vidatt", "evaluate", str(run.path)]
    measured += [] if split == run.identity.split else ["--split", split]
    measured += [] if part == "test" else ["--part", part, "--allow-seen"]
    return (shlex.join(made), shlex.join(measured))


def _fitted(run: Run, identity: FitIdentity) -> list[str] | None:
    if identity.on is not None or isinstance(run.environment, FusionEnvironment):
        return None  # where the run lies that a machine stands on is not recorded
    if identity.head not in HEADS or identity.preset not in HEADS[identity.head].presets:
        return None
    settings = _settings(identity)
    if settings is None:
        return None
    made = ["vidatt", "fit-head", "--head", identity.head, "--store", run.environment.store]
    made += ["--streams", ",".join(identity.stream_names), "--split", identity.split, "--preset", identity.preset]
    for key, value in settings.items():
        made += ["--set", f"{key}={_text(value)}"]
    made += ["--validation", f"{identity.validation_share:g}"]
    made += [] if identity.allow_truncated else ["--skip-truncated"]
    return [*made, "--seed", str(identity.seed), "--out", str(run.path)]


def _settings(identity: FitIdentity) -> dict[str, Any] | None:
    """Return what differs from the preset; None for a record with settings that this version has not."""
    preset = resolve_settings(identity.head, identity.preset)
    found: dict[str, Any] = {}
    for part, recorded in ((preset.config, identity.settings.config), (preset.fit, identity.settings.fit)):
        if not recorded.keys() <= {field.name for field in fields(part)}:
            return None
        found |= {key: value for key, value in recorded.items() if value != _plain(getattr(part, key))}
    return found


def _fused(run: Run) -> list[str] | None:
    identity = run.identity
    assert isinstance(identity, FusionIdentity)
    assert isinstance(run.environment, FusionEnvironment)
    made = ["vidatt", "fuse", *run.environment.parts, "--method", identity.head.removeprefix("fusion-")]
    settings: Mapping[str, Any] = {**identity.settings.config, **identity.settings.fit}
    for key, value in settings.items():
        made += ["--set", f"{key}={_text(value)}"]
    made += [] if identity.file_scores == "probabilities" else ["--file-scores", identity.file_scores]
    return [*made, "--out", str(run.path)]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
