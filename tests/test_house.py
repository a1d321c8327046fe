"""The house itself: packaging, the direction of imports, and a door where every command explains itself."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from vidatt import __version__
from vidatt.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cli", "pipelines", "extract", "heads", "cache")
GROUND = {"errors", "version"}
ALLOWED = {
    "cli": {"cli", "pipelines", "extract", "heads", "cache", *GROUND},
    "pipelines": {"pipelines", "extract", "heads", "cache", *GROUND},
    "extract": {"extract", "registry", *GROUND},
    "heads": {"heads", "registry", *GROUND},
    "cache": {"cache", *GROUND},
    "registry": {"registry", "errors"},
    "errors": set(),
    "version": set(),
    "__main__": {"cli"},
    "__init__": {"pipelines", "extract", "heads", "cache", *GROUND},  # the Python face; nobody imports it from inside
}


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _packages_on_disk() -> set[str]:
    folders = [ROOT, *(p.parent for room in ROOMS for p in (ROOT / room).rglob("__init__.py"))]
    return {".".join(["vidatt", *f.relative_to(ROOT).parts]) for f in folders}


def _modules() -> Iterator[Path]:
    yield from ROOT.glob("*.py")
    for room in ROOMS:
        yield from (ROOT / room).rglob("*.py")


def _imported(path: Path) -> Iterator[Path]:
    """Files of the package that a file imports, wherever in it: at the top, in functions, for type checkers only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                places = (base / f"{alias.name}.py", base / alias.name / "__init__.py", base.with_suffix(".py"))
                yield next((place for place in places if place.is_file()), base / "__init__.py")


def _circles(arrows: dict[str, set[str]]) -> set[tuple[str, ...]]:
    """Return the groups of names, sorted, each of which leads to all the others of its group."""

    def beyond(name: str) -> set[str]:
        found: set[str] = set()
        ahead = [name]
        while ahead:
            new = arrows[ahead.pop()] - found
            found |= new
            ahead.extend(new)
        return found

    reached = {name: beyond(name) for name in arrows}
    return {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in arrows
        if name in reached[name]
    }


def _way_round(arrows: dict[str, set[str]], name: str) -> list[str]:
    """Return a shortest way from a name of a circle back to itself."""
    ways = [[name]]
    while True:
        ways = [[*way, ahead] for way in ways for ahead in sorted(arrows[way[-1]]) if ahead not in way[1:]]
        for way in ways:
            if way[-1] == name:
                return way


def _long_functions(path: Path, most: int) -> dict[str, int]:
    return {
        f"{path.relative_to(ROOT)} {node.name}": length
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > most
    }


def test_setup_cfg_lists_every_package() -> None:
    listed = set(_setup()["options"]["packages"].split())
    assert listed == _packages_on_disk()


def test_version_has_one_value() -> None:
    assert _setup()["metadata"]["version"] == __version__


def test_version_is_imported_from_its_file() -> None:
    """A room that imported the package's face would close a circle through all of them."""
    face = ROOT / "__init__.py"
    assert [str(path.relative_to(ROOT)) for path in _modules() if face in _imported(path)] == []


@pytest.mark.parametrize("path", sorted(_modules()), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).with_suffix("").parts[0]
    found = {target.relative_to(ROOT).with_suffix("").parts[0] for target in _imported(path)}
    assert not found - ALLOWED[room], f"{path.relative_to(ROOT)} imports {sorted(found - ALLOWED[room])}"
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert not [name for name in names if name.split(".")[0] == "vidatt"], "inside the package import relatively"


def test_files_import_each_other_in_no_circle() -> None:
    arrows = {
        str(path.relative_to(ROOT)): {str(target.relative_to(ROOT)) for target in _imported(path)}
        for path in _modules()
    }
    assert all(target in arrows for targets in arrows.values() for target in targets)
    found = [" -> ".join(_way_round(arrows, circle[0])) for circle in sorted(_circles(arrows))]
    assert not found, f"circles of files: {'; '.join(found)}"


def test_circles_are_found_whole_and_apart() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}, "g": {"g"}}
    assert _circles(arrows) == {("a", "b", "c"), ("d", "e"), ("g",)}
    assert [_way_round(arrows, name) for name in "adg"] == [["a", "b", "c", "a"], ["d", "e", "d"], ["g", "g"]]


def test_functions_have_at_most_60_lines() -> None:
    long = {name: lines for path in sorted(_modules()) for name, lines in _long_functions(path, 60).items()}
    assert not long, "; ".join(f"{name}: {lines} lines" for name, lines in long.items())


@pytest.mark.parametrize("path", sorted(_modules()), ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_have_a_docstring_and_at_most_500_lines(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path.name} says nothing about itself"
    assert len(text.splitlines()) <= 500


def _commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


@pytest.mark.parametrize(("name", "command"), [pytest.param(n, c, id=n) for n, c in _commands(main)])
def test_command_has_help_an_example_json_and_stands_in_the_docs(name: str, command: click.Command) -> None:
    assert command.help
    assert "Example:" in command.help
    assert f"vidatt {name}" in command.help
    options = {option for parameter in command.params for option in parameter.opts}
    common = {"--config", "--save-config", "--json", "--verbose", "--quiet"}
    assert common <= options
    page = (ROOT / "docs" / "commands.md").read_text()
    assert f"## `vidatt {name}`" in page
    section = page.split(f"## `vidatt {name}`")[1].split("\n## ")[0]
    missing = [o for o in options - common if o.startswith("--") and o not in section]
    assert not missing, f"docs/commands.md says nothing of {missing} in {name}"


def test_readme_first_screen_has_the_two_commands() -> None:
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert re.findall(r"^make \w+", screen, flags=re.MULTILINE) == ["make demo", "make test"]


def test_changelog_names_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
