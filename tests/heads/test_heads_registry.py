"""The registry's manners: nearest names, typed settings, refused duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from vidatt.errors import UnknownNameError, UsageError
from vidatt.heads.contract import FitDefaults, HeadConfig
from vidatt.heads.mean import Mean
from vidatt.heads.registry import (
    HEADS,
    HeadEntry,
    HeadSettings,
    head_names,
    preset_names,
    register,
    resolve_settings,
)
from vidatt.heads.stan import StanConfig


def test_registry_names_are_sorted_and_hold_the_first_heads():
    assert head_names() == sorted(head_names())
    assert {"mean", "san", "stan"} <= set(head_names())
    assert preset_names("stan") == ["paper", "small"]


def test_stan_paper_preset_is_the_specification():
    settings = resolve_settings("stan")
    config, fit = settings.config, settings.fit
    assert isinstance(config, StanConfig)
    assert (config.conv6, config.kernel, config.relu, config.lstm, config.dropout) == (1024, 3, True, 1024, 0.5)
    assert (fit.optimiser, fit.lr, fit.momentum, fit.weight_decay) == ("sgd", 1e-3, 0.9, 5e-4)
    assert (fit.batch_videos, fit.steps, fit.schedule, fit.milestones) == (128, 15_000, "steps", (4_000, 8_000, 12_000))


def test_settings_override_the_preset_in_either_dataclass():
    settings = resolve_settings("stan", "small", {"conv6": "64", "relu": "off", "lr": "5e-4", "milestones": "5, 9"})
    assert isinstance(settings.config, StanConfig)
    assert (settings.config.conv6, settings.config.relu, settings.config.lstm) == (64, False, 128)
    assert (settings.fit.lr, settings.fit.milestones, settings.fit.optimiser) == (5e-4, (5, 9), "adam")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("stam",), r"Unknown head 'stam'\. Did you mean 'stan'\?"),
        (("stan", "smal"), r"Unknown preset of head 'stan' 'smal'\. Did you mean 'small'\?"),
        (("stan", "paper", {"drop_out": "0"}), r"Unknown setting of head 'stan' 'drop_out'\. Did you mean 'dropout'\?"),
        (("mean", "paper", {"lstm": "4"}), r"Unknown setting of head 'mean' 'lstm'"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(arguments, message):
    with pytest.raises(UnknownNameError, match=message):
        resolve_settings(*arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conv6": "many"}, "conv6='many': must be a whole number"),
        ({"conv6": "1.5"}, "conv6='1.5': must be a whole number"),
        ({"lr": "fast"}, "lr='fast': must be a number"),
        ({"lr": "nan"}, "lr=nan: must be more than 0"),
        ({"lr": "0"}, "lr=0.0: must be more than 0"),
        ({"relu": "maybe"}, "relu='maybe': must be true or false"),
        ({"loss": "hinge"}, "loss='hinge': must be one of softmax, sigmoid"),
        ({"optimiser": "lion"}, "must be one of sgd, adam"),
        ({"schedule": "step"}, "must be one of steps, cosine, plateau"),
        ({"milestones": "9,5"}, "rising step numbers"),
        ({"milestones": "9,x"}, "milestones='x': must be a whole number"),
        ({"dropout": "1"}, "dropout=1.0: must be at least 0 and less than 1"),
        ({"kernel": "2"}, "kernel=2: must be odd"),
        ({"conv6": "0"}, "conv6=0: must be at least 1"),
        ({"steps": "0"}, "steps=0: must be at least 1"),
    ],
    ids=str,
)
def test_wrong_values_are_one_line(settings, message):
    with pytest.raises(UsageError, match=message) as caught:
        resolve_settings("stan", "paper", settings)
    assert "\n" not in str(caught.value)


def test_from_dict_refuses_a_field_that_no_longer_exists():
    values = resolve_settings("mean").to_dict()
    values["config"]["colour"] = 1
    with pytest.raises(UnknownNameError, match="colour"):
        HeadSettings.from_dict("mean", "paper", values)


@dataclass(frozen=True, kw_only=True)
class OddConfig(HeadConfig):
    """Fields of every kind that a later head may have."""

    width: int | None = 4
    kind: Literal["a", "b"] = "a"
    sizes: tuple[float, ...] = (1.0,)


class Odd(Mean):
    Config = OddConfig


@dataclass(frozen=True, kw_only=True)
class ClashConfig(HeadConfig):
    lr: float = 1.0


class Clash(Mean):
    Config = ClashConfig


def entry(head, **presets):
    return HeadEntry(head=head, summary="s", paper="p", presets=presets)


def test_register_carries_optional_and_list_fields():
    register("odd", entry(Odd, paper={}))
    try:
        config = resolve_settings("odd", "paper", {"width": "none", "kind": "b", "sizes": "0.5,2"}).config
        assert config == OddConfig(width=None, kind="b", sizes=(0.5, 2.0))
        assert resolve_settings("odd", "paper", {"width": "8"}).config == OddConfig(width=8)
    finally:
        del HEADS["odd"]


@pytest.mark.parametrize(
    ("name", "made", "message"),
    [
        ("stan", entry(Mean, paper={}), "Head 'stan' is registered already"),
        ("new", entry(Clash, paper={}), "both have lr"),
        ("new", entry(Mean, small={}), "no preset 'paper'"),
        ("new", entry(Mean, paper={"lstm": 4}), "preset 'paper' sets lstm"),
    ],
    ids=["duplicate", "clash", "no-paper", "unknown-field"],
)
def test_register_refuses_what_cannot_work(name, made, message):
    with pytest.raises(UsageError, match=message):
        register(name, made)
    assert "new" not in HEADS


def test_fit_defaults_are_disjoint_from_every_head_config():
    for name in head_names():
        assert not set(HEADS[name].head.Config.__dataclass_fields__) & set(FitDefaults.__dataclass_fields__)
