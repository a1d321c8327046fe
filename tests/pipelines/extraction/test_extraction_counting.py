"""Planning looks into files only through decoders: their watchdog, their limits, and packets instead of headers."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from testkit.commands import vidatt

from vidatt.extract.child import ChildBugError
from vidatt.extract.counting import count_segments
from vidatt.extract.decoder import MEMORY_BYTES, DecoderSettings
from vidatt.extract.sampling import Sampler
from vidatt.extract.segments import CountJob, VideoEnd, VideoJob, read_segments
from vidatt.extract.segments import count_segments as count_here
from vidatt.extract.video import VideoReader

FRAMES = 24


@pytest.fixture(scope="module")
def avi(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("avi") / "good.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(FRAMES):
            picture = np.full((48, 64, 3), 10 * level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def _stating(content: bytes, *, frames: int | None = None, rate: tuple[int, int] | None = None) -> bytes:
    """An AVI file whose headers say something else."""
    changed = bytearray(content)
    main, stream = content.index(b"avih") + 8, content.index(b"strh") + 8
    if frames is not None:
        changed[main + 16 : main + 20] = changed[stream + 32 : stream + 36] = struct.pack("<I", frames)
    if rate is not None:
        changed[stream + 20 : stream + 28] = struct.pack("<II", rate[1], rate[0])
    return bytes(changed)


def _counts(folder: Path, rule: str, settings: DecoderSettings | None = None) -> dict[str, int]:
    paths = sorted(folder.iterdir())
    jobs = [CountJob(path=path, sampler=Sampler.parse(rule)) for path in paths]
    found = count_segments(jobs, settings or DecoderSettings(), cores=2)
    assert found.dtype == np.int32
    return dict(zip((path.name for path in paths), found.tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["every:5", "fps:2", "windows:4:2:30"])
def test_packets_are_counted_whatever_the_header_says(tmp_path: Path, avi: bytes, rule: str) -> None:
    (tmp_path / "good.avi").write_bytes(avi)
    for count in (0xFFFFFFFF, 0x7FFFFFFF, 10**6, 1):
        (tmp_path / f"{count}.avi").write_bytes(_stating(avi, frames=count))
    assert set(_counts(tmp_path, rule).values()) == {Sampler.parse(rule).segments(FRAMES, 10.0)}


def test_an_absurd_count_takes_nothing_while_decoding(tmp_path: Path, avi: bytes) -> None:
    (tmp_path / "many.avi").write_bytes(_stating(avi, frames=0xFFFFFFFF))
    job = VideoJob(
        id="x", path=tmp_path / "many.avi", sampler=Sampler.parse("every:5"), window_frames=1, segments=5
    )  # fmt: skip
    messages: list[object] = []
    read_segments(job, (), messages.append)
    end = messages[-1]
    assert isinstance(end, VideoEnd)
    assert (end.report.decoded_frames, end.first_frames.tolist()) == (FRAMES, [0, 5, 10, 15, 20])
    assert end.report.outcome in ("ok", "truncated")  # older FFmpeg believes the header, which says more
    with VideoReader(tmp_path / "many.avi") as reader:
        assert reader.expected_frames(lambda: None) == FRAMES


@pytest.mark.slow
def test_what_cannot_be_counted_has_one_row(tmp_path: Path, avi: bytes) -> None:
    (tmp_path / "good.avi").write_bytes(avi)
    (tmp_path / "codec.avi").write_bytes(avi.replace(b"FMP4", b"ZZZZ"))
    (tmp_path / "text.avi").write_bytes(b"hello" * 100)
    (tmp_path / "empty.avi").touch()
    os.mkfifo(tmp_path / "pipe.avi")
    counts = _counts(tmp_path, "every:5")
    assert counts == {"good.avi": 5, "codec.avi": 1, "text.avi": 1, "empty.avi": 1, "pipe.avi": 1}


def test_an_absurd_rate_is_an_outcome(tmp_path: Path, avi: bytes) -> None:
    (tmp_path / "slow.avi").write_bytes(_stating(avi, rate=(1, 0x7FFFFFFF)))
    with VideoReader(tmp_path / "slow.avi") as reader:
        assert 0 <= reader.fps < 1e-6
    messages: list[object] = []
    count_here(CountJob(path=tmp_path / "slow.avi", sampler=Sampler.parse("fps:2")), messages.append)
    job = VideoJob(
        id="x", path=tmp_path / "slow.avi", sampler=Sampler.parse("fps:2"), window_frames=1, segments=5
    )  # fmt: skip
    read_segments(job, (), messages.append)
    for end in messages:
        assert isinstance(end, VideoEnd)
        assert end.report.outcome == "unreadable"
        assert "fps:2" in end.report.detail
    assert _counts(tmp_path, "fps:2") == {"slow.avi": 1}


@pytest.mark.slow
def test_a_stretch_is_counted_within_the_file(tmp_path: Path, avi: bytes) -> None:
    (tmp_path / "good.avi").write_bytes(avi)
    stretches = [(None, None), (0.5, 1.5), (2.0, 1e300), (50.0, 60.0)]
    jobs = [
        CountJob(path=tmp_path / "good.avi", sampler=Sampler.parse("every:1"), start_seconds=a, stop_seconds=b)
        for a, b in stretches
    ]
    assert count_segments(jobs, DecoderSettings(), cores=1).tolist() == [24, 11, 5, 1]


def test_each_file_is_opened_once(tmp_path: Path, avi: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.avi").write_bytes(avi)
    opened: list[str] = []
    right = av.open
    monkeypatch.setattr("av.open", lambda file, **how: opened.append(file) or right(file, **how))
    messages: list[object] = []
    count_here(CountJob(path=tmp_path / "good.avi", sampler=Sampler.parse("fps:2")), messages.append)
    assert opened == [f"file:{tmp_path / 'good.avi'}"]


def test_a_bug_while_counting_is_raised(tmp_path: Path) -> None:
    job = CountJob(path=None, sampler=Sampler.parse("every:1"))  # type: ignore[arg-type]
    with pytest.raises(ChildBugError, match="TypeError"):
        count_segments([job] * 3, DecoderSettings(), cores=1)


IN_THE_DECODER = (
    "import sys, os, signal, time\nif 'vidatt.extract.decoder:serve' in sys.orig_argv:\n    import av\n"
    "    right = av.open\n    av.open = lambda file, **how: right(file, **how) if 'bad' not in file else {}\n"
)


@pytest.fixture
def folder(tmp_path: Path, avi: bytes) -> Path:
    (tmp_path / "videos").mkdir()
    for name in ("bad.avi", "good0.avi", "good1.avi"):
        (tmp_path / "videos" / name).write_bytes(avi)
    return tmp_path / "videos"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("instead", "outcome"),
    [
        pytest.param("os.kill(os.getpid(), signal.SIGSEGV)", "decoder_crash", id="crash"),
        pytest.param("time.sleep(1000)", "decoder_hang", id="hang"),
        pytest.param("bytearray(10**10)", "out_of_memory", id="memory"),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", "decoder_crash", id="killed"),
    ],
)
@pytest.mark.long
def test_dry_run_and_run_obey_the_limits_while_planning(
    folder: Path, tmp_path: Path, instead: str, outcome: str
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(IN_THE_DECODER.format(instead))
    path = os.pathsep.join(p for p in (str(tmp_path / "broken"), os.environ.get("PYTHONPATH", "")) if p)
    arguments = (
        "extract", "--dataset", "folder", "--videos", folder, "--option", "unlabelled=true", "--store",
        tmp_path / "s.zarr", "--streams", "rgb", "--backbone", "hog", "--sampler", "every:4", "--workers", "1",
        "--device", "cpu", "--decode-timeout", "3", "--decode-memory", "1", "--json",
    )  # fmt: skip
    env = {**os.environ, "PYTHONPATH": path}
    planned = vidatt(*arguments, "--dry-run", env=env, timeout=60)
    assert planned.returncode == 0, planned.stderr
    found = json.loads(planned.stdout)
    assert (found["segments"], found["sampled_videos"]) == (13, 3)
    assert (found["decode_timeout_seconds"], found["decode_memory_bytes"]) == (3.0, 10**9)
    assert not (tmp_path / "s.zarr").exists()
    done = json.loads(vidatt(*arguments, env=env, timeout=60).stdout)
    assert done["outcomes"] == {outcome: 1, "ok": 2}
    assert done["streams"]["rgb"]["segments"] == 12


@pytest.mark.slow
def test_dry_run_prints_the_limit_and_zero_takes_it_away(folder: Path, tmp_path: Path) -> None:
    arguments = (
        "extract", "--dry-run", "--dataset", "folder", "--videos", folder, "--option", "unlabelled=true", "--store",
        tmp_path / "s.zarr", "--streams", "rgb", "--backbone", "hog", "--workers", "1", "--device", "cpu",
    )  # fmt: skip
    assert MEMORY_BYTES == 2e9, "the help of --decode-memory says 2"
    assert "a decoder is stopped after 60 s without a sign of life, and may take 2.0 GB" in vidatt(*arguments).stdout
    assert "and may take any memory" in vidatt(*arguments, "--decode-memory", 0).stdout
