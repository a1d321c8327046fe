"""A scene: which maps there are, which segment a frame belongs to, which segments are shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidatt.pipelines.pictures.scene import MEAN, Interval, Scene, Times, shown_segments
from vidatt.pipelines.pictures.sheet import SheetSettings, rows_of
from vidatt.pipelines.runs.attention import VideoAttention

SQUARE = np.array([0.125, 0.0, 0.875, 1.0])


def scene(streams: tuple[str, ...] = ("rgb", "flow"), *, T: int = 5, kinds: tuple[str, ...] = ()) -> Scene:
    random = np.random.default_rng(0)
    shape = (T, len(streams), 3, 3)
    weights = np.arange(1, T + 1, dtype=np.float32)
    seen = VideoAttention(
        position=0, id="a/b.mp4", probabilities=np.array([0.3, 0.7], np.float32), temporal=weights / weights.sum(),
        temporal_raw=None, spatial=random.random(shape, np.float32),
        kinds={kind: random.random(shape, np.float32) for kind in kinds},
    )  # fmt: skip
    starts = np.arange(T) * 0.4 + 0.2
    return Scene(
        attention=seen, classes=("run", "jump"), truth=("jump",), streams=streams, path="a/b.mp4", sha256="",
        frames=np.arange(T) * 4 + 2, size=(160, 120), fps=10.0, regions=np.tile(SQUARE, (len(streams), 1)),
        times=Times(bounds=np.stack([starts, starts + 0.4], 1), centres=starts, unit="s"), boxes={},
        intervals=(Interval(start=0.5, stop=1.0, name="jump"),), span=(None, None),
    )  # fmt: skip


def test_maps_are_the_mean_each_stream_and_each_kind() -> None:
    one = scene(kinds=("sa", "la"))
    assert list(one.maps) == [MEAN, "rgb", "flow", "sa", "la"]
    spatial = one.attention.spatial
    assert spatial is not None
    assert np.allclose(one.maps[MEAN].cells, spatial.mean(1))
    assert np.array_equal(one.maps["flow"].cells, spatial[:, 1])
    assert np.allclose(one.maps["sa"].cells, one.attention.kinds["sa"].mean(1))
    assert list(scene(("rgb",)).maps) == ["rgb"]
    assert list(scene(("rgb",), kinds=("la",)).maps) == ["rgb"]  # one kind is the map itself
    assert rows_of(one, ()) == ["frame", MEAN, "rgb", "flow", "sa", "la"]
    assert rows_of(one, ("time", "flow")) == ["time", "flow"]


def test_streams_that_show_different_parts_have_no_mean() -> None:
    one = replace(scene(), regions=np.array([SQUARE, [0.0, 0.0, 1.0, 1.0]]))
    assert list(one.maps) == ["rgb", "flow"]
    assert one.maps["flow"].region.tolist() == [0, 0, 1, 1]
    unknown = replace(scene(), regions=None)
    assert list(unknown.maps) == [MEAN, "rgb", "flow"]


def test_a_frame_belongs_to_the_segment_in_whose_time_it_lies() -> None:
    one = scene()
    assert [one.segment_of(0, t) for t in (0.0, 0.19, 0.2, 0.5999, 0.6, 1.9, 9.0)] == [None, None, 0, 0, 1, 4, 4]
    untimed = replace(one, times=Times(bounds=one.times.bounds, centres=one.times.centres, unit="segments"))
    assert [untimed.segment_of(frame, np.nan) for frame in (0, 5, 9, 99)] == [0, 1, 2, 4]


def test_shown_segments_are_spread_and_hold_the_peak() -> None:
    weights = np.full(100, 0.01)
    weights[37] = 0.5
    assert shown_segments(weights, 5) == [0, 37, 50, 74, 99]
    assert shown_segments(weights[:3], 8) == [0, 1, 2]
    assert shown_segments(weights, 3, np.arange(60, 90)) == [60, 74, 89]
    assert shown_segments(weights, 3, np.arange(0)) == []
    assert 37 in shown_segments(weights, 1)


def test_what_is_said_and_whether_it_is_right() -> None:
    assert scene().said(5) == [("jump", pytest.approx(0.7)), ("run", pytest.approx(0.3))]
    assert scene().right
    assert not replace(scene(), truth=("run",)).right


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"style": "heet"}, r"Unknown style 'heet'\. Did you mean"),
        ({"frames": 0}, r"--frames 0: must be 1 to 40"),
        ({"rows": ("rgb", "rgb")}, r"--rows rgb,rgb: names a row twice"),
        ({"seconds": (3.0, 3.0)}, r"--seconds 3:3: must begin at 0 or later and end after that"),
        ({"seconds": (float("nan"), 3.0)}, r"--seconds nan:3: must begin"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SheetSettings(**given)  # type: ignore[arg-type]


def test_a_row_that_there_is_not_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Unknown row of the picture 'rbg'\. Did you mean 'rgb'\?"):
        rows_of(scene(), ("rbg",))
