"""How commands end when something outside ends them: signals, full and read-only disks, limits, killed workers."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from testkit.commands import Running, start_program, start_vidatt, vidatt
from testkit.disks import remount, small_disk
from testkit.stores import content

from vidatt.cache.store import Store
from vidatt.errors import system_cause
from vidatt.extract.datasets.generator import generate
from vidatt.pipelines.runs.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.long]

STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def _extract(videos: Path, store: Path, *more: str | Path) -> list[str | Path]:
    return ["extract", "--dataset", "actionshapes", "--videos", videos, "--store", store, "--streams", "rgb",
            "--backbone", "hog", "--sampler", "centre:6", "--shard-videos", "2", "--workers", "1", *more]  # fmt: skip


def _fit(store: Path, run: Path) -> list[str | Path]:
    return ["fit-head", "--head", "mean", "--preset", "small", "--store", store, "--out", run, "--device", "cpu"]


def _one_line(text: str) -> str:
    """The last line, which must be the only one that is an error."""
    assert "Traceback" not in text, text
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    assert sum(line.startswith("vidatt: ") for line in lines) == 1, text
    return lines[-1]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "videos"
    generate(folder, videos=24, shapes=2, motions=2, n_jobs=2)
    return folder


@pytest.fixture(scope="module")
def reference(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("reference") / "shapes.zarr"
    done = vidatt(*_extract(shapes, store))
    assert done.returncode == 0, done.stderr
    return store


def _catches_stops(process: Running) -> bool:
    """Whether the command has begun: an interpreter that starts up dies of signals as every program does."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return True
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1) or process.poll() is not None


def _alive(token: str) -> list[int]:
    """Processes that were started with this word in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # gone meanwhile
            continue
    return found


def _soon(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_signal_at_any_moment_ends_an_extraction_in_one_line_and_leaves_nothing(
    shapes: Path, reference: Path, tmp_path: Path
) -> None:
    store, dice = tmp_path / "s.zarr", random.Random(0)
    codes = []
    for round_ in range(12):
        token = uuid.uuid4().hex
        process = start_vidatt(*_extract(shapes, store), env={**os.environ, "VIDATT_TEST": token})
        assert _soon(lambda process=process: _catches_stops(process))
        time.sleep(dice.uniform(0, 3.0) if round_ % 2 else dice.uniform(0, 0.3))
        if process.poll() is None:
            process.send_signal(STOPS[round_ % 3])
        codes.append(process.wait())
        assert codes[-1] in (0, 75), process.stderr
        if codes[-1] == 75:
            _one_line(process.stderr)
        assert _soon(lambda token=token: not _alive(token)), "a child outlived the command"
    assert codes.count(75) >= 4
    assert vidatt(*_extract(shapes, store)).returncode == 0
    assert content(store) == content(reference)
    assert not (store / ".tmp").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--out", "demo-out"],
        ["doctor"],
        ["backbones"],
        ["cache", "info", "{store}"],
        ["extract", "--dataset", "actionshapes", "--videos", "{videos}", "--store", "{tmp}/s.zarr", "--dry-run"],
        ["fit-head", "--head", "stan", "--store", "{store}", "--out", "{tmp}/run"],
    ],
    ids=lambda arguments: "-".join(arguments[:2]),
)
@pytest.mark.parametrize("number", STOPS)
def test_every_command_ends_on_a_signal_with_one_line(
    number: signal.Signals, arguments: list[str], shapes: Path, reference: Path, tmp_path: Path
) -> None:
    named = [text.format(store=reference, videos=shapes, tmp=tmp_path) for text in arguments]
    process = start_vidatt(*named, cwd=tmp_path)
    assert _soon(lambda: _catches_stops(process))
    process.send_signal(number)
    assert process.wait() == 75, process.stderr
    assert "the same command continues" in _one_line(process.stderr)


def test_a_full_disk_ends_an_extraction_in_one_line_and_it_continues(
    shapes: Path, reference: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", megabytes=4) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(int(3.6e6)))
        full = vidatt(*_extract(shapes, disk / "s.zarr"))
        assert full.returncode == 1
        line = _one_line(full.stderr)
        assert "No space left on device; free some space, then run the same command again." in line
        assert "s.zarr" in line
        done = Store.open(disk / "s.zarr").shard_count - len(Store.open(disk / "s.zarr").stream("rgb").missing_shards())
        assert 0 < done < 12
        ballast.unlink()
        assert vidatt(*_extract(shapes, disk / "s.zarr")).returncode == 0
        assert content(disk / "s.zarr") == content(reference)


def test_a_limit_on_the_size_of_files_ends_an_extraction_in_one_line(
    shapes: Path, reference: Path, tmp_path: Path
) -> None:
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); sys.argv[0] = 'vidatt';"
        "from vidatt.cli.entry import run; run()"
    )
    limited = start_program(program, *_extract(shapes, tmp_path / "s.zarr"))
    assert limited.wait() == 1, limited.stderr
    assert "File too large" in _one_line(limited.stderr)
    assert vidatt(*_extract(shapes, tmp_path / "s.zarr")).returncode == 0
    assert content(tmp_path / "s.zarr") == content(reference)


def test_a_complete_store_on_a_read_only_disk_has_nothing_to_do(shapes: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=8) as disk:
        assert vidatt(*_extract(shapes, disk / "s.zarr")).returncode == 0
        remount(disk, "ro")
        again = vidatt(*_extract(shapes, disk / "s.zarr"))
        assert again.returncode == 0, again.stderr
        more = vidatt(*_extract(shapes, disk / "s.zarr", "--streams", "flow", "--backbone", "hof"))
        assert more.returncode == 1
        assert "Read-only file system" in _one_line(more.stderr)
        fitted = vidatt(*_fit(disk / "s.zarr", disk / "run"))
        assert fitted.returncode == 1
        assert "Read-only file system" in _one_line(fitted.stderr)


def test_a_fit_on_a_full_disk_ends_in_one_line_and_continues(reference: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes((1 << 20) - 3 * 4096))
        full = vidatt(*_fit(reference, disk / "run"))
        assert full.returncode == 1
        assert "No space left on device" in _one_line(full.stderr)
        ballast.unlink()
        again = vidatt(*_fit(reference, disk / "run"))
        assert again.returncode == 0, again.stderr
        assert vidatt(*_fit(reference, tmp_path / "undisturbed")).returncode == 0
        weights = "weights.safetensors"
        assert (disk / "run" / weights).read_bytes() == (tmp_path / "undisturbed" / weights).read_bytes()


def test_a_checkpoint_that_does_not_fit_names_the_disk_and_leaves_the_one_before(
    reference: Path, tmp_path: Path
) -> None:
    assert vidatt(*_fit(reference, tmp_path / "run")).returncode == 0
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        run = Run.open(shutil.copytree(tmp_path / "run", disk / "run"))
        run.write_checkpoint({"step": 1})
        with pytest.raises(OSError, match="No space left on device") as refused:
            run.write_checkpoint({"step": 2, "weights": torch.zeros(1_000_000)})
        assert system_cause(refused.value) is not None
        assert run.checkpoint() == {"step": 1}
        assert not [path.name for path in (disk / "run").iterdir() if path.name.startswith(".")]


def test_workers_that_are_killed_at_their_start_are_replaced(shapes: Path, reference: Path, tmp_path: Path) -> None:
    process = start_vidatt(*_extract(shapes, tmp_path / "s.zarr"))
    killed: set[int] = set()

    def kill_two() -> bool:
        assert process.poll() is None, process.stderr
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                if child not in killed and len(killed) < 2:
                    os.kill(child, signal.SIGKILL)
                    killed.add(child)
        return len(killed) == 2

    assert _soon(kill_two)
    assert process.wait() == 0, process.stderr
    assert process.stderr.count("SIGKILL at its start; another one starts") == 2
    assert content(tmp_path / "s.zarr") == content(reference)


def test_no_cuda_device_is_wrong_use_everywhere(shapes: Path, reference: Path, tmp_path: Path) -> None:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    for arguments in (
        _extract(shapes, tmp_path / "s.zarr", "--device", "cuda"),
        _extract(shapes, tmp_path / "s.zarr", "--device", "cuda", "--dry-run"),
        [*_fit(reference, tmp_path / "run")[:-1], "cuda"],
    ):
        refused = vidatt(*arguments, env=env)
        assert refused.returncode == 2, (arguments, refused.stderr)
        assert "cuda" in _one_line(refused.stderr)
    assert not any(tmp_path.iterdir())
