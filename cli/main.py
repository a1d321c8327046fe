"""The door: the commands, each thin as paper: it parses, builds one configuration, calls one pipeline, prints."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from ..errors import VidattError
from ..version import __version__
from .catalogues import backbones, datasets, doctor, heads, weights
from .demo import demo
from .door import TYPED, stopped
from .explain import explain
from .extraction import extract
from .fitting import fit_head
from .localisation import detect, locate, window_recall
from .predict import benchmark, predict
from .report import report
from .reproduce import reproduce
from .results import compare, evaluate, evaluate_boxes, evaluate_detections, fuse
from .show import show
from .stores import cache, status
from .submit import submit


class _Door(click.Group):
    """Says what click finds wrong with a command line as every other error: in one line; keeps what was typed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[TYPED] = shlex.join(["vidatt", *args])
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **options: Any) -> Any:
        if not options.setdefault("standalone_mode", True):
            return super().main(*args, **options)
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except click.ClickException as error:
            if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.2 and newer
                error.show()
                sys.exit(error.exit_code)
            context = error.ctx if isinstance(error, click.UsageError) else None
            see = f" See `{context.command_path} --help`." if context else ""
            text = " ".join(error.format_message().split())
            click.echo(f"vidatt: {text}{see}", err=True)
            sys.exit(error.exit_code)
        except VidattError as error:  # of a file of options, which is read before the command
            click.echo(f"vidatt: {error}", err=True)
            sys.exit(error.exit_code)
        except click.Abort:
            stopped()
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=_Door, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vidatt")
def main() -> None:
    """Extract video features once, train many attention heads on them."""


for _command in (
    extract, fit_head, evaluate, evaluate_detections, evaluate_boxes, compare, fuse, predict, explain, benchmark,
    detect, locate, window_recall, report, reproduce, show, cache, status, submit, datasets, heads, backbones, weights,
    doctor, demo,
):  # fmt: skip
    main.add_command(_command)


if __name__ == "__main__":
    main()
