"""docs/json.md against the types: every command's object, every field, its type; nothing stale."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import click
import pytest

import vidatt.cli
import vidatt.pipelines
from vidatt.cli.main import main
from vidatt.pipelines.record import Record

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text()
PLAIN = {str: "text", int: "integer", float: "number", bool: "boolean", Any: "any"}


def subclasses(kind: type[Record]) -> Iterator[type[Record]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def records() -> dict[str, type[Record]]:
    for room in (vidatt.cli, vidatt.pipelines):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            importlib.import_module(module.name)
    found = list(dict.fromkeys(subclasses(Record)))
    named = {record.__name__: record for record in found}
    assert len(named) == len(found), "two records have one name"
    return named


RECORDS = records()


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def returned(command: click.Command) -> list[str]:
    """The names of the types that a command may return, from its annotation."""
    text = str(command.callback.__wrapped__.__annotations__["return"])  # type: ignore[union-attr]
    return re.fullmatch(r"tuple\[(.*), str, int\]", text)[1].split(" | ")  # type: ignore[index]


def words(kind: Any) -> str:
    """A type as the page calls it."""
    inner = get_args(kind)
    if get_origin(kind) is UnionType:
        return f"{words(next(x for x in inner if x is not NoneType))} or null"
    if get_origin(kind) is tuple:
        return f"list of {words(inner[0])}"
    if get_origin(kind) is Mapping:
        return f"object of {words(inner[1])}"
    return PLAIN[kind] if kind in PLAIN else f"[{kind.__name__}](#{kind.__name__.lower()})"


def rows(record: type[Record]) -> list[tuple[str, str]]:
    """Field and type of each row that the page must have."""
    types = get_type_hints(record)
    return [
        (f"`{f.name}`", words(types[f.name]).replace(" or null", ", may be absent") if f.metadata.get("beside") == ""
         else words(types[f.name]) + (", may be absent" if "beside" in f.metadata else ""))
        for f in fields(record)
    ]  # fmt: skip


def reachable(names: list[str]) -> set[str]:
    """The records that objects of these types are made of, themselves included."""
    found: set[str] = set()
    waiting = [name for name in names if name in RECORDS]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += re.findall(r"\[(\w+)\]\(#", " ".join(kind for _, kind in rows(RECORDS[name])))
    return found


ALL = sorted(reachable([name for _, command in commands(main) for name in returned(command)]))


@pytest.mark.parametrize(("name", "command"), [pytest.param(n, c, id=n) for n, c in commands(main)])
def test_page_names_what_each_command_returns(name: str, command: click.Command) -> None:
    line = next((line for line in PAGE.splitlines() if line.startswith(f"| `vidatt {name}` |")), None)
    assert line, f"docs/json.md has no row for vidatt {name}"
    wanted = [kind for kind in returned(command) if kind in RECORDS]
    assert wanted == returned(command) or name == "extract"
    assert re.findall(r"\[(\w+)\]\(#", line) == wanted


@pytest.mark.parametrize("name", ALL)
def test_page_lists_the_fields_of_each_object(name: str) -> None:
    sections = re.findall(rf"^### {name}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert len(sections) == 1, f"docs/json.md has {len(sections)} sections {name}"
    listed = re.findall(r"^\| (`\w+`) \| (.*?) \|", sections[0], re.MULTILINE)
    assert listed == rows(RECORDS[name])


def test_page_lists_nothing_else() -> None:
    typed = re.split(r"^## Objects$", PAGE, flags=re.MULTILINE)[1]
    assert sorted(re.findall(r"^### (\w+)$", typed, re.MULTILINE)) == ALL
    told = re.findall(r"^\| `vidatt ([\w -]+)` \|", PAGE, re.MULTILINE)
    assert sorted(told) == sorted(name for name, _ in commands(main))
