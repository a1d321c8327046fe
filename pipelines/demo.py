"""`vidatt demo`: the whole path on generated videos, without data, weights, GPU or network."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import cpu_count

from ..cache.store import Store
from ..extract.datasets.generator import generate
from ..extract.streams import StreamConfig
from .extraction.config import ExtractConfig
from .extraction.extract import extract
from .fitting.fit import fit
from .fitting.plan import FitConfig
from .localisation.locate import LocateConfig, locate
from .localisation.truth import BoxTruth
from .pictures.frames import FrameSource
from .pictures.scene import MEAN, StoreScenes
from .pictures.sheet import FRAME, SheetSettings, show, write_sheet
from .record import Record
from .report.report import ReportConfig, report
from .results.evaluate import evaluate
from .runs.attention import attention
from .runs.run import Run

log = logging.getLogger(__name__)

SHAPES, MOTIONS = 3, 2
SEGMENTS = 10
SIDE = 112  # the videos are 160 x 120: nothing is gained by enlarging them, and TV-L1 costs by the pixel
STREAMS = {"rgb": "hog", "flow": "hof", "clip": "hog3d"}
FITS = (  # head, streams
    ("stan", ("rgb",)),
    ("stan", ("flow",)),
    ("stan", ("clip",)),
    ("stan", ("rgb", "flow", "clip")),
    ("san", ("rgb", "flow", "clip")),
    ("mean", ("rgb", "flow", "clip")),
)
SETTINGS = {"steps": "400"}  # of the preset's 600: the table is settled by then
DRAWN_VIDEOS = 6


@dataclass(frozen=True, kw_only=True)
class DemoRow(Record):
    """One head of the demo; attention is None for a head that attends to no cells."""

    head: str
    streams: tuple[str, ...]
    run: str
    top1: float | None
    chance: float
    mass_in_box: float | None  # share of the attention inside the true object's box
    box_share: float | None  # share of the picture that the box covers
    seconds: float  # of the fit


@dataclass(frozen=True, kw_only=True)
class DemoResult(Record):
    """The table of the heads, and where everything lies."""

    videos: int
    classes: int
    features: str
    heads: tuple[DemoRow, ...]
    picture: str
    report: str  # a page for the browser
    store: str
    reading: str
    seconds: float


def demo(out: Path, *, train_videos: int = 144, device: str = "auto", seed: int = 0) -> DemoResult:
    """Generate `actionshapes`, extract three streams of descriptors, fit heads on one and on all, evaluate, report.

    Parameters
    ----------
    out : folder for videos, store, runs, picture and report; a second call reuses what is there
    train_videos : training videos; half as many again are for testing

    """
    started = time.monotonic()
    videos, store_path = out / "videos", out / "actionshapes.zarr"
    log.info("generating videos in %s", videos)
    catalogue = generate(
        videos, videos=train_videos * 3 // 2, shapes=SHAPES, motions=MOTIONS, seed=seed, n_jobs=cpu_count()
    )
    extract(
        ExtractConfig(
            dataset="actionshapes",
            videos=videos,
            store=store_path,
            streams=tuple(
                StreamConfig(name=name, backbone=backbone, resize=f"short:{SIDE}", crop_px=SIDE, flow_preset="fast")
                for name, backbone in STREAMS.items()
            ),
            sampler=f"centre:{SEGMENTS}",
            seed=seed,
            device=device,
            slice="0/1",  # whatever job it runs in
        )
    )
    rows = [_fit_one(head, streams, out, store_path, device, seed) for head, streams in FITS]
    fused = next(row for row in rows if row.head == "stan" and len(row.streams) > 1)
    best = max((row for row in rows if len(row.streams) == 1), key=lambda row: row.top1 or 0.0)
    picture = out / "attention.png"
    _draw(Path(fused.run), store_path, videos, picture, device)
    locate(LocateConfig(run=Path(fused.run), device=device))
    runs = tuple(Path(row.run) for row in sorted(rows, key=lambda row: -len(row.streams)))
    page = report(ReportConfig(runs=runs, out=out / "report.html", videos=videos, draw=2, device=device))
    return DemoResult(
        videos=len(catalogue.videos),
        classes=len(catalogue.classes),
        features=f"{', '.join(f'{b} ({s})' for s, b in STREAMS.items())}; {SEGMENTS} segments",
        heads=tuple(rows),
        picture=str(picture),
        report=page.out,
        store=str(store_path),
        reading=(
            f"A class is a shape and a motion; chance is {fused.chance:.3f}. A frame shows the shape and hardly the "
            f"motion, so rgb alone ends near {1 / MOTIONS:.2f}. STAN on all three streams reaches {fused.top1:.3f}, "
            f"on the best single one ({best.streams[0]}) {best.top1:.3f}. It puts {fused.mass_in_box:.2f} of "
            f"its attention inside the true object's box, which covers {fused.box_share:.2f} of the picture."
        ),
        seconds=round(time.monotonic() - started, 1),
    )


def _fit_one(head: str, streams: tuple[str, ...], out: Path, store_path: Path, device: str, seed: int) -> DemoRow:
    run = out / "runs" / f"{head}-{'-'.join(streams)}"
    fitted = fit(
        FitConfig(
            head=head,
            store=store_path,
            streams=streams,
            out=run,
            preset="small",
            settings=SETTINGS,
            device=device,
            seed=seed,
        )
    )
    result = evaluate(run, device=device)
    truth = BoxTruth(Store.open(store_path), streams[0])
    pairs = [pair for video in attention(run, device=device) for pair in truth.mass_in_boxes(video)]
    mass, share = np.mean(pairs, axis=0) if pairs else (None, None)
    return DemoRow(
        head=head,
        streams=streams,
        run=str(run),
        top1=result.metrics.top1,
        chance=1 / (SHAPES * MOTIONS),
        mass_in_box=None if mass is None else float(mass),
        box_share=None if share is None else float(share),
        seconds=fitted.seconds,
    )


def _draw(run: Path, store_path: Path, videos: Path, picture: Path, device: str) -> None:
    store = Store.open(store_path)
    tested = np.flatnonzero(store.index.splits["1"] == 2)
    chosen = tested[:: max(1, len(tested) // DRAWN_VIDEOS)][:DRAWN_VIDEOS]
    scenes, settings = StoreScenes(store, Run.open(run).identity.stream_names), SheetSettings(rows=(FRAME, MEAN))
    with FrameSource() as source:
        write_sheet(
            picture,
            [
                show(scene, source, videos / scene.path, settings)
                for scene in map(scenes.of, attention(run, videos=[int(p) for p in chosen], device=device))
            ],
            settings,
        )
