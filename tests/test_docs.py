"""The pages name what is there: files, modules, tests and links that exist."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))
]
FOLDERS = "benchmarks|cache|cli|docs|extract|heads|pipelines|tests"
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))


def _quoted(page: Path) -> list[str]:
    """Return what a page has in backticks, blocks of code included."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return blocks + re.findall(r"`([^`]+)`", rest)


def _paths(page: Path) -> set[str]:
    places = {match for text in _quoted(page) for match in re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./*-]*", text)}
    return places | {text for text in _quoted(page) if re.fullmatch(r"\w+\.(?:py|cfg|toml|md)|Makefile", text)}


def _exists(path: str) -> bool:
    return any(ROOT.glob(path.rstrip("./"))) if "*" in path else (ROOT / path.rstrip(".")).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    assert sorted(path for path in _paths(page) if not _exists(path)) == []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", page.read_text())
    for target, anchor in links:
        found = page.parent / target if target else page
        assert found.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in _anchors(found), f"{page.name} links to #{anchor} of {found.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_names_that_a_page_quotes_can_be_imported(page: Path) -> None:
    for name in {match for text in _quoted(page) for match in re.findall(r"\bvidatt(?:\.\w+)+", text)}:
        found, *rest = import_module("vidatt"), *name.split(".")[1:]
        for part in rest:
            found = getattr(found, part) if hasattr(found, part) else import_module(f"{found.__name__}.{part}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    named = {text for text in _quoted(page) if re.fullmatch(r"test_\w+", text)}
    assert sorted(name for name in named if f"def {name}(" not in TESTS) == []


def test_pages_name_paths_at_all() -> None:
    assert {"heads/registry.py", "tests/test_house.py", "setup.cfg"} <= _paths(ROOT / "CONTRIBUTING.md")
    assert _exists("tests/*/test_*.py")
    assert not _exists("heads/nobody.py")
    assert not _exists("heads/nobody*.py")


def test_contributing_has_a_section_for_each_thing_one_adds() -> None:
    """Each names files to touch, and the test that tells when it is done."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    sections = dict(re.findall(r"^## Add an? ([\w ]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert sections.keys() >= {"head", "backbone", "stream kind", "sampler", "dataset", "protocol", "command"}
    for name, section in sections.items():
        work, _, done = section.partition("**Done when**")
        assert re.search(rf"`(?!tests)(?:{FOLDERS})/[\w./]+\.py`", work), f"'Add a {name}' names no file to touch"
        assert re.search(r"`tests/[\w./]+\.py`", done), f"'Add a {name}' names no test that tells when it is done"


def test_every_page_can_be_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES if page.parent.name == "docs" and f"docs/{page.name}" not in readme] == []
