"""What a run's `config.json` says: what makes two fits, or two fusions, the same, and what they were made with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..record import OPTIONAL, Record
from .measured import Sampled


@dataclass(frozen=True, kw_only=True)
class SettingsIdentity(Record):
    """The settings of a head and of its fit; which there are, `heads.registry.HeadSettings` knows."""

    config: Mapping[str, Any]
    fit: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StreamIdentity(Record):
    """A stream as a head was fitted on it."""

    grid: int  # K
    channels: int  # D
    fingerprint: str
    recipe: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class VideosIdentity(Record):
    """A list of videos."""

    videos: int
    digest: str  # SHA-256 of their ids


@dataclass(frozen=True, kw_only=True)
class RunIdentity(Record):
    """What fits and fusions have in common."""

    head: str
    preset: str
    settings: SettingsIdentity
    stream_names: tuple[str, ...]  # in the head's order
    streams: Mapping[str, StreamIdentity]
    split: str
    seed: int
    classes: tuple[str, ...]
    multi_label: bool


@dataclass(frozen=True, kw_only=True)
class FitIdentity(RunIdentity):
    """What makes two fits the same: with equal identities, device and versions they give equal weights."""

    views: int  # of the set that it was fitted on
    view_set: str | None = field(default=None, metadata=OPTIONAL)  # its name, where the store has several
    allow_truncated: bool
    validation_share: float
    train: VideosIdentity
    validation: VideosIdentity
    on: OnIdentity | None = field(
        default=None, metadata=OPTIONAL
    )  # of head `svm`: the run whose representation it reads

    start: str | None = field(default=None, metadata=OPTIONAL)  # SHA-256 of the weights it starts from

    @property
    def base(self) -> FitIdentity:
        """The fit that attends: itself, or the one that a support vector machine stands on."""
        return self if self.on is None else self.on.identity.base


@dataclass(frozen=True, kw_only=True)
class OnIdentity(Record):
    """What a fit depends on in the run whose representation it reads, wherever that run lies."""

    identity: FitIdentity
    weights: str  # SHA-256 of the file


@dataclass(frozen=True, kw_only=True)
class PartIdentity(Record):
    """One part of a fusion; head, preset and seed of a run, not of a file."""

    scores: str  # what they are, see `Head.score_kind`
    head: str | None = field(default=None, metadata=OPTIONAL)
    preset: str | None = field(default=None, metadata=OPTIONAL)
    seed: int | None = field(default=None, metadata=OPTIONAL)
    branch: str | None = field(default=None, metadata=OPTIONAL)  # whose scores they are
    test: str  # SHA-256 of the file of scores
    validation: str | None


@dataclass(frozen=True, kw_only=True)
class FusionIdentity(RunIdentity):
    """What makes two fusions the same."""

    scores: str  # what the fused scores are
    file_scores: str
    parts: tuple[PartIdentity, ...]


@dataclass(frozen=True, kw_only=True)
class Environment(Record):
    """By which command a run was made."""

    command: str | None = field(default=None, metadata=OPTIONAL)  # as it was typed; None: a program called vidatt
    folder: str | None = field(default=None, metadata=OPTIONAL)  # in which it was typed

    @property
    def again(self) -> str | None:
        """The command, for any folder; None if it is not recorded."""
        return None if self.command is None else f"cd {shlex.quote(self.folder or '.')} && {self.command}"


@dataclass(frozen=True, kw_only=True)
class FitEnvironment(Environment):
    """Where and with what a fit was made; another one continues it."""

    store: str  # absolute; runs of before may have a relative one
    device: str
    versions: Mapping[str, str]
    notes: tuple[str, ...]
    store_digest: str | None = field(
        default=None, metadata=OPTIONAL
    )  # see `places.store_digest`; runs of version 0.1.0 have none
    sampled: Sampled | None = field(default=None, metadata=OPTIONAL)  # of the store, where it is evaluated by default


@dataclass(frozen=True, kw_only=True)
class FusionEnvironment(Environment):
    """Where the parts of a fusion were."""

    parts: tuple[str, ...]
    versions: Mapping[str, str] | None = field(default=None, metadata=OPTIONAL)  # runs of before have none


def read_identity(values: object, where: str) -> FitIdentity | FusionIdentity:
    """Read the identity of a run; only that of a fusion has parts.

    Raises
    ------
    UsageError
        As `Record.from_dict`.
    """
    kind = FusionIdentity if isinstance(values, Mapping) and "parts" in values else FitIdentity
    return kind.from_dict(values, where)
