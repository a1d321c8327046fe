"""Scoring videos of a store with a head: over batches, and over the views of each video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...cache.batches import Batches
from ...cache.store import Store
from ...errors import UsageError
from ...heads.contract import Head, HeadOutput


@dataclass(frozen=True, eq=False)
class Scores:
    """What a head says about a list of videos."""

    probabilities: np.ndarray  # [n, N] float32, in the order of the list; what `Head.scores` returns
    branches: Mapping[str, np.ndarray]  # the same of each branch, by name, of heads that fuse several
    loss: float | None = None  # mean over the list; None without targets


def resolve_device(choice: str) -> torch.device:
    """`auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:i`.

    Raises
    ------
    UsageError
        For anything else, and for a GPU that is not there.
    """
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, colon, number = choice.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and number.isdigit())):
        raise UsageError(f"Device {choice!r}: must be auto, cpu, cuda or cuda:i.")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UsageError(f"Device {choice!r}: this machine offers {torch.cuda.device_count()} GPUs to PyTorch.")
    return torch.device(choice)


def batch_scores(head: Head, output: HeadOutput) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return `Head.scores` of a batch, [B, N] float32, and those of each branch of a head that fuses several."""
    branches = head.branch_logits(output).items()
    return _scores(head, output.logits), {name: _scores(head, logits) for name, logits in branches}


def _scores(head: Head, logits: Tensor) -> np.ndarray:
    return head.scores(logits).float().cpu().numpy()


@torch.inference_mode()
def score_view(head: Head, batches: Batches, videos: np.ndarray, targets: Tensor | None = None) -> Scores:
    """Score videos by one view; the head is put into evaluation mode.

    Parameters
    ----------
    head : on the device of the batches
    batches : over exactly `videos`, in any order
    videos : [n] positions in the store
    targets : per position in the store, as `Head.loss` takes them; on the device; None = no loss
    """
    head.eval()
    place = np.full(int(videos.max()) + 1, -1)
    place[videos] = np.arange(len(videos))
    probabilities = np.zeros((len(videos), head.classes), np.float32)
    branches: dict[str, np.ndarray] = {}
    loss_sum = 0.0
    for batch in batches.epoch(0):
        output = head(batch.cubes, batch.valid)
        rows = place[batch.videos]
        probabilities[rows], of_branches = batch_scores(head, output)
        for name, values in of_branches.items():
            branches.setdefault(name, np.zeros_like(probabilities))[rows] = values
        if targets is not None:
            target = targets[torch.as_tensor(batch.videos, device=targets.device)]
            loss_sum += head.loss(output, target).item() * len(batch.videos)
    return Scores(probabilities, branches, None if targets is None else loss_sum / len(videos))


def score_views(
    head: Head, store: Store, streams: Sequence[str], videos: np.ndarray, *, views: range, device: torch.device,
    batch_videos: int,
) -> Scores:  # fmt: skip
    """Scores of the classes (`Head.scores`: probabilities) averaged over views of the store (spec 1.6).

    Parameters
    ----------
    videos : [n] positions in the store, at least one
    views : of a set, from `choose_views`
    """
    total = np.zeros((len(videos), head.classes), np.float64)
    branches: dict[str, np.ndarray] = {}
    for view in views:
        batches = Batches(
            store, streams, videos=videos, batch_videos=batch_videos, seed=0, shuffle=False, view=view, device=device
        )
        scores = score_view(head, batches, videos)
        total += scores.probabilities
        for name, values in scores.branches.items():
            branches[name] = branches.get(name, 0.0) + values.astype(np.float64)
    means = {name: (values / len(views)).astype(np.float32) for name, values in branches.items()}
    return Scores((total / len(views)).astype(np.float32), means)
