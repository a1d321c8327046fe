"""`vidatt report`: runs as one page of HTML that needs neither a network nor anything beside it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ...cache.scratch import write_atomically
from ...cache.store import Store
from ...errors import MissingFileError, RefusedError, UnknownNameError, UsageError, VidattError
from ...version import __version__
from ..record import Record
from ..runs.identity import FusionIdentity
from ..runs.reload import store_for
from ..runs.run import Run
from ..runs.splits import PARTS
from .chapter import Chapter, LookConfig, fit_measures, read_chapter
from .looks import FRAMES
from .overview import Given, Overview, find_runs, overview

log = logging.getLogger(__name__)

MOST_CHAPTERS = 8
"""Runs that are told in full; of more, those best on their validation videos."""
MOST_FRAMES = 600
"""In the whole page: about five megabytes."""
MOST_BYTES = 10_000_000
KINDS = 3


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What `report` is asked for.

    Raises
    ------
    UsageError, UnknownNameError
        If there is no run, or a value cannot be.
    """

    runs: tuple[Path, ...]  # or folders of runs
    out: Path
    videos: Path | None = None  # folder of the video files; None = attention without frames
    store: Path | None = None  # None = the one that each run was fitted on
    split: str | None = None  # None = each run's own
    part: str = "test"
    draw: int = 3  # videos of each kind (best, worst, random) of each run; 0 = none
    seed: int = 0  # of the random ones
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.runs:
            raise UsageError("Name at least one run.")
        if self.part not in PARTS:
            raise UnknownNameError("part", self.part, PARTS)
        if self.draw < 0 or self.seed < 0:
            raise UsageError(f"--draw {self.draw}, --seed {self.seed}: must be 0 or more.")
        if self.videos is not None and not self.videos.is_dir():
            raise MissingFileError(f"--videos {self.videos} is no folder; give the one that holds the video files.")
        if self.out.is_dir():
            raise UsageError(f"--out {self.out} is a folder; give the name of a file such as report.html.")


@dataclass(frozen=True, kw_only=True)
class ReportResult(Record):
    """What `report` wrote."""

    out: str
    bytes: int
    runs: tuple[str, ...]  # in the table
    chapters: tuple[str, ...]  # told in full
    measured: int  # runs in full that were evaluated on the part
    plots: int
    videos: int  # drawn with their attention
    frames: int  # of videos
    notes: tuple[str, ...]  # what is not there, and why
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the template is given."""

    title: str
    version: str
    made: str  # the day
    overview: Overview
    chapters: tuple[Chapter, ...]
    notes: tuple[str, ...]


def report(config: ReportConfig) -> ReportResult:
    """Write the page.

    Raises
    ------
    MissingFileError, UsageError
        If there is no such run, or one is unfinished or damaged.
    RefusedError, FingerprintMismatchError
        If `--store` is another one than a run was fitted on.
    VidattError
        If the page would be too large to be sent around.
    """
    started = time.monotonic()
    given = find_runs(config.runs)
    told = _told(given)
    each = min(config.draw, MOST_FRAMES // (KINDS * FRAMES * len(told)))
    look = LookConfig(videos=config.videos, each=each, seed=config.seed, device=config.device)
    chapters = []
    for number, (run, name) in enumerate(told):
        log.info("reading run %s, %d of %d", run.path, number + 1, len(told))
        store, missing = _store(run, config.store)
        split = config.split or run.identity.split
        chapters.append(
            read_chapter(
                run, key=f"r{number}", name=name, split=split, part=config.part, store=store, missing=missing, look=look
            )
        )
    side_by_side = overview(given, chapters, config.split, config.part)
    notes = _notes(given, chapters, side_by_side)
    page = Page(
        title=", ".join(chapter.name for chapter in chapters[:3]) + (" …" if len(chapters) > 3 else ""),
        version=__version__,
        made=time.strftime("%Y-%m-%d"),
        overview=side_by_side,
        chapters=tuple(chapters),
        notes=notes,
    )
    content = render(page).encode()
    if len(content) > MOST_BYTES:
        raise VidattError(
            f"The page would have {len(content) / 1e6:.0f} MB, more than 10; give fewer runs, or a smaller --draw."
        )
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(config.out, content)
    return _result(config, given, page, len(content), time.monotonic() - started)


def render(page: Page) -> str:
    """Return the page as HTML; every text of runs and stores is escaped."""
    environment = Environment(
        loader=PackageLoader("vidatt.pipelines.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": _share, "percent": lambda value: f"{100 * value:.1f}"}
    return environment.get_template("page.html").render(page=page)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _told(given: Given) -> list[tuple[Run, str]]:
    """Return the runs that are told in full: those named, of a sweep the best on validation videos."""
    swept = [n for n, run in enumerate(given.runs) if str(run.path.parent) in given.sweeps]
    order = sorted(swept, key=lambda n: -_validation(given.runs[n]))
    named = [n for n in range(len(given.runs)) if n not in swept]
    kept = [*named, *order[: max(0, MOST_CHAPTERS - len(named)) if len(swept) <= MOST_CHAPTERS else 1]]
    if len(kept) > MOST_CHAPTERS:
        kept = sorted(sorted(kept, key=lambda n: -_validation(given.runs[n]))[:MOST_CHAPTERS])
    return [(given.runs[n], given.names[n]) for n in kept]


def _validation(run: Run) -> float:
    found = fit_measures(run).validation
    value = None if found is None else (found.map if run.identity.multi_label else found.top1)
    return -1.0 if value is None else value


def _store(run: Run, path: Path | None) -> tuple[Store | None, str]:
    """Return the store of a run, or None and why there is none: scores and curves can be shown without."""
    if isinstance(run.identity, FusionIdentity):
        return None, "a fusion holds scores and no head: there is no attention to show; see the runs it was made of"
    if path is not None:
        return store_for(run, path), ""
    try:
        return store_for(run, None), ""
    except (MissingFileError, RefusedError) as error:
        return None, f"no video is shown: {error} Give --store."


def _notes(given: Given, chapters: Sequence[Chapter], side_by_side: Overview) -> tuple[str, ...]:
    notes = [f"{path} is not finished and is left out" for path in given.unfinished]
    if len(chapters) < len(given.runs):
        notes.append(
            f"{len(chapters)} of {len(given.runs)} runs are told in full, chosen by their validation videos; "
            "the table has all"
        )
    notes += side_by_side.notes
    for chapter in chapters:
        if chapter.evaluation is None:
            notes.append(f"{chapter.name} has no scores on {chapter.part}: make them by `{chapter.evaluate}`")
        notes += [f"{chapter.name}: {note}" for note in chapter.looks.notes]
    return tuple(dict.fromkeys(notes))


def _result(config: ReportConfig, given: Given, page: Page, size: int, seconds: float) -> ReportResult:
    looks = [look for chapter in page.chapters for look in chapter.looks.videos]
    plots = len(page.overview.plots) + sum(len(c.curves) + (c.recall is not None) for c in page.chapters)
    return ReportResult(
        out=str(config.out),
        bytes=size,
        runs=tuple(str(run.path) for run in given.runs),
        chapters=tuple(chapter.path for chapter in page.chapters),
        measured=sum(chapter.evaluation is not None for chapter in page.chapters),
        plots=plots,
        videos=len(looks),
        frames=sum(frame.uri is not None for look in looks for frame in look.frames),
        notes=page.notes,
        seconds=round(seconds, 3),
    )
