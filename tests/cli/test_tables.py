"""What tables leave out: settings that do nothing, and measures that say nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from vidatt.cli.fitting_tables import fit_text
from vidatt.cli.main import main
from vidatt.cli.tables import measures_text
from vidatt.heads.contract import FitDefaults
from vidatt.heads.svm.machines import SvmFit
from vidatt.pipelines.metrics.classification import Measures
from vidatt.pipelines.runs.measured import FitMeasures, FitResult

MEASURES = Measures(top1=0.5, top5=1.0, class_mean=None, map=0.25)


def test_top5_of_up_to_five_classes_is_not_printed() -> None:
    assert measures_text(MEASURES, 5) == "top1 0.500, map 0.250"
    assert measures_text(MEASURES, 6) == "top1 0.500, top5 1.000, map 0.250"
    assert measures_text(MEASURES, None) == "top1 0.500, top5 1.000, map 0.250"  # a run of before
    result = FitResult(
        run="r", head="mean", streams=("rgb",), metrics=FitMeasures(validation=MEASURES), seconds=1.0,
        selected_by="", classes=2, train_videos=8, validation_videos=2, notes=(),
    )  # fmt: skip
    assert "top5" not in fit_text(result)
    assert "top5" in fit_text(replace(result, classes=101))
    assert result.to_dict()["metrics"]["validation"]["top5"] == 1.0  # JSON says all


@pytest.mark.parametrize(
    ("fit", "inert"),
    [
        (FitDefaults(), {"patience"}),
        (FitDefaults(optimiser="adam", schedule="cosine"), {"momentum", "milestones", "factor", "patience"}),
        (FitDefaults(schedule="plateau"), {"milestones"}),
        (SvmFit(), set()),
        (SvmFit(C=1.0), {"grid", "folds"}),
    ],
)
def test_settings_that_do_nothing_beside_the_others(fit: FitDefaults | SvmFit, inert: set[str]) -> None:
    assert fit.inert == inert


def test_heads_show_only_what_acts() -> None:
    shown = CliRunner().invoke(main, ["heads", "mean"]).stdout
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines()[4:]}
    assert "patience" not in rows  # by no preset
    assert rows["momentum"] == ["0.9", "-"]
    assert rows["lr"] == ["0.001", "0.03"]
    presets = json.loads(CliRunner().invoke(main, ["heads", "mean", "--json"]).stdout)["presets"]
    assert presets["small"]["fit"]["momentum"] == 0.9
    assert presets["small"]["inert"] == ["factor", "milestones", "momentum", "patience"]
