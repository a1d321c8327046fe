"""The video files below a folder, found in one walk without touching the files themselves."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from ...errors import MissingFileError, UsageError

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".3gp")
)


def is_video_name(name: str) -> bool:
    """Return whether a file name is visible and ends like a video."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def is_walked(path: str) -> bool:
    """Return whether `walk_videos` would find this relative path if it were there."""
    *folders, name = path.split("/")
    return is_video_name(name) and not any(folder.startswith(".") for folder in folders)


def spelling_key(path: str) -> str:
    """Return what two spellings of one name share: upper and lower case, composed and decomposed accents."""
    return unicodedata.normalize("NFC", path).casefold()


def walk_videos(root: Path, *, allow_links_outside: bool) -> list[str]:
    """Return the video files below `root` as sorted POSIX paths relative to it.

    Hidden files and folders are skipped; linked folders are followed, loops are not. Only links cost a stat.

    Raises
    ------
    MissingFileError
        If `root` is no folder.
    UsageError
        If a link leads out of `root` and `allow_links_outside` is False.
    """
    if not root.is_dir():
        raise MissingFileError(f"There is no video folder {root}; name it with --videos.")
    top = os.path.realpath(root)
    found: list[str] = []

    def visit(folder: str, relative: str, ancestors: frozenset[str]) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                is_folder = entry.is_dir()
                if not is_folder and not is_video_name(entry.name):
                    continue
                name = f"{relative}{entry.name}"
                real = os.path.join(folder, entry.name)
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                    if not os.path.exists(real):  # a dangling link is a missing video
                        continue
                    if not allow_links_outside and not real.startswith(top + os.sep):
                        raise UsageError(
                            f"{entry.path} is a link to {real}, outside the video folder; move the video below "
                            f"{root}, or name a video folder that holds both."
                        )
                if not is_folder:
                    found.append(name)
                elif real not in ancestors:
                    visit(real, f"{name}/", ancestors | {real})

    visit(top, "", frozenset({top}))
    return sorted(found)
