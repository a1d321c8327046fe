"""Decode a video file frame by frame, exactly, in bounded memory, with a typed outcome for whatever is wrong with it.

One sequential pass with PyAV; frames are counted in decode order, never looked up by timestamp: AVI files carry no
timestamps and FFmpeg's guesses there are off by one. What decodes is the truth; header counts lie.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition

_ODD_TAGS: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
"""Tags that are not UTF-8 are no reason to refuse a file: PyAV 19 takes them by itself, 15 to 18 must be told."""
CONTAINERS = (
    "mov", "mp4", "avi", "matroska", "webm", "flv", "live_flv", "mpeg", "mpegts", "mpegvideo", "asf", "ogg", "dv",
    "mxf", "nut", "rm", "gif", "ivf", "h264", "hevc", "m4v",
    "mp3", "wav", "flac", "aac",  # to say that there is no video in them
)  # fmt: skip
"""FFmpeg's demuxers that are let at a file, by its content; never one that opens other files, addresses or devices
(concat, hls, dash, image2, sdp, lavfi, ...)."""
_FILES_ALONE = {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}
OPENING = "opening"
MOST_PIXELS = 8192 * 4096
"""Of a frame: 8K. A larger one is an outcome: a file of some kilobytes can state 16000 x 16000 pixels."""
LEAST_FRAME_BYTES = 16
"""A count of frames that leaves each fewer bytes of the file is not believed: the packets are counted instead."""
TRUNCATED_BELOW = 0.98
"""A video that decodes to less than this share of its stated frames is `truncated` (XviD headers overstate by 1 %)."""


class VideoProblemError(Exception):
    """What is wrong with a file, as a ledger outcome and one line of detail; never leaves this package."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(outcome, detail)
        self.outcome = outcome
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class VideoReport:
    """What became of one video."""

    outcome: str  # ok, missing, unreadable, no_video_stream, truncated, too_short, decoder_hang, ...
    detail: str = ""  # one line for whoever has to mend it
    decoded_frames: int = 0  # of the whole file, whatever the stretch of interest
    header_frames: int = 0  # frames that the container states, else its packets; 0 = unknown
    fps: float = 0.0  # average rate; 0 = unknown
    width: int = 0  # upright, pixels
    height: int = 0
    sha256: str = ""  # of the file; empty if nothing of it decoded
    spent: dict[str, float] = field(default_factory=dict, compare=False, repr=False)  # seconds by part: `Stopwatch`


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame."""

    index: int  # decode order, 0-based
    seconds: float | None  # presentation time as the container has it; None if it has none
    picture: av.VideoFrame = field(repr=False)

    def rgb(self) -> np.ndarray:
        """Return the upright picture as (H, W, 3) uint8 RGB.

        Raises
        ------
        VideoProblemError
        """
        with _blamed_on_the_file(f"converting frame {self.index}"):
            turns = round(self.picture.rotation / 90) % 4
            pixels = self.picture.to_ndarray(format="rgb24")
        return np.rot90(pixels, turns)


@contextmanager
def _blamed_on_the_file(doing: str) -> Iterator[None]:
    """Turn what PyAV raises of a file into an outcome; nothing but calls of PyAV belongs inside.

    FFmpeg's errors, the system's, and a value in the file that PyAV cannot use. Any other error is a bug, here or in
    PyAV, and no fault of the video.
    """
    try:
        yield
    except (FFmpegError, OSError, ValueError, OverflowError, MemoryError) as error:
        raise _problem(error, doing) from error


def _problem(error: Exception, doing: str) -> VideoProblemError:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return VideoProblemError("out_of_memory", f"not enough memory while {doing}")
    if getattr(error, "errno", None) == errno.EINVAL and doing == OPENING:
        return VideoProblemError("unreadable", "its content is not of a kind of video file that is read here")
    reason = getattr(error, "strerror", None) or str(error)
    return VideoProblemError("unreadable", f"{type(error).__name__} while {doing}: {reason}")


def _regular_file(path: Path) -> int:
    """Return the size of a file in bytes.

    Raises
    ------
    VideoProblemError
        If there is none, or something else: opening a pipe waits for ever, and a device is no file.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise VideoProblemError("missing", "no such file") from None  # the index has its path, which moves with it
    except (OSError, ValueError) as error:  # too long, a loop of links, a folder that may not be entered, a NUL
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoProblemError("unreadable", f"{type(error).__name__} while looking for it: {reason}") from None
    if not stat.S_ISREG(found.st_mode):
        kind = next((word for test, word in _KINDS if test(found.st_mode)), "no regular file")
        raise VideoProblemError("unreadable", f"it is {kind}, not a video file")
    return found.st_size


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _refuse_huge(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise VideoProblemError(
            "unreadable", f"its pictures are {width}x{height} pixels; up to {MOST_PIXELS:,} (8192x4096) are read"
        )


def file_sha256(path: Path, alive: Callable[[], None]) -> str:
    """SHA-256 of a file: it was just decoded and is still in memory, so this costs about a hundredth of that.

    Parameters
    ----------
    alive : called after every few megabytes

    Raises
    ------
    VideoProblemError
        If it cannot be read (any more).
    """
    digest = hashlib.sha256()
    with _blamed_on_the_file("hashing"), path.open("rb") as file:
        while piece := file.read(8 << 20):
            digest.update(piece)
            alive()
    return digest.hexdigest()


class VideoReader:
    """One video file, read from its start once (`frames()`); make another reader to read it again.

    Raises
    ------
    VideoProblemError
        From the constructor (missing, unreadable, no_video_stream) and from `frames()` when a packet does not decode;
        what was yielded before stays good.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file_bytes = _regular_file(path)
        with _blamed_on_the_file(OPENING):
            # with its protocol: FFmpeg takes a bare name such as http:/host/x.mp4 or concat:a|b for an address
            self._container = av.open(f"file:{os.path.abspath(path)}", container_options=_FILES_ALONE, **_ODD_TAGS)
            pictures = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
            kinds = ", ".join(sorted({s.type for s in self._container.streams})) or "nothing"
        if not pictures:
            self._container.close()
            raise VideoProblemError("no_video_stream", f"the file holds {kinds}, no video stream")
        self._stream = pictures[0]
        if self._stream.codec_context is None:  # PyAV's word for it
            self._container.close()
            raise VideoProblemError("unreadable", "FFmpeg has no decoder for the codec of its video stream")
        try:
            _refuse_huge(self._stream.codec_context.width, self._stream.codec_context.height)
        except VideoProblemError:
            self._container.close()
            raise
        self._stream.codec_context.thread_count = 1  # one thread a process; more lose frames at the end in old FFmpeg
        self.header_frames = max(0, self._stream.frames)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate else 0.0

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def packets(self, alive: Callable[[], None]) -> int:
        """Count the packets of the video stream without decoding them; uses the reader up.

        Parameters
        ----------
        alive : called at every packet
        """
        number = 0
        with _blamed_on_the_file("counting packets"):
            for packet in self._container.demux(self._stream):
                number += packet.size > 0
                alive()
        return number

    def expected_frames(self, alive: Callable[[], None]) -> int:
        """Return how many frames the file should have: what its header states if it can be true, else its packets."""
        if 0 < self.header_frames <= self.file_bytes // LEAST_FRAME_BYTES:
            return self.header_frames
        return self.packets(alive)

    def frames(self) -> Iterator[Frame]:
        """Yield every frame in decode order; a frame's pixels are converted only when asked for."""
        pictures = self._container.decode(self._stream)
        for index in count():
            with _blamed_on_the_file(f"decoding after {index} frames"):
                picture = next(pictures, None)
                if picture is None:
                    return
                frame = Frame(index, picture.time, picture)
            _refuse_huge(picture.width, picture.height)  # it may change within a file
            yield frame


def presentation_seconds(times: list[float | None], fps: float) -> np.ndarray:
    """Return the time of every frame from the video's first frame, in seconds, (n,) float64.

    The container's own times are used when all are there and increase; else (AVI without timestamps) index / fps, or
    NaN where the rate is unknown too.
    """
    known = np.array([np.nan if t is None else t for t in times], dtype=np.float64)
    if len(known) and not np.isnan(known).any() and (np.diff(known) > 0).all():
        return known - known[0]
    if fps > 0:
        return np.arange(len(times), dtype=np.float64) / fps
    return np.full(len(times), np.nan)
