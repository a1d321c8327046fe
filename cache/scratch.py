"""Scratch: private folders that a killed process may leave behind, and the file operations that survive a crash."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import UsageError

STALE_SECONDS = 24 * 3600
"""Age from which another host's scratch counts as abandoned: writing a shard takes seconds to minutes."""

_BESIDE = ".tmp-"
"""In the name of a file that is being written: behind it comes its `scratch_name`."""

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


def scratch_name() -> str:
    """Return a new name that tells its owner: `<host>-<pid>-<uuid>`."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"


def abandoned(parent: Path, prefix: str = "") -> list[Path]:
    """List the scratch folders whose owner is dead: its process on this host is gone, or another host's is a day old.

    Parameters
    ----------
    parent : where to look; may be absent
    prefix : what their names have before `scratch_name`
    """
    return [folder for folder in parent.glob("*") if folder.name.startswith(prefix) and _is_dead(folder, prefix)]


def _is_dead(folder: Path, prefix: str) -> bool:
    try:
        host, pid, _ = folder.name[len(prefix) :].rsplit("-", 2)
        number = int(pid)
    except ValueError:
        return False  # not ours: somebody else's folder
    if host != socket.gethostname():
        return time.time() - _changed(folder) > STALE_SECONDS
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def make_scratch(parent: Path) -> Path:
    """Make a private folder below `parent`, which a sweep may be removing at this very moment."""
    parent.parent.mkdir(parents=True, exist_ok=True)
    folder = parent / scratch_name()
    while True:
        with contextlib.suppress(FileExistsError):  # not mkdir's exist_ok, which looks again and may find it gone
            parent.mkdir()
        try:
            folder.mkdir()
        except FileNotFoundError:
            continue
        return folder


def remove_scratch(folder: Path) -> None:
    """Remove a scratch folder, and its parent if that is empty then."""
    with contextlib.suppress(FileNotFoundError):  # another sweep was faster
        shutil.rmtree(folder)
    remove_if_empty(folder.parent)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless it holds something, is gone, or is a link elsewhere."""
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
            raise


def link(source: Path, target: Path) -> None:
    """Hard-link `source` to `target`, which must not exist: the atomic step of every commit.

    Raises
    ------
    FileExistsError
        If there is a target.
    UsageError
        If the file system has no hard links.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise UsageError(
                f"{target.parent} cannot take hard links ({error.strerror}), by which vidatt commits shards; "
                "put the store on one file system that has them."
            ) from error
        raise


def move(source: Path, target: Path) -> bool:
    """Rename a folder to its place and make that durable; False if something stands there already."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    sync(target.parent)
    return True


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let a write that the system refuses (a full disk, a limit) say which file it was for: its error does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:  # else it says itself what is wrong
            error.filename = str(path)
        raise


def write(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on disk."""
    with naming(path), path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write beside the target, fsync, rename: a reader sees the old file or the new one, whole.

    What a writer leaves that is killed in between, `sweep_files` removes.
    """
    scratch = path.with_name(f".{path.name}{_BESIDE}{scratch_name()}")
    try:
        with naming(path), scratch.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    sync(path.parent)


def sweep_files(folder: Path) -> None:
    """Remove the files that dead writers left in a folder while they wrote others: see `write_atomically`."""
    for path in folder.glob(".*"):
        name, beside, _ = path.name.rpartition(_BESIDE)
        # up to version 0.1.0 only the process was named, which may be one of another machine
        old = re.fullmatch(r"\..+\.\d+", path.name)
        if (beside and _is_dead(path, name + beside)) or (old and time.time() - _changed(path) > STALE_SECONDS):
            path.unlink(missing_ok=True)


def _changed(path: Path) -> float:
    """Return when a file was written, seconds; now, if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` a folder and everything below."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
