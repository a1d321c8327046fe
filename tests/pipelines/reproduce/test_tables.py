"""The tables as files: whole, read strictly, with the papers' numbers and commands that take their options."""

from __future__ import annotations

import configparser
import re
from itertools import pairwise
from pathlib import Path

import pytest

from vidatt.cli.reproduce import check_commands
from vidatt.errors import UsageError
from vidatt.pipelines.localisation.boxes import BOX_RULES
from vidatt.pipelines.localisation.proposals import PROPOSAL_RULES
from vidatt.pipelines.localisation.rules import read_rule
from vidatt.pipelines.reproduce.listing import OTHERS, list_tables
from vidatt.pipelines.reproduce.plan import check_settings
from vidatt.pipelines.reproduce.tables import Row, Step, Table, load_table, read_table, table_names
from vidatt.pipelines.results.fusion_methods import read_settings

ROOT = Path(__file__).resolve().parents[3]
PAPERS = ROOT.parent / "shared" / "papers"
ROWS = {
    "glka-1": 3, "glka-2": 7, "glka-3": 7, "glka-4": 3, "glka-5": 6, "glka-6": 10, "glka-7": 36, "glka-8": 8,
    "stan-1": 6, "stan-2": 2, "stan-3": 2, "stan-4": 19, "stan-5": 7, "stan-6": 8, "stan-7": 4, "stan-8": 8,
    "stan-9": 5, "stan-figure-5": 8, "tclsta-5": 30, "tclsta-6": 12, "tclsta-7": 4, "tclsta-8": 4, "tclsta-9": 9,
    "where-and-when-1": 10, "where-and-when-2": 9, "where-and-when-3": 4, "where-and-when-4": 3, "where-and-when-6": 2,
}  # fmt: skip
"""Every table of results of the four papers, and how many rows it has."""
NUMBERS = {"glka-7": 72, "stan-1": 54, "stan-4": 40, "stan-9": 25, "tclsta-5": 42, "tclsta-6": 48}
"""Counted by hand in the papers."""
SMALL = """
paper = "P"
table = "Table I"
title = "t"
where = "page 1"
unit = "%"
columns = ["a", "b"]
datasets.ucf101 = { measure = "top1", splits = ["1"] }
extract.main.recipe = "stan"

[fit]
one = { head = "stan", streams = "rgb" }
two = { head = "san", streams = "flow" }

[fuse]
both = { runs = ["one", "two"], method = "mean" }

[[row]]
label = "r"
steps = ["one", "both"]
printed.ucf101 = [1.0, "-"]
"""


def test_all_tables_of_the_four_papers_are_there_with_all_their_rows() -> None:
    assert {name: len(load_table(name).rows) for name in table_names()} == ROWS


def test_tables_have_as_many_numbers_as_are_printed() -> None:
    summaries = {table.name: table for table in list_tables().tables}
    assert {name: summaries[name].numbers for name in NUMBERS} == NUMBERS


@pytest.mark.parametrize("name", ROWS)
def test_commands_of_a_table_take_their_options(name: str) -> None:
    table = load_table(name)
    check_commands(table)
    for step in table.steps.values():
        check_settings(table, step)
        if step.section in ("detect", "locate"):
            rules = {"detect": PROPOSAL_RULES, "locate": BOX_RULES}[step.section]
            read_rule(rules, step.options["rule"], step.settings)
        if step.section == "fuse":
            read_settings(step.options["method"], step.settings)
        for dataset, settings in step.for_datasets.items():
            check_settings(table, Step(**{**vars(step), "settings": {**step.settings, **settings}})), dataset


def test_one_name_is_one_step_in_all_tables_of_a_paper() -> None:
    """Tables share run folders: a name that meant two things would be refused halfway."""
    found: dict[tuple[str, str], tuple[Step, dict[str, object]]] = {}
    for table in map(load_table, table_names()):
        for step in table.steps.values():
            made = {**table.extractions[step.extraction].options}
            made.pop("streams", None)  # a store may have more
            there = found.setdefault((table.family, step.name), (step, made))
            assert (there[0].options, there[0].settings, there[0].runs) == (step.options, step.settings, step.runs)
            assert there[1] == made, f"{table.name}: {step.name} reads another extraction than elsewhere"


def test_rows_without_commands_name_what_they_need() -> None:
    reasons = {row.reason for name in ROWS for row in load_table(name).rows if row.reason}
    assert all(reason.startswith((OTHERS, "needs ")) for reason in reasons)
    for name in ROWS:
        for row in load_table(name).rows:
            assert not row.reason.startswith(OTHERS) or "Ours" not in row.label


def _window(table: Table) -> list[str]:
    """The lines of a paper around the head of a table."""
    lines = (PAPERS / f"{table.family}.txt").read_text().splitlines()
    number = table.table.split()[-1]
    head = rf"^\s*Table {number}:" if table.family == "where-and-when" else rf"^\|?\s*TABLE {number}\b"
    at = next(n for n, line in enumerate(lines) if re.match(head, line))
    return lines[max(0, at - 20) : at + 45] if table.family == "where-and-when" else lines[at : at + 45]


def _numbers(line: str) -> list[float]:
    return [float(text) for text in re.findall(r"\d+\.\d+", line)]


def _printed(row: Row) -> list[float]:
    return [value for values in row.printed.values() for value in values if value is not None]


def _within(few: list[float], many: list[float]) -> bool:
    return any(many[n : n + len(few)] == few for n in range(len(many) - len(few) + 1))


@pytest.mark.skipif(not PAPERS.exists(), reason="the papers' texts are not here")
@pytest.mark.parametrize("name", [name for name in ROWS if name != "stan-figure-5"])
def test_printed_numbers_stand_in_the_paper_row_by_row(name: str) -> None:
    table = load_table(name)
    lines = _window(table)
    if name == "stan-7":  # rows and columns are the other way round
        assert any(_within([n for row in table.rows for n in _printed(row)], _numbers(line)) for line in lines)
        return
    for row in table.rows:
        if name == "tclsta-5":  # a column of rows for each dataset
            cells = [line.replace(" ", "").split("|") for line in lines]
            pairs = {(one, two) for line in cells for one, two in pairwise(line)}
            assert {(row.label.replace(" ", ""), f"{value:.3f}") for value in _printed(row)} <= pairs
        else:
            assert any(_within(_printed(row), _numbers(line)) for line in lines), row.label


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('title = "t"', 'titel = "t"', r"Unknown key 'titel'. Did you mean 'title'"),
        ('unit = "%"', 'unit = "percent"', r"Unknown unit 'percent'"),
        ('"page 1"', "1", r"where: must be text"),
        ("datasets.ucf101", "datasets.ucf102", r"Unknown dataset 'ucf102'. Did you mean 'ucf101'"),
        ('measure = "top1"', 'measure = "top2"', r"datasets.ucf101: no measure 'top2'"),
        ('runs = ["one", "two"]', 'runs = ["one", "twu"]', r"Unknown step in fuse.both: 'twu'. Did you mean 'two'"),
        ('runs = ["one", "two"], ', "", r"fuse.both.runs: a fit has none"),
        ('streams = "rgb"', 'streams = "rgb", seed = 1', r"fit.one.seed: the command fills that in"),
        ('streams = "rgb"', 'streams = "rgb", on = "{both}"', r"steps both, one: need each other in a circle"),
        ('"one", "both"]', '"one"]', r"row 'r': 1 steps for 2 columns"),
        ('"one", "both"]', '"one", "bothe"]', r"Unknown step of row 'r': 'bothe'"),
        ('[1.0, "-"]', "[1.0]", r"row 'r': 1 printed numbers for 2 columns on ucf101"),
        ('label = "r"', 'label = "r"\nreason = "none"', r"row 'r': give its steps, or the reason"),
        ('two = {', 'three = { head = "stan" }\ntwo = {', r"step three: no row and no step needs it"),
        ('[[row]]', '[row]', r"row: write \[\[row\]\]"),
        ('[1.0, "-"]', '["1.0", "-"]', r"row 'r': printed.ucf101 must be a list of numbers"),
        ('steps = ["one", "both"]', 'steps = "one"', r"row 'r'.steps: must be a list of texts"),
        ('extract.main.recipe = "stan"', 'extract.main = "stan"', r"extract: write extract.NAME"),
        ('unit =', 'unit', r"no TOML"),
        ('[fit]', '[given]\nx = "a file"\n[fit]', r"given.x: no step needs it"),
        ('[fit]', '[given]\none = "a run"\n[fit]', r"fit.one: there is another step of this name, or something given"),
        ('label = "r"', 'label = "r"\nmeasures = ["top1"]', r"row 'r'.measures: 1 for 2 columns"),
        ('label = "r"', 'label = "r"\nmeasures = ["top1", "recall@0.1"]', r"row 'r'.measures: no measure 'recall@0.1'"),
    ],
)  # fmt: skip
def test_a_file_with_a_mistake_is_refused_in_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "p-1.toml"
    assert SMALL.count(old) >= 1
    path.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(UsageError, match=rf"^p-1.toml: .*{said}") as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('streams = "rgb"', 'stream = "rgb"', r"fit.one: No such option:? '?--stream"),
        ('method = "mean"', 'method = "mean", rule = "x"', r"fuse.both: No such option:? '?--rule"),
        (
            'streams = "rgb"',
            'streams = "rgb", evaluate = { wiews = "x" }',
            r"fit.one.evaluate: No such option:? '?--wiews",
        ),
        ('recipe = "stan"', 'recipe = "stan"\nextract.main.crop_px = 3', r"extract.main: No such option:? '?--crop_px"),
        ('streams = "rgb"', 'streams = ["rgb", "flow"]', r"fit.one.streams: give one value"),
    ],
)
def test_an_option_that_no_command_has_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "p-1.toml"
    path.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(UsageError, match=rf"^p-1.toml: {said}"):
        check_commands(read_table(path))


def test_a_setting_that_no_head_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p-1.toml"
    path.write_text(SMALL.replace('streams = "rgb"', 'streams = "rgb", set = { conv7 = 3 }', 1))
    table = read_table(path)
    with pytest.raises(UsageError, match=r"p-1.toml: fit.one: Unknown setting of head 'stan' 'conv7'"):
        check_settings(table, table.steps["one"])


def test_steps_that_others_need_come_first_and_parts_are_what_a_step_stands_on(tmp_path: Path) -> None:
    path = tmp_path / "p-1.toml"
    path.write_text(SMALL.replace('streams = "flow"', 'streams = "flow", set = { loss = "{one}" }'))
    table = read_table(path)
    assert list(table.steps) == ["one", "two", "both"]
    assert table.parts("both") == ["one", "two", "both"]
    assert table.parts("one") == ["one"]


def test_a_row_may_show_something_else_than_its_column_and_steps_read_what_is_given(tmp_path: Path) -> None:
    path = tmp_path / "p-1.toml"
    text = SMALL.replace('label = "r"', 'label = "r"\nmeasures = ["map", "window_recall@0.5"]')
    text = text.replace("[fit]", '[given]\nfile = "scores"\n\n[fit]').replace('"one", "two"]', '"one", "two", "file"]')
    path.write_text(text)
    table = read_table(path)
    assert [table.measure(table.rows[0], n, "ucf101", multi_label=False) for n in (0, 1)] == [
        "map",
        "window_recall@0.5",
    ]
    assert (table.steps["both"].needs, table.steps["both"].given) == (("one", "two"), ("file",))
    assert table.given == {"file": "scores"}


def test_page_has_the_list_that_the_command_prints() -> None:
    """docs/reproduce.md: its rows and shares are those of the files."""
    page = (ROOT / "docs" / "reproduce.md").read_text()
    for table in list_tables().tables:
        row = rf"^{table.name} +\S.* {table.rows_expressed}/{table.rows} +{table.numbers_expressed}/{table.numbers}\b"
        assert re.search(row, page, re.MULTILINE), f"docs/reproduce.md is old in {table.name}: `vidatt reproduce`"


def test_an_installed_package_has_the_tables() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    pattern = setup["options.package_data"]["vidatt.pipelines"]
    assert {path.stem for path in (ROOT / "pipelines").glob(pattern)} == set(table_names())
