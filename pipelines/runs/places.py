"""Where a run keeps a result: by store, split and part; nothing is written over what measured something else."""

from __future__ import annotations

from dataclasses import dataclass

from ...cache.store import Store
from .run import Run
from .seen import is_own, store_digest


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a result was measured on; its name, and so its files, follow from this alone."""

    split: str
    part: str
    store: str | None = None  # `store_digest` of another store than the run's own

    @property
    def name(self) -> str:
        """`<split>-<part>`, and of another store `@` and twelve digits of its digest: no split may have an @."""
        return f"{self.split}-{self.part}" + (f"@{self.store[:12]}" if self.store else "")

    @property
    def scores(self) -> str:
        """Return the name of the file of scores."""
        return f"scores-{self.name}.npz"


def place_of(run: Run, store: Store, split: str, part: str) -> Place:
    """Return where results of a run on a store are kept; its own store is that of its fit, wherever it lies now."""
    return Place(split=split, part=part, store=None if is_own(run, store) else store_digest(store))
