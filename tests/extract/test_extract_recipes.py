"""How a recipe becomes the configurations of streams."""

from __future__ import annotations

import pytest

from vidatt.errors import UnknownNameError, UsageError
from vidatt.extract.kinds import KINDS, RGB
from vidatt.extract.recipes import RECIPES, recipe_streams
from vidatt.extract.streams import StreamConfig


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_makes_its_streams(name: str) -> None:
    assert {s.name: s.backbone for s in recipe_streams(name)} == RECIPES[name].backbones


def test_choices_go_before_the_recipe_and_absent_streams_are_those_of_stan() -> None:
    choices = {"rgb": {"backbone": "resnet18", "layer": None, "crop_px": 112}, "clip": {"weights": "random"}}
    assert recipe_streams("glka", ["rgb", "clip"], choices=choices, precision="float32") == (
        StreamConfig(name="rgb", backbone="resnet18", crop_px=112, precision="float32"),
        StreamConfig(name="clip", backbone="c3d", weights="random", precision="float32"),
    )


def test_what_no_recipe_knows_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown recipe 'stam'. Did you mean 'stan'"):
        recipe_streams("stam")
    with pytest.raises(UnknownNameError, match=r"Unknown stream 'rbg'. Did you mean 'rgb'"):
        recipe_streams("stan", ["rbg"])
    monkeypatch.setitem(KINDS, "depth", RGB)
    with pytest.raises(UsageError, match="Recipe 'stan' has no stream 'depth'; name its backbone: --backbone depth="):
        recipe_streams("stan", ["depth"])
