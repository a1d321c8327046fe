"""The methods of `vidatt fuse` by name: what each can be told, whether it learns, and how it fuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from itertools import product
from typing import Any, Literal, get_type_hints

import numpy as np

from ...errors import UsageError, nearest_key_error
from ...heads.contract import Head, require_choice, require_range
from ...heads.fusion import awl
from ...heads.fusion.mkl import learn_kernel_weights
from ...heads.fusion.score_rules import grid_weights, max_rule, mean_rule, product_rule
from ...heads.registry import parse_value
from ..fitting.folds import deal_folds
from ..metrics.classification import mean_average_precision, top_k

_FOLDS = 5
"""Of the validation videos, to choose AWL's numbers."""


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """Nothing to choose."""


@dataclass(frozen=True, kw_only=True)
class WeightedSettings:
    """One weight per part, from a grid, by the accuracy (or mAP) on the validation videos."""

    step: float = 0.1

    def __post_init__(self) -> None:
        require_range(self, "step", above=0.0)


@dataclass(frozen=True, kw_only=True)
class AwlSettings:
    """Weights per class and part: adaptively weighted learning of TCLSTA, see `heads/fusion/awl.py`."""

    solver: Literal["lp", "lp_bounded", "entropic", "quadratic"] = "entropic"
    penalty: float | None = None  # lambda; None = by folds of the validation videos from 0.005 (the paper's), 0.05, 0.5
    strength: float | None = None  # tau, rho or least weight; None = by the same folds
    calibrate: bool = False  # temper each part first

    def __post_init__(self) -> None:
        require_choice(self, "solver", ("lp", "lp_bounded", "entropic", "quadratic"))
        if self.penalty is not None:
            require_range(self, "penalty", least=0.0)
        if self.strength is not None:
            require_range(self, "strength", above=0.0)


@dataclass(frozen=True, kw_only=True)
class MklSettings:
    """Kernels of the parts' scores, see `heads/fusion/mkl.py`."""

    p: float = 2.0
    C: float = 1.0

    def __post_init__(self) -> None:
        require_range(self, "p", least=1.0)
        require_range(self, "C", above=0.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fused:
    """What a method makes of the parts."""

    test: np.ndarray  # [n, N]
    validation: np.ndarray | None = None  # [m, N]; None where it was learned on them
    learned: dict[str, Any] = field(default_factory=dict)  # JSON values
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to fuse.

    `fuse` takes its settings, the parts' test [M, n, N] and validation probabilities [M, m, N] (None = there are none),
    the validation labels [m, N] bool, and whether a video may have several.
    """

    settings: type
    learns: bool  # needs validation scores
    gives: str  # what its scores are, see `Head.score_kind`
    fuse: Callable[[Any, np.ndarray, np.ndarray | None, np.ndarray, bool], Fused]


def read_settings(method: str, texts: Mapping[str, str]) -> Any:
    """Read `KEY=VALUE` texts into the settings of a method.

    Raises
    ------
    UnknownNameError
        For a setting it has not.
    UsageError
        For a value that its field cannot take.
    """
    kind = METHODS[method].settings
    nearest_key_error(f"setting of --method {method}", texts, [f.name for f in fields(kind)] or ["(none)"])
    hints = get_type_hints(kind)
    return kind(**{key: parse_value(key, text, hints[key]) for key, text in texts.items()})


def _fixed(rule: Callable[[np.ndarray, bool], np.ndarray]) -> Callable[..., Fused]:
    """Make a method of a rule that learns nothing."""

    def fuse(_: Any, test: np.ndarray, validation: np.ndarray | None, hot: np.ndarray, multi_label: bool) -> Fused:
        held = None if validation is None else rule(validation, multi_label)
        return Fused(test=rule(test, multi_label), validation=held)

    return fuse


def _weighted(
    how: WeightedSettings, test: np.ndarray, validation: np.ndarray | None, hot: np.ndarray, multi_label: bool
) -> Fused:
    validation = _required(validation)

    def measure(scores: np.ndarray) -> float:
        return mean_average_precision(scores, hot) if multi_label else top_k(scores, hot, 1)

    weights, best = grid_weights(validation, measure, step=how.step)
    name = "map" if multi_label else "top1"
    told = ", ".join(f"{weight:g}" for weight in weights)
    return Fused(
        test=mean_rule(test, weights),
        learned={"weights": weights.tolist(), f"validation_{name}": best},
        notes=(f"weights {told}, {name} {best:.4f} on the {len(hot)} validation videos they are chosen by",),
    )


def _awl(
    how: AwlSettings, test: np.ndarray, validation: np.ndarray | None, hot: np.ndarray, multi_label: bool
) -> Fused:
    validation = _required(validation)
    if multi_label and how.calibrate:
        raise UsageError("Setting calibrate=true of --method awl: is defined for one label per video.")
    strengths = {
        "lp": (0.1,), "lp_bounded": (min(0.1, 1 / len(test)),), "entropic": (1.0, 0.3, 0.1, 0.03, 0.01),
        "quadratic": (1.0, 0.3, 0.1, 0.03, 0.01),
    }[how.solver]  # fmt: skip
    candidates = list(
        product(
            (0.005, 0.05, 0.5) if how.penalty is None else (how.penalty,),
            strengths if how.strength is None else (how.strength,),
        )
    )
    fold_of, _note = deal_folds(hot, np.full(len(hot), ""), folds=min(_FOLDS, max(2, len(hot))), seed=0)
    accuracies = []
    for penalty, strength in candidates if len(candidates) > 1 else ():
        fused = np.zeros(hot.shape)
        for fold in np.unique(fold_of):
            inside, outside = fold_of != fold, fold_of == fold
            learned = awl.learn_weights(
                validation[:, inside], hot[inside], solver=how.solver, penalty=penalty, strength=strength,
                calibrate=how.calibrate,
            )  # fmt: skip
            fused[outside] = awl.predict(learned, validation[:, outside])
        accuracies.append(mean_average_precision(fused, hot) if multi_label else top_k(fused, hot, 1))
    # ties: the smallest penalty, then the strength nearest to late fusion
    penalty, strength = candidates[int(np.argmax(accuracies))] if accuracies else candidates[0]
    learned = awl.learn_weights(
        validation, hot, solver=how.solver, penalty=penalty, strength=strength, calibrate=how.calibrate
    )
    share = learned.one_hot_share
    return Fused(
        test=awl.predict(learned, test),
        learned={
            "weights": learned.weights.tolist(),
            "one_hot_share": share,
            "penalty": penalty,
            "strength": strength,
            "calibration": learned.temperatures.tolist(),
        },
        notes=(
            f"AWL {how.solver}, lambda {penalty:g}, strength {strength:g}: {share:.0%} of the classes are decided by "
            "one part alone",
        ),
    )


def _mkl(how: MklSettings, test: np.ndarray, validation: np.ndarray | None, hot: np.ndarray, _: bool) -> Fused:
    validation = _required(validation)
    kernels = validation @ validation.transpose(0, 2, 1)
    learned = learn_kernel_weights(kernels, hot, p=how.p, C=how.C)
    told = ", ".join(f"{weight:.3f}" for weight in learned.weights)
    state = f"after {learned.rounds} rounds" if learned.converged else f"not settled after {learned.rounds} rounds"
    return Fused(
        test=learned.decide(test @ validation.transpose(0, 2, 1)),
        learned={"weights": learned.weights.tolist(), "rounds": learned.rounds, "converged": learned.converged},
        notes=(f"kernel weights {told} {state}",),
    )


def _required(validation: np.ndarray | None) -> np.ndarray:
    if validation is None:
        raise UsageError("This method learns on validation scores, and there are none.")
    return validation


_PROBABILITIES, _DECISIONS = Head.score_kind, "decision values"

METHODS: dict[str, Method] = {
    "mean": Method(
        settings=NoSettings, learns=False, gives=_PROBABILITIES,
        fuse=_fixed(lambda scores, _: mean_rule(scores)),
    ),
    "product": Method(
        settings=NoSettings, learns=False, gives=_PROBABILITIES,
        fuse=_fixed(lambda scores, multi_label: product_rule(scores, multi_label=multi_label)),
    ),
    "max": Method(
        settings=NoSettings, learns=False, gives=_PROBABILITIES,
        fuse=_fixed(lambda scores, multi_label: max_rule(scores, multi_label=multi_label)),
    ),
    "weighted": Method(
        settings=WeightedSettings, learns=True, gives=_PROBABILITIES, fuse=_weighted
    ),
    "awl": Method(settings=AwlSettings, learns=True, gives=_DECISIONS, fuse=_awl),
    "mkl": Method(settings=MklSettings, learns=True, gives=_DECISIONS, fuse=_mkl),
}  # fmt: skip
"""The methods by name."""
