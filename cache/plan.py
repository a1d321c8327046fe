"""What the planner left with a store: one typed record instead of keys of its attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import CorruptStoreError


@dataclass(frozen=True, kw_only=True)
class StorePlan:
    """How a store was planned; None = it does not say, as one does that was not made by an extraction."""

    dataset: str | None = None
    catalogue_sha256: str | None = None
    sampler: str | None = None  # the rule that places segments, such as uniform:25
    window_frames: int | None = None  # kept free behind a segment's first frame
    view_rule: str | None = None  # center, 10crop, train:K, or several joined by +
    seed: int | None = None  # of the order of videos, random views and segments, and random weights
    shard_videos: int | None = None

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> StorePlan:
        """Read it off a store's attributes.

        Raises
        ------
        CorruptStoreError
            If a value is no text or no whole number where one belongs.
        """
        found = {field.name: attributes[field.name] for field in fields(cls) if field.name in attributes}
        for key, value in found.items():
            wanted = int if key in ("window_frames", "seed", "shard_videos") else str
            if value is not None and type(value) is not wanted:
                raise CorruptStoreError(f"The store's attribute {key} is {value!r}; restore its zarr.json from a copy.")
        return cls(**found)

    def to_attributes(self) -> dict[str, Any]:
        """Return what `Store.create` keeps."""
        return {key: value for key, value in asdict(self).items() if value is not None}
