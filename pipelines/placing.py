"""Where the segments of a store lie: the sampler that its plan tells of, with the seed that it draws from."""

from __future__ import annotations

from ..cache.plan import StorePlan
from ..extract.sampling import Sampler


def stored_sampler(plan: StorePlan) -> Sampler | None:
    """Return the sampler of a store, None if it does not say one.

    Raises
    ------
    UsageError
        If what it says is none.
    """
    return None if plan.sampler is None else Sampler.parse(plan.sampler, seed=plan.seed or 0)


def draws_segments(plan: StorePlan) -> bool:
    """Tell whether the segments are drawn, so that they depend on the seed."""
    sampler = stored_sampler(plan)
    return sampler is not None and sampler.random
