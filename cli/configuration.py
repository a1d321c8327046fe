"""Options from a file: `--config FILE` and `--save-config FILE`, which every command has.

A file is TOML with one table per command, `[extract]`, `[fit-head]`, `[cache.verify]`, whose keys are the options
without their dashes. An option that is given more than once on the command line takes an array, one of KEY=VALUE a
table. The command line wins.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..errors import MissingFileError, UsageError, nearest_key_error

_NOT_KEPT = frozenset({"config", "save-config", "json", "verbose", "quiet", "dry-run", "help"})
"""Options of one call, which are no part of an experiment."""


def read_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Take a command's options from a file, as defaults of what the command line does not say.

    Raises
    ------
    MissingFileError, UsageError
        If the file is not there or no TOML, has no table of this command, or one with something else than its options.
    """
    if path is None:
        return
    table = _table(_read(path), context, path)
    options = _options(context.command)
    where = f"[{'.'.join(_words(context))}] of {path}"
    nearest_key_error(f"option in {where}:", table, options)
    given = {options[key].name: _value(options[key], value, f"{key} in {where}") for key, value in table.items()}
    context.default_map = {**(context.default_map or {}), **given}


def write_config(context: click.Context, path: Path) -> None:
    """Write the options of a command that are not its defaults as its table, behind what the file has.

    Raises
    ------
    UsageError
        If the file has another table of this command, or an option is no text.
    """
    words = _words(context)
    kept = {
        key: _plain(context.params[option.name])
        for key, option in _options(context.command).items()
        if option.name in context.params and context.get_parameter_source(option.name) is not ParameterSource.DEFAULT
    }
    before: Any = _read(path) if path.exists() else {}
    for word in words:
        before = before.get(word) if isinstance(before, dict) else None
    if before == kept:
        return
    if before is not None and path.exists():
        raise UsageError(f"{path} has other options in [{'.'.join(words)}]; take them out, or name another file.")
    lines = [f"[{'.'.join(words)}]", *(f"{key} = {_toml(value, f'--{key}')}" for key, value in kept.items())]
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * (path.stat().st_size > 0) + "\n".join(lines) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingFileError(f"--config {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML ({error}); `--save-config` writes such a file.") from None


def _words(context: click.Context) -> list[str]:
    """Return a command's words without that of the program, such as ["cache", "verify"]."""
    names = []
    at: click.Context | None = context
    while at is not None and at.command.name != "main":
        names.append(str(at.command.name))
        at = at.parent
    return names[::-1]


def _table(tables: dict[str, Any], context: click.Context, path: Path) -> dict[str, Any]:
    words = _words(context)
    found: Any = tables
    for word in words:
        found = found.get(word) if isinstance(found, dict) else None
    if isinstance(found, dict):
        return found
    has = ", ".join(f"[{name}]" for name in tables) or "nothing"
    raise UsageError(f"{path} has no table [{'.'.join(words)}]; it has {has}.")


def _options(command: click.Command) -> dict[str, click.Option]:
    """Return the options that a file may say, by their names without dashes."""
    options = (option for option in command.params if isinstance(option, click.Option))
    named = {max(option.opts, key=len).lstrip("-"): option for option in options}
    return {key: option for key, option in named.items() if key not in _NOT_KEPT}


def _value(option: click.Option, value: Any, what: str) -> Any:
    """Return a value of a file as what the command line would say."""
    if isinstance(value, dict):
        value = [f"{key}={_word(item, what)}" for key, item in value.items()]
        if not option.multiple:
            raise UsageError(f"{what} is a table; write one value.")
    if isinstance(value, list):
        words = [_word(item, what) for item in value]
        return words if option.multiple else ",".join(words)
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{what} is {value!r}; write true or false.")
        return value
    word = _word(value, what)
    return [word] if option.multiple else word


def _word(value: Any, what: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise UsageError(f"{what} has {value!r}; write text, numbers, true or false.")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str) else str(value)


def _toml(value: Any, what: str) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml(item, what) for item in value)}]"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{what} {value!r} is no text, which no TOML file can hold; rename it.") from None
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def config_options(command: Any) -> Any:
    """Give a command `--config` and `--save-config`."""
    path = click.Path(path_type=Path)
    read = click.option(
        "--config", type=path, metavar="FILE", is_eager=True, expose_value=False, callback=read_config,
        help="Options from the command's table in a TOML file; the command line wins.",
    )  # fmt: skip
    save = click.option("--save-config", type=path, metavar="FILE", help="Write the options given to a TOML file.")
    return read(save(command))
