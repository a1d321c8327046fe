"""Help in groups, for commands with many options: what most people need first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings; those that no heading names come last.

    Parameters
    ----------
    groups : heading -> options without dashes
    """

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        records = {
            max(option.opts, key=len).lstrip("-"): record
            for option in self.get_params(ctx)
            if (record := option.get_help_record(ctx)) is not None
        }
        named = {name for names in self.groups.values() for name in names}
        rest = {"Every command": [name for name in records if name not in named]}
        for heading, names in {**self.groups, **rest}.items():
            with formatter.section(heading):
                formatter.write_dl([records[name] for name in names])
