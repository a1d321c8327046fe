"""The video files below a folder, found in one walk without touching the files themselves."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import MissingFileError, UsageError

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".3gp")
)
PATH_BYTES = 4096
"""Linux's limit of a path, its end included: nothing beyond can be opened."""


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


@dataclass(frozen=True)
class FoundVideos:
    """The videos below a folder, and what was passed over."""

    paths: list[str]  # POSIX, relative to the folder, sorted
    skipped: Mapping[str, tuple[str, ...]]  # why -> relative paths, as printable text

    def notes(self) -> tuple[str, ...]:
        """Return one line on what was passed over, if anything was."""
        if not self.skipped:
            return ()
        parts = (f"{len(paths)} {why}, such as {min(paths)}" for why, paths in sorted(self.skipped.items()))
        count = sum(map(len, self.skipped.values()))
        return (f"{count} entries of the video folder are left out: {'; '.join(parts)}",)


def walk_videos(root: Path, *, allow_links_outside: bool) -> list[str]:
    """Return the `paths` of `find_videos`."""
    return find_videos(root, allow_links_outside=allow_links_outside).paths


def find_videos(root: Path, *, allow_links_outside: bool) -> FoundVideos:
    """List the video files below `root`.

    Hidden files and folders are passed over, other endings, links that lead nowhere, paths too long to be opened and
    names that are not UTF-8, which no list can state. Linked folders are followed, loops are not. Only links cost a
    stat.

    Raises
    ------
    MissingFileError
        If `root` is no folder.
    UsageError
        If a folder cannot be listed, or a link leads out of `root` and `allow_links_outside` is False.
    """
    if not root.is_dir():
        raise MissingFileError(f"There is no video folder {root}; name it with --videos.")
    top = os.path.realpath(root)
    found: list[str] = []
    skipped: dict[str, list[str]] = {}

    def visit(folder: str, relative: str, ancestors: frozenset[str]) -> None:
        for entry in _listed(folder):
            real, is_folder = entry.path, False
            why = _reason_to_skip(entry)
            if not why:
                is_folder = entry.is_dir()
                if not is_folder and not is_video_name(entry.name):
                    why = "with other endings"
                elif entry.is_symlink():
                    real = os.path.realpath(entry.path)
                    if not allow_links_outside and not _is_below(real, top):
                        raise UsageError(f"{_outside(entry.path, real, root)}.")
                    if is_folder and real in ancestors:
                        why = "links in a circle"
            if why:
                skipped.setdefault(why, []).append(printable(f"{relative}{entry.name}"))
            elif is_folder:
                visit(real, f"{relative}{entry.name}/", ancestors | {real})
            else:
                found.append(f"{relative}{entry.name}")

    visit(top, "", frozenset({top}))
    return FoundVideos(sorted(found), {why: tuple(paths) for why, paths in skipped.items()})


def _listed(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UsageError(f"The folder {printable(folder)} cannot be listed: {error.strerror}.") from None


def _reason_to_skip(entry: os.DirEntry[str]) -> str:
    if entry.name.startswith("."):
        return "hidden"
    if not is_text(entry.name):
        return "whose names are not UTF-8 (rename them)"
    if len(os.fsencode(entry.path)) >= PATH_BYTES:
        return "whose paths are too long"
    if entry.is_symlink() and not os.path.exists(entry.path):  # a dangling link is a missing video
        return "links that lead nowhere"
    return ""


def is_text(name: str) -> bool:
    """Return whether a name can be kept as text: Python reads bytes that are not UTF-8 as stand-ins, which cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: str) -> str:
    r"""Return a path with bytes that are not UTF-8 as `\xNN`; Python's stand-ins for them cannot be kept or said."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _outside(path: str, target: str, root: Path) -> str:
    return (
        f"{printable(path)} leads by a link to {printable(target)}, outside the video folder {root}; add "
        "--follow-links to read it all the same, or name a video folder that holds both"
    )


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
        links = {entry.name for entry in _listed(place) if entry.is_symlink()}
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
        raise UsageError(f"{_outside(path, target, root)}{more}.")


def _is_below(real: str, top: str) -> bool:
    return real == top or real.startswith(top if top.endswith(os.sep) else top + os.sep)
