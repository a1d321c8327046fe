"""Small sound videos of every container and codec that PyAV can write here, and ways to break them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

FORMS: dict[tuple[str, str], tuple[str, ...]] = {
    # muxer, ending: encoders
    ("mp4", ".mp4"): ("mpeg4", "libx264", "libx265", "libsvtav1", "libvpx-vp9", "mjpeg"),
    ("mov", ".mov"): ("mpeg4", "libx264", "mjpeg", "prores_ks", "png", "qtrle", "rawvideo"),
    ("avi", ".avi"): ("mpeg4", "libx264", "mjpeg", "msmpeg4v2", "msmpeg4", "wmv2", "mpeg2video", "huffyuv", "ffv1",
                      "rawvideo", "cinepak"),
    ("matroska", ".mkv"): ("libx264", "libx265", "libvpx", "libvpx-vp9", "ffv1", "mpeg2video", "mjpeg"),
    ("webm", ".webm"): ("libvpx", "libvpx-vp9", "libsvtav1"),
    ("flv", ".flv"): ("flv", "libx264", "flashsv"),
    ("mpeg", ".mpg"): ("mpeg1video", "mpeg2video"),
    ("mpegts", ".ts"): ("mpeg2video", "libx264", "libx265"),
    ("asf", ".wmv"): ("wmv1", "wmv2", "msmpeg4", "mpeg4"),
    ("3gp", ".3gp"): ("h263", "libx264", "mpeg4"),
    ("nut", ".nut"): ("mpeg4", "ffv1"),
    ("mxf", ".mxf"): ("mpeg2video",),
    ("gif", ".gif"): ("gif",),
    ("ivf", ".ivf"): ("libvpx", "libvpx-vp9"),
    ("h264", ".h264"): ("libx264",),
    ("hevc", ".hevc"): ("libx265",),
    ("m4v", ".m4v"): ("mpeg4",),
    ("mpeg1video", ".m1v"): ("mpeg1video",),
    ("dv", ".dv"): ("dvvideo",),
    ("rm", ".rm"): ("rv10", "rv20"),
}  # fmt: skip
PIXELS = {"qtrle": "rgb24", "png": "rgb24", "gif": "rgb8", "flashsv": "bgr24", "cinepak": "rgb24", "mjpeg": "yuvj420p",
          "prores_ks": "yuv422p10le", "huffyuv": "yuv422p"}  # fmt: skip
OPTIONS = {"libx264": {"preset": "ultrafast"}, "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
           "libsvtav1": {"preset": "13"}, "libvpx": {"deadline": "realtime"}, "libvpx-vp9": {"deadline": "realtime"},
           "cinepak": {"strict": "-2"}}  # fmt: skip
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def write_seed(path: Path, form: str, codec: str, *, frames: int) -> bool:
    """Write one sound video; False if this FFmpeg cannot write or read this form."""
    width, height = (720, 576) if codec == "dvvideo" else (176, 144)
    try:
        with av.open(str(path), "w", format=form) as container:
            stream = container.add_stream(codec, rate=25, options=OPTIONS.get(codec, {}))
            stream.width, stream.height, stream.pix_fmt = width, height, PIXELS.get(codec, "yuv420p")
            rows, columns = np.mgrid[:height, :width]
            for index in range(frames):
                levels = (np.stack([rows + 3 * index, columns + 5 * index, rows + columns], -1) % 256).astype(np.uint8)
                picture = av.VideoFrame.from_ndarray(levels, format="rgb24")
                container.mux(stream.encode(picture.reformat(format=stream.pix_fmt)))
            container.mux(stream.encode())
        with av.open(str(path)) as container:  # some forms are written and not read
            return sum(1 for _ in container.decode(video=0)) == frames
    except (FFmpegError, ValueError):
        return False


def write_seeds(folder: Path) -> list[Path]:
    """Write a sound video of each form that can be written here, sorted by name."""
    found = []
    for (form, ending), codecs in FORMS.items():
        for codec in codecs:
            path = folder / f"{form}-{codec}{ending}"
            if write_seed(path, form, codec, frames=12):
                found.append(path)
    return sorted(found)


def _flip(chance: random.Random, content: bytearray, other: bytes) -> None:
    for _ in range(chance.choice([1, 1, 2, 8, 40])):
        content[chance.randrange(len(content))] = chance.randrange(256)


def _flip_bits_of_the_header(chance: random.Random, content: bytearray, other: bytes) -> None:
    for _ in range(chance.choice([1, 1, 2, 8])):
        content[chance.randrange(min(len(content), 2048))] ^= 1 << chance.randrange(8)


def _flip_bits_of_the_tail(chance: random.Random, content: bytearray, other: bytes) -> None:
    for _ in range(chance.choice([1, 2, 8])):  # where MP4 has its tables
        content[-chance.randrange(1, min(len(content), 2048))] ^= 1 << chance.randrange(8)


def _state_extremes(chance: random.Random, content: bytearray, other: bytes) -> None:
    for _ in range(chance.choice([1, 1, 2, 4])):
        place = chance.randrange(min(len(content), 1024)) if chance.random() < 0.5 else chance.randrange(len(content))
        form = chance.choice(["<I", ">I", "<H", ">H"])
        number = struct.pack(form, chance.choice(EXTREMES) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
        content[place : place + len(number)] = number


def _cut(chance: random.Random, content: bytearray, other: bytes) -> None:
    del content[chance.randrange(1, len(content)) :]


def _drop_a_block(chance: random.Random, content: bytearray, other: bytes) -> None:
    place = chance.randrange(len(content))
    del content[place : place + chance.choice([1, 4, 100, 5000])]


def _repeat_a_block(chance: random.Random, content: bytearray, other: bytes) -> None:
    place, size = chance.randrange(len(content)), chance.choice([4, 100, 5000])
    content[place:place] = content[place : place + size] * chance.choice([1, 2, 20])


def _overwrite_a_block(chance: random.Random, content: bytearray, other: bytes) -> None:
    place, size = chance.randrange(len(content)), chance.choice([16, 512, 5000])
    content[place : place + size] = chance.choice([bytes(size), b"\xff" * size, chance.randbytes(size)])


def _splice(chance: random.Random, content: bytearray, other: bytes) -> None:
    content[chance.randrange(len(content)) :] = other[chance.randrange(len(other)) :]


def _empty(chance: random.Random, content: bytearray, other: bytes) -> None:
    content.clear()


DAMAGE: tuple[Callable[[random.Random, bytearray, bytes], None], ...] = (
    _flip, _flip_bits_of_the_header, _flip_bits_of_the_tail, _state_extremes, _cut, _drop_a_block, _repeat_a_block,
    _overwrite_a_block, _splice,
)  # fmt: skip


def damaged(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """Return the content of a video, broken in one to three ways."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        damage = chance.choice(DAMAGE) if chance.random() > 0.005 else _empty
        if changed:
            damage(chance, changed, other)
    return bytes(changed)
