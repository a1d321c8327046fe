"""What every command shares."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from vidatt.cli.door import assignments
from vidatt.cli.main import main
from vidatt.errors import UsageError


def test_assignments_are_read_and_wrong_ones_refused() -> None:
    assert assignments("--set", ("lr=0.1", " steps = 5", "lr=0.1", "note=a=b")) == {
        "lr": "0.1", "steps": "5", "note": "a=b",
    }  # fmt: skip
    for wrong in ("lr", "=1"):
        with pytest.raises(UsageError, match="write KEY=VALUE"):
            assignments("--set", (wrong,))
    with pytest.raises(UsageError, match="--option lr is given twice"):
        assignments("--option", ("lr=1", "lr=2"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extrct"], "No such command 'extrct'."),
        (["extract", "--datset", "x"], "No such option"),
        (["extract"], "Missing option '--dataset'."),
        (["extract", "--dataset", "ucf101", "--precision", "float8"], "'float8' is not one of"),
        (["extract", "--dataset", "ucf101", "--segments", "0"], "0 is not in the range x>=1."),
        (["cache", "info"], "Missing argument 'STORE'."),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(arguments: list[str], said: str) -> None:
    told = CliRunner().invoke(main, arguments, prog_name="vidatt")
    assert told.exit_code == 2
    assert said in told.stderr
    assert told.stderr.startswith("vidatt: ")
    assert told.stderr.count("\n") == 1
    assert "See `vidatt" in told.stderr
    assert not told.stdout


def test_help_and_no_arguments_are_no_errors() -> None:
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0
    assert "Commands:" in CliRunner().invoke(main, []).output
    assert "info" in CliRunner().invoke(main, ["cache"]).output
