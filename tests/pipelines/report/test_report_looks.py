"""The videos of a report: which are shown, that frames and weights are theirs, what is said when they are gone."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from testkit.commands import vidatt

from vidatt.cache.store import Store
from vidatt.pipelines.report.chapter import Chapter, LookConfig, read_chapter
from vidatt.pipelines.report.looks import MEAN_OF_STREAMS, SIDE_PX, Look, _summary, choose
from vidatt.pipelines.report.scored import read_scored
from vidatt.pipelines.runs.attention import attention
from vidatt.pipelines.runs.run import Run

Made = tuple[Path, dict[str, Any]]


def chapter(made: Made, head: str = "stan", videos: Path | None = None, each: int = 2) -> Chapter:
    folder = made[0].parent
    run = Run.open(folder / "runs" / head)
    look = LookConfig(videos=videos, each=each, seed=0, device="cpu")
    store = Store.open(folder / "s.zarr")
    return read_chapter(run, key="k", name="n", split="1", part="test", store=store, missing="", look=look)


def picture(uri: str, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), flags)


@pytest.mark.long
@pytest.mark.slow
def test_frames_are_those_of_the_segments(made: Made) -> None:
    folder = made[0].parent
    store = Store.open(folder / "s.zarr")
    reader = store.stream("rgb").reader()
    looks = chapter(made, videos=folder / "videos").looks.videos
    assert looks
    for look in looks[:3]:
        position = store.index.position(look.id)
        capture = cv2.VideoCapture(str(folder / "videos" / str(store.index.paths[position])))
        decoded = []
        while (step := capture.read())[0]:
            decoded.append(step[1])
        H, W, _ = decoded[0].shape
        side = H / W  # the part of the width that the square crop shows
        for frame in look.frames:
            index = int(reader.frames(position)[frame.segment, 1])
            whole = decoded[index]
            crop = whole[:, round(W * (1 - side) / 2) : round(W * (1 + side) / 2)]
            wanted = cv2.resize(crop, (SIDE_PX, SIDE_PX)).astype(float)
            assert np.abs(picture(str(frame.uri)).astype(float) - wanted).mean() < 12
            assert frame.seconds == pytest.approx(reader.seconds(position)[frame.segment])


@pytest.mark.slow
def test_weights_maps_and_boxes_are_the_heads_and_the_stores(made: Made) -> None:
    folder = made[0].parent
    store = Store.open(folder / "s.zarr")
    for look in chapter(made).looks.videos:
        position = store.index.position(look.id)
        (seen,) = attention(folder / "runs" / "stan", videos=[position], device="cpu")
        assert seen.spatial is not None
        assert max(frame.weight for frame in look.frames) == pytest.approx(float(seen.temporal.max()), abs=1e-5)
        for frame in look.frames:
            assert frame.weight == pytest.approx(float(seen.temporal[frame.segment]), abs=1e-5)
            assert [heat.stream for heat in frame.heats] == [MEAN_OF_STREAMS, "rgb", "clip"]
            for heat, cells in zip(frame.heats[1:], seen.spatial[frame.segment], strict=True):
                drawn = picture(heat.uri, cv2.IMREAD_UNCHANGED)
                assert drawn.shape == (*cells.shape, 4)
                opacity = 255 * (0.5 + 0.3 * cells.astype(float) / cells.max())
                assert np.abs(drawn[..., 3] - opacity).max() <= 0.51
        assert {truth.name for truth in look.strip.truths} == {look.truth[0]}
        start, stop = store.index.interval_seconds[store.index.interval_video == position][0]
        (truth,) = look.strip.truths
        assert truth.left * look.strip.end / 100 == pytest.approx(start)
        assert truth.width * look.strip.end / 100 == pytest.approx(stop - start)


@pytest.mark.slow
def test_without_the_videos_the_maps_stand_alone_and_it_is_said(made: Made, tmp_path: Path) -> None:
    run = made[0].parent / "runs" / "stan"
    page = tmp_path / "r.html"
    done = vidatt("report", run, "--out", page, "--device", "cpu", "--json", "-qq")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["frames"] == 0 < result["videos"]
    assert any("give --videos" in note for note in result["notes"])
    text = page.read_text()
    assert "data:image/jpeg" not in text
    assert "picture bare" in text
    assert text.count('class="heat"') > 0


@pytest.mark.slow
def test_a_video_that_is_gone_or_damaged_is_named_and_the_others_are_drawn(made: Made, tmp_path: Path) -> None:
    folder = made[0].parent
    videos = Path(shutil.copytree(folder / "videos", tmp_path / "videos"))
    shown = chapter(made, videos=videos).looks.videos
    gone, damaged = videos / shown[0].id, videos / shown[1].id
    gone.unlink()
    damaged.write_bytes(b"no video")
    looks = chapter(made, videos=videos).looks
    assert any(str(gone) in note and "is not there" in note for note in looks.notes)
    assert any(str(damaged) in note and "cannot be read" in note for note in looks.notes)
    assert [frames_of(look) > 0 for look in looks.videos] == [False, False, *[True] * (len(shown) - 2)]


def frames_of(look: Look) -> int:
    return sum(frame.uri is not None for frame in look.frames)


@pytest.mark.slow
def test_each_video_is_shown_for_one_reason(made: Made) -> None:
    run = Run.open(made[0].parent / "runs" / "stan")
    scored = read_scored(run, "1", "test")
    assert scored is not None
    chosen = choose(scored, 3, seed=0)
    rows = [row for kind in chosen.values() for row in kind]
    assert len(rows) == len(set(rows)) > 3
    assert all(scored.right[row] for row in chosen["best"])
    assert not any(scored.right[row] for row in chosen["worst"])
    margins = scored.margins
    assert all(margins[row] <= margins[chosen["best"][0]] for row in np.flatnonzero(scored.right))
    assert choose(scored, 0, seed=0) == {"best": [], "worst": [], "random": []}


@pytest.mark.slow
def test_what_detect_measured_is_kept_in_the_run(made: Made) -> None:
    run = made[0].parent / "runs" / "stan"
    kept = json.loads((run / "detections-1-test-stan.json").read_text())
    done = vidatt("detect", run, "--set", "score_threshold=0.3", "--device", "cpu", "--json", "-qq")
    said = json.loads(done.stdout)
    assert {**said, "out": ""} == {**kept, "out": ""}
    (shown,) = chapter(made, each=0).detections
    assert shown.measures is not None
    assert shown.measures["thumos14"].to_dict() == said["measures"]["thumos14"]


def test_the_strip_is_told_in_words() -> None:
    weights = np.array([0.1, 0.6, 0.2, 0.1])
    bounds = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])
    told = _summary(weights, bounds, "s", np.array([[1.0, 2.5], [1.5, 2.0]]))
    assert told == (
        "largest weight 0.60 of 4 segments, at 1.0 to 2.0 s; 70% of the weight lies in the true intervals, which are "
        "38% of the time"
    )
    assert _summary(np.full(4, 0.25), bounds, "s", np.empty((0, 2))) == "all 4 segments weigh the same"
    assert not re.search("true", _summary(weights, bounds, "segments", np.empty((0, 2))))
