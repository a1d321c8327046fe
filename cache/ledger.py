"""The ledger: one typed outcome per video and stream, kept in the commit marker of the video's shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import CorruptStoreError, UnknownNameError, UsageError

OUTCOMES = (
    "ok",
    "missing",
    "unreadable",
    "no_video_stream",
    "truncated",
    "too_short",
    "decoder_hang",
    "decoder_crash",
    "out_of_memory",
)
"""What can become of a video; `ok` and `truncated` have real rows."""

_LATER = {"sha256"}  # fields that entries of earlier versions lack

_TYPES: dict[str, type] = {"str": str, "int": int, "float": float}  # of the annotations


@dataclass(frozen=True, kw_only=True)
class VideoOutcome:
    """What became of one video in one stream.

    Raises
    ------
    UnknownNameError
        If `outcome` is none of `OUTCOMES`.
    UsageError
        If a count is negative.
    """

    id: str
    outcome: str
    detail: str = ""  # one line, for people
    decoded_frames: int = 0
    header_frames: int = 0  # as the container claims; 0 = it does not say
    fps: float = 0.0  # frames per second
    width: int = 0  # pixels, upright
    height: int = 0
    segments: int = 0  # real, unpadded rows per view
    sha256: str = ""  # of the video file, empty: not read, or by a vidatt that did not record it

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise UnknownNameError("outcome", self.outcome, OUTCOMES)
        for name in ("decoded_frames", "header_frames", "width", "height", "segments"):
            if getattr(self, name) < 0:
                raise UsageError(f"The outcome of {self.id!r} has {name} {getattr(self, name)}; it must be 0 or more.")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values (NumPy scalars become Python's)."""
        return {f.name: _TYPES[f.type](getattr(self, f.name)) for f in fields(self)}  # type: ignore[index]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VideoOutcome:
        """Read what `to_dict` wrote.

        Raises
        ------
        CorruptStoreError
            If a field is absent, unknown or of another type.
        """
        known = {f.name: f for f in fields(cls)}
        if (values.keys() | _LATER) != known.keys():
            odd = ", ".join(sorted((values.keys() | _LATER) ^ known.keys()))
            raise CorruptStoreError(f"A ledger entry has missing or unknown fields: {odd}.")
        for name, value in values.items():
            wanted = _TYPES[known[name].type]  # type: ignore[index]
            if type(value) is not wanted:
                raise CorruptStoreError(f"A ledger entry has {name} {value!r}; it should be {wanted.__name__}.")
        return cls(**values)
