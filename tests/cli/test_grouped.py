"""Help in groups."""

from __future__ import annotations

import re
from collections import Counter

import click
import pytest

from vidatt.cli.extraction import extract
from vidatt.cli.fitting import fit_head
from vidatt.cli.grouped import GroupedCommand

EVERY = {"config", "save-config", "json", "verbose", "quiet"}


@pytest.mark.parametrize("command", [extract, fit_head], ids=lambda command: command.name)
def test_every_option_stands_under_one_heading_and_is_written_once(command):
    assert isinstance(command, GroupedCommand)
    named = Counter(name for names in command.groups.values() for name in names)
    options = {max(p.opts, key=len).lstrip("-") for p in command.params if isinstance(p, click.Option)}
    assert set(named) == options - EVERY
    assert set(named.values()) == {1}
    text = command.get_help(click.Context(command, terminal_width=100))
    for name in options:
        assert len(re.findall(rf"^  (?:-\w, )?--{name} ", text, re.MULTILINE)) == 1, name
