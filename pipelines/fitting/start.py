"""`fit-head --from RUN`: a fit that starts from the weights of another; what fits is taken, the rest is new."""

from __future__ import annotations

from pathlib import Path

import torch

from ...cache.fingerprint import sha256_of
from ...errors import UsageError
from ...heads.contract import Head
from ..runs.reload import require_fit
from ..runs.run import CONFIG, WEIGHTS, Run
from ..runs.seen import SeenVideos, read_seen
from .plan import FitPlan


def take_what_fits(head: Head, run: Run) -> list[str]:
    """Copy every tensor of a run that has the name and shape of one of this head; say what is taken and what is new.

    A classifier of other classes, and layers of other sizes, stay as they start.

    Parameters
    ----------
    head : changed in place

    Returns
    -------
    Two lines for people

    Raises
    ------
    UsageError
        If nothing fits: the run is of another head, or of other sizes.
    """
    given = run.weights()
    own = head.state_dict()
    taken = [name for name, tensor in own.items() if name in given and given[name].shape == tensor.shape]
    new = [name for name in own if name not in taken]
    if not any(own[name].is_floating_point() and own[name].ndim for name in taken):
        raise UsageError(
            f"--from {run.path}: nothing of its head {require_fit(run).head!r} fits this one; start from a run of the "
            "same head and sizes."
        )
    with torch.no_grad():
        for name in taken:
            own[name].copy_(given[name])  # shares its memory with the parameters
    numbers = sum(own[name].numel() for name in taken)
    return [
        f"starts from {run.path}: {len(taken)} tensors taken, {numbers:,} numbers ({_named(taken)})",
        f"new are {len(new)} tensors ({_named(new)})" if new else "no tensor is new",
    ]


def _named(names: list[str]) -> str:
    """Name the modules that tensors belong to, by their first words."""
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in names)) or "none"


def seen_before(plan: FitPlan) -> list[SeenVideos]:
    """Return what the runs have seen whose weights or representation this fit takes: it has seen that too."""
    sources = [Run.open(Path(source)) for source in plan.settings.config.sources if (Path(source) / CONFIG).exists()]
    runs = [run for run in (plan.on, plan.start, *sources) if run is not None]
    return [seen for run in runs if (seen := read_seen(run, plan.store)) is not None]


def weights_digest(run: Run) -> str:
    """SHA-256 of a run's weights, checked to be those that it wrote."""
    return sha256_of(run.verified(WEIGHTS))
