"""Named recipes: everything a paper says about stage one, each part of which can be overridden."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import UnknownNameError


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
