"""Which videos are meant: files, folders, and a CSV as `extract --dataset list` takes it, labels or not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import MissingFileError, UsageError
from ...extract.datasets.listed import listed_videos
from ...extract.datasets.video_files import VIDEO_SUFFIXES, find_videos, refuse_links_outside
from .clip_cubes import Clip

log = logging.getLogger(__name__)


def find_clips(named: Sequence[Path], *, folder: Path | None = None, follow_links: bool = False) -> list[Clip]:
    """Return the videos that are meant, in the order in which they are named; those of a folder sorted.

    Parameters
    ----------
    named : files, folders (all videos below them), and CSV files; a file that is not there becomes an outcome
    folder : that the paths of a CSV are relative to; None = the one that the CSV lies in
    follow_links : whether links may lead out of a folder

    Raises
    ------
    MissingFileError, UsageError
        If a folder holds no video, a CSV cannot be read, or two videos have one id.
    """
    clips = [clip for path in named for clip in _clips(path, folder, follow_links=follow_links)]
    ids: set[str] = set()
    for clip in clips:
        if clip.id in ids:
            raise UsageError(f"Video {clip.id!r} is named twice; name it once.")
        ids.add(clip.id)
    return clips


def _clips(path: Path, folder: Path | None, *, follow_links: bool) -> Iterator[Clip]:
    if path.is_dir():
        found = find_videos(path, allow_links_outside=follow_links)
        for note in found.notes():
            log.info("%s: %s", path, note)
        if not found.paths:
            raise MissingFileError(f"{path} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))}).")
        for name in found.paths:
            yield Clip(id=str(path / name), path=path / name)
    elif path.suffix == ".csv":
        top = folder or path.parent
        videos = listed_videos(path)
        if not follow_links:
            refuse_links_outside(top, (video.path for video in videos))
        for video in videos:
            yield Clip(
                id=video.id,
                path=top / video.path,
                start_seconds=video.start_seconds,
                stop_seconds=video.stop_seconds,
            )
    else:
        yield Clip(id=str(path), path=path)
