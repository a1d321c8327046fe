"""`vidatt doctor`: what is installed, what this machine has, and whether the parts work together."""

from __future__ import annotations

import importlib
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

from joblib import cpu_count
from packaging.requirements import Requirement

from ..version import __version__
from .record import OPTIONAL, Record

MODULES = {
    "google-crc32c": "google_crc32c",
    "opencv-contrib-python-headless": "cv2",
    "scikit-learn": "sklearn",
}
"""What a package is imported as, where that is not its name."""


@dataclass(frozen=True, kw_only=True)
class WeightsFolder(Record):
    """The weights that are known, and those at hand."""

    folder: str
    here: tuple[str, ...]
    known: int


@dataclass(frozen=True, kw_only=True)
class DoctorReport(Record):
    """The installation and the machine; what needs packages is left out while some are missing."""

    vidatt: str
    python: str
    platform: str
    processor: str
    cores: int
    memory_bytes: int
    packages: Mapping[str, str | None]  # version; None = not installed
    ffmpeg: Mapping[str, str] | None = field(default=None, metadata=OPTIONAL)
    decoder: str | None = field(default=None, metadata=OPTIONAL)  # the outcome of a small video
    devices: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    flow_engines: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    not_at_hand: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)  # flow engines, each with the reason
    weights: WeightsFolder | None = field(default=None, metadata=OPTIONAL)
    folders: Mapping[str, str | None] | None = field(default=None, metadata=OPTIONAL)  # environment variables
    missing: tuple[str, ...]


def doctor() -> DoctorReport:
    """Look at the installation; `missing` has a line for each thing that keeps vidatt from working.

    A small video is encoded and read back through the decoding child, as an extraction would: what crashes there
    crashes here, on a file that is known to be good.
    """
    missing: list[str] = []
    packages = {}
    try:
        wanted = [Requirement(text) for text in metadata.requires("vidatt") or ()]
    except metadata.PackageNotFoundError:
        wanted = []
        missing.append("vidatt itself is only on the path, not installed: pip install -e . where its setup.cfg is")
    for requirement in (r for r in wanted if r.marker is None):  # the others belong to extras
        packages[requirement.name], problem = _package(requirement)
        missing += [problem] if problem else []
    report = DoctorReport(
        vidatt=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        processor=processor_name(),
        cores=cpu_count(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        packages=packages,
        missing=tuple(missing),
    )
    if missing:  # the rest needs them
        return report
    outcome, detail = _decoded()
    devices = _devices()
    engines, problems = _engines(cuda=len(devices) > 1)
    return replace(
        report,
        ffmpeg=_ffmpeg(),
        decoder=outcome,
        devices=tuple(devices),
        flow_engines=tuple(engines),
        not_at_hand=tuple(problems),
        weights=_weights(),
        folders={name: os.environ.get(name) for name in ("VIDATT_DATA", "VIDATT_CACHE", "VIDATT_WEIGHTS")},
        missing=() if outcome == "ok" else (f"a small video does not decode here: {outcome} ({detail})",),
    )


def _package(requirement: Requirement) -> tuple[str | None, str | None]:
    """Return the version of a package, and what is wrong with it."""
    name = requirement.name
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return None, f"{name} is not installed: pip install '{requirement}'"
    if not requirement.specifier.contains(version, prereleases=True):
        return version, f"{name} is {version}, vidatt needs {requirement.specifier}: pip install '{requirement}'"
    try:
        importlib.import_module(MODULES.get(name, name))
    except Exception as error:  # noqa: BLE001 - whatever a broken package raises is what is to be reported
        return version, f"{name} {version} cannot be imported: {type(error).__name__}: {error}"
    return version, None


def _ffmpeg() -> dict[str, str]:
    import av

    libraries = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
    return {"release": av.ffmpeg_version_info, **libraries}


def _decoded() -> tuple[str, str]:
    """Encode a video, read it in the decoding child, and return its outcome."""
    import av
    import numpy as np

    from ..extract.decoder import Decoder, DecoderSettings
    from ..extract.kinds import RGB
    from ..extract.sampling import Sampler
    from ..extract.segments import VideoEnd, VideoJob
    from ..extract.views import CENTER, Geometry
    from ..extract.windows import StreamInput

    with tempfile.TemporaryDirectory(prefix="vidatt-doctor-") as folder:
        path = Path(folder) / "small.avi"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for level in range(8):
                picture = np.full((48, 64, 3), 20 * level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        square = Geometry(resize="none", crop_px=48)
        decoder = Decoder(
            (StreamInput(name="rgb", kind=RGB, geometry=square, views=CENTER),),
            DecoderSettings(timeout_seconds=60.0),
        )
        job = VideoJob(id=path.name, path=path, sampler=Sampler.parse("uniform:2"), window_frames=1, segments=2)
        try:
            decoder.submit(job)
            ends = [message for message in decoder.messages() if isinstance(message, VideoEnd)]
        finally:
            decoder.close()
    return ends[-1].report.outcome, ends[-1].report.detail


def _devices() -> list[str]:
    import torch

    cards = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in cards)]


def _engines(*, cuda: bool) -> tuple[list[str], list[str]]:
    from ..errors import UsageError
    from ..extract.flow.engines import ENGINES, choose_engine

    there, problems = [], []
    for engine in ENGINES:
        try:
            there.append(choose_engine(engine, "cuda" if cuda and engine == "triton" else "cpu"))
        except UsageError as error:
            problems.append(str(error))
    return there, problems


def _weights() -> WeightsFolder:
    from ..extract.backbones.weights import weights_folder, weights_registry

    known = weights_registry()
    here = tuple(name for name, entry in known.items() if entry.path.exists())
    return WeightsFolder(folder=str(weights_folder()), here=here, known=len(known))


def processor_name() -> str:
    """Return the processor's name: Linux has it in /proc/cpuinfo, on x86 as `model name`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
