"""What every command shares: the log, --json, -v and -q, exit codes, and how KEY=VALUE is read."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click

from ..errors import InterruptedRunError, UsageError, VidattError, system_cause
from ..pipelines.record import Record
from .configuration import config_options, write_config

log = logging.getLogger("vidatt")

TYPED = "vidatt.typed"
"""Where the context of a command keeps what was typed."""


class _Handler(logging.Handler):
    """Writes log lines to standard error without tearing a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def _set_verbosity(verbose: int, quiet: int) -> None:
    level = logging.INFO + 10 * (quiet - verbose)
    log.handlers[:] = [_Handler()]
    log.setLevel(min(max(level, logging.DEBUG), logging.ERROR))
    log.propagate = False


def common(command: Callable[..., tuple[Record | dict[str, Any], str, int]]) -> Callable[..., None]:
    """Give a command --config, --json, -v and -q; it returns its result as an object, as text, and its exit code."""

    @config_options
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output, nothing else.")
    @click.option("-v", "--verbose", count=True, help="Say more.")
    @click.option("-q", "--quiet", count=True, help="Say less; -qq only errors.")
    @wraps(command)
    def run(*, as_json: bool, verbose: int, quiet: int, save_config: Path | None, **options: Any) -> None:
        _set_verbosity(verbose, quiet)
        try:
            if save_config is not None:
                write_config(click.get_current_context(), save_config)
            result, text, code = command(**options)
        except VidattError as error:
            click.echo(f"vidatt: {error}", err=True)
            sys.exit(error.exit_code)
        except OSError as error:
            if (cause := system_cause(error)) is None:
                raise
            click.echo(f"vidatt: {cause}", err=True)
            sys.exit(VidattError.exit_code)
        except KeyboardInterrupt:
            stopped()
        click.echo(json.dumps(result.to_dict() if isinstance(result, Record) else result) if as_json else text)
        sys.exit(code)

    return run


def typed_command() -> str:
    """Return the command line that is being run, as a shell takes it."""
    return str(click.get_current_context().meta[TYPED])


def stopped() -> NoReturn:
    """End a command that a signal stopped."""
    click.echo("vidatt: stopped; what was finished stays, the same command continues.", err=True)
    sys.exit(InterruptedRunError.exit_code)


def assignments(option: str, values: tuple[str, ...]) -> dict[str, str]:
    """Read `KEY=VALUE` texts.

    Raises
    ------
    UsageError
        On a text without `=` or key, or a key given twice with different values.
    """
    pairs: dict[str, str] = {}
    for text in values:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not key or not equals:
            raise UsageError(f"{option} {text!r}: write KEY=VALUE.")
        if pairs.setdefault(key, value) != value:
            raise UsageError(f"{option} {key} is given twice, as {pairs[key]!r} and {value!r}; keep one.")
    return pairs
