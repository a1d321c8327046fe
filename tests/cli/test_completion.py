"""Completion by the shell, as docs/commands.md sets it up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text()
COMMAND = "import sys; sys.argv[0] = 'vidatt'; from vidatt.cli.entry import run; run()"


def answer(**environment: str) -> str:
    command = [sys.executable, "-c", COMMAND]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("vidatt fit-h", ["fit-head"]), ("vidatt cache ver", ["verify"]), ("vidatt extract --prec", ["--precision"]),
        ("vidatt extract --precision bf", ["bfloat16"]), ("vidatt nothing-of-the-kind", []),
    ],
)  # fmt: skip
def test_what_is_begun_is_completed(typed: str, offered: list[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        at = typed.rsplit(maxsplit=1)[-1] if shell == "fish" else str(typed.count(" "))
        words = {"COMP_WORDS": typed, "COMP_CWORD": at}
        said = answer(_VIDATT_COMPLETE=f"{shell}_complete", **words)
        assert all(name in said for name in offered)
        assert bool(said.strip()) == bool(offered)


def test_the_lines_of_the_page_set_it_up() -> None:
    names = re.findall(r"_VIDATT_COMPLETE=(\w+_source) vidatt", PAGE)
    assert names == ["bash_source", "zsh_source", "fish_source"]
    for name in names:
        assert "_VIDATT_COMPLETE" in answer(_VIDATT_COMPLETE=name)
