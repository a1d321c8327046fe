"""Times as people say them."""

from __future__ import annotations


def duration_text(seconds: float) -> str:
    """Return a time that was measured: "3.2 s", "12 min", "2.5 h"."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def rough_text(seconds: float) -> str:
    """Return a time that is estimated, without digits that nobody knows: "20 s", "12 min", "2.5 h", "19 h"."""
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36_000 else f"{seconds / 3600:.0f} h"
