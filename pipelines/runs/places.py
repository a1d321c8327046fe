"""Where a run keeps a result: by store, split and part; nothing is written over what measured something else."""

from __future__ import annotations

from dataclasses import dataclass

from ...cache.store import Store
from .run import Run
from .seen import is_own, store_digest
from .views import ChosenViews, choose_views


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a result was measured on; its name, and so its files, follow from this alone."""

    split: str
    part: str
    store: str | None = None  # `store_digest` of another store than the run's own
    views: str | None = None  # rule of another set of the store's views than results are on by default

    @property
    def name(self) -> str:
        """`<split>-<part>`, then `@` and twelve digits of another store, `@` and other views; no split has an @."""
        others = (self.store and self.store[:12], self.views)
        return "@".join([f"{self.split}-{self.part}", *(told for told in others if told)])

    @property
    def scores(self) -> str:
        """Return the name of the file of scores."""
        return f"scores-{self.name}.npz"


def place_of(run: Run, store: Store, split: str, part: str, views: ChosenViews | None = None) -> Place:
    """Return where results of a run on a store are kept; its own store is that of its fit, wherever it lies now.

    Parameters
    ----------
    views : that are read; None = those that are by default
    """
    return Place(
        split=split,
        part=part,
        store=None if is_own(run, store) else store_digest(store),
        views=None if views is None or views == choose_views(store) else views.rule,
    )
