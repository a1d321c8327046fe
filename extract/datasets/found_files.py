"""From listed videos to the files that are there: by spelling, or by the name alone in whatever folder it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import UsageError
from .video_files import VIDEO_SUFFIXES, leaves_folder, spelling_key, walk_videos

SUFFIX_OPTION = {"suffix": "ending expected of files that are not there yet (default .mp4)"}
"""For data sets whose lists name videos without an ending."""


def follow_spelling(paths: Sequence[str], videos: Path, *, archive: str = "") -> tuple[list[str], tuple[str, ...]]:
    """Point listed paths at files that are there under another spelling, or one level down in the archive's folder.

    Parameters
    ----------
    paths : `folder/file` as listed
    videos : the video folder
    archive : the folder inside the official archive, with a slash at its end; "" = none

    Returns
    -------
    the paths as they are on disk (as listed where there is no such file), and a note per respelled folder
    """
    on_disk = walk_videos(videos, allow_links_outside=True)
    exact = set(on_disk)
    by_key = {spelling_key(path.removeprefix(archive)): path for path in on_disk}
    resolved = []
    respelled: dict[str, list[tuple[str, str]]] = {}  # listed folder -> (listed, found)
    for path in paths:
        found = path if path in exact else by_key.get(spelling_key(path), path)
        if found.removeprefix(archive) != path:
            respelled.setdefault(path.split("/")[0], []).append((path, found))
        resolved.append(found)
    notes = (
        f"{len(pairs)} videos of {folder} are spelled otherwise on disk, such as {pairs[0][1]} for {pairs[0][0]}"
        for folder, pairs in respelled.items()
    )
    return resolved, tuple(notes)


def follow_names(paths: Sequence[str], videos: Path | None, *, folders: int = 0) -> tuple[list[str], tuple[str, ...]]:
    """Point listed paths at files of the same name, without the ending, wherever they lie below `videos`.

    For names that are unique in the whole set, such as YouTube ids, which are case-sensitive: capitals count. A file
    that is not there is expected where its neighbours were found, so that its path stays when it comes.

    Parameters
    ----------
    paths : expected paths `folder/name.suffix`; the names are unique
    videos : the video folder, walked once; None = the expected paths are returned
    folders : how many folders above the file belong to the unique name

    Returns
    -------
    the paths as they are on disk, and a note where a name lies there twice

    Raises
    ------
    UsageError
        For an expected path that leaves the video folder.
    """
    stray = next(filter(leaves_folder, paths), None)
    if stray is not None:
        raise UsageError(f"The lists name the video {stray!r}, which leaves the video folder; correct that line.")
    if videos is None:
        return list(paths), ()
    names = [_name(path, folders) for path in paths]
    listed = set(names)
    on_disk: dict[str, str] = {}
    found_paths = walk_videos(videos, allow_links_outside=True)
    exact = set(found_paths)
    twice = []
    for path in found_paths:
        name = _name(path, folders)
        if on_disk.setdefault(name, path) is not path and name in listed:
            twice.append((on_disk[name], path))
    resolved: list[str | None] = []
    moved: dict[str, str] = {}  # expected folder -> where the first of its videos was found
    for path, name in zip(paths, names, strict=True):
        found = path if path in exact else on_disk.get(name)
        if found is not None:
            moved.setdefault(_folder(path), _folder(found))
        resolved.append(found)
    flat = bool(moved) and not any(moved.values())
    placed = [
        found if found is not None else _join("" if flat else moved.get(_folder(path), _folder(path)), path)
        for path, found in zip(paths, resolved, strict=True)
    ]
    notes = [f"{len(twice)} videos lie there twice, such as {twice[0][0]} and {twice[0][1]}"] if twice else []
    return placed, tuple(notes)


def read_suffix(dataset: str, options: Mapping[str, str]) -> str:
    """Return the option `suffix`.

    Raises
    ------
    UsageError
        For a text that is no ending of a video file.
    """
    suffix = options.get("suffix", ".mp4")
    if suffix.lower() not in VIDEO_SUFFIXES:
        known = ", ".join(sorted(VIDEO_SUFFIXES))
        raise UsageError(f"Option suffix={suffix!r} of dataset {dataset!r} must be one of {known}.")
    return suffix


def _name(path: str, folders: int) -> str:
    """Return the file name without its ending, with the last `folders` folders before it."""
    if folders:
        path = "/".join(path.rsplit("/", folders + 1)[-folders - 1 :])
        return path.rpartition(".")[0]
    return path.rpartition("/")[2].rpartition(".")[0]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _join(folder: str, path: str) -> str:
    name = path.rpartition("/")[2]
    return f"{folder}/{name}" if folder else name
