"""How damage is mended: the one sentence that every message about a damaged store ends with."""

from __future__ import annotations

import shlex
from pathlib import Path


def repair_command(store: Path) -> str:
    """Return the command that mends a store."""
    return f"vidatt cache repair {shlex.quote(str(store))}"


def told(command: str) -> str:
    """Return an extraction's command as messages name it: one that was not recorded lacks options, and it says so."""
    return f"`{command}`" if " --videos " in command else f"`{command}` and the other options that it was made with"


def mend(store: Path) -> str:
    """Return the way out of damage, the end of a message."""
    return f"mend it with `{repair_command(store)}`."
