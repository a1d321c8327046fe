"""Frames of video files for people to look at, decoded in a child with the limits of every decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import VidattError
from ...extract.decoder import Decoder, DecoderSettings
from ...extract.segments import PictureJob, Pictures, VideoEnd
from ...extract.views import Geometry


class FramesError(VidattError):
    """The frames of a video cannot be shown; the message names the file and says why."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Picture:
    """One frame of a film."""

    frame: int  # decode order
    seconds: float  # from the file's first frame; NaN = unknown
    rgb: np.ndarray  # (H, W, 3) uint8, upright


class FrameSource:
    """Reads frames; a context manager, whose decoding child ends with it.

    A file that breaks off gives the frames up to there.
    """

    def __init__(self, settings: DecoderSettings | None = None) -> None:
        self._decoder = Decoder((), settings or DecoderSettings())

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoder.close()

    def stills(self, path: Path, frames: Sequence[int], *, side_px: int, sha256: str = "") -> dict[int, np.ndarray]:
        """Return the frames of these numbers that are there, (H, W, 3) uint8 each.

        Parameters
        ----------
        frames : in decode order of the whole file
        side_px : longer side of the pictures
        sha256 : of the file that is meant; empty = whatever is there

        Raises
        ------
        FramesError
            If none of them is there, the file cannot be read, or it is another one.
        """
        job = PictureJob(path=path, frames=tuple(frames), side_px=side_px)
        found = {picture.frame: picture.rgb for picture in self._pictures(job, sha256)}
        if not found:
            raise FramesError(f"{path} has no frame of those that were sampled ({min(frames)} to {max(frames)}).")
        return found

    def film(
        self, path: Path, *, side_px: int, start: float | None = None, stop: float | None = None, sha256: str = ""
    ) -> Iterator[Picture]:
        """Yield all frames of a stretch of a file in order; what is kept ahead is bounded.

        Parameters
        ----------
        start, stop : seconds from the file's first frame, [start, stop); None = to its end

        Raises
        ------
        FramesError
            As `stills`; that the file is another one is found at its end.
        """
        yield from self._pictures(
            PictureJob(path=path, side_px=side_px, start_seconds=start, stop_seconds=stop), sha256
        )

    def _pictures(self, job: PictureJob, sha256: str) -> Iterator[Picture]:
        last = -1
        self._decoder.submit(job)
        for message in self._decoder.messages():
            if isinstance(message, Pictures):
                for frame, seconds, rgb in zip(message.frames, message.seconds, message.rgb, strict=True):
                    if frame > last:  # a child that was killed from outside is replaced and begins again
                        last = int(frame)
                        yield Picture(frame=last, seconds=float(seconds), rgb=rgb)
            elif isinstance(message, VideoEnd):
                report = message.report
                if report.outcome not in ("ok", "truncated"):
                    raise FramesError(f"{job.path} cannot be read ({report.outcome}: {report.detail}).")
                if sha256 and report.sha256 != sha256:
                    raise FramesError(
                        f"{job.path} is another file than the one that the store's features were made of (SHA-256 "
                        f"{report.sha256[:12]}, not {sha256[:12]}); give --videos, the folder with that one."
                    )


def cropped(picture: np.ndarray, region: Sequence[float] | np.ndarray, *, width: int, height: int) -> np.ndarray:
    """Return a part of a picture, (height, width, 3) uint8.

    Parameters
    ----------
    region : x1, y1, x2, y2 in fractions of the picture
    """
    H, W, _ = picture.shape
    x1, y1, x2, y2 = np.asarray(region) * [W, H, W, H]
    left, top = round(x1), round(y1)
    part = picture[top : max(round(y2), top + 1), left : max(round(x2), left + 1)]
    return Geometry(resize=f"{width}x{height}", crop_px=1).resized(part)
