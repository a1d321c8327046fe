"""Decoding of real files: counts, exact frames, rotation, and a typed outcome for everything that is broken."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vidatt.extract.decoder import Decoder, DecoderSettings
from vidatt.extract.kinds import CLIP, RGB
from vidatt.extract.sampling import Sampler
from vidatt.extract.segments import Message, VideoEnd, VideoJob, VideoStart, read_segments
from vidatt.extract.video import VideoProblemError, VideoReader, presentation_seconds
from vidatt.extract.views import Geometry, Views
from vidatt.extract.windows import Chunk, StreamInput

SQUARE = Geometry(resize="none", crop_px=48)
RAW = StreamInput(name="rgb", kind=RGB, geometry=SQUARE, views=Views.parse("center"))


def _job(path: Path, rule: str = "centre:10", **more: float) -> VideoJob:
    sampler = Sampler.parse(rule)
    return VideoJob(
        id=path.name, path=path, sampler=sampler, window_frames=1, segments=sampler.fixed_segments or 10_000, **more
    )


def _read(job: VideoJob, stream: StreamInput = RAW) -> tuple[np.ndarray, VideoEnd, list[Message]]:
    """All inputs of a video as the decoder finally means them."""
    messages: list[Message] = []
    read_segments(job, (stream,), messages.append)
    end = messages[-1]
    assert isinstance(end, VideoEnd)
    last = max((i for i, m in enumerate(messages) if isinstance(m, VideoStart)), default=-1)
    chunks = [m for m in messages[last + 1 :] if isinstance(m, Chunk)]
    inputs = np.concatenate([c.inputs for c in chunks]) if chunks else np.empty((0, 1, 48, 48, 3), np.uint8)
    if chunks:
        inputs = inputs[np.argsort(np.concatenate([c.segments for c in chunks]))]
    return inputs, end, messages


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real h264 file of 60 frames whose brightness says which frame it is."""
    path = tmp_path_factory.mktemp("video") / "counting.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"crf": "1"}
        for i in range(60):
            picture = np.full((48, 64, 3), 4 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_frames_come_in_order_and_exactly(clip: Path) -> None:
    with VideoReader(clip) as reader:
        levels = [frame.rgb().mean() for frame in reader.frames()]
    assert np.allclose(levels, 4 * np.arange(60), atol=2)


def test_segments_are_the_frames_that_the_time_map_names(clip: Path) -> None:
    inputs, end, _ = _read(_job(clip))
    assert end.first_frames.tolist() == [3 + 6 * t for t in range(10)]
    assert np.allclose(inputs.mean(axis=(1, 2, 3, 4)), 4 * end.first_frames, atol=2)
    assert np.allclose(end.seconds[end.first_frames], end.first_frames / 30)


def test_windows_are_clamped_at_the_last_frame(clip: Path) -> None:
    stream = StreamInput(name="clip", kind=CLIP, geometry=SQUARE, views=Views.parse("center"))
    inputs, end, _ = _read(_job(clip, "every:25"), stream)
    expected = np.minimum(end.first_frames[:, None] + np.arange(16), 59)
    assert end.first_frames.tolist() == [0, 25, 50]
    assert np.allclose(inputs[:, 0].mean(axis=(2, 3, 4)), 4 * expected, atol=2)


def test_a_stretch_of_a_file_is_a_video_of_its_own(clip: Path) -> None:
    inputs, end, _ = _read(_job(clip, "centre:5", start_seconds=0.5, stop_seconds=1.0))
    assert end.first_frames.tolist() == [16, 19, 22, 25, 28]
    assert end.last_frame == 29
    assert np.allclose(inputs.mean(axis=(1, 2, 3, 4)), 4 * end.first_frames, atol=2)
    _, end, _ = _read(_job(clip, start_seconds=5.0, stop_seconds=6.0))
    assert end.report.outcome == "too_short"
    assert "2.0" in end.report.detail or "1.97" in end.report.detail


COUNTS = [
    # file below videos/, decoded, stated (header, else packets), outcome
    ("ucf101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", 164, 164, "ok"),
    ("clips/mmaction2__demo.mp4", 280, 280, "ok"),
    ("clips/decord__flipping_a_pancake.mkv", 310, 310, "ok"),
    ("clips/torchcodec__nasa_13013.mp4", 325, 325, "ok"),
    ("odd/decord__corrupted.mp4", 28, 50, "truncated"),
    ("odd/decord__unordered.mov", 4, 4, "ok"),
    ("odd/decord__video_0.mov", 3, 3, "ok"),
    ("odd/decord__video_180.mov", 3, 3, "ok"),
    ("odd/decord__video_90.mov", 3, 3, "ok"),
    ("odd/derived__v_ApplyEyeMakeup_g01_c01.truncated.avi", 93, 164, "truncated"),
    ("odd/moviepy__bitmap.mp4", 5, 5, "ok"),
    ("odd/moviepy__clip1024.flv", 174, 174, "ok"),
    ("odd/moviepy__no_duration.webm", 74, 74, "ok"),
    ("odd/moviepy__result_empty.webm", 0, 0, "unreadable"),
    ("odd/moviepy__transparent.webm", 150, 150, "ok"),
    ("odd/torchcodec__bt601_full_range.mp4", 60, 60, "ok"),
    ("odd/torchcodec__h265_video.mp4", 10, 10, "ok"),
    ("odd/torchcodec__nasa_13013.audio.mp3", 0, 0, "no_video_stream"),
    ("odd/torchcodec__test_non_zero_start.mp4", 12, 12, "ok"),
    ("odd/torchcodec__testsrc2_odd_height_and_width_444.mp4", 25, 25, "ok"),
    ("odd/torchcodec__testsrc2_vp9.webm", 30, 30, "ok"),
    ("odd/torchcodec__var_fps_video.mp4", 300, 300, "ok"),
    ("odd/there_is_no_such_file.mp4", 0, 0, "missing"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "decoded", "stated", "outcome"), COUNTS, ids=[c[0].split("/")[-1] for c in COUNTS])
def test_real_files_have_their_outcome(shared_data: Path, name: str, decoded: int, stated: int, outcome: str) -> None:
    inputs, end, _ = _read(_job(shared_data / "videos" / name))
    report = end.report
    assert (report.outcome, report.decoded_frames, report.header_frames) == (outcome, decoded, stated)
    assert len(inputs) == (10 if decoded else 0)
    assert bool(report.detail) == (outcome != "ok")


def test_every_odd_file_is_in_the_table(shared_data: Path) -> None:
    on_disk = {f"odd/{p.name}" for p in (shared_data / "videos" / "odd").iterdir()}
    assert on_disk <= {name for name, *_ in COUNTS}


@pytest.mark.parametrize("name", ["decord__video_0.mov", "decord__video_90.mov", "decord__video_180.mov"])
def test_rotation_is_applied_as_opencv_applies_it(shared_data: Path, name: str) -> None:
    path = shared_data / "videos" / "odd" / name
    ok, reference = cv2.VideoCapture(str(path)).read()
    assert ok
    with VideoReader(path) as reader:
        frame = next(reader.frames()).rgb()
    assert np.array_equal(frame, reference[..., ::-1])


def test_xvid_with_packed_b_frames_decodes_as_opencv_decodes_it(shared_data: Path) -> None:
    path = shared_data / "videos" / "ucf101" / "ApplyEyeMakeup" / "v_ApplyEyeMakeup_g01_c01.avi"
    capture = cv2.VideoCapture(str(path))
    with VideoReader(path) as reader:
        for frame in reader.frames():
            ok, reference = capture.read()
            assert ok
            assert np.array_equal(frame.rgb(), reference[..., ::-1]), frame.index
    assert not capture.read()[0]


def test_avi_times_follow_the_rate_because_its_timestamps_are_guesses(shared_data: Path) -> None:
    path = shared_data / "videos" / "ucf101" / "ApplyEyeMakeup" / "v_ApplyEyeMakeup_g01_c01.avi"
    _, end, _ = _read(_job(path))
    assert np.allclose(end.seconds, np.arange(164) / 25)


def test_variable_frame_rate_keeps_the_containers_times(shared_data: Path) -> None:
    _, end, _ = _read(_job(shared_data / "videos" / "odd" / "torchcodec__var_fps_video.mp4"))
    steps = np.diff(end.seconds)
    assert steps.min() > 0.03
    assert steps.max() > 0.5


def test_times_start_at_zero_and_unknown_rates_are_nan() -> None:
    assert presentation_seconds([8.0, 8.5, 9.5], 30.0).tolist() == [0.0, 0.5, 1.5]
    assert np.isnan(presentation_seconds([None, None], 0.0)).all()


def test_a_wrong_count_restarts_the_segments_with_the_true_one(shared_data: Path) -> None:
    path = shared_data / "videos" / "odd" / "derived__v_ApplyEyeMakeup_g01_c01.truncated.avi"
    inputs, end, messages = _read(_job(path))
    assert sum(isinstance(m, VideoStart) for m in messages) == 2
    assert end.first_frames.tolist() == Sampler.parse("centre:10").first_frames(93, 25.0, window=1).tolist()
    with VideoReader(path) as reader:
        frames = [f.rgb()[96:144, 136:184] for f in reader.frames()]
    assert np.array_equal(inputs[:, 0], np.stack([frames[i] for i in end.first_frames]))


def test_a_folder_is_not_a_video(tmp_path: Path) -> None:
    with pytest.raises(VideoProblemError, match="folder"):
        VideoReader(tmp_path)


def _end(decoder: Decoder, path: Path) -> VideoEnd:
    decoder.submit(_job(path))
    *_, end = decoder.messages()
    assert isinstance(end, VideoEnd)
    return end


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    one = Decoder((RAW,), DecoderSettings())
    yield one
    one.close()


def _signal(decoder: Decoder, number: signal.Signals) -> None:
    assert decoder.pid is not None
    os.kill(decoder.pid, number)


@pytest.mark.slow
def test_decoder_that_hangs_costs_one_video(clip: Path) -> None:
    decoder = Decoder((RAW,), DecoderSettings(timeout_seconds=3.0))
    try:
        decoder.submit(_job(clip))
        _signal(decoder, signal.SIGSTOP)
        (end,) = decoder.messages()
        assert isinstance(end, VideoEnd)
        assert end.report.outcome == "decoder_hang"
        assert "3 s" in end.report.detail
        assert _end(decoder, clip).report.outcome == "ok"
    finally:
        decoder.close()


@pytest.mark.slow
def test_decoder_that_dies_costs_one_video(decoder: Decoder, clip: Path) -> None:
    decoder.submit(_job(clip))
    _signal(decoder, signal.SIGSEGV)
    (end,) = decoder.messages()
    assert isinstance(end, VideoEnd)
    assert end.report.outcome == "decoder_crash"
    assert end.report.detail == "the decoder process was killed by signal SIGSEGV"
    assert _end(decoder, clip).report.outcome == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 2])
def test_a_decoder_killed_from_outside_reads_its_video_again(decoder: Decoder, clip: Path, kills: int) -> None:
    expected, _, _ = _read(_job(clip))
    decoder.submit(_job(clip))
    killed = set()
    messages = decoder.messages()
    for _ in range(kills):
        if killed:
            message = next(messages)  # the pass of the one before
            assert isinstance(message, VideoStart)
        killed.add(decoder.pid)
        _signal(decoder, signal.SIGKILL)
    found = list(messages)
    end = found[-1]
    assert isinstance(end, VideoEnd)
    assert end.report.outcome == "ok"
    assert decoder.pid not in killed
    last = max(i for i, m in enumerate(found) if isinstance(m, VideoStart))
    chunks = [m for m in found[last:] if isinstance(m, Chunk)]
    assert np.array_equal(np.concatenate([c.inputs for c in chunks]), expected)


def test_a_decoder_that_is_killed_each_time_is_a_crash(decoder: Decoder, clip: Path) -> None:
    decoder.submit(_job(clip))
    stop = threading.Event()

    def kill_all() -> None:
        while not stop.is_set():
            if decoder.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(decoder.pid, signal.SIGKILL)
            time.sleep(0.02)

    killer = threading.Thread(target=kill_all)
    killer.start()
    end = list(decoder.messages())[-1]
    stop.set()
    killer.join()
    assert isinstance(end, VideoEnd)
    assert end.report.outcome == "decoder_crash"
    assert end.report.detail == "the decoder process was killed by signal SIGKILL, 3 times"


def test_an_interrupted_decoder_does_not_begin_again(decoder: Decoder, clip: Path) -> None:
    decoder.submit(_job(clip))
    decoder.interrupt()
    (end,) = decoder.messages()
    assert isinstance(end, VideoEnd)
    assert end.report.outcome == "decoder_crash"
    assert decoder.pid is None


@pytest.mark.slow
def test_decoder_that_died_between_videos_is_replaced(clip: Path) -> None:
    decoder = Decoder((RAW,), DecoderSettings())
    try:
        for _ in range(2):
            decoder.submit(_job(clip))
            *_, end = decoder.messages()
            assert isinstance(end, VideoEnd)
            assert end.report.outcome == "ok"
            pid = decoder.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
    finally:
        decoder.close()


@pytest.mark.slow
def test_decoder_out_of_memory_is_an_outcome(tmp_path: Path, clip: Path) -> None:
    big = tmp_path / "big.mp4"
    with av.open(str(big), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 4096, 4096, "yuv420p"
        for i in range(3):
            picture = np.full((4096, 4096, 3), i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    # found by trial, as a user would: a small video fits, three 4096 x 4096 pictures do not
    outcomes = {}
    for limit in (50, 70, 100, 150):
        decoder = Decoder((RAW,), DecoderSettings(memory_bytes=limit << 20))
        try:
            for path in (clip, big):
                decoder.submit(_job(path))
                *_, end = decoder.messages()
                assert isinstance(end, VideoEnd)
                outcomes[limit, path.name] = end.report.outcome
        finally:
            decoder.close()
    good = [limit for limit, name in outcomes if name == clip.name and outcomes[limit, name] == "ok"]
    assert any(outcomes[limit, "big.mp4"] == "out_of_memory" for limit in good), outcomes
