"""Options from a file and into one: `--config`, `--save-config`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from testkit.stores import filled_store

from vidatt.cli.configuration import write_config
from vidatt.cli.main import main


def told(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="vidatt")


def parsed(command: str, *words: str) -> click.Context:
    """The context of a command line, without running it."""
    at: click.Command = main
    context = click.Context(main)
    for name in command.split():
        assert isinstance(at, click.Group)
        context, at = click.Context(at, info_name=at.name, parent=context), at.commands[name]
    return at.make_context(str(at.name), list(words), parent=context)


@pytest.mark.parametrize(
    ("command", "options", "arguments"),
    [
        ("extract", ["--dataset", "ucf101", "--streams", "rgb,flow", "--backbone", "rgb=hog", "--backbone", "flow=hof",
                     "--segments", "4", "--flow-rescale", "--option", "a=b=c", "--retry", "--decode-memory", "1.5",
                     "--videos", "/v/ä\"\\'# \x7f\t\N{GRINNING FACE}", "--seed", "-3"], []),
        ("extract", ["--dataset", "list", "--retry", "missing,unreadable"], []),
        ("fit-head", ["--head", "stan", "--set", "lr=1e-3", "--set", "steps=5", "--seeds", "3"], []),
        ("cache verify", [], ["s.zarr"]),
        ("evaluate", ["--part", "train", "--allow-seen"], ["RUN"]),
        ("submit local", ["--tasks", "3"], ["extract"]),
    ],
)  # fmt: skip
def test_what_was_saved_gives_the_same_options(command, options, arguments, tmp_path):
    file = tmp_path / "c.toml"
    given = parsed(command, *options, *arguments)
    write_config(given, file)
    again = parsed(command, "--config", str(file), *arguments)
    assert again.params == given.params
    content = file.read_bytes()
    write_config(again, file)
    assert file.read_bytes() == content


def test_the_command_line_wins_and_a_file_serves_every_command(tmp_path):
    store = filled_store(tmp_path / "s.zarr", [3] * 8, {"rgb": (1, 1, 4)})
    file = tmp_path / "all.toml"
    file.write_text(
        f"""# an experiment
[fit-head]
head = "mean"
store = {str(store.path)!r}
streams = ["rgb"]
set = {{ steps = 4, lr = 3e-4 }}
seed = 7
[cache.export]
format = "npz"
"""
    )
    context = parsed("fit-head", "--config", str(file), "--seed", "8", "--set", "steps=5")
    assert context.params["settings"] == ("steps=5",)
    assert (context.params["seed"], context.params["streams"], context.params["head"]) == (8, "rgb", "mean")
    assert parsed("fit-head", "--config", str(file)).params["settings"] == ("steps=4", "lr=0.0003")
    out = tmp_path / "run"
    done = told("fit-head", "--config", file, "--out", out, "--json", "--save-config", file.with_name("kept.toml"))
    assert done.exit_code == 0, done.stderr
    assert json.loads((out / "config.json").read_bytes())["identity"]["seed"] == 7
    kept = tomllib.loads(file.with_name("kept.toml").read_text())["fit-head"]
    assert kept["out"] == str(out)
    assert kept["set"] == ["steps=4", "lr=0.0003"]
    assert "json" not in kept


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[extract", "is no TOML"),
        ("[fit-head]", "has no table [extract]; it has [fit-head]."),
        ("", "has no table [extract]; it has nothing."),
        ("extract = 3", "has no table [extract]"),
        ("[extract]\nsegmnts = 3", "'segmnts'. Did you mean 'segments'?"),
        ("[extract]\njson = true", "'json'"),
        ("[extract]\nflow-rescale = 3", "flow-rescale in [extract] of C is 3; write true or false."),
        ("[extract]\nsegments = {a = 3}", "segments in [extract] of C is a table; write one value."),
        ("[extract]\nbackbone = {rgb = [1]}", "backbone in [extract] of C has [1]; write text, numbers"),
        ("[extract]\nseed = 2020-01-01", "write text, numbers, true or false."),
        ('[extract]\ndataset = "x"\nworkers = 0', "Invalid value for '--workers': 0 is not in the range x>=1."),
        ('[extract]\ndataset = "x"\nworkers = "two"', "'two' is not a valid integer"),
    ],
)
def test_a_wrong_file_is_one_line(content, said, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(content)
    done = told("extract", "--config", file)
    assert done.exit_code in (2, 3)
    assert said.replace(" C ", f" {file} ") in done.stderr
    assert done.stderr.startswith("vidatt: ")
    assert done.stderr.count("\n") == 1


def test_no_file_is_one_line_and_other_options_are_never_written_over(tmp_path):
    done = told("extract", "--config", tmp_path / "nix.toml")
    assert done.stderr == f"vidatt: --config {tmp_path}/nix.toml cannot be read: No such file or directory.\n"
    file = tmp_path / "c.toml"
    file.write_text("# mine\n[extract]\nseed = 3\n")
    done = told("cache", "verify", tmp_path / "nix.zarr", "--save-config", file)
    assert "nix.zarr" in done.stderr
    assert file.read_text() == "# mine\n[extract]\nseed = 3\n\n[cache.verify]\n"
    done = told("extract", "--dataset", "ucf101", "--seed", "4", "--save-config", file)
    assert done.exit_code == 2
    assert "has other options in [extract]" in done.stderr
    done = told("extract", "--dataset", "ucf101", "--videos", b"/v/\xff".decode(errors="surrogateescape"),
                "--save-config", tmp_path / "d.toml")  # fmt: skip
    assert "--videos" in done.stderr
    assert "is no text" in done.stderr
    assert not (tmp_path / "d.toml").exists()
