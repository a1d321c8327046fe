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
ALLOWED = {
    "cli": {"cli", "pipelines", "extract", "heads", "cache", "errors"},
    "pipelines": {"pipelines", "extract", "heads", "cache", "errors"},
    "extract": {"extract", "registry", "errors"},
    "heads": {"heads", "registry", "errors"},
    "cache": {"cache", "errors"},
    "registry": {"registry", "errors"},
    "errors": {"errors"},
    "__main__": {"cli"},
    "__init__": set(),
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


def _imports(path: Path) -> Iterator[str]:
    """Names of the top-level rooms (or files) of the package that a module imports, relative or not."""
    place = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*place[: len(place) - node.level], *(node.module or "").split(".")]
            targets = [base] if node.module else [[*base[:-1], alias.name] for alias in node.names]
            for target in targets:
                parts = [p for p in target if p]
                if parts and parts[0] != "__version__":
                    yield parts[0]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vidatt"):
            yield "absolute " + str(node.module)
        elif isinstance(node, ast.Import):
            yield from ("absolute " + a.name for a in node.names if a.name.split(".")[0] == "vidatt")


def test_setup_cfg_lists_every_package() -> None:
    listed = set(_setup()["options"]["packages"].split())
    assert listed == _packages_on_disk()


def test_version_has_one_value() -> None:
    assert _setup()["metadata"]["version"] == __version__


@pytest.mark.parametrize("path", sorted(_modules()), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).with_suffix("").parts[0]
    wrong = sorted(set(_imports(path)) - ALLOWED[room])
    assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


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
    assert {"--json", "--verbose", "--quiet"} <= options
    page = (ROOT / "docs" / "commands.md").read_text()
    assert f"## `vidatt {name}`" in page
    section = page.split(f"## `vidatt {name}`")[1].split("\n## ")[0]
    missing = [
        o for o in options if o.startswith("--") and o not in ("--json", "--verbose", "--quiet") and o not in section
    ]
    assert not missing, f"docs/commands.md says nothing of {missing} in {name}"


def test_readme_first_screen_has_the_two_commands() -> None:
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert re.findall(r"^make \w+", screen, flags=re.MULTILINE) == ["make demo", "make test"]


def test_changelog_names_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
