"""Named recipes: everything a paper says about stage one, each part of which can be overridden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UnknownNameError, UsageError
from .kinds import find_kind
from .streams import StreamConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Defaults of one extraction."""

    name: str
    summary: str
    sampler: str
    backbones: dict[str, str]  # of each stream it has, in order
    layers: dict[str, str] = field(default_factory=dict)
    resize: dict[str, str] = field(default_factory=dict)
    crop_px: dict[str, int] = field(default_factory=dict)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="stan",
            summary="STAN (Li et al. 2019): 25 segments; VGG-16 pool5 of frames and flow, C3D pool5 of clips at 224",
            sampler="uniform:25",
            backbones={"rgb": "vgg16", "flow": "vgg16", "clip": "c3d"},
        ),
        Recipe(
            name="glka",
            summary="GLKA: ResNet-34 conv5; windows of 30 frames with stride 15, at most 20 of them",
            sampler="windows:30:15:20",
            backbones={"rgb": "resnet34"},
        ),
        Recipe(
            name="where-and-when",
            summary="Where and When to Look?: ResNet-101 conv5 of 25 frames",
            sampler="uniform:25",
            backbones={"rgb": "resnet101"},
        ),
        Recipe(
            name="tclsta",
            summary="TCLSTA: ResNet-50 conv5 of frames and flow, 25 segments",
            sampler="uniform:25",
            backbones={"rgb": "resnet50", "flow": "resnet50"},
        ),
        Recipe(
            name="hands",
            summary="hand-made descriptors, no weights: HOG of frames, HOF of flow, HOG3D of clips, 25 segments",
            sampler="uniform:25",
            backbones={"rgb": "hog", "flow": "hof", "clip": "hog3d"},
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises
    ------
    UnknownNameError
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]


def recipe_streams(
    recipe: str, names: Sequence[str] | None = None, *, choices: Mapping[str, Mapping[str, Any]] | None = None,
    **common: Any,
) -> tuple[StreamConfig, ...]:  # fmt: skip
    """Make the configurations of streams by a recipe; a stream that it has not is made as `stan` makes it.

    Parameters
    ----------
    names : streams; None = those of the recipe
    choices : of a stream, fields of `StreamConfig` that go before the recipe's; None = the recipe's
    common : fields of `StreamConfig` for all streams

    Raises
    ------
    UnknownNameError
        For an unknown recipe or stream.
    UsageError
        If neither a choice nor a recipe names a stream's backbone, or a side of a crop is not positive.
    """
    wanted = find_recipe(recipe)
    configs = []
    for name in wanted.backbones if names is None else names:
        find_kind(name)
        defaults = wanted if name in wanted.backbones else find_recipe("stan")
        chosen = {key: value for key, value in (choices or {}).get(name, {}).items() if value is not None}
        fields = {
            "backbone": defaults.backbones.get(name),
            "layer": defaults.layers.get(name),
            "resize": defaults.resize.get(name),
            "crop_px": defaults.crop_px.get(name),
        }
        if (chosen.get("backbone") or fields["backbone"]) is None:
            raise UsageError(f"Recipe {recipe!r} has no stream {name!r}; name its backbone: --backbone {name}=NAME.")
        configs.append(StreamConfig(name=name, **{**fields, **common, **chosen}))
    return tuple(configs)
