"""`cache import` of files that lie about themselves: one line each, bounded memory, nothing outside the source read."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from testkit.commands import run_program, vidatt
from testkit.stores import filled_store

from vidatt.cache.interchange.arrays import Archive, read_npy
from vidatt.errors import VidattError
from vidatt.pipelines.stores.exchange import ImportConfig, export_store, import_store

VALUES = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
NAMES = np.array(["a", "b", "c", "d"])


def npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def stating(shape: tuple[int, ...], descr: str = "<f4", values: bytes = b"") -> bytes:
    """A `.npy` file whose header states a shape, whatever follows."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values


def archive(path: Path, compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def packed(path: Path, **changes: bytes) -> Path:
    return archive(path, **{"x": npy_bytes(VALUES), "ids": npy_bytes(NAMES)} | changes)


PACKED = {"key": "x", "ids": "ids"}


def refused(source: Path, tmp_path: Path, **options) -> str:
    """Import it; the one line that refuses it."""
    with pytest.raises(VidattError) as caught:
        import_store(ImportConfig(sources=((None, source),), store=tmp_path / "s.zarr", **options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s.zarr").exists()
    return str(caught.value)


def test_an_archive_as_it_should_be_comes_in(tmp_path):
    import_store(ImportConfig(sources=((None, packed(tmp_path / "x.npz")),), store=tmp_path / "s", key="x", ids="ids"))
    with Archive(tmp_path / "x.npz") as file:
        np.testing.assert_array_equal(file.read("x"), VALUES)
        assert file.shape("x") == VALUES.shape


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", "<i2", "|u1", "<U3", "|S2", "?"])
def test_arrays_are_read_as_numpy_reads_them(tmp_path, order, dtype):
    array = np.asarray(np.arange(24).reshape(2, 3, 4).astype(dtype), order=order)
    for one in (array, array[:0], array[0, 0, 0]):
        np.save(tmp_path / "a.npy", one)
        np.savez(tmp_path / "a.npz", a=one)
        with Archive(tmp_path / "a.npz") as file:
            for read in (read_npy(tmp_path / "a.npy"), file.read("a")):
                assert (read.dtype, read.shape) == (one.dtype, one.shape)
                np.testing.assert_array_equal(read, one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": stating((2**50,))}, "its header states 4503599627370496 bytes of values, and 0 are there"),
        ({"x": stating((2**40, 2**40))}, "states"),
        ({"x": stating((-1, 4))}, "is no array of numbers or texts"),
        ({"x": stating((4,), "|O", b"cos\nsystem\n")}, "Python objects, which are never loaded"),
        ({"x": stating((4,), "<U99999999")}, "states"),
        ({"x": stating((1, 1, 2**29), "|u1", bytes(2**29))}, "would be 536.9 MB in memory and has"),
        ({"x": b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000}, "cannot be read"),
        ({"x": b"\x93NUMPY\x07\x00xx"}, "format 7.0|cannot be read"),
        ({"x": npy_bytes(VALUES)[:-7]}, "states 240 bytes of values, and 233 are there"),
        ({"ids": stating((4,), "<U1", struct.pack("<4I", 97, 98, 99, 0xFFFFFFFF))}, "'ids' holds what is no text"),
        ({"ids": npy_bytes(np.array([b"\xff", b"b", b"c", b"d"]))}, "'ids' holds what is no text"),
        ({"ids": npy_bytes(np.array([*"aacd"]))}, "names the video 'a' twice"),
    ],
)
def test_archives_that_lie_are_one_line(tmp_path, change, words):
    import re

    assert re.search(words, refused(packed(tmp_path / "x.npz", **change), tmp_path, **PACKED))


@pytest.mark.slow
def test_a_bomb_takes_no_memory(tmp_path):
    bomb = packed(tmp_path / "x.npz", x=stating((2**29,), "|u1", bytes(2**29)))
    assert bomb.stat().st_size < 2**21
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(bomb, tmp_path, **PACKED)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("field", [16, 20], ids=["crc", "size"])
def test_a_zip_whose_sums_are_others_is_damaged(tmp_path, field):
    content = bytearray(packed(tmp_path / "x.npz").read_bytes())
    content[content.index(b"PK\x01\x02") + field] ^= 4  # of the first member
    (tmp_path / "x.npz").write_bytes(content)
    assert "'x' cannot be read" in refused(tmp_path / "x.npz", tmp_path, **PACKED)


@pytest.mark.parametrize("kind", ["npy", "npz"])
@pytest.mark.parametrize("way", ["link", "folder", "pipe", "loop"])
def test_nothing_outside_the_source_is_read(tmp_path, kind, way):
    source, secret = tmp_path / "in", tmp_path / "elsewhere"
    source.mkdir()
    secret.mkdir()
    save: Callable[[Path], None] = lambda p: np.save(p, VALUES[0]) if kind == "npy" else np.savez(p, x=VALUES[0])  # noqa: E731
    save(source / f"a.{kind}")
    save(secret / f"b.{kind}")
    if way == "link":
        (source / f"b.{kind}").symlink_to(secret / f"b.{kind}")
    elif way == "folder":
        (source / "sub").symlink_to(secret)
        (tmp_path / "m.csv").write_text(f"path,label\nsub/b.{kind},x\na.{kind},y\n")
    elif way == "loop":
        (source / f"b.{kind}").symlink_to(source / f"b.{kind}")
    else:
        os.mkfifo(source / f"b.{kind}")
    given = {"manifest": tmp_path / "m.csv"} if way == "folder" else {}
    said = refused(source, tmp_path, form=kind, **given)
    wanted = {"link": "leads out of", "folder": "sub/b", "pipe": "is no regular file", "loop": f"b.{kind}"}
    assert wanted[way] in said


@pytest.mark.slow
def test_hdf5_that_leads_elsewhere_or_states_too_much_is_one_line(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"], file["ids"] = VALUES, NAMES.astype("S1")
    (tmp_path / "raw.bin").write_bytes(VALUES.tobytes())

    def made(name: str, fill: Callable[[h5py.File], None]) -> Path:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            file["ids"] = NAMES.astype("S1")
            fill(file)
        return path

    def soft(file: h5py.File) -> None:
        file["out"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/")
        file["x"] = h5py.SoftLink("/out/x")

    def circle(file: h5py.File) -> None:
        file["x"], file["y"] = h5py.SoftLink("/y"), h5py.SoftLink("/x")

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout(VALUES.shape, "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", VALUES.shape)
        file.create_virtual_dataset("x", layout)

    cases: dict[str, tuple[Callable[[h5py.File], object], str]] = {
        "external.h5": (
            lambda file: file.__setitem__("x", h5py.ExternalLink(str(tmp_path / "secret.h5"), "/x")),
            "'x' is a link to the file",
        ),
        "soft.h5": (soft, "is a link to the file"),
        "circle.h5": (circle, "is a circle of links"),
        "virtual.h5": (virtual, "lie in other files"),
        "storage.h5": (
            lambda file: file.create_dataset(
                "x", VALUES.shape, "f4", external=[(str(tmp_path / "raw.bin"), 0, VALUES.nbytes)]
            ),
            "lie in other files",
        ),
        "sparse.h5": (
            lambda file: file.create_dataset("x", (4, 3, 2**43), "f4", chunks=(1, 1, 1024)),
            "would be 105.6 TB in memory and has 0 B on disk",
        ),
        "chunk.h5": (
            lambda file: file.create_dataset("x", (4, 2, 2**27), "u1", chunks=(4, 2, 2**27), compression="gzip"),
            "in memory and has 0 B on disk",
        ),
        "none.h5": (lambda file: None, "there is no dataset 'x', but ids"),
    }
    for name, (fill, words) in cases.items():
        assert words in refused(made(name, fill), tmp_path, **PACKED), name
    groups = tmp_path / "groups.h5"  # one dataset per video: what a link leads to is no dataset of this file
    with h5py.File(groups, "w") as file:
        file["a"] = VALUES[0]
        file["b"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/x")
    import_store(ImportConfig(sources=((None, groups),), store=tmp_path / "one.zarr"))
    assert json.loads(vidatt("cache", "info", tmp_path / "one.zarr", "--json").stdout)["videos"] == 1


def _mutated(content: bytes, choice: random.Random) -> bytes:
    """Flip bits, cut, repeat or overwrite some bytes."""
    data = bytearray(content)
    for _ in range(choice.choice((1, 1, 2, 8))):
        at = choice.randrange(len(data))
        match choice.randrange(5):
            case 0:
                data[at] ^= 1 << choice.randrange(8)
            case 1:
                data[at : at + 8] = choice.randbytes(8)
            case 2:
                del data[at:]
            case 3:
                data[at : at + 4] = b"\xff" * 4
            case _:
                data[at:at] = data[at : at + choice.randrange(1, 64)]
        if not data:
            return b""
    return bytes(data)


@pytest.mark.slow
def test_damaged_archives_are_one_line_or_exact(tmp_path):
    choice = random.Random(0)
    good = {
        "npz": packed(tmp_path / "g.npz").read_bytes(),
        "plain": archive(tmp_path / "p.npz", zipfile.ZIP_STORED, x=npy_bytes(VALUES)).read_bytes(),
    }
    said = []
    for _ in range(600):
        path = tmp_path / "bad.npz"
        path.write_bytes(_mutated(good[choice.choice(sorted(good))], choice))
        try:
            with Archive(path) as file:
                for name in file.names:
                    file.read(name)
        except VidattError as error:
            said.append(str(error))
    assert len(said) > 400
    header = npy_bytes(VALUES)
    for _ in range(600):
        (tmp_path / "bad.npy").write_bytes(_mutated(header[:140], choice) + header[140:])
        try:
            read_npy(tmp_path / "bad.npy")
        except VidattError as error:
            said.append(str(error))
    assert not [line for line in said if "\n" in line]


@pytest.mark.slow
def test_edited_index_of_an_export_is_one_line(tmp_path):
    """Every field of `index.json` with values of other types and sizes: refused in one line, or imported."""
    store = filled_store(tmp_path / "s.zarr", [3, 3, 3, 3], {"rgb": (2, 2, 3)})
    export_store(store.path, tmp_path / "out", form="npy")
    told = json.loads((tmp_path / "out" / "index.json").read_text())

    def places(value: object, where: tuple = ()):
        yield where
        items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
        for key, item in items:
            yield from places(item, (*where, key))

    wrong = (None, True, -1, 2**70, 1.5, "x", "../../x", [], {}, [[]], [None, "a"], {"a": 1})
    said = []
    for where in list(places(told))[1:]:
        for value in wrong:
            edited = json.loads(json.dumps(told))
            inner = edited
            for key in where[:-1]:
                inner = inner[key]
            inner[where[-1]] = value
            (tmp_path / "out" / "index.json").write_text(json.dumps(edited))
            config = ImportConfig(sources=((None, tmp_path / "out"),), store=tmp_path / "new.zarr", dry_run=True)
            try:
                import_store(config)
            except VidattError as error:
                said.append(str(error))
    assert len(said) > 500
    assert not [line for line in said if "\n" in line]


@pytest.mark.slow
def test_damaged_hdf5_never_takes_the_program_down_with_a_traceback(tmp_path):
    """In a process of its own: libhdf5 is C, and what it does to a program is told by how the program ends."""
    store = filled_store(tmp_path / "s.zarr", [3, 3, 3, 3], {"rgb": (2, 2, 3)})
    for form in ("hdf5", "hdf5-packed"):
        export_store(store.path, tmp_path / f"{form}.h5", form=form)
    program = """
import random, sys
from pathlib import Path
from vidatt.errors import VidattError
from vidatt.pipelines.stores.exchange import ImportConfig, import_store
sys.path.insert(0, sys.argv[1])
from test_exchange_hostile import _mutated
folder, choice, ends = Path(sys.argv[2]), random.Random(1), {"refused": 0, "imported": 0}
for n in range(150):
    good = (folder / choice.choice(("hdf5.h5", "hdf5-packed.h5"))).read_bytes()
    path = folder / "bad.h5"
    path.write_bytes(_mutated(good, choice))
    try:
        import_store(ImportConfig(sources=((None, path),), store=folder / "new.zarr", dry_run=True))
    except VidattError as error:
        ends["refused"] += 1
        assert "\\n" not in str(error)
    else:
        ends["imported"] += 1
print(ends)
"""
    said = run_program(program, Path(__file__).parent, tmp_path)
    assert "refused" in said
