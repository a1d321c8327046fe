"""Things by name, in one manner for heads, datasets and backbones: a dictionary that refuses with a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from .errors import UnknownNameError, UsageError

Entry = TypeVar("Entry")


class Registry(dict[str, Entry]):
    """Entries by name: `registry[name]` answers an unknown name with the nearest known one, a name is given once.

    Parameters
    ----------
    noun : what an entry is, for messages
    hints : what else may be written where a name stands, such as `timm:MODEL`; only for messages

    Raises
    ------
    UnknownNameError
        By `registry[name]`; `in` and `get` behave as a dictionary's.
    UsageError
        By `registry[name] = entry` if the name is taken.
    """

    def __init__(self, noun: str, *, hints: Iterable[str] = ()) -> None:
        super().__init__()
        self.noun, self.hints = noun, tuple(hints)

    def __missing__(self, name: str) -> Entry:
        raise UnknownNameError(self.noun, name, [*self, *self.hints])

    def __setitem__(self, name: str, entry: Entry) -> None:
        if name in self:
            raise UsageError(f"{self.noun.capitalize()} {name!r} is registered already.")
        super().__setitem__(name, entry)

    def names(self) -> list[str]:
        """Return the known names, sorted."""
        return sorted(self)
