"""The cubes of new videos in memory: decoded once for all streams, and handed on as the reader of a store would."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ...cache.batches import Batch
from ...cache.memory import available_ram_bytes, size_text
from ...cache.video_cubes import VideoCubes
from ...extract.child import Child
from ...extract.counting import count_segments
from ...extract.decoder import DecoderSettings
from ...extract.extractor import Extractor, ShardArrays, StreamArrays, StreamSetup
from ...extract.sampling import Sampler
from ...extract.segments import CountJob, ShardJob, VideoJob
from ...extract.sliding import SlidingSampler
from ...extract.video import VideoReport
from ..extraction.supervisor import CPU_BATCH_SEGMENTS
from ..jobs.allotment import given_cores
from .making import StreamMaking

CUDA_BATCH_SEGMENTS = 64
PIECE_BYTES = 1 << 29
"""Of the cubes of as many windows as are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video that no store has."""

    id: str
    path: Path
    start_seconds: float | None = None  # only this stretch of the file
    stop_seconds: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class ClipCubes:
    """The cubes of one video, or of one window of it, in memory; T is the number of segments planned for it.

    Streams go by `StreamMaking.key`.
    """

    clip: Clip
    report: VideoReport  # how its decoding ended
    cubes: dict[str, np.ndarray]  # [V, T, K, K, D] float16; padding is 0
    frames: dict[str, np.ndarray]  # [T, 3] int32: first, centre, stop, as `VideoCubes`
    seconds: dict[str, np.ndarray]  # [T] float64 of the centre frame, from the file's first frame
    valid: np.ndarray  # [T] bool, True = a real segment
    window: int = 0  # its number among those of the video
    windows: int = 1  # how many there are
    span: tuple[float, float] | None = None  # seconds that a window covers; None = it is the whole video

    def batch(self, streams: Sequence[StreamMaking], *, view: int = 0, device: torch.device | str = "cpu") -> Batch:
        """Return one view as a batch of one video, as `Batches` of a store would give it; it must have a valid segment.

        Parameters
        ----------
        streams : of one run, in the head's order
        view : among those that were made, from 0
        """
        cubes = tuple(torch.from_numpy(self.cubes[stream.key][view][None]).to(device) for stream in streams)
        return Batch(np.zeros(1, np.int64), cubes, torch.from_numpy(self.valid[None]).to(device))

    def video(self, stream: StreamMaking, *, view: int = 0) -> VideoCubes:
        """Return one view of one stream as `Stream.video` of a store would give it."""
        key = stream.key
        return VideoCubes(
            id=self.clip.id,
            cubes=self.cubes[key][view],
            frames=self.frames[key],
            seconds=self.seconds[key],
            valid=self.valid,
        )


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What is decoded and held at once of a video: all of it, or some of its windows."""

    clip: Clip
    segments: int  # in memory
    sampler: Sampler | SlidingSampler
    first_window: int = 0
    held_windows: int = 1
    windows: int = 1  # of the whole video
    too_large: str | None = None  # why nothing of it is decoded


class ClipExtractor:
    """Makes the cubes of new videos for one or more runs; close it (or use `with`) to end its decoding children.

    Parameters
    ----------
    streams : of all runs together, equal ones once; of one sampling
    slide : length and stride in seconds of the windows that each video is cut into; None = it is one
    decoders : decoding children
    piece_bytes : of the cubes of the windows of a video that are made together; each such piece decodes it again
    ahead : a decoding child that is started already

    Attributes
    ----------
    notes : what is to be said of how the cubes are made

    Raises
    ------
    WeightsError, UsageError, RefusedError
        If a backbone cannot be built as the run's was.
    """

    def __init__(
        self, streams: Sequence[StreamMaking], *, device: torch.device, slide: tuple[float, float] | None = None,
        decoders: int | None = None, batch_segments: int | None = None, settings: DecoderSettings | None = None,
        piece_bytes: int = PIECE_BYTES, ahead: Child | None = None,
    ) -> None:  # fmt: skip
        self.device, self.settings = device, settings or DecoderSettings()
        self._piece_bytes = piece_bytes
        self._streams = {stream.key: stream for stream in streams}
        first = streams[0].sampling
        self._base, self._window_frames, self._slide = first.sampler, first.window_frames, slide
        made = {key: stream.setup(device) for key, stream in self._streams.items()}
        self.notes = tuple(note for _, note in made.values() if note)
        self._views = max(stream.sampling.views.count for stream in streams)
        names = [stream.name for stream in self._streams.values()]
        self._labels = {  # one name may stand for several recipes
            key: f"{name}-{n}" if names.count(name) > 1 else name
            for n, (key, name) in enumerate(zip(self._streams, names, strict=True), 1)
        }
        self.setups: dict[str, StreamSetup] = {
            key: replace(setup, input=replace(setup.input, name=self._labels[key])) for key, (setup, _) in made.items()
        }
        self.computed: Callable[[int], None] = lambda count: None  # called with the inputs that a network has taken
        for setup in self.setups.values():
            setup.backbone.register_forward_hook(lambda net, given, output: self.computed(len(output)))
        self.decoders = decoders or (1 if device.type == "cpu" else given_cores(os.environ))
        self._extractor = Extractor(
            tuple(self.setups.values()),
            device=device,
            batch_segments=batch_segments or (CPU_BATCH_SEGMENTS if device.type == "cpu" else CUDA_BATCH_SEGMENTS),
            decoders=self.decoders,
            settings=self.settings,
            ahead=ahead,
        )

    def __enter__(self) -> ClipExtractor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the decoding children."""
        self._extractor.close()

    @property
    def flow_seconds(self) -> float:
        """Seconds spent so far on flow that is computed on the device."""
        return self._extractor.flow_seconds

    @property
    def segment_inputs(self) -> int:
        """Inputs that the networks take of one segment: all its streams and views."""
        return sum(setup.input.views.count for setup in self.setups.values())

    @property
    def segment_bytes(self) -> int:
        """Bytes of the cubes of one segment: all its streams and views."""
        return sum(
            2 * int(np.prod(setup.backbone.cube_shape)) * setup.input.views.count for setup in self.setups.values()
        )

    def plan(self, clips: Sequence[Clip]) -> list[Piece]:
        """Return what is decoded of each video; only where the number of segments follows the length it looks inside.

        A video whose cubes would take more than half of the memory that is left is not begun.
        """
        if self._slide is not None:
            return [piece for clip in clips for piece in self._windows_of(clip, *self._slide)]
        fixed = self._base.fixed_segments
        lengths = [fixed] * len(clips) if fixed is not None else self._count(clips, self._base)
        pieces = []
        for clip, segments in zip(clips, lengths, strict=True):
            takes, left = segments * self.segment_bytes, available_ram_bytes()
            why = f"the cubes of its {segments} segments take {size_text(takes)} of {size_text(left)} that are left"
            large = f"{why}; cut it into windows with --window SECONDS" if takes > left // 2 else None
            pieces.append(Piece(clip=clip, segments=segments, sampler=self._base, too_large=large))
        return pieces

    def run(self, pieces: Sequence[Piece]) -> Generator[ClipCubes, None, None]:
        """Yield the cubes of each video, or of each of its windows, in order.

        They lie in memory until whoever gets them lets them go: one video, or `piece_bytes` of its windows, at a time
        for each decoder, and as much again that is being made.
        """
        together = 1 if self._slide is not None else self.decoders
        doable = [piece for piece in pieces if piece.too_large is None]
        groups = [doable[first : first + together] for first in range(0, len(doable), together)]
        made = self._extractor.run(self._job(number, group) for number, group in enumerate(groups))
        ready = (cubes for group, arrays in zip(groups, made, strict=True) for cubes in self._of_group(group, arrays))
        for piece in pieces:
            if piece.too_large is not None:
                report = VideoReport(outcome="out_of_memory", detail=piece.too_large)
                yield ClipCubes(
                    clip=piece.clip, report=report, cubes={}, frames={}, seconds={}, valid=np.zeros(0, bool)
                )
                continue
            for _ in range(piece.held_windows):
                yield next(ready)

    def _count(self, clips: Sequence[Clip], sampler: Sampler | SlidingSampler) -> list[int]:
        jobs = [
            CountJob(path=c.path, sampler=sampler, start_seconds=c.start_seconds, stop_seconds=c.stop_seconds)
            for c in clips
        ]
        counted: list[int] = count_segments(jobs, self.settings, cores=given_cores(os.environ)).tolist()
        return counted

    def _windows_of(self, clip: Clip, length: float, stride: float) -> list[Piece]:
        sliding = SlidingSampler(base=self._base, window_seconds=length, stride_seconds=stride)
        one_each = replace(sliding, base=Sampler.parse("uniform:1"))
        windows = self._count([clip], one_each)[0]
        each = self._base.fixed_segments or max(1, self._count([clip], sliding)[0] // windows)
        most = max(1, self._piece_bytes // (each * self.segment_bytes))
        return [
            Piece(
                clip=clip,
                segments=each * (stop - first),
                sampler=replace(sliding, first=first, stop=stop),
                first_window=first,
                held_windows=stop - first,
                windows=windows,
            )
            for first, stop in ((at, min(windows, at + most)) for at in range(0, windows, most))
        ]

    def _job(self, number: int, group: Sequence[Piece]) -> ShardJob:
        jobs = tuple(
            VideoJob(
                id=piece.clip.id,
                path=piece.clip.path,
                sampler=piece.sampler,
                window_frames=self._window_frames,
                segments=piece.segments,
                start_seconds=piece.clip.start_seconds,
                stop_seconds=piece.clip.stop_seconds,
            )
            for piece in group
        )
        rows = [piece.segments * self._views for piece in group]
        return ShardJob(number, sum(rows), jobs, tuple(sum(rows[:place]) for place in range(len(rows))))

    def _of_group(self, group: Sequence[Piece], arrays: ShardArrays) -> Iterator[ClipCubes]:
        first_row = 0
        for piece, report in zip(group, arrays.reports, strict=True):
            each = piece.segments // piece.held_windows
            for window in range(piece.held_windows):
                yield self._cubes(piece, report, arrays.streams, first_row, window, each)
            first_row += piece.segments * self._views

    def _cubes(
        self, piece: Piece, report: VideoReport, streams: dict[str, StreamArrays], first_row: int, window: int,
        each: int,
    ) -> ClipCubes:  # fmt: skip
        cubes, frames, seconds = {}, {}, {}
        here = slice(window * each, (window + 1) * each)
        for key, stream in self._streams.items():
            V, made = stream.sampling.views.count, streams[self._labels[key]]
            rows = made.cubes[first_row : first_row + V * piece.segments]
            cubes[key] = rows.reshape(V, piece.segments, *rows.shape[1:])[:, here]
            own = slice(first_row + here.start, first_row + here.stop)  # all views have the same frames
            frames[key], seconds[key] = made.frames[own], made.seconds[own]
        valid = np.logical_and.reduce([told[:, 0] >= 0 for told in frames.values()])
        number = piece.first_window + window
        return ClipCubes(
            clip=piece.clip,
            report=report,
            cubes=cubes,
            frames=frames,
            seconds=seconds,
            valid=valid,
            window=number,
            windows=piece.windows,
            span=_span(piece, number, report),
        )


def _span(piece: Piece, number: int, report: VideoReport) -> tuple[float, float] | None:
    """Return the seconds of the file that a window covers."""
    if not isinstance(piece.sampler, SlidingSampler) or report.fps <= 0 or not report.decoded_frames:
        return None
    start, end = piece.clip.start_seconds or 0.0, report.decoded_frames / report.fps
    if piece.clip.stop_seconds is not None:
        end = min(end, piece.clip.stop_seconds)
    windows = piece.sampler.windows(max(1, round((end - start) * report.fps)), report.fps)
    first, stop = windows[min(number, len(windows) - 1)] / report.fps
    return start + float(first), start + float(stop)
