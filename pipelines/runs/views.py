"""Which views of a store a job reads: a fit the random crops it trains on, all else those to test on."""

from __future__ import annotations

from dataclasses import dataclass

from ...cache.store import Store
from ...errors import CorruptStoreError, UnknownNameError, UsageError
from ...extract.views import CENTER, Views, ViewSet
from ..placing import draws_segments
from .measured import Sampled


@dataclass(frozen=True, kw_only=True)
class ChosenViews:
    """One set of the views that a store has of every segment."""

    name: str | None  # as `--views` spells it, such as 10crop; None: the store does not say
    views: range  # along the store's axis of views
    only: bool  # whether the store has no other set

    @property
    def rule(self) -> str | None:
        """The name without a count: `train` of `train:5`."""
        return self.name and self.name.partition(":")[0]

    @property
    def told(self) -> str | None:
        """The name where the store has several sets, so that it must be said which; else None."""
        return None if self.only else self.name


def choose_views(store: Store, asked: str | None = None, *, train: bool = False) -> ChosenViews:
    """Return the set of views asked for; else the first of the kind that a job wants, else the first.

    Parameters
    ----------
    asked : `center`, `10crop` or `train`, or one of them as the store spells it, such as `train:5`
    train : whether it is for training: random crops are wanted; else those to test on are

    Raises
    ------
    UnknownNameError
        If the store has no such set.
    UsageError
        If one is asked for, and the store does not say which it has.
    CorruptStoreError
        If the store's views are not what its plan says.
    """
    views = stored_views(store)
    if views is None:
        if asked is not None:
            raise UsageError(f"--views {asked!r}: {store.path} does not say which views it has; leave it out.")
        return ChosenViews(name=None, views=range(store.views), only=True)
    names = {name: one for one in views.sets for name in (one.rule, str(one))}
    if asked is not None and asked not in names:
        raise UnknownNameError(f"set of views of {store.path}:", asked, names)
    wanted = next((one for one in views.sets if one.random == train), views.sets[0])
    one = wanted if asked is None else names[asked]
    return ChosenViews(name=str(one), views=views.ranges[one], only=len(views.sets) == 1)


def sampled(store: Store, views: str | None) -> Sampled:
    """Return what a result says of where the features lie that it was made from: those of a set of views."""
    plan = store.plan
    drawn = (views is not None and ViewSet.parse(views).random) or draws_segments(plan)
    return Sampled(
        views=views, sampler=plan.sampler, window_frames=plan.window_frames, seed=plan.seed if drawn else None
    )


def shows_centre(store: Store) -> bool:
    """Whether a view shows the centre of the frame; a store that does not say has such views."""
    views = stored_views(store)
    return views is None or any(one.central is not None for one in views.sets)


def central_view(store: Store) -> int:
    """Return the view that shows the centre of the frame; if none does, the first of those to test on."""
    views = stored_views(store)
    for one, place in views.ranges.items() if views else ():
        if one.central is not None:
            return place[one.central]
    return choose_views(store).views.start


def central_name(store: Store) -> str | None:
    """Return what `central_view` shows: center, or the set that it is taken from."""
    return str(CENTER) if stored_views(store) and shows_centre(store) else choose_views(store).name


def stored_views(store: Store) -> Views | None:
    """Return what a store says of its views, None if it says nothing; raises as `choose_views`."""
    if store.plan.view_rule is None:
        return None
    try:
        views = Views.parse(store.plan.view_rule)
    except UsageError as error:
        raise CorruptStoreError(f"{store.path}: its view_rule is none ({error}); restore its zarr.json.") from None
    if views.count != store.views:
        raise CorruptStoreError(
            f"{store.path} has {store.views} views, and its view_rule {views} are {views.count}; restore its zarr.json."
        )
    return views
