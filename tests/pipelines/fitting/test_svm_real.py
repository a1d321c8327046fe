"""The real check: VGG-16 fc6 features of 14 UCF101 classes, official split 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from sklearn.svm import LinearSVC

from vidatt.cache.index import Index
from vidatt.cache.layout import plan_layout
from vidatt.cache.ledger import VideoOutcome
from vidatt.cache.store import Store
from vidatt.pipelines.fitting.fit import FitConfig, fit
from vidatt.pipelines.results.evaluate import evaluate

T = 9


@pytest.fixture(scope="module")
def parts(shared_data: Path) -> dict[str, dict[str, np.ndarray]]:
    folder = shared_data / "features" / "ucf101_vgg16_fc6"
    if not folder.is_dir():
        pytest.skip("needs features/ucf101_vgg16_fc6 of the real test material, which is not on this machine")
    made = {}
    for part in ("train", "test"):
        with np.load(folder / f"{part}.npz") as content:
            made[part] = {name: content[name] for name in content.files}
    return made


@pytest.fixture(scope="module")
def store(parts: dict[str, dict[str, np.ndarray]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features as a store: a stream of [1, 1, 4096] cubes, groups from the names, the official split."""
    cubes, clips, names, roles = (
        np.concatenate([parts["train"][key], parts["test"][key]]) if key else np.repeat([1, 2], [168, 84])
        for key in ("x", "clip", "class_name", "")
    )
    order = np.random.default_rng(0).permutation(len(clips))  # a store's order is a permutation
    cubes, clips, names, roles = cubes[order], clips[order], names[order], roles[order]
    classes = tuple(np.unique(names).tolist())
    index = Index(
        ids=np.array([f"{name}/{clip}.avi" for name, clip in zip(names, clips, strict=True)]),
        paths=np.array([f"{name}/{clip}.avi" for name, clip in zip(names, clips, strict=True)]),
        groups=np.array([clip.rsplit("_", 1)[0] for clip in clips]),
        labels=np.searchsorted(classes, names)[:, None],
        classes=classes,
        splits={"1": roles},
        length=np.full(len(clips), T),
    )
    made = Store.create(
        tmp_path_factory.mktemp("real") / "fc6.zarr",
        index=index,
        views=1,
        layout=plan_layout(index.length, 1, 64),
        attributes={"dataset": "ucf101"},
    )
    stream = made.add_stream("rgb", cube_shape=(1, 1, 4096), recipe={"backbone": "vgg16", "layer": "fc6"})
    for shard in range(made.shard_count):
        videos = made.shard_videos(shard)
        stream.publish(
            shard,
            cubes=cubes[videos].reshape(-1, 1, 1, 4096),
            frames=np.tile(np.arange(T, dtype=np.int32)[:, None], (len(videos), 3)),
            seconds=np.tile(np.arange(T, dtype=np.float64), len(videos)),
            outcomes=[VideoOutcome(id=str(made.index.ids[v]), outcome="ok", segments=T) for v in videos],
        )
    return made.path


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"C": "10"}, {"form": "one-vs-one", "C": "10"}], ids=["cv", "10", "pairs"])
def test_svm_fc6_reaches_the_known_accuracy_on_ucf101_features(store: Path, tmp_path: Path, settings: dict[str, str]):
    fit(FitConfig(head="svm-fc6", store=store, out=tmp_path / "r", settings=settings, device="cpu"))
    assert evaluate(tmp_path / "r", device="cpu").metrics.top1 == pytest.approx(0.869, abs=0.02)


@pytest.mark.slow
def test_svm_fc6_agrees_with_liblinear_on_ucf101_features(parts, store: Path, tmp_path: Path):
    def vectors(part: str) -> np.ndarray:
        mean = parts[part]["x"].astype(np.float32).mean(1)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    machine = LinearSVC(C=10).fit(vectors("train"), parts["train"]["label"])
    known = accuracy_score(parts["test"]["label"], machine.predict(vectors("test")))
    fit(FitConfig(head="svm-fc6", store=store, out=tmp_path / "r", settings={"C": "10"}, device="cpu"))
    assert evaluate(tmp_path / "r", device="cpu").metrics.top1 == pytest.approx(known, abs=1.5 / 84)
