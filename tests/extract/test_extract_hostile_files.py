"""Any bytes for a list, weights, a pickle or a MATLAB file: they are read, or refused in one line that names it."""

from __future__ import annotations

import io
import pickle
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from scipy.io import savemat

from vidatt.errors import UsageError, VidattError
from vidatt.extract.backbones.weights_files import read_tensors
from vidatt.extract.datasets.matlab_files import read_structures
from vidatt.extract.datasets.plain_pickle import read_plain_pickle
from vidatt.extract.datasets.registry import load_catalogue

FEW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _refused_in_one_line(read: Callable[[], Any], path: Path) -> bool:
    """Whether reading is refused; any other error than ours fails the test."""
    said = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about what they are given
            read()
    except VidattError as error:
        said = str(error)
    assert said is None or (str(path) in said and "\n" not in said), said
    return said is not None


def _cells(alphabet: str) -> st.SearchStrategy[str]:
    return st.text(st.sampled_from(alphabet), max_size=6)


CELL = st.one_of(_cells('a,"\n\r\t;|#.:/ '), st.text(max_size=5), st.sampled_from(["0", "1", "-1", "nan", "1e999", ""]))
HEADER = st.lists(st.sampled_from(["path", "label", "labels", "id", "group", "start", "stop", "split", "split:a", "x"]))


@given(header=HEADER, rows=st.lists(st.lists(CELL, max_size=6), max_size=5), end=st.sampled_from(["\n", "\r\n", "\r"]))
@pytest.mark.slow
@example(header=["path", "label"], rows=[["a\0.mp4", "x"]], end="\n")
@example(header=["path", "label"], rows=[["a" * 200_000, "x"]], end="\n")
@example(header=["path", "label", "start"], rows=[["a.mp4", "9" * 5000, "1e400"]], end="\r\n")
@FEW
def test_any_list_is_a_catalogue_or_one_line(
    tmp_path: Path, header: list[str], rows: list[list[str]], end: str
) -> None:
    path = tmp_path / "list.csv"
    text = end.join(",".join(row) for row in [header, *rows])
    path.write_bytes(b"\xef\xbb\xbf" + text.encode(errors="surrogatepass"))
    _refused_in_one_line(lambda: load_catalogue("list", annotations=path), path)


def _archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.ones((3, 4), np.float32), b=np.arange(5))
    return file.getvalue()


def _torch(*, zipped: bool) -> bytes:
    file = io.BytesIO()
    tensors = {"a": torch.ones(3, 4), "b": torch.arange(5)}
    torch.save({"state_dict": tensors}, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _matlab() -> bytes:
    file = io.BytesIO()
    savemat(file, {"annot": {"name": "x", "tubes": {"boxes": np.ones((3, 4)), "class": 1}}})
    return file.getvalue()


MATLAB = _matlab()
READERS: dict[str, tuple[bytes, Callable[[Path], Any]]] = {
    "a.npz": (_archive(), read_tensors),
    "a.safetensors": (save({"a": torch.ones(3, 4), "b": torch.arange(5)}), read_tensors),
    "a.pth": (_torch(zipped=True), read_tensors),
    "old.pth": (_torch(zipped=False), read_tensors),
    "a.pkl": (pickle.dumps({"x": np.ones((3, 4)), "y": ["a", 1, None]}, protocol=2), read_plain_pickle),
}


def _broken(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        place = chance.randrange(len(changed))
        what = chance.random()
        if what < 0.6:
            changed[place] = chance.randrange(256)
        elif what < 0.75:
            changed[place : place + 4] = chance.choice([b"\xff\xff\xff\x7f", b"\xff" * 4, bytes(4)])
        elif what < 0.9:
            del changed[place : place + chance.choice([1, 7, 100])]
        else:
            changed[place:place] = chance.randbytes(9)
        if not changed:
            return b""
    return bytes(changed)


@pytest.mark.parametrize("name", READERS)
def test_sound_files_are_read(tmp_path: Path, name: str) -> None:
    content, read = READERS[name]
    (tmp_path / name).write_bytes(content)
    assert not _refused_in_one_line(lambda: read(tmp_path / name), tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@given(chance=st.randoms(use_true_random=False, note_method_calls=False))
@FEW
def test_broken_files_are_read_or_refused_in_one_line(tmp_path: Path, name: str, chance: random.Random) -> None:
    content, read = READERS[name]
    path = tmp_path / name
    path.write_bytes(_broken(content, chance))
    _refused_in_one_line(lambda: read(path), path)


@pytest.mark.slow
def test_broken_matlab_files_cost_no_more_than_their_reader(tmp_path: Path) -> None:
    """Scipy's reader crashes on some of them, so each is read in a process of its own: a few are enough."""
    chance = random.Random(5)
    path = tmp_path / "a.mat"
    refused = 0
    for _ in range(8):
        path.write_bytes(_broken(MATLAB, chance))
        refused += _refused_in_one_line(lambda: read_structures(path, "annot", ("name", "tubes")), path)
    assert refused > 1
    path.write_bytes(MATLAB)
    assert read_structures(path, "annot", ("name", "tubes"))["name"].tolist() == ["x"]


def test_an_archive_within_an_encrypted_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    content = bytearray(_archive())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        place = archive.infolist()[0].header_offset
    content[place + 6] |= 1  # "encrypted", in the file's own header and in the directory
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UsageError, match="cannot be read as weights"):
        read_tensors(path)
