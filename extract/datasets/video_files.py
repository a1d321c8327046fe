"""The video files below a folder, found in one walk without touching the files themselves."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from ...errors import MissingFileError, UsageError

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".3gp")
)


def is_video_name(name: str) -> bool:
    """Return whether a file name is visible and ends like a video."""
    stem, dot, ending = name.rpartition(".")
    return stem != "" and not stem.startswith(".") and f"{dot}{ending}".lower() in VIDEO_SUFFIXES


def is_walked(path: str) -> bool:
    """Return whether `walk_videos` would find this relative path if it were there."""
    *folders, name = path.split("/")
    return is_video_name(name) and not any(folder.startswith(".") for folder in folders)


def spelling_key(path: str) -> str:
    """Return what two spellings of one name share: upper and lower case, composed and decomposed accents."""
    return unicodedata.normalize("NFC", path).casefold()


def leaves_folder(path: str) -> bool:
    """Return whether a listed path is absolute or climbs out of the folder it belongs to."""
    return path.startswith("/") or (".." in path and ".." in path.split("/"))


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
                real = entry.path
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                    if not os.path.exists(real):  # a dangling link is a missing video
                        continue
                    if not allow_links_outside and not _is_below(real, top):
                        raise UsageError(
                            f"{entry.path} is a link to {real}, outside the video folder; move the video below "
                            f"{root}, or name a video folder that holds both."
                        )
                if not is_folder:
                    found.append(f"{relative}{entry.name}")
                elif real not in ancestors:
                    visit(real, f"{relative}{entry.name}/", ancestors | {real})

    visit(top, "", frozenset({top}))
    return sorted(found)


def links_outside(root: Path, paths: Iterable[str]) -> list[tuple[str, str]]:
    """Return the entries that a link leads out of the video folder, with where they lead; sorted.

    Each folder that holds an entry is listed once; only links cost more than that, so 240,000 entries take a second.

    Parameters
    ----------
    root : the video folder; it may be a link itself
    paths : POSIX paths relative to `root`; entries that are not there are passed over
    """
    top = os.path.realpath(root)
    names: dict[str, list[str]] = {}  # folder -> file names
    for path in paths:
        folder, _, name = path.rpartition("/")
        names.setdefault(folder, []).append(name)
    outside = []
    for folder, members in names.items():
        place = os.path.join(top, folder)
        if not os.path.isdir(place):
            continue
        target = os.path.realpath(place)
        if not _is_below(target, top):
            outside += [(f"{folder}/{name}", os.path.join(target, name)) for name in members]
            continue
        with os.scandir(place) as entries:
            links = {entry.name for entry in entries if entry.is_symlink()}
        for name in members:
            if name in links:
                real = os.path.realpath(os.path.join(place, name))
                if not _is_below(real, top):
                    outside.append((f"{folder}/{name}" if folder else name, real))
    return sorted(outside)


def refuse_links_outside(root: Path, paths: Iterable[str]) -> None:
    """Refuse entries that a link leads out of the video folder: an archive could point at any file of this machine.

    Raises
    ------
    UsageError
        With the first such entry, where it leads, and how many there are.
    """
    outside = links_outside(root, paths)
    if outside:
        path, target = outside[0]
        more = f" ({len(outside)} such entries)" if len(outside) > 1 else ""
        raise UsageError(
            f"{path} leads by a link to {target}, outside the video folder {root}{more}; move the videos below it, or "
            "name a video folder that holds both."
        )


def _is_below(real: str, top: str) -> bool:
    return real == top or real.startswith(top if top.endswith(os.sep) else top + os.sep)
