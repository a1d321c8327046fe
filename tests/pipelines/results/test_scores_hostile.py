"""Files of scores that users hand in: `compare`, `fuse` and `evaluate` read them by one reader, and say one line."""

from __future__ import annotations

import io
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from testkit.planted import planted_store
from testkit.runs import without_digests

from vidatt.cli.main import main
from vidatt.errors import VidattError
from vidatt.pipelines.fitting.fit import FitConfig, fit
from vidatt.pipelines.results.compare import compare
from vidatt.pipelines.results.evaluate import evaluate
from vidatt.pipelines.results.fusion import FuseConfig, fuse
from vidatt.pipelines.results.score_evaluation import evaluate_scores
from vidatt.pipelines.results.score_files import read_scores

NAME = "scores-1-test.npz"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two evaluated runs without digests: what is said is what the reader itself says."""
    folder = tmp_path_factory.mktemp("made")
    store = planted_store(folder / "own.zarr", videos=range(18))
    given = {"head": "mean", "preset": "small", "settings": {"steps": "10"}, "split": "1", "device": "cpu"}
    fit(FitConfig(store=store.path, out=folder / "run", **given))
    evaluate(folder / "run", device="cpu")
    without_digests(folder / "run")
    shutil.copytree(folder / "run", folder / "twin")
    return folder


READERS: dict[str, Callable[[Path, Path, Path], object]] = {
    "compare": lambda run, twin, _: compare([run, twin]),
    "fuse": lambda run, twin, out: fuse(FuseConfig(parts=(run, twin), method="mean", out=out)),
    "evaluate": lambda run, *_: evaluate_scores(run / NAME),
}


def stating(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def lie(path: Path, content: dict[str, np.ndarray], scores: bytes) -> None:
    np.savez(path, **{key: value for key, value in content.items() if key != "scores"})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("scores.npy", scores)


def changed(**changes: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, dict[str, np.ndarray]], None]:
    return lambda path, content: np.savez(path, **{k: changes.get(k, lambda x: x)(v) for k, v in content.items()})


def with_nan(scores: np.ndarray) -> np.ndarray:
    return np.where(np.arange(scores.size).reshape(scores.shape) == 4, np.nan, scores)


HOSTILE: dict[str, tuple[Callable[[Path, dict[str, np.ndarray]], object], str]] = {
    "nan": (changed(scores=with_nan), "a score of video .* is not finite"),
    "inf": (changed(scores=lambda x: x + np.inf), "is not finite"),
    "twice": (changed(ids=lambda x: np.where(np.arange(len(x)) == 1, x[0], x)), "is there twice"),
    "strings": (changed(scores=lambda x: x.astype(str)), "`scores` numbers"),
    "pickle": (changed(ids=lambda x: x.astype(object)), "Python objects, which are never loaded"),
    "shape": (changed(scores=lambda x: x[:, :, None]), r"`scores` must be \[n, N\]"),
    "fewer": (changed(scores=lambda x: x[:-1]), r"`scores` must be \[n, N\]"),
    "classes": (changed(scores=lambda x: x[:, :2]), "2 scores per video, and there are 3|outside 0..1"),
    "labels": (changed(labels=lambda x: x + 9), "is outside 0..2"),
    "text labels": (changed(labels=lambda x: x.astype(str)), "class indices"),
    "many labels": (changed(labels=lambda x: np.repeat(x, 9, 1)), "class indices"),
    "no scores": (changed(scores=lambda x: x[:0]), "must be"),
    "empty": (lambda path, content: np.savez(path, **{k: v[:0] for k, v in content.items()}), "of no video"),
    "none": (lambda path, content: path.write_bytes(b""), "cannot be read as .npz"),
    "npy": (lambda path, content: path.write_bytes(stating((2,)) + bytes(8)), "cannot be read as .npz"),
    "2^50": (lambda path, content: lie(path, content, stating((2**50, 3))), "its header states"),
    "bomb": (lambda path, content: lie(path, content, stating((2**27, 3)) + bytes(3 * 2**29)), "in memory and has"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_every_reader_says_the_same_one_line(made, tmp_path, kind):
    spoil, words = HOSTILE[kind]
    run = shutil.copytree(made / "run", tmp_path / "run")
    with np.load(run / NAME) as file:
        content = {name: file[name] for name in file.files}
    spoil(run / NAME, content)
    for name, read in READERS.items():
        with pytest.raises(VidattError, match=words) as caught:
            read(run, made / "twin", tmp_path / "f")
        assert "\n" not in str(caught.value), name
        assert NAME in str(caught.value)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_may_have_a_byte_order_mark_and_any_line_ends(tmp_path, ends, mark):
    lines = ["id,run,sit,labels", "a,0.9,0.1,run", "b,0.2,0.8,sit", ""]
    (tmp_path / "s.csv").write_bytes((mark + ends.join(lines)).encode())
    done = CliRunner().invoke(main, ["evaluate", str(tmp_path / "s.csv")])
    assert done.exit_code == 0, done.output
    assert "top1 1.0000" in done.output


@pytest.mark.parametrize(
    "content",
    [
        "id,a,b\nv,1,2\n".encode("utf-16"), b"id,a,b\n\xff,1,2\n", b"id,a,b\nv,1," + b"9" * 200_000,
        b"id,a,b\nv,1e999,2\n", b"id,a,b\nv,nan,2\n",
        b"id,a,a\nv,1,2\n", b'id,a,b\n"v,1,2\n', b"id,a,b\nv,1\n", b"\0", b"", b"id\n",
        b"id,a,b\nv,1,2\nv,1,2\n", b"id,a,b\n\nv,x\ny,2\n", b'id,a,b\nv,"1\n",2\nw,"x\ny",2\n',
    ],
)  # fmt: skip
def test_csv_that_is_none_is_one_line(tmp_path, content):
    (tmp_path / "s.csv").write_bytes(content)
    done = CliRunner().invoke(main, ["evaluate", str(tmp_path / "s.csv")])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "s.csv" in done.stderr


@given(st.text(alphabet='id,ab\n\r"; 0123456789.e-+nainf\ufeff\0', max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_table_or_one_line(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text("id,a,b\n" + text, newline="")
    try:
        table = read_scores(path)
    except VidattError as error:
        said = str(error)
    else:
        said = ""
        assert np.isfinite(table.scores).all()
        assert table.scores.shape == (len(set(table.ids)), 2)
    assert "\n" not in said


@pytest.mark.slow
def test_damaged_files_of_scores_are_a_table_or_one_line(made, tmp_path):
    """Bits flipped, bytes cut and repeated, in the archive of a real run."""
    good, choice, said = (made / "run" / NAME).read_bytes(), random.Random(0), []
    for _ in range(600):
        data = bytearray(good)
        for _ in range(choice.choice((1, 1, 3))):
            at = choice.randrange(len(data))
            if choice.random() < 0.6:
                data[at] ^= 1 << choice.randrange(8)
            elif choice.random() < 0.5:
                data[at : at + 8] = choice.randbytes(8)
            else:
                del data[at : at + choice.randrange(1, 200)]
        (tmp_path / "s.npz").write_bytes(data)
        try:
            evaluate_scores(tmp_path / "s.npz")
        except VidattError as error:
            said.append(str(error))
    assert len(said) > 400
    assert not [line for line in said if "\n" in line]
