"""The heads by name: what they are, their presets, and how text settings (`KEY=VALUE`) become configurations."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import UnknownNameError, UsageError, nearest_key_error
from ..registry import Registry
from .aggregators import ConvLstmHead, LstmHead, SruHead
from .cln import TclstaCln
from .contract import FitDefaults, FitSettings, Head, HeadConfig, StreamShape
from .glka import PRESETS as GLKA_PRESETS
from .glka import VARIANTS as GLKA_VARIANTS
from .glka import Glka
from .mean import Mean
from .soft_attention import SoftAttention
from .stan import San, Stan
from .svm.machines import SvmFc6, SvmFit, SvmOn, SvmPool5Flat, SvmPool5Mean, SvmVlad
from .tclsta import Tclsta
from .untrimmed import Untrimmed
from .videolstm import VideoLstm
from .where_and_when import WhereAndWhen


@dataclass(frozen=True, kw_only=True)
class HeadEntry:
    """One head of the registry; `presets` override fields of its `Config` and of its `fit` by name."""

    head: type[Head]
    summary: str  # one line
    paper: str  # where it comes from
    presets: Mapping[str, Mapping[str, Any]]  # "paper" is always there
    fit: type[FitSettings] = FitDefaults  # how it is fitted: step by step, or by a solver (`SvmFit`)


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """A head with every choice made: what `build_head` and the fit need, and what a run records."""

    name: str
    preset: str
    config: HeadConfig
    fit: FitSettings

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain types, for JSON: `{"config": {...}, "fit": {...}}`."""
        return {"config": asdict(self.config), "fit": asdict(self.fit)}

    @classmethod
    def from_dict(cls, name: str, preset: str, values: Mapping[str, Mapping[str, Any]]) -> HeadSettings:
        """Read `to_dict` back.

        Raises
        ------
        UnknownNameError
            For a head or a field that does not exist (any more).
        UsageError
            For a value that its field cannot take.
        """

        def read(cls_: type, part: str) -> Any:
            known = [f.name for f in fields(cls_)]
            nearest_key_error(f"setting of head {name!r}", values[part], known)
            hints = get_type_hints(cls_)
            return cls_(**{key: typed_value(key, value, hints[key]) for key, value in values[part].items()})

        config = read(HEADS[name].head.Config, "config")
        return cls(name=name, preset=preset, config=config, fit=read(HEADS[name].fit, "fit"))


HEADS: Registry[HeadEntry] = Registry("head")
"""The one registry of heads; filled at the end of this file, extended with `register`."""


def register(name: str, entry: HeadEntry) -> None:
    """Add a head.

    Raises
    ------
    UsageError
        If the name is taken, a preset overrides what does not exist, or a field of the head's `Config` has the name
        of one of its `fit` (both are set by the same `KEY=VALUE`).
    """
    config_keys, fit_keys = ({f.name for f in fields(cls)} for cls in (entry.head.Config, entry.fit))
    if clash := sorted(config_keys & fit_keys):
        both = f"its Config and {entry.fit.__name__} both have {', '.join(clash)}"
        raise UsageError(f"Head {name!r}: {both}; rename the former.")
    if "paper" not in entry.presets:
        raise UsageError(f"Head {name!r}: has no preset 'paper'.")
    for preset, overrides in entry.presets.items():
        if unknown := sorted(set(overrides) - config_keys - fit_keys):
            raise UsageError(f"Head {name!r}: preset {preset!r} sets {', '.join(unknown)}, which do not exist.")
    HEADS[name] = entry


def head_names() -> list[str]:
    """Return the names of all heads, sorted."""
    return HEADS.names()


def trained_head_names() -> list[str]:
    """Return the names of the heads that are trained step by step, by gradient, sorted."""
    return [name for name in head_names() if issubclass(HEADS[name].fit, FitDefaults)]


def preset_names(name: str) -> list[str]:
    """Return the names of the presets of a head, sorted.

    Raises
    ------
    UnknownNameError
        If there is no such head.
    """
    return sorted(HEADS[name].presets)


def default_preset(name: str) -> str:
    """Return what a head is fitted with unless told otherwise: `default` where it has one, else `paper`.

    Raises
    ------
    UnknownNameError
        If there is no such head.
    """
    return "default" if "default" in HEADS[name].presets else "paper"


def resolve_settings(name: str, preset: str = "paper", settings: Mapping[str, str] | None = None) -> HeadSettings:
    """Make every choice of a head: the paper's defaults, then the preset, then the user's settings.

    Parameters
    ----------
    name : of the head
    preset : of the head
    settings : texts by field name of the head's `Config` or of its way of fitting

    Raises
    ------
    UnknownNameError
        For an unknown head, preset or setting; names the nearest known one.
    UsageError
        For a value that its field cannot take.
    """
    entry = HEADS[name]
    if preset not in entry.presets:
        raise UnknownNameError(f"preset of head {name!r}", preset, entry.presets)
    config_type, fit_type = entry.head.Config, entry.fit
    hints = {cls: get_type_hints(cls) for cls in (config_type, fit_type)}
    chosen: dict[type, dict[str, Any]] = {cls: {} for cls in hints}
    given = dict(entry.presets[preset])
    for key, text in (settings or {}).items():
        if not any(key in types_ for types_ in hints.values()):
            raise UnknownNameError(f"setting of head {name!r}", key, [k for types_ in hints.values() for k in types_])
        given[key] = next(parse_value(key, text, types_[key]) for types_ in hints.values() if key in types_)
    for key, value in given.items():
        next(chosen[cls] for cls, types_ in hints.items() if key in types_)[key] = value
    return HeadSettings(
        name=name, preset=preset, config=config_type(**chosen[config_type]), fit=fit_type(**chosen[fit_type])
    )


def build_head(
    name: str,
    *,
    streams: Sequence[StreamShape],
    classes: int,
    preset: str = "paper",
    settings: Mapping[str, str] | None = None,
) -> Head:
    """Build a head with fresh weights from torch's global generator.

    Parameters
    ----------
    name, preset, settings : see `resolve_settings`
    streams : in the order in which the head will get their cubes
    classes : N

    Raises
    ------
    UsageError
        As `resolve_settings` and the head itself.
    """
    return build_from_settings(resolve_settings(name, preset, settings), streams=streams, classes=classes)


def build_from_settings(
    settings: HeadSettings, *, streams: Sequence[StreamShape], classes: int, on: Head | None = None
) -> Head:
    """Build a head whose choices are made, with fresh weights from torch's global generator.

    Parameters
    ----------
    on : of `svm`, and of it only: the fitted head whose representation it reads

    Raises
    ------
    UsageError
        If `on` is given to another head, or not to `svm`; and as the head itself.
    """
    head = HEADS[settings.name].head
    if issubclass(head, SvmOn) != (on is not None):
        raise UsageError(f"Head {settings.name!r}: only svm, and svm only, is fitted --on the run of another head.")
    if issubclass(head, SvmOn) and on is not None:
        return head(streams=streams, classes=classes, config=settings.config, on=on)
    return head(streams=streams, classes=classes, config=settings.config)


_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def typed_value(key: str, value: Any, kind: Any) -> Any:
    """Read the JSON value of one setting as the type of its field.

    Raises
    ------
    UsageError
        If it is of another type.
    """
    inner = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):  # X | None
        return None if value is None else typed_value(key, value, next(k for k in inner if k is not type(None)))
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(typed_value(key, item, inner[0]) for item in value)
    if kind is float and type(value) is int and abs(value) < 2**53:
        return value
    if kind is int and type(value) is int and abs(value) >= 2**31:
        raise UsageError(f"Setting {key}={value}: no head has one so large.")
    right = value in inner if get_origin(kind) is Literal else type(value) is kind
    if not right or (kind is float and not math.isfinite(value)):
        wanted = " or ".join(map(repr, inner)) if inner else {int: "a whole number", float: "a number"}.get(kind, kind)
        raise UsageError(f"Setting {key}={str(value)[:40]!r}: must be {wanted}.")
    return value


def parse_value(key: str, text: str, kind: Any) -> Any:
    """Read the text of one setting as the type of its field.

    Raises
    ------
    UsageError
        If the type cannot be read from it.
    """
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise UsageError(f"Setting {key}={text!r}: must be one of {', '.join(map(str, get_args(kind)))}.")
        return text
    if get_origin(kind) in (Union, types.UnionType):  # X | None
        if text.lower() == "none":
            return None
        return parse_value(key, text, next(k for k in get_args(kind) if k is not type(None)))
    if get_origin(kind) is tuple:  # tuple[X, ...]: comma-separated, may be empty
        return tuple(parse_value(key, part.strip(), get_args(kind)[0]) for part in text.split(",") if part.strip())
    if kind is bool:
        if text.lower() not in _WORDS:
            raise UsageError(f"Setting {key}={text!r}: must be true or false.")
        return _WORDS[text.lower()]
    try:
        return kind(text)
    except ValueError:
        rule = {int: "a whole number", float: "a number"}[kind]
        raise UsageError(f"Setting {key}={text!r}: must be {rule}.") from None


_STAN = "Li et al., Unified Spatio-Temporal Attention Networks for Action Recognition in Videos, IEEE TMM 2019"
# For hundreds of videos and a CPU: an eighth of the filters, Adam, and a rate that falls to zero.
_SMALL_FIT = {
    "optimiser": "adam", "lr": 1e-3, "weight_decay": 0.0, "batch_videos": 32, "steps": 600,
    "schedule": "cosine", "validate_every": 50,
}  # fmt: skip

register(
    "stan",
    HeadEntry(
        head=Stan,
        summary="attention over the cells of each stream, then LSTM-guided attention over the fused segments",
        paper=_STAN,
        presets={"paper": {}, "small": {"conv6": 128, "lstm": 128, **_SMALL_FIT}},
    ),
)
register(
    "san",
    HeadEntry(
        head=San,
        summary="attention over the cells of each stream, then the mean over segments: STAN without its second half",
        paper=_STAN,
        presets={"paper": {}, "small": {"conv6": 128, **_SMALL_FIT}},
    ),
)
register(
    "mean",
    HeadEntry(
        head=Mean,
        summary="no attention: the mean over cells and segments, then a linear classifier",
        paper=f"a rival, not of any paper; fitted like SAN in {_STAN}",
        presets={"paper": {}, "small": {**_SMALL_FIT, "lr": 3e-2}},  # one linear layer: 1e-3 would leave it unfitted
    ),
)
for _name, (_summary, _variant) in GLKA_VARIANTS.items():
    register(
        _name,
        HeadEntry(
            head=Glka,
            summary=_summary,
            paper="Zheng et al., Global and Local Knowledge-Aware Attention Network for Action Recognition, IEEE TNNLS",
            presets={preset: _variant | settings for preset, settings in GLKA_PRESETS.items()},
        ),
    )
register(
    "untrimmed",
    HeadEntry(
        head=Untrimmed,
        summary="every segment is classified, and attention over segments weighs the verdicts",
        paper="Wang et al., UntrimmedNets for Weakly Supervised Action Recognition and Detection, CVPR 2017",
        presets={
            "paper": {"milestones": (6_000, 12_000)},  # 15,000 steps; the rest of the code's solver is the default
            "small": {"dropout": 0.5, **_SMALL_FIT, "lr": 3e-2},  # two linear layers
        },
    ),
)
for _name, _rival, _hidden, _summary in (
    ("lstm", LstmHead, 128, "no attention: the mean over cells, then long short-term memory"),
    ("sru", SruHead, 128, "no attention: the mean over cells, then simple recurrent units"),
    ("convlstm", ConvLstmHead, 32, "no attention: a convolutional LSTM over whole cubes, then the mean over cells"),
):
    register(
        _name,
        HeadEntry(
            head=_rival,
            summary=_summary,
            paper=f"a rival, not of any paper; fitted like STAN in {_STAN}",
            presets={"paper": {}, "small": {"hidden": _hidden, **_SMALL_FIT}},
        ),
    )

# The authors' solver (60,000 steps are 200 epochs of UCF101); the paper states none.
_WW_FIT = {
    "optimiser": "adam", "lr": 1e-4, "weight_decay": 1e-4, "batch_videos": 30, "steps": 60_000, "schedule": "plateau",
    "validate_every": 300,
}  # fmt: skip
register(
    "where-and-when",
    HeadEntry(
        head=WhereAndWhen,
        summary="a mask over the cells of each segment, then attention over segments at each step of a ConvLSTM",
        paper="Meng et al., Where and When to Look? Spatio-temporal Attention for Action Recognition in Videos, 2018",
        presets={
            "default": _WW_FIT,  # Bahdanau's energy, which the paper cites; the printed one does not depend on time
            "paper": {"temporal": "paper", **_WW_FIT},
            "repo": {"temporal": "post_lstm", "start": "zeros", "regularisers": "repo", **_WW_FIT},
            "small": {"filters": (32, 16), "lstm": 32, "energy": 32, **_SMALL_FIT},
        },
    ),
)
_TCLSTA = (
    "Peng et al., Two-stream Collaborative Learning with Spatial-Temporal Attention for Video Classification, "
    "IEEE TCSVT 2019"
)
_TCLSTA_FIT = {"weight_decay": 1e-4, "steps": 30_000, "schedule": "plateau"}
_TCLSTA_SMALL = {"cam": 128, "lstm": 64, "affinity_scale": True, **_SMALL_FIT}
register(
    "tclsta",
    HeadEntry(
        head=Tclsta,
        summary="class activation maps over the cells, affinity of LSTM states over the segments, a branch per stream",
        paper=_TCLSTA,
        presets={
            "paper": {"batch_videos": 2, "validate_every": 1_000, **_TCLSTA_FIT},  # 64 frames, at 25 a video
            "paper-flow": {"batch_videos": 2, "validate_every": 1_000, **_TCLSTA_FIT, "steps": 60_000},
            "small": _TCLSTA_SMALL,
        },
    ),
)
register(
    "tclsta-cln",
    HeadEntry(
        head=TclstaCln,
        summary="tclsta's branches of two streams, each attending to its segments guided by the other",
        paper=_TCLSTA,
        presets={
            "paper": {"first": "motion", "batch_videos": 64, **_TCLSTA_FIT},
            "small": {"cln": 64, **_TCLSTA_SMALL},
        },
    ),
)
register(
    "soft-attention",
    HeadEntry(
        head=SoftAttention,
        summary="an LSTM over the segments whose state attends to the cells of the next one",
        paper="Sharma et al., Action Recognition using Visual Attention, arXiv:1511.04119, 2015",
        presets={
            "paper": {"optimiser": "adam", "lr": 1e-4, "weight_decay": 1e-5},  # the authors' script for UCF-11
            "hmdb51": {  # their other script; its decay is not halved, its descent has no momentum
                "attention_layers": 3,
                "lstm": 1024,
                "output": 1024,
                "last_segments": 16,
                "reduction": "sum",
                "optimiser": "sgd",
                "lr": 1e-5,
                "momentum": 0.0,
                "weight_decay": 2e-5,
                "milestones": (),
            },
            "small": {"attention": 64, "lstm": 64, "output": 64, **_SMALL_FIT},
        },
    ),
)
register(
    "videolstm",
    HeadEntry(
        head=VideoLstm,
        summary="a ConvLSTM over the segments whose state weights the cells of the next one",
        paper="Li et al., VideoLSTM Convolves, Attends and Flows for Action Recognition, arXiv:1607.01794, 2016",
        presets={
            "paper": {"optimiser": "rmsprop", "weight_decay": 0.0},
            "small": {
                "attention": 64, "lstm": 32, "output": 64, "pooling": "mean", "rescale": True, "dropout": 0.5,
                **_SMALL_FIT,
            },
        },
    ),
)  # fmt: skip
_LIBSVM = {"form": "one-vs-one", "C": 1.0}  # what STAN cites: LIBSVM as it comes
for _name, _head, _summary, _small in (
    ("svm-fc6", SvmFc6, "a linear SVM on the mean over segments of a vector layer", {}),
    ("svm-pool5-flat", SvmPool5Flat, "a linear SVM on the mean over segments of the flattened grid", {}),
    ("svm-pool5-mean", SvmPool5Mean, "a linear SVM on the mean over segments and cells", {}),
    (
        "svm-vlad", SvmVlad, "a linear SVM on VLAD of all local descriptors of a video",
        {"pca": 32, "clusters": 16, "descriptors": 100_000},
    ),
    ("svm", SvmOn, "a linear SVM on the representation of a fitted head (--on RUN)", {}),
):  # fmt: skip
    register(
        _name,
        HeadEntry(
            head=_head,
            summary=_summary,
            paper="a rival, not of any paper" if _name == "svm" else f"a baseline of {_STAN}",
            presets={"paper": {}, "libsvm": _LIBSVM, "small": _small},
            fit=SvmFit,
        ),
    )
