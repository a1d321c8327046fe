"""Weights files that are something else, cut off, hostile or full of NaN: one line each, and nothing of them runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from testkit.commands import vidatt
from torchvision.models import get_model

from vidatt.errors import WeightsError
from vidatt.extract.backbones.registry import build_backbone
from vidatt.extract.backbones.weights_files import read_tensors


class Evil:
    """Runs a command wherever it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def _torch_bytes(content: object, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def _npy(shape: tuple[int, ...], data: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def _zip(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _safetensors(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


GOOD = {"a": torch.zeros(100, 100)}
OLD = {"_use_new_zipfile_serialization": False}
ABSURD = {"a": {"dtype": "F32", "shape": [1 << 50], "data_offsets": [0, 1 << 52]}}
FILES: list[tuple[str, Callable[[Path], bytes], str]] = [
    ("list.csv", lambda _: b"path,label\na.mp4,b\n", "cannot be read as weights: give"),
    ("text.pth", lambda _: b"hello world\n", "cannot be read as weights: give"),
    ("empty.pth", lambda _: b"", "cannot be read as weights: give"),
    ("cut.pth", lambda _: _torch_bytes(GOOD)[:9000], "damaged or cut off"),
    ("cut-old.pth", lambda _: _torch_bytes(GOOD, **OLD)[:200], "damaged or cut off"),
    ("cut-old-data.pth", lambda _: _torch_bytes(GOOD, **OLD)[:9000], "damaged or cut off"),
    ("evil.pth", lambda p: _torch_bytes({"a": Evil(p)}), "never executed"),
    ("evil-old.pth", lambda p: _torch_bytes({"a": Evil(p)}, **OLD), "never executed"),
    ("evil.pkl", lambda p: pickle.dumps(Evil(p), protocol=2), "never executed"),
    ("list.pth", lambda _: _torch_bytes([1, 2]), "holds no state_dict"),
    ("numbers.pth", lambda _: _torch_bytes({1: torch.zeros(2)}), "1 is no name of a tensor"),
    ("complex.pth", lambda _: _torch_bytes({"a": torch.zeros(2, dtype=torch.complex64)}), "not one of real numbers"),
    ("meta.pth", lambda _: _torch_bytes({"a": torch.empty(3, device="meta")}), "not one of real numbers"),
    ("text.safetensors", lambda _: b"hello hello hello", "damaged or cut off"),
    ("cut.safetensors", lambda _: _safetensors({})[:5], "damaged or cut off"),
    ("absurd.safetensors", lambda _: _safetensors(ABSURD), "damaged or cut off"),
    ("text.npz", lambda _: b"hello", "no NumPy archive"),
    ("words.npz", lambda _: _zip("a.npy", b"hello"), "damaged or cut off"),
    ("absurd.npz", lambda _: _zip("a.npy", _npy((1 << 50,), bytes(64))), "states another shape than it holds"),
    ("bomb.npz", lambda _: _zip("a.npy", _npy((1 << 22,), bytes(1 << 24))), "times its size, as no weights do"),
]


@pytest.mark.parametrize(("name", "make", "said"), FILES, ids=[f[0] for f in FILES])
def test_a_file_that_is_no_weights_is_one_line(
    tmp_path: Path, name: str, make: Callable[[Path], bytes], said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(make(tmp_path / "ran"))
    with pytest.raises(WeightsError, match=said) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_nan_in_the_weights_is_said_of_the_weights(tmp_path: Path) -> None:
    tensors = get_model("resnet18", weights=None).state_dict()
    tensors["layer1.0.conv1.weight"][3, 2] = torch.nan
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match=r"nan\.safetensors: tensor 'layer1\.0\.conv1\.weight' holds NaN"):
        build_backbone("resnet18", weights=str(tmp_path / "nan.safetensors"))


@pytest.mark.slow
def test_a_tensor_of_absurd_shape_is_compared_before_it_is_looked_through(tmp_path: Path) -> None:
    tensors = dict(get_model("resnet18", weights=None).state_dict())
    tensors["conv1.weight"] = torch.zeros(1).expand(1 << 40)
    torch.save(tensors, tmp_path / "absurd.pth")
    with pytest.raises(WeightsError, match=r"tensor 'conv1\.weight' is \[1099511627776\], the network wants"):
        build_backbone("resnet18", weights=str(tmp_path / "absurd.pth"))


@pytest.mark.slow
def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    (tmp_path / "list.csv").write_text("path,label\na.mp4,x\n")
    done = vidatt(
        "extract", "--dataset", "list", "--annotations", tmp_path / "list.csv", "--videos", tmp_path / "videos",
        "--store", tmp_path / "s.zarr", "--streams", "rgb", "--backbone", "resnet18", "--weights",
        tmp_path / "list.csv", "-q", "--device", "cpu",
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "list.csv cannot be read as weights: give" in done.stderr
    assert not (tmp_path / "s.zarr").exists()
