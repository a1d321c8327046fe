"""What every command shares."""

from __future__ import annotations

import pytest

from vidatt.cli.door import assignments
from vidatt.errors import UsageError


def test_assignments_are_read_and_wrong_ones_refused() -> None:
    assert assignments("--set", ("lr=0.1", " steps = 5", "lr=0.1", "note=a=b")) == {
        "lr": "0.1", "steps": "5", "note": "a=b",
    }  # fmt: skip
    for wrong in ("lr", "=1"):
        with pytest.raises(UsageError, match="write KEY=VALUE"):
            assignments("--set", (wrong,))
    with pytest.raises(UsageError, match="--option lr is given twice"):
        assignments("--option", ("lr=1", "lr=2"))
