"""Recipe, store and head together: every clip that a head cuts is a stretch of the video, whatever the sampler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from testkit.stores import fill

from vidatt.cache.index import Index
from vidatt.cache.layout import plan_layout
from vidatt.cache.plan import StorePlan
from vidatt.cache.store import Store
from vidatt.errors import UsageError
from vidatt.extract.recipes import RECIPES
from vidatt.extract.sampling import Sampler
from vidatt.heads.glka import VARIANTS, GlkaConfig
from vidatt.heads.layers.clips import Clips
from vidatt.pipelines.fitting.plan import FitConfig, FitPlan, plan_fit

pytestmark = pytest.mark.slow

FRAMES = [1, 7, 29, 30, 31, 44, 45, 46, 60, 100, 151, 333, 500, 1776]
"""Frames of videos; UCF101's have 28 to 1,776."""


def _store(path: Path, rule: str) -> Store:
    """A store of videos of `FRAMES` frames, sampled by this rule."""
    sampler = Sampler.parse(rule)
    length = np.array([sampler.segments(frames, 25.0) for frames in FRAMES], np.int32)
    N = len(FRAMES)
    index = Index(
        ids=np.array([f"v{i}" for i in range(N)], object),
        paths=np.array([f"v{i}.mp4" for i in range(N)], object),
        groups=np.array([f"g{i}" for i in range(N)], object),
        labels=np.arange(N, dtype=np.int32)[:, None] % 2,
        classes=("a", "b"),
        splits={"1": np.ones(N, np.int8)},
        length=length,
    )
    store = Store.create(
        path, index=index, views=1, layout=plan_layout(length, 1, 4), attributes=StorePlan(sampler=rule).to_attributes()
    )
    return fill(store, {"rgb": (2, 2, 3)})


def _plan(store: Store, head: str, **settings: str) -> FitPlan:
    return plan_fit(
        FitConfig(
            store=store.path,
            out=store.path.parent / "run",
            head=head,
            preset="small",
            device="cpu",
            validation_share=0.0,
            settings=settings,
        )
    )


def _broken(rule: str, config: GlkaConfig) -> tuple[int, int]:
    """Clips whose frames do not follow each other as the sampler's steps do, and all clips."""
    broken = total = 0
    for frames in FRAMES:
        first = Sampler.parse(rule).first_frames(frames, 25.0, window=1)
        clips = Clips(
            torch.ones(1, len(first), dtype=torch.bool),
            length=config.clip_segments, stride=config.clip_stride, most=config.max_clips,
        )  # fmt: skip
        of_clips = torch.from_numpy(first)[clips.segment]  # [Q, W]
        total += len(of_clips)
        broken += int((of_clips.diff(dim=1) < 0).any(1).sum())
    return broken, total


@pytest.mark.parametrize(
    "rule", sorted({recipe.sampler for recipe in RECIPES.values()} | {"every:1", "windows:16:8:5"})
)
@pytest.mark.parametrize("head", VARIANTS)
def test_no_clip_jumps_back(tmp_path: Path, rule: str, head: str) -> None:
    settings = {"clip_segments": "16"} if rule.startswith("windows:16") else {}
    plan = _plan(_store(tmp_path / "s.zarr", rule), head, **settings)
    assert isinstance(plan.settings.config, GlkaConfig)
    broken, total = _broken(rule, plan.settings.config)
    assert broken == 0
    assert total >= len(FRAMES)
    assert any("windows" in note for note in plan.notes) == rule.startswith("windows")


def test_the_same_clips_cut_from_windows_as_if_they_ran_on_are_broken() -> None:
    """What the settings said by themselves before a head learned its clips from the store."""
    broken, total = _broken("windows:30:15:20", GlkaConfig())
    assert broken > total / 10


def test_clips_of_a_windowed_store_are_its_windows(tmp_path: Path) -> None:
    plan = _plan(_store(tmp_path / "s.zarr", "windows:30:15:20"), "glka")
    config = plan.settings.config
    assert isinstance(config, GlkaConfig)
    for position, frames in enumerate(FRAMES):
        T = int(plan.store.index.length[position])
        clips = Clips(
            torch.ones(1, T, dtype=torch.bool), length=config.clip_segments, stride=config.clip_stride, most=20
        )
        assert len(clips.segment) == min(20, max(1, (frames - 30) // 15 + 1)), frames


def test_a_head_whose_clips_the_windows_are_not_is_refused(tmp_path: Path) -> None:
    store = _store(tmp_path / "s.zarr", "windows:30:15:20")
    for value in ("45", "none"):
        with pytest.raises(UsageError, match=f"clip_segments={value}: the store's segments are windows of 30 frames"):
            _plan(store, "glka", clip_segments=value)


def test_a_head_without_clips_says_how_it_reads_windows(tmp_path: Path) -> None:
    plan = _plan(_store(tmp_path / "s.zarr", "windows:30:15:20"), "sru")
    assert any("head sru reads them as one sequence" in note for note in plan.notes)
