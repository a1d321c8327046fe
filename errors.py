"""The ground: every error that vidatt raises on purpose, with the exit code it ends a command with.

A message is one line: what is wrong, in which file or argument, and what to do about it. Anything that is not a
`VidattError` is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class VidattError(Exception):
    """Base of all errors raised on purpose; the command line prints its message as one line."""

    exit_code = 1


class UsageError(VidattError, ValueError):
    """Wrong use: an argument, option or input file that cannot be what the user meant."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that no registry knows; the message names the nearest known one."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
        super().__init__(f"Unknown {kind} {name!r}. {hint}")


class MissingFileError(UsageError, FileNotFoundError):
    """A file or folder that the user named, or that a dataset needs, is not there."""


class StoreNotFoundError(MissingFileError):
    """There is no vidatt store at the given path."""


class RefusedError(VidattError):
    """A store or run that does not fit what is asked; the message says what differs. Nothing was changed."""

    exit_code = 3


class FingerprintMismatchError(RefusedError):
    """The recipe of a stream differs from the one its store was made with."""


class ShardMissingError(VidattError, LookupError):
    """Rows were asked for whose shard has no commit marker: they were never extracted."""


class CorruptStoreError(VidattError):
    """A file of the store does not hold what its marker says; `what` is that alone, without the way out."""

    def __init__(self, what: str, way_out: str = "") -> None:
        super().__init__(f"{what}; {way_out}" if way_out else what)
        self.what = what


class WeightsError(UsageError):
    """A weights file is missing, has another digest, or does not fit the network tensor by tensor."""


class NotFiniteError(VidattError):
    """A fit met NaN or infinity; the message names the step and the likely cause."""


class InterruptedRunError(VidattError):
    """Stopped by a signal after draining; the same command continues."""

    exit_code = 75


def nearest_key_error(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse the first of `given` that is not in `known`, naming the nearest known one.

    Raises
    ------
    UnknownNameError
        If any given name is unknown.
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise UnknownNameError(kind, name, known)


_SYSTEM = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "lift the limit on the size of files (ulimit -f), or use a file system that takes them",
    errno.EROFS: "use a path that can be written",
    errno.EACCES: "see the rights of the file and its folders",
    errno.EPERM: "see the rights of the file and its folders",
    errno.EIO: "see whether the disk or the network file system is sound",
    errno.ESTALE: "see whether the network file system is sound",
    errno.ENAMETOOLONG: "use shorter names",
    errno.ELOOP: "mend the links",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close programs that hold many files open",
}


def system_cause(error: OSError) -> str | None:
    """Say in one line what the machine refused, in which file and what to do; None if it looks like a bug of ours.

    What was finished before is on disk, so the same command continues once the cause is gone.
    """
    if error.errno not in _SYSTEM:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}; {_SYSTEM[error.errno]}, then run the same command again."
