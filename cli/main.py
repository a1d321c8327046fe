"""The door: the commands, each thin as paper: it parses, builds one configuration, calls one pipeline, prints."""

from __future__ import annotations

import click

from ..version import __version__
from .catalogues import backbones, datasets, doctor, heads, weights
from .demo import demo
from .extraction import extract
from .fitting import fit_head
from .localisation import detect, locate
from .results import compare, evaluate, evaluate_detections, fuse
from .stores import cache, status


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vidatt")
def main() -> None:
    """Extract video features once, train many attention heads on them."""


for _command in (
    extract, fit_head, evaluate, evaluate_detections, compare, fuse, detect, locate, cache, status,
    datasets, heads, backbones, weights, doctor, demo,
):  # fmt: skip
    main.add_command(_command)


if __name__ == "__main__":
    main()
