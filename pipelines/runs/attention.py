"""Reading the attention of a fitted head: what it says about each video, and where it looked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...cache.batches import Batch, Batches
from ...cache.reader import Reader
from ...cache.store import Store
from ...errors import UnknownNameError
from ...heads.contract import Head, HeadOutput
from .reload import load_head, require_fit, settings_of, store_for
from .run import Run
from .scoring import resolve_device
from .splits import PARTS, choose_split
from .videos import not_finite, usable_videos
from .views import central_view

SEGMENTS_AT_ONCE = 3_200
"""Of a batch, as many as 128 videos of 25 have: untrimmed videos may have thousands each."""


KIND = "spatial_"
"""Begins the names of a head's parts [B, T, M, K, K] that are one kind of its attention, such as `spatial_sa`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class VideoAttention:
    """What a head says about one video, and where it looked; T counts the video's valid segments."""

    position: int  # in the store
    id: str
    probabilities: np.ndarray  # [N] float32
    temporal: np.ndarray  # [T] float32, sums to 1
    temporal_raw: np.ndarray | None  # [T] float32
    spatial: np.ndarray | None  # [T, M, K, K] float32
    kinds: Mapping[str, np.ndarray] = field(default_factory=dict)  # of a head with several kinds of it, each as above
    segments: np.ndarray | None = None  # [T, R] float32, what the head made of each segment; on request
    segment_probabilities: np.ndarray | None = None  # [T, N] float32, if the head classifies segments; on request


@dataclass(frozen=True, eq=False, kw_only=True)
class Window:
    """Some segments of a video, which a head is to see as if there were no others."""

    video: int  # position in the store
    segments: np.ndarray  # [W] int64, in the order in which they are seen; one may stand there twice


def attention(
    run_path: Path,
    *,
    store_path: Path | None = None,
    videos: Sequence[int] | None = None,
    split: str | None = None,
    part: str = "test",
    view: int | None = None,
    device: str = "auto",
    batch_videos: int | None = None,
    with_segments: bool = False,
) -> Iterator[VideoAttention]:
    """Yield the attention of each video, computed batch by batch.

    Parameters
    ----------
    videos : positions in the store, in the order wanted; None = all usable ones of `part` of `split`
    view : which view of the cubes; None = the one that shows the centre
    with_segments : also give `segments` and `segment_probabilities`, where the head has them
    batch_videos : None = as in the fit, and fewer where videos are long
    run_path, store_path, split, part, device : see `evaluate`

    Raises
    ------
    VidattError
        As `evaluate`; from the first `next`.
    """
    run, device_ = Run.open(run_path), resolve_device(device)
    store = store_for(run, store_path)
    identity = require_fit(run)
    if part not in PARTS:
        raise UnknownNameError("part", part, PARTS)
    if videos is None:
        split = choose_split(store, split or identity.split)
        roles = store.index.splits[split] == PARTS[part]
        videos = np.flatnonzero(roles & usable_videos(identity, store)).tolist()
    if not len(videos):
        return
    head = load_head(run, store).to(device_).eval()
    longest = int(store.index.length[np.asarray(videos)].max())
    at_once = max(1, min(settings_of(identity).fit.batch_videos, SEGMENTS_AT_ONCE // longest))
    batches = Batches(
        store,
        identity.stream_names,
        videos=np.asarray(videos),
        batch_videos=batch_videos or at_once,
        shuffle=False,
        view=central_view(store) if view is None else view,
        device=device_,
    )
    for batch in batches.epoch(0):
        yield from _of_batch(run, head, batch, store, with_segments=with_segments)


def attention_in_windows(
    run: Run, store: Store, windows: Sequence[Window], *, view: int, device: str = "auto"
) -> Iterator[VideoAttention]:
    """Yield the attention over each window, as if it were a video of its own.

    Parameters
    ----------
    windows : all of the same number of segments
    store, view, device : as `attention`

    Raises
    ------
    VidattError
        As `attention`; from the first `next`.
    """
    device_, identity = resolve_device(device), require_fit(run)
    head = load_head(run, store).to(device_).eval()
    readers = [store.stream(name).reader() for name in identity.stream_names]
    W = len(windows[0].segments) if windows else 1
    at_once = max(1, min(settings_of(identity).fit.batch_videos, SEGMENTS_AT_ONCE // W))
    for start in range(0, len(windows), at_once):
        part = windows[start : start + at_once]
        cubes = tuple(
            torch.from_numpy(np.stack([_cubes(reader, window, view) for window in part])).to(device_)
            for reader in readers
        )
        valid = torch.ones(len(part), W, dtype=torch.bool, device=device_)
        batch = Batch(np.array([window.video for window in part], np.int64), cubes, valid)
        yield from _of_batch(run, head, batch, store, with_segments=False)


def _cubes(reader: Reader, window: Window, view: int) -> np.ndarray:
    """[W, K, K, D] float16 of the segments of a window."""
    first, last = int(window.segments.min()), int(window.segments.max())
    row, _ = reader.row_range(window.video, view)
    return reader.read_rows(row + first, row + last + 1)[window.segments - first]


def _of_batch(run: Run, head: Head, batch: Batch, store: Store, *, with_segments: bool) -> Iterator[VideoAttention]:
    ids = [str(id) for id in store.index.ids[batch.videos]]
    for video in look(head, batch, ids, with_segments=with_segments):
        if not (np.isfinite(video.probabilities).all() and np.isfinite(video.temporal).all()):
            raise not_finite(run, store, video.position)
        yield video


def look(head: Head, batch: Batch, ids: Sequence[str], *, with_segments: bool = False) -> Iterator[VideoAttention]:
    """Yield what a head says about each video of a batch, and where it looked.

    Parameters
    ----------
    head : in evaluation mode, on the device of the batch
    ids : [B] of the videos
    with_segments : also give `segments` and `segment_probabilities`, where the head has them
    """
    with torch.inference_mode():
        output = head(batch.cubes, batch.valid)
    return looked(head, output, batch, ids, with_segments=with_segments)


def looked(
    head: Head, output: HeadOutput, batch: Batch, ids: Sequence[str], *, with_segments: bool = False
) -> Iterator[VideoAttention]:
    """Do as `look` does, with what the head has returned."""
    parts = output.parts if with_segments else {}
    with torch.inference_mode():
        probabilities = _numpy(head.probabilities(output.logits))
        verdicts = head.probabilities(parts["segment_logits"]) if "segment_logits" in parts else None
    temporal = _numpy(output.temporal)
    raw, spatial, segments, by_segment = (
        None if tensor is None else _numpy(tensor)
        for tensor in (output.temporal_raw, output.spatial, parts.get("segments"), verdicts)
    )
    kinds = {name.removeprefix(KIND): _numpy(maps) for name, maps in output.parts.items() if name.startswith(KIND)}
    for b, T in enumerate(batch.valid.sum(1).tolist()):
        yield VideoAttention(
            position=int(batch.videos[b]),
            id=ids[b],
            probabilities=probabilities[b],
            temporal=temporal[b, :T],
            temporal_raw=None if raw is None else raw[b, :T],
            spatial=None if spatial is None else spatial[b, :T],
            kinds={name: maps[b, :T] for name, maps in kinds.items()},
            segments=None if segments is None else segments[b, :T],
            segment_probabilities=None if by_segment is None else by_segment[b, :T],
        )


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
