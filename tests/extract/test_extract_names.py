"""A name is a file of the video folder: never an address, never a list of other files, never a pipe."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
import pytest
from testkit.commands import vidatt

from vidatt.cache.store import Store
from vidatt.extract.sampling import Sampler
from vidatt.extract.segments import Counted, CountJob, Message, VideoEnd, count_segments
from vidatt.extract.video import VideoProblemError, VideoReader


def make_video(path: Path, frames: int = 12, *, form: str = "mp4") -> Path:
    with av.open(f"file:{path}", "w", format=form) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(frames):
            picture = np.full((48, 64, 3), 10 * level % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_video(tmp_path_factory.mktemp("content") / "a.mp4").read_bytes()


def _problem(path: Path) -> VideoProblemError:
    with pytest.raises(VideoProblemError) as caught, VideoReader(path) as reader:
        list(reader.frames())
    assert "\n" not in caught.value.detail
    messages: list[Message] = []
    count_segments(CountJob(path=path, sampler=Sampler.parse("every:2")), messages.append)
    (end,) = messages
    assert isinstance(end, VideoEnd)
    assert end.report.outcome == caught.value.outcome
    return caught.value


ODD = [
    "-i.mp4", "%03d.mp4", "a:b.mp4", "what?.mp4", "a#b.mp4", "two\nlines.mp4", "http:", "concat:a.mp4|b.mp4",
    "file:a.mp4", "pipe:0", "data:video", " .mp4", "'.mp4", "\u00e9\u4e2d.mp4", "a.txt",
    "caf\udce9.mp4", "x" * 251 + ".mp4",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD, ids=[quote(n, errors="surrogateescape")[:20] for n in ODD])
def test_any_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, Path(name)):
        with VideoReader(path) as reader:
            assert sum(1 for _ in reader.frames()) == 12
        messages: list[Message] = []
        count_segments(CountJob(path=path, sampler=Sampler.parse("every:5")), messages.append)
        assert messages == [Counted(3)]


PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile good.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ngood.mp4\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "dash": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'></MPD>",
    "text": "hello\n" * 100,
    "nothing": "",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("ending", [".mp4", ".m3u8", ".ffconcat", ".sdp", ".jpg"])
def test_a_list_of_other_files_is_no_video(tmp_path: Path, content: bytes, kind: str, ending: str) -> None:
    (tmp_path / "good.mp4").write_bytes(content)
    path = tmp_path / f"list{ending}"
    path.write_text(PLAYLISTS[kind])
    assert _problem(path).outcome == "unreadable"


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    os.symlink("/dev/zero", tmp_path / "device.mp4")
    os.symlink("loop.mp4", tmp_path / "loop.mp4")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket.mp4"))
    said = {
        "pipe.mp4": "is a pipe, not a video file",
        "folder.mp4": "is a folder, not a video file",
        "device.mp4": "is a device, not a video file",
        "socket.mp4": "is a socket, not a video file",
        "loop.mp4": "levels of symbolic links",
        "x" * 300 + ".mp4": "File name too long",
        "nul\0.mp4": "embedded null",
    }
    for name, detail in said.items():
        problem = _problem(tmp_path / name)
        assert (problem.outcome, detail in problem.detail) == ("unreadable", True), problem.detail
    for name in ("gone.mp4", "two\nlines.mp4"):
        assert _problem(tmp_path / name).outcome == "missing"


class _Server(HTTPServer):
    asked = 0


class _Counting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # the name that the base class wants
        assert isinstance(self.server, _Server)
        self.server.asked += 1
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Counting) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.mark.slow
def test_no_name_in_a_list_reaches_the_network(tmp_path: Path, content: bytes, server: _Server) -> None:
    address = f"127.0.0.1:{server.server_address[1]}"
    (tmp_path / "good.mp4").write_bytes(content)
    (tmp_path / "list.mp4").write_text(PLAYLISTS["hls"].replace("good.mp4", f"http://{address}/x.ts"))
    os.mkfifo(tmp_path / "pipe.mp4")
    names = ["good.mp4", "list.mp4", "pipe.mp4", f"http:/{address}/x.mp4", "concat:good.mp4|good.mp4",
             f"tcp:/{address}", "async:http:x", "x" * 300 + ".mp4"]  # fmt: skip
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f'"{name}",a\n' for name in names))
    arguments = (
        "extract", "--dataset", "list", "--annotations", tmp_path / "list.csv", "--videos", tmp_path, "--store",
        tmp_path / "s.zarr", "--streams", "rgb", "--backbone", "hog", "--sampler", "every:5", "--workers", "1",
        "--device", "cpu", "--json",
    )  # fmt: skip
    planned = vidatt(*arguments, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["segments"] == 3 + len(names) - 1
    done = vidatt(*arguments)
    assert json.loads(done.stdout)["outcomes"] == {"missing": 4, "ok": 1, "unreadable": 3}, done.stderr
    assert "Traceback" not in done.stderr
    assert server.asked == 0
    store = Store.open(tmp_path / "s.zarr")
    assert [o.id for o in store.stream("rgb").outcomes() if o.outcome == "ok"] == ["good.mp4"]


@pytest.mark.slow
def test_a_folder_of_odd_entries_is_extracted(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("good.mp4", "-x.mp4", "%03d.mp4", "a:b.mp4", "caf\udce9.mp4", "notes.txt", ".hidden.mp4"):
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.mp4")
    os.symlink("loop.mp4", folder / "loop.mp4")
    (tmp_path / "far.mp4").write_bytes(content)
    os.symlink(tmp_path / "far.mp4", folder / "link.mp4")
    arguments = (
        "extract", "--dataset", "folder", "--option", "unlabelled=true", "--videos", folder, "--store",
        tmp_path / "s.zarr", "--streams", "rgb", "--backbone", "hog", "--sampler", "every:5", "--workers", "1",
        "--device", "cpu", "--json",
    )  # fmt: skip
    refused = vidatt(*arguments)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "add --follow-links" in refused.stderr
    done = vidatt(*arguments, "--follow-links")
    assert json.loads(done.stdout)["outcomes"] == {"ok": 5, "unreadable": 1}, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "left out" in line]
    assert "4 entries of the video folder are left out: 1 hidden, such as .hidden.mp4" in line
    assert "Traceback" not in done.stderr
