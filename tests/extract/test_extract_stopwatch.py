"""Seconds by part of a video's decoding: all parts are there, and nobody is charged for waiting."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from vidatt.extract.datasets.generator import generate
from vidatt.extract.decoder import Decoder, DecoderSettings, start_child
from vidatt.extract.sampling import Sampler
from vidatt.extract.segments import Counted, CountJob, VideoEnd, VideoJob, read_segments
from vidatt.extract.stopwatch import Stopwatch
from vidatt.extract.streams import StreamConfig


def test_waiting_for_others_is_nobodys_time() -> None:
    watch = Stopwatch()
    emit = watch.outside(time.sleep)
    emit(0.2)
    watch.lap("a")
    time.sleep(0.05)
    watch.lap("b")
    watch.lap("a")
    assert watch.seconds["a"] < 0.1
    assert 0.05 <= watch.seconds["b"] < 0.2


@pytest.mark.slow
def test_a_video_tells_its_seconds_by_part(tmp_path: Path) -> None:
    catalogue = generate(tmp_path / "v", videos=12, shapes=2, motions=2, frames=14, width=64, height=64, n_jobs=1)
    path = tmp_path / "v" / catalogue.videos[0].path
    streams = tuple(
        StreamConfig(name=name, backbone=backbone, resize="short:64", crop_px=56, flow_preset="fast").setup("cpu").input
        for name, backbone in (("rgb", "hog"), ("flow", "hof"))
    )
    job = VideoJob(id="v", path=path, sampler=Sampler.parse("uniform:2"), window_frames=11, segments=2)
    messages: list[object] = []
    read_segments(job, streams, messages.append)
    end = next(message for message in messages if isinstance(message, VideoEnd))
    assert set(end.report.spent) == {"decode", "inputs", "flow"}
    assert all(seconds > 0 for seconds in end.report.spent.values())


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_a_child_that_was_started_ahead_is_used_or_replaced(tmp_path: Path, killed: bool) -> None:
    catalogue = generate(tmp_path / "v", videos=12, shapes=2, motions=2, frames=14, width=64, height=64, n_jobs=1)
    child = start_child()
    pid = child.process.pid
    if killed:
        child.process.kill()
        child.process.wait()
    decoder = Decoder((), DecoderSettings(), ahead=child)
    try:
        job = CountJob(path=tmp_path / "v" / catalogue.videos[0].path, sampler=Sampler.parse("every:7"))
        decoder.submit(job)
        (told,) = decoder.messages()
        assert told == Counted(2)
        assert (decoder.pid == pid) != killed
    finally:
        decoder.close()
    assert child.process.poll() is not None


@pytest.mark.slow
def test_a_child_that_was_started_ahead_ends_with_its_decoder() -> None:
    child = start_child()
    Decoder((), DecoderSettings(), ahead=child).close()
    assert child.process.poll() is not None
