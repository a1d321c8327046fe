"""Names that a command's help lists are those of the registry behind it, which is too heavy to import at start-up."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click
import pytest

from vidatt.cache.interchange.foreign import AXES
from vidatt.cli.main import main
from vidatt.pipelines.localisation.boxes import BOX_RULES
from vidatt.pipelines.localisation.proposals import PROPOSAL_RULES
from vidatt.pipelines.localisation.reading import ATTENTIONS
from vidatt.pipelines.metrics.detection import MEASURES
from vidatt.pipelines.results.fusion import FILE_SCORES
from vidatt.pipelines.results.fusion_methods import METHODS
from vidatt.pipelines.runs.splits import PARTS
from vidatt.pipelines.stores.exchange import COMPRESSIONS, EXPORTS, IMPORTS


def option(words: str) -> click.Option:
    """The option of `COMMAND --OPTION`."""
    *path, name = words.split()
    command: click.Command = main
    for part in path:
        assert isinstance(command, click.Group)
        command = command.commands[part]
    return next(p for p in command.params if isinstance(p, click.Option) and name in p.opts)


@pytest.mark.parametrize(
    ("words", "registry"),
    [
        ("detect --rule", PROPOSAL_RULES), ("locate --rule", BOX_RULES), ("detect --attention", ATTENTIONS),
        ("locate --attention", ATTENTIONS), ("fuse --method", METHODS), ("fuse --file-scores", FILE_SCORES),
        ("evaluate-detections --rule", MEASURES), ("cache export --format", EXPORTS),
        ("cache export --compression", COMPRESSIONS), ("cache import --format", IMPORTS),
        ("cache import --axes", AXES),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_help_lists_the_names_of_the_registry(words: str, registry: Iterable[str]) -> None:
    listed = re.split(r"[:.;\[]", option(words).help or "")[0]
    assert sorted(re.split(r", | or ", listed.strip())) == sorted(registry)


@pytest.mark.parametrize("words", ["evaluate --part", "detect --part", "locate --part", "compare --part"])
def test_parts_are_those_of_a_split(words: str) -> None:
    kind = option(words).type
    assert isinstance(kind, click.Choice)
    assert set(kind.choices) - {"validation"} == set(PARTS)
