"""A predictor: fitted runs, ready for videos that no store has. `load_predictor(run)("clip.mp4")`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...errors import NotFiniteError, RefusedError, UsageError, nearest_key_error
from ...extract.child import Child
from ...extract.decoder import DecoderSettings, start_child
from ...extract.sampling import Sampler
from ...extract.video import VideoReport
from ...heads.contract import Head
from ...heads.fusion.score_rules import mean_rule
from ..runs.attention import looked
from ..runs.identity import FusionEnvironment
from ..runs.measured import Sampled
from ..runs.reload import load_head, require_fit
from ..runs.run import Run
from ..runs.scoring import batch_scores, resolve_device
from .clip_cubes import Clip, ClipCubes, ClipExtractor, Piece
from .fusing import as_probabilities, fusion_words, temperature_of
from .intervals import Interval, IntervalReader, IntervalRule
from .making import Choices, StreamMaking, making_of, require_alike

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """How new videos are looked at.

    Raises
    ------
    UsageError
        For windows that cannot be, see `SlidingSampler`.
    """

    choices: Choices = field(default_factory=Choices)
    window_seconds: float | None = None  # None = a video is looked at as a whole
    stride_seconds: float | None = None  # None = half a window
    intervals: IntervalRule | None = None  # None = where the run's segments follow the length, by what the head gives
    device: str = "auto"
    batch_segments: int | None = None
    decoders: int | None = None
    decoder: DecoderSettings = field(default_factory=DecoderSettings)

    def __post_init__(self) -> None:
        if self.window_seconds is None and self.stride_seconds is not None:
            raise UsageError("--stride is that of windows; give --window SECONDS too.")
        if self.slide is not None and not 0 < self.slide[1] <= self.slide[0] < float("inf"):
            raise UsageError(
                f"Windows of {self.slide[0]:g} s every {self.slide[1]:g} s: both must be above 0, and the stride no "
                "longer than the window."
            )
        if self.window_seconds is not None and self.intervals is not None:
            raise UsageError("--rule makes intervals of whole videos; leave out --window.")

    @property
    def slide(self) -> tuple[float, float] | None:
        """Length and stride of windows."""
        if self.window_seconds is None:
            return None
        return self.window_seconds, self.window_seconds / 2 if self.stride_seconds is None else self.stride_seconds


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction:
    """What the runs say of one video, or of one window of it."""

    clip: Clip
    report: VideoReport  # how its decoding ended: `outcome` is ok, truncated, unreadable, ...
    classes: tuple[str, ...]  # [N] names
    scores: np.ndarray | None  # [N] float32, higher = more likely; None: nothing could be read
    by_run: tuple[np.ndarray, ...] = ()  # [N] float32 each, what each run says, as `evaluate` keeps it
    segments: int = 0  # that were looked at
    window: int = 0  # its number
    windows: int = 1  # how many the video has
    span: tuple[float, float] | None = None  # seconds that a window covers; None = the whole video
    intervals: tuple[Interval, ...] | None = None  # None: the rules make none

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the best classes with their scores, best first; none if nothing could be read."""
        if self.scores is None:
            return []
        best = np.argsort(-self.scores, kind="stable")[:count]
        return [(self.classes[i], float(self.scores[i])) for i in best]

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {score:.3f}" for name, score in self.top(3)) or self.report.detail
        return f"Prediction({self.clip.id!r}, {self.report.outcome}: {best})"


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadedPart:
    """One run, ready."""

    run: Run
    head: Head
    streams: tuple[StreamMaking, ...]
    temperature: float | None  # by which decision values become probabilities; None: they are probabilities

    @property
    def moments(self) -> tuple[Sampler, int]:
        """Where its features are taken; runs that share it share the decoding."""
        return self.streams[0].sampling.moments


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """What a predictor is to do."""

    pieces: tuple[list[Piece], ...]  # of each sampling
    inputs: int  # that the networks take in all, where each video has as many frames as it states


@dataclass(frozen=True, kw_only=True)
class About:
    """What is to be said beside predictions."""

    score_kind: str
    fusion: str | None  # how the runs' scores become one, in words; None for one run
    sampled: tuple[Sampled, ...]  # where each run looked
    notes: tuple[str, ...]


class Predictor:
    """Runs with their heads and the networks that make their cubes; use `with`, or `close` it.

    `predictor(path)` gives the `Prediction` of one video, `predictor.run(predictor.plan(clips))` those of several,
    window by window.

    Attributes
    ----------
    classes : [N] names
    score_kind : what its scores are, see `Head.score_kind`
    fusion : how the runs' scores become one, in words; None for one run
    notes : what is to be said of how the cubes are made
    """

    def __init__(self, runs: Sequence[Path], config: PredictorConfig) -> None:
        if not runs:
            raise UsageError("A predictor needs a run.")
        self.config, self.device = config, resolve_device(config.device)
        opened = [open_fit(path) for path in runs]
        require_alike(opened)
        named = [name for run in opened for name in require_fit(run).stream_names]
        nearest_key_error("stream in --weights", config.choices.weights, dict.fromkeys(named))
        identity = require_fit(opened[0])
        self.classes, self.multi_label = identity.classes, identity.multi_label
        with ExitStack() as on_errors:
            ahead = start_child()  # it imports while backbones are built
            on_errors.callback(ahead.kill)
            self.parts = tuple(_load(run, config.choices, self.device) for run in opened)
            self._moments, self._extractors = self._build(ahead)
            on_errors.pop_all()
        self.score_kind = Head.score_kind if len(self.parts) > 1 else self.parts[0].head.score_kind
        self.fusion = fusion_words(opened, [part.temperature for part in self.parts]) if len(self.parts) > 1 else None
        self._reader, why = self._interval_reader()
        times = len(self._moments)
        self.notes = [note for extractor in self._extractors for note in extractor.notes]
        self.notes += [f"runs of {times} samplings: each video is decoded {times} times"] if times > 1 else []
        self.notes += [why] if why else []

    def _build(self, ahead: Child) -> tuple[tuple[tuple[Sampler, int], ...], list[ClipExtractor]]:
        """Return the samplings of the runs, and what makes the cubes of each."""
        groups: dict[tuple[Sampler, int], dict[str, StreamMaking]] = {}
        for part in self.parts:
            groups.setdefault(part.moments, {}).update({stream.key: stream for stream in part.streams})
        config = self.config
        extractors = [
            ClipExtractor(
                list(streams.values()), device=self.device, slide=config.slide, decoders=config.decoders,
                batch_segments=config.batch_segments, settings=config.decoder, ahead=None if number else ahead,
            )
            for number, streams in enumerate(groups.values())
        ]  # fmt: skip
        return tuple(groups), extractors

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the decoding children; another call starts new ones."""
        for extractor in self._extractors:
            extractor.close()

    @property
    def flow_seconds(self) -> float:
        """Seconds spent so far on flow that is computed on the device."""
        return sum(extractor.flow_seconds for extractor in self._extractors)

    @property
    def decoders(self) -> int:
        """Decoding children."""
        return sum(extractor.decoders for extractor in self._extractors)

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield every network and every head with what it is."""
        for extractor in self._extractors:
            for setup in extractor.setups.values():
                yield f"backbone {setup.name}", setup.backbone
        for part in self.parts:
            yield f"head {part.run.path}", part.head

    def __call__(self, video: str | Path) -> Prediction:
        """Look at one video file; of windows the mean. What cannot be read has no scores, and a `report` that says why.

        Parameters
        ----------
        video : a local file
        """
        parts = list(self.run(self.plan([Clip(id=str(video), path=Path(video))])))
        return parts[0] if len(parts) == 1 else mean_of_windows(parts)

    def plan(self, clips: Sequence[Clip]) -> Plan:
        """Return what is decoded of each video; looks inside only where the number of segments follows the length."""
        pieces = tuple(extractor.plan(clips) for extractor in self._extractors)
        inputs = sum(
            piece.segments * extractor.segment_inputs
            for extractor, own in zip(self._extractors, pieces, strict=True)
            for piece in own
            if piece.too_large is None
        )
        return Plan(pieces=pieces, inputs=inputs)

    def run(self, plan: Plan, *, computed: Callable[[int], None] = lambda count: None) -> Iterator[Prediction]:
        """Yield the prediction of each video, or of each of its windows, in order.

        Parameters
        ----------
        computed : called with the number of inputs that a network has taken; `Plan.inputs` in all
        """
        for extractor in self._extractors:
            extractor.computed = computed
        made = [extractor.run(pieces) for extractor, pieces in zip(self._extractors, plan.pieces, strict=True)]
        for found in zip(*made, strict=True):
            yield self._predict(found)

    def about(self) -> About:
        """Return what is to be said beside the predictions, after them."""
        samplings = [part.streams[0].sampling for part in self.parts]
        return About(
            score_kind=self.score_kind,
            fusion=self.fusion,
            sampled=tuple(
                Sampled(
                    views=str(one.views),
                    sampler=str(one.sampler),
                    window_frames=one.window_frames,
                    seed=one.seed if one.sampler.random or any(v.random for v in one.views.sets) else None,
                )
                for one in samplings
            ),
            notes=tuple(self.notes),
        )

    def _predict(self, found: Sequence[ClipCubes]) -> Prediction:
        """Return what the runs say of the cubes of one video, those of each sampling."""
        first, by_moments = found[0], dict(zip(self._moments, found, strict=True))
        own = [by_moments[part.moments] for part in self.parts]
        prediction = Prediction(
            clip=first.clip, report=first.report, classes=self.classes, scores=None, window=first.window,
            windows=first.windows, span=first.span,
        )  # fmt: skip
        if not all(cubes.valid.any() for cubes in own):
            return prediction
        scored = tuple(self._score(part, cubes) for part, cubes in zip(self.parts, own, strict=True))
        plain = [
            as_probabilities(scores[None], part.temperature, multi_label=self.multi_label)
            for part, scores in zip(self.parts, scored, strict=True)
        ]
        fused = mean_rule(np.stack(plain))[0].astype(np.float32) if len(self.parts) > 1 else scored[0]
        if not np.isfinite(fused).all():
            raise NotFiniteError(
                f"What {', '.join(str(part.run.path) for part in self.parts)} says of {first.clip.path} is not finite, "
                "and its cubes are: the head is at fault. Fit again with another --out."
            )
        return replace(
            prediction, scores=fused, by_run=scored, segments=int(own[0].valid.sum()), intervals=self._intervals(own[0])
        )

    def _score(self, part: LoadedPart, cubes: ClipCubes) -> np.ndarray:
        """Return [N] float32: the mean over the views, as `score_views` takes it."""
        views = part.streams[0].sampling.views.count
        total = np.zeros(part.head.classes, np.float64)
        for view in range(views):
            batch = cubes.batch(part.streams, view=view, device=self.device)
            with torch.inference_mode():
                total += batch_scores(part.head, part.head(batch.cubes, batch.valid))[0][0]
        return (total / views).astype(np.float32)

    def _interval_reader(self) -> tuple[IntervalReader | None, str | None]:
        """Return what makes intervals, or why nothing does."""
        sampling = self.parts[0].streams[0].sampling
        follows = sampling.sampler.fixed_segments is None and sampling.sampler.window_segments is None
        if self.config.slide is not None or (self.config.intervals is None and not follows):
            return None, None
        if len(self.parts) > 1:
            return None, "no intervals: they are made of one run; predict by one"
        centred = any(one.central is not None for one in sampling.views.sets)
        return IntervalReader(self.parts[0].run, self.config.intervals or IntervalRule(), centred=centred), None

    def _intervals(self, cubes: ClipCubes) -> tuple[Interval, ...] | None:
        if self._reader is None:
            return None
        part = self.parts[0]
        views = part.streams[0].sampling.views
        central = next((r[one.central] for one, r in views.ranges.items() if one.central is not None), 0)
        batch = cubes.batch(part.streams, view=central, device=self.device)
        with torch.inference_mode():
            output = part.head(batch.cubes, batch.valid)
        video = next(looked(part.head, output, batch, [cubes.clip.id], with_segments=True))
        try:
            return self._reader.read(video, cubes, part.streams[0])
        except UsageError as error:
            if self.config.intervals is not None:  # they were asked for
                raise UsageError(f"Run {part.run.path}: {cubes.clip.id}: {error}.") from None
            note = f"no intervals: {error}"
            if note not in self.notes:
                self.notes.append(note)
            return None


def load_predictor(
    run: str | Path, *more: str | Path, weights: dict[str, Path] | None = None, sampler: str | None = None,
    views: str | None = None, device: str = "auto", window_seconds: float | None = None,
    stride_seconds: float | None = None,
) -> Predictor:  # fmt: skip
    """Load fitted runs for videos that no store has: `load_predictor("runs/stan")("clip.mp4").top(5)`.

    Parameters
    ----------
    run, more : finished fits; of several, the probabilities are averaged
    weights : file of the weights of a stream, by its name, where they are not in `$VIDATT_WEIGHTS`
    sampler, views : where the features are taken; None = as in the store that the run was fitted on
    device : auto, cpu, cuda or cuda:i
    window_seconds, stride_seconds : look at windows of a long video and average them; None = at the whole of it

    Raises
    ------
    MissingFileError
        If there is no run, or nobody knows where its segments lie.
    WeightsError
        If weights are not found.
    RefusedError
        If the runs are of other classes, or their cubes were imported.
    """
    choices = Choices(sampler=sampler, views=views, weights=weights or {})
    config = PredictorConfig(
        choices=choices, window_seconds=window_seconds, stride_seconds=stride_seconds, device=device
    )
    return Predictor([Path(path) for path in (run, *more)], config)


def mean_of_windows(windows: Sequence[Prediction]) -> Prediction:
    """Return the mean over the windows of one video that could be read."""
    read = [one for one in windows if one.scores is not None]
    whole = replace(windows[0], window=0, span=None)
    if not read:
        return whole
    return replace(
        whole,
        scores=np.mean([one.scores for one in read], axis=0).astype(np.float32),
        by_run=tuple(
            np.mean([one.by_run[i] for one in read], axis=0).astype(np.float32) for i in range(len(read[0].by_run))
        ),
        segments=sum(one.segments for one in read),
    )


def open_fit(path: Path) -> Run:
    """Open a finished fit.

    Raises
    ------
    MissingFileError, UsageError
        If there is none, or it is not finished.
    RefusedError
        If it is a fusion; the message names the command that averages its parts.
    """
    run = Run.open(path)
    if isinstance(run.environment, FusionEnvironment):
        raise RefusedError(
            f"Run {path} is a fusion of other runs' scores and holds no head; name its parts, whose probabilities are "
            f"averaged: `vidatt predict {' '.join(run.environment.parts)} VIDEO`."
        )
    run.require_finished()
    return run


def _load(run: Run, choices: Choices, device: torch.device) -> LoadedPart:
    streams = making_of(run, choices)
    head = load_head(run, sampler=streams[0].sampling.sampler).to(device).eval()
    return LoadedPart(run=run, head=head, streams=streams, temperature=temperature_of(run, head))
