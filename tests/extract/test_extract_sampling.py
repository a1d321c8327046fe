from __future__ import annotations

import numpy as np
import pytest

from vidatt.errors import UsageError
from vidatt.extract.sampling import Sampler


@pytest.mark.parametrize("rule", ["uniform", "centre"])
@pytest.mark.parametrize("window", [1, 10, 16])
@pytest.mark.parametrize("T", [1, 10, 25])
def test_sampler_stays_inside_and_never_steps_back(rule: str, window: int, T: int) -> None:
    sampler = Sampler.parse(f"{rule}:{T}")
    for n in range(1, 401):
        firsts = sampler.first_frames(n, 25.0, window=window)
        assert firsts.shape == (T,)
        assert firsts.min() >= 0
        assert firsts.max() <= max(0, n - window)
        assert (np.diff(firsts) >= 0).all()


def test_uniform_is_the_tsn_rule() -> None:
    # step = floor((164 - 10) / 24) = 6, frames 1 + 6 t counted from 1
    assert Sampler.parse("uniform:25").first_frames(164, 25.0, window=10).tolist() == [6 * t for t in range(25)]
    # no room for a step: all segments stand on the first frame
    assert Sampler.parse("uniform:25").first_frames(30, 25.0, window=10).tolist() == [0] * 25


def test_centre_takes_the_middle_of_equal_parts() -> None:
    assert Sampler.parse("centre:4").first_frames(40, 25.0, window=1).tolist() == [5, 15, 25, 35]


@pytest.mark.parametrize(
    ("text", "fps", "expected"),
    [
        pytest.param("every:30", 25.0, [0, 30, 60, 90], id="every-30"),
        pytest.param("fps:5", 25.0, list(range(0, 100, 5)), id="fps-5"),
        pytest.param("fps:10", 29.97, [int(i * 2.997) for i in range(34)], id="fps-10-of-29.97"),
        pytest.param("fps:0.5", 25.0, [0, 50], id="fps-half"),
    ],
)
def test_sampler_by_rate(text: str, fps: float, expected: list[int]) -> None:
    sampler = Sampler.parse(text)
    assert sampler.first_frames(100, fps, window=16).tolist() == expected
    assert sampler.segments(100, fps) == len(expected)
    assert str(Sampler.parse(str(sampler))) == str(sampler)


@pytest.mark.parametrize(
    "text", ["unifrom:3", "uniform", "uniform:0", "uniform:2.5", "every:-1", "fps:1/0", "every:x", "windows:30:15"]
)
def test_sampler_refuses_nonsense(text: str) -> None:
    with pytest.raises(UsageError, match=r"Sampler|sampler"):
        Sampler.parse(text)


@pytest.mark.parametrize(
    ("frames", "starts"),
    [
        pytest.param(20, [0], id="shorter-than-a-window"),
        pytest.param(59, [0, 15], id="two"),
        pytest.param(330, [*range(0, 300, 15), 300], id="twenty-one-become-twenty"),
        pytest.param(1000, None, id="evenly-spaced"),
    ],
)
def test_windows_are_glkas_clips(frames: int, starts: list[int] | None) -> None:
    firsts = Sampler.parse("windows:30:15:20").first_frames(frames, 25.0, window=1).reshape(-1, 30)
    assert len(firsts) <= 20
    assert (firsts == np.minimum(firsts[:, :1] + np.arange(30), frames - 1)).all()
    assert (firsts[:, 0] % 15 == 0).all()
    if starts is not None and len(starts) <= 20:
        assert firsts[:, 0].tolist() == starts
    else:
        assert len(firsts) == 20
        assert firsts[0, 0] == 0
        assert frames - 30 - 15 < firsts[-1, 0] <= frames - 30
        assert np.diff(firsts[:, 0]).max() - np.diff(firsts[:, 0]).min() <= 15


def test_fps_needs_a_frame_rate() -> None:
    with pytest.raises(UsageError, match="states no frame rate"):
        Sampler.parse("fps:5").first_frames(100, 0.0, window=1)


def test_a_rate_so_low_that_it_cannot_be_true_is_refused() -> None:
    slides = Sampler.parse("fps:2")
    assert slides.segments(3, 0.1) == 60
    with pytest.raises(UsageError, match=r"states 1e-09 frames a second, .* use every:N or uniform:T"):
        slides.segments(1000, 1e-9)
