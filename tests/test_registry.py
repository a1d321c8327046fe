"""The one form of registry, and that heads, datasets and backbones have it."""

from __future__ import annotations

import pytest

from vidatt.errors import UnknownNameError, UsageError
from vidatt.extract.backbones.registry import BACKBONES
from vidatt.extract.datasets.registry import DATASETS
from vidatt.heads.registry import HEADS
from vidatt.registry import Registry


def test_registry_is_a_dictionary_with_sorted_names() -> None:
    colours: Registry[int] = Registry("colour")
    colours["red"] = 1
    colours["blue"] = 2
    assert colours.names() == ["blue", "red"]
    assert (colours["red"], colours.get("green"), "green" in colours) == (1, None, False)


def test_registry_refuses_unknown_and_taken_names_in_one_line() -> None:
    colours: Registry[int] = Registry("colour", hints=("rgb:R,G,B",))
    colours["red"] = 1
    with pytest.raises(UnknownNameError, match=r"^Unknown colour 'reed'. Did you mean 'red'\?$"):
        colours["reed"]
    with pytest.raises(UnknownNameError, match=r"Did you mean 'rgb:R,G,B'\?"):
        colours["rgb:R,G"]
    with pytest.raises(UsageError, match=r"^Colour 'red' is registered already.$"):
        colours["red"] = 2
    assert colours == {"red": 1}


@pytest.mark.parametrize("registry", [HEADS, DATASETS, BACKBONES], ids=lambda registry: registry.noun)
def test_heads_datasets_and_backbones_share_it(registry: Registry) -> None:
    assert isinstance(registry, Registry)
    with pytest.raises(UsageError, match=f"{registry.noun.capitalize()} .* is registered already"):
        registry[registry.names()[0]] = None
