"""What `import vidatt` offers: cheap, listed, known to type checkers, and nothing in the way of the rooms."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import vidatt
from vidatt.cache.synthetic import synthetic_shard, synthetic_store
from vidatt.errors import MissingFileError

ROOT = Path(__file__).resolve().parents[1]
TREE = ast.parse((ROOT / "__init__.py").read_text())


def _for_type_checkers() -> dict[str, str]:
    """Names of the face by the imports under TYPE_CHECKING: name -> module:attribute."""
    (block,) = (node for node in TREE.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    return {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_importing_vidatt_imports_nothing_heavy_and_no_room() -> None:
    code = (
        "import sys; before = set(sys.modules); import vidatt; names = dir(vidatt); "
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('_')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    ours = {name for name in done.stdout.split() if name.startswith("vidatt")}
    assert ours == {"vidatt", "vidatt.version"}
    assert not {"torch", "numpy", "click", "importlib.metadata"} & set(done.stdout.split())


def test_names_are_the_same_for_people_and_type_checkers() -> None:
    assert _for_type_checkers() == vidatt._PLACES
    assert sorted(vidatt.__all__) == sorted([*vidatt._PLACES, "__version__"])
    assert set(vidatt.__all__) <= set(dir(vidatt))


@pytest.mark.parametrize("name", sorted(vidatt._PLACES))
def test_name_is_what_its_place_holds(name: str) -> None:
    module, _, attribute = vidatt._PLACES[name].partition(":")
    assert getattr(vidatt, name) is getattr(import_module(f"vidatt.{module}"), attribute)
    assert getattr(vidatt, name).__doc__
    assert not (ROOT / name).exists(), "a room of this name would take its place"
    assert not (ROOT / f"{name}.py").exists()
    assert re.search(rf"\b{name}\b", (ROOT / "docs" / "python.md").read_text())


def test_rooms_stay_rooms_beside_the_names() -> None:
    assert vidatt.extract_features
    room = import_module("vidatt.extract")
    assert vidatt.extract is room
    with pytest.raises(AttributeError, match="module 'vidatt' has no attribute 'extract_feature'"):
        vidatt.extract_feature  # noqa: B018


def test_wheel_is_typed() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    assert parser["options.package_data"]["vidatt"].split() == ["py.typed"]
    assert (ROOT / "py.typed").is_file()


def test_loaded_run_has_the_fitted_head_and_its_store(tmp_path: Path) -> None:
    store = synthetic_store(tmp_path / "s.zarr", [3] * 12)
    stream = store.add_stream("rgb", cube_shape=(2, 2, 4), recipe={})
    stream.publish(0, **synthetic_shard(stream, 0))
    run_path = tmp_path / "run"
    settings = {"steps": "2", "batch_videos": "4"}
    vidatt.fit(vidatt.FitConfig(head="mean", store=store.path, out=run_path, settings=settings, device="cpu"))
    run = vidatt.load_run(str(run_path))
    assert (run.streams, run.classes, run.split) == (("rgb",), ("class 0", "class 1", "class 2"), "1")
    assert run.open_store().path == store.path
    assert not run.head.training
    weights = {name: values.tolist() for name, values in vidatt.load_head(run_path).state_dict().items()}
    assert weights == {name: values.tolist() for name, values in run.head.state_dict().items()}
    with pytest.raises(MissingFileError, match="is no run"):
        vidatt.load_run(tmp_path)
