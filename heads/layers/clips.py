"""Clips: overlapping windows over a video's segments, each a sample of its own (GLKA, section III-G)."""

from __future__ import annotations

import torch
from torch import Tensor


class Clips:
    """The clips of a batch: Q in all, at most C per video, W segments each.

    A video no longer than `length` is one clip. A longer one has a clip every `stride` segments, and a last one that
    ends with the video, so that no segment is left out. Of more than `most` clips, `most` evenly spaced ones are
    taken, the first and the last among them; which ones the paper takes, it does not say.

    Parameters
    ----------
    valid : [B, T] bool, padding only at the end
    length : segments per clip; None = the whole video is one clip
    stride : segments from one clip to the next
    most : clips per video
    """

    def __init__(self, valid: Tensor, *, length: int | None, stride: int, most: int) -> None:
        B, T = valid.shape
        self.batch, self.total, self.width = B, T, min(T, length or T)
        starts = [clip_starts(total, length=length or T, stride=stride, most=most) for total in valid.sum(1).tolist()]
        flat = torch.tensor([(b, c, start) for b in range(B) for c, start in enumerate(starts[b])], device=valid.device)
        self.video, self.place, first = flat.unbind(1)  # each [Q]
        self.segment = first.unsqueeze(1) + torch.arange(self.width, device=valid.device)  # [Q, W], place in its video
        self.counts = torch.tensor([len(of_video) for of_video in starts], device=valid.device)  # [B]
        self.whole = len(self.video) == B and self.width == T
        self.valid = self.cut(valid)  # [Q, W]

    def cut(self, padded: Tensor) -> Tensor:
        """[B, T, ...] -> [Q, W, ...]; the same tensor if every video is one clip."""
        return padded if self.whole else padded[self.video.unsqueeze(1), self.segment]

    def by_video(self, values: Tensor) -> Tensor:
        """[Q, ...] -> [B, C, ...] with zeros where a video has fewer clips."""
        most = int(self.counts.max().item())
        gathered = values.new_zeros(self.batch * most, *values.shape[1:])
        gathered = gathered.index_copy(0, self.video * most + self.place, values)
        return gathered.unflatten(0, (self.batch, most))

    def weights(self) -> Tensor:
        """[B, C] float32: 1 / (number of clips) on each video's clips, else 0."""
        return self.by_video(1 / self.counts[self.video].float())

    def temporal(self) -> Tensor:
        """[B, T] float32, the weight of each segment if clips count alike and segments within a clip do; sums to 1."""
        share = self.valid / self.valid.sum(1, keepdim=True) / self.counts[self.video].unsqueeze(1)  # [Q, W]
        if self.whole:
            return share
        flat = share.new_zeros(self.batch * self.total)
        flat = flat.index_add(0, (self.video.unsqueeze(1) * self.total + self.segment).flatten(), share.flatten())
        return flat.unflatten(0, (self.batch, self.total))


def clip_starts(total: int, *, length: int, stride: int, most: int) -> list[int]:
    """Return the first segments of the clips of a video of `total` segments.

    Parameters
    ----------
    total : 1 or more
    length, stride, most : see `Clips`; each 1 or more
    """
    last = max(0, total - length)
    starts = [*range(0, last, stride), last]
    if len(starts) <= most:
        return starts
    if most == 1:
        return [starts[len(starts) // 2]]
    return [starts[round(i * (len(starts) - 1) / (most - 1))] for i in range(most)]
