"""The time map of a shard against recipe, sampler and ledger: which frames its rows say they stand on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...cache.examine import Finding
from ...cache.ledger import VideoOutcome
from ...cache.publish import shard_key
from ...cache.stream_files import StreamFiles
from ...errors import UsageError
from ..placing import stored_sampler

_MOST_FRAMES = 10_000_000
"""Where a ledger tells more of a video than 92 hours, its segments are not computed: that would take gigabytes."""


def check_times(
    stream: StreamFiles, shard: int, outcomes: Sequence[VideoOutcome], frames: np.ndarray, seconds: np.ndarray
) -> list[Finding]:
    """Compare frames and seconds of a shard with what they must be.

    Parameters
    ----------
    frames : [rows, 3] int32, first, centre, stop
    seconds : [rows] float64
    """
    store = stream.store
    start, stop = store.shard_row_range(shard)
    file = shard_key("frames", 2, shard)
    found: list[Finding] = []
    nobody = np.ones(stop - start, bool)
    for position, outcome in zip(store.shard_videos(shard), outcomes, strict=True):
        offset, T = int(store.index.offset[position]), int(store.index.length[position])
        row = np.arange(max(start, offset), min(stop, offset + store.views * T)) - offset
        here = row + offset - start
        nobody[here] = False
        for reason in _wrong(stream, position, outcome, row % max(T, 1), frames[here], seconds[here]):
            found.append(Finding(reason=f"Video {outcome.id!r}: {reason}", file=file, videos=(position,)))
    if (frames[nobody] != -1).any():
        found.append(Finding(reason="There are frames in rows that belong to no video", file=file, videos=()))
    return found


def _wrong(
    stream: StreamFiles, position: int, outcome: VideoOutcome, segment: np.ndarray, frames: np.ndarray,
    seconds: np.ndarray,
) -> Iterator[str]:  # fmt: skip
    """Say what is wrong with the rows of one video, `segment` being the number of each within its view."""
    real = frames[:, 0] >= 0
    if not np.array_equal(real, segment < outcome.segments):
        yield f"its rows have other segments than the {outcome.segments} that its outcome says"
        return
    if (outcome.segments > 0) != (outcome.outcome in ("ok", "truncated")):
        yield f"its outcome is {outcome.outcome}, with {outcome.segments} segments"
    if (frames[~real] != -1).any():
        yield "its padding has frames"
    first, centre, stop = frames[real].T
    if (first > centre).any() or (centre >= stop).any():
        yield "its segments do not have first <= centre < stop"
    known = seconds[real]
    if np.isnan(known).any():
        if not np.isnan(known).all():
            yield "the times of some of its segments are unknown"
    else:
        order = np.argsort(centre, kind="stable")
        later, forward = np.diff(known[order]), np.diff(centre[order]) > 0
        if not np.isfinite(known).all() or (known < 0).any() or (later[forward] < 0).any() or later[~forward].any():
            yield "its times do not follow its frames"
    if outcome.segments and "imported" not in stream.recipe:
        yield from _against_the_sampler(stream, position, outcome, segment[real], frames[real])


def _against_the_sampler(
    stream: StreamFiles, position: int, outcome: VideoOutcome, segment: np.ndarray, frames: np.ndarray
) -> Iterator[str]:
    plan, index = stream.store.plan, stream.store.index
    window, decoded = stream.recipe.get("window_frames"), outcome.decoded_frames
    sampler = stored_sampler(plan)
    if sampler is None or plan.window_frames is None or type(window) is not int:
        return  # made by hand: nothing says where the segments should be
    first, centre, stop = frames.T
    if (stop > decoded).any():
        yield f"it has frames behind the {decoded} that were decoded"
        return
    if (centre > first + window // 2).any() or (stop > first + window).any():
        yield f"its segments span more than the {window} frames of its recipe"
    if not np.isnan(index.span_seconds[position]).all() or decoded > _MOST_FRAMES:
        if sampler.rule != "windows" and ((np.diff(first) < 0) & (np.diff(segment) > 0)).any():
            yield "its segments do not follow each other"
        return
    try:
        wanted = sampler.first_frames(decoded, outcome.fps, window=plan.window_frames, video=outcome.id)
        wanted = wanted[: int(index.length[position])]
    except UsageError as error:
        yield str(error)
        return
    if outcome.segments != len(wanted) or not np.array_equal(first, wanted[segment]):
        yield f"its segments do not stand where {sampler} places them in {decoded} frames"
    elif (centre != np.minimum(first + window // 2, decoded - 1)).any() or (
        stop != np.minimum(first + window, decoded)
    ).any():
        yield f"its segments are not the {window} frames of its recipe"
