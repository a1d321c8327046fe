"""Windows that slide: where they lie, and that each is sampled as a video of its own."""

from __future__ import annotations

import numpy as np
import pytest

from vidatt.errors import UsageError
from vidatt.extract.sampling import Sampler
from vidatt.extract.sliding import SlidingSampler


def sliding(rule: str = "uniform:3", window: float = 2.0, stride: float = 1.0, **more: int) -> SlidingSampler:
    return SlidingSampler(base=Sampler.parse(rule), window_seconds=window, stride_seconds=stride, **more)


@pytest.mark.parametrize(
    ("frames", "windows"),
    [
        pytest.param(20, [[0, 20]], id="one"),
        pytest.param(7, [[0, 7]], id="shorter"),
        pytest.param(40, [[0, 20], [10, 30], [20, 40]], id="even"),
        pytest.param(43, [[0, 20], [10, 30], [20, 40], [23, 43]], id="last-ends-with-the-video"),
    ],
)
def test_windows_cover_the_video(frames: int, windows: list[list[int]]) -> None:
    assert sliding().windows(frames, 10.0).tolist() == windows


@pytest.mark.parametrize("rule", ["uniform:3", "centre:4", "every:6", "fps:2.5", "windows:4:2:3", "random:2:2"])
@pytest.mark.parametrize("frames", [5, 40, 43])
def test_each_window_is_sampled_as_a_video(rule: str, frames: int) -> None:
    one, base = sliding(rule), Sampler.parse(rule)
    expected = [
        start + base.first_frames(stop - start, 10.0, window=2, video="v")
        for start, stop in one.windows(frames, 10.0).tolist()
    ]
    firsts = one.first_frames(frames, 10.0, window=2, video="v")
    assert firsts.tolist() == np.concatenate(expected).tolist()
    assert one.segments(frames, 10.0) == len(firsts)
    assert {len(part) for part in expected} == {len(firsts) // len(expected)}


def test_pieces_of_windows_are_the_whole() -> None:
    whole = sliding().first_frames(64, 10.0, window=2)
    pieces = [sliding(first=a, stop=b).first_frames(64, 10.0, window=2) for a, b in ((0, 2), (2, 3), (3, 99))]
    assert np.concatenate(pieces).tolist() == whole.tolist()
    assert sliding(first=50, stop=60).first_frames(64, 10.0, window=2).tolist() == []


@pytest.mark.parametrize(("window", "stride"), [(0.0, 1.0), (1.0, 0.0), (1.0, 2.0), (float("inf"), 1.0)])
def test_windows_that_cannot_be_are_refused(window: float, stride: float) -> None:
    with pytest.raises(UsageError, match="both must be above 0, and the stride no longer"):
        sliding(window=window, stride=stride)


def test_windows_need_a_frame_rate() -> None:
    with pytest.raises(UsageError, match="states no frame rate"):
        sliding().windows(40, 0.0)
