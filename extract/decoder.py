"""Decoding in a child process with a watchdog: a file that hangs or crashes the decoder costs one video only."""

from __future__ import annotations

import queue
import resource
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .child import Bug, Child
from .segments import (
    Alive,
    Counted,
    CountJob,
    Message,
    PictureJob,
    VideoEnd,
    VideoJob,
    count_segments,
    nothing_read,
    read_pictures,
    read_segments,
)  # fmt: skip
from .windows import StreamInput, load_engines

RUN_AHEAD_CHUNKS = 4
"""Chunks that a decoder keeps ready while nobody reads: memory for speed, about 16 MB."""

MEMORY_BYTES = 2_000_000_000
"""What a decoder may take unless told otherwise: 8K video, and TV-L1 of whole 4K frames, need less."""

TRIES = 3
"""A decoder that is killed from outside says nothing of its video, which is read again; this often in all."""

NEARLY_BYTES = 64 << 20
"""A child this near to its limit has met it: no library that is imported late is larger."""


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """How decoding children are run."""

    timeout_seconds: float = 60.0  # without a sign of life from the decoder while somebody waits for it
    memory_bytes: int = MEMORY_BYTES  # address space of a child beside its libraries; 0 = no limit


def serve(connection: Connection[Any, Any]) -> None:
    """Answer jobs until the parent closes the pipe; the child's main loop."""
    import cv2

    cv2.setNumThreads(1)
    limit, streams = connection.recv()
    load_engines(streams)  # before the limit, by which an import would fail like a bug
    outbox: queue.Queue[Message | Bug] = queue.Queue(maxsize=RUN_AHEAD_CHUNKS)
    sender = threading.Thread(target=_send_all, args=(connection, outbox), daemon=True)
    sender.start()
    ceiling = 0
    if limit:
        ceiling = _address_space() + limit  # the libraries' own share differs by machine: threads reserve theirs
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    while True:
        job = connection.recv()
        try:
            if isinstance(job, CountJob):
                count_segments(job, outbox.put)
            elif isinstance(job, PictureJob):
                read_pictures(job, outbox.put)
            else:
                read_segments(job, streams, outbox.put)
        except Exception:  # noqa: BLE001 - whatever is no outcome is a bug, never the video's fault; the parent raises it
            if limit and _address_space() > ceiling - NEARLY_BYTES:  # PyAV imports as it goes, which then fails
                outbox.put(nothing_read("out_of_memory", f"not enough memory within the decoder's {limit / 1e9:g} GB"))
            else:
                outbox.put(Bug(f"{traceback.format_exc()}while reading {job.path}"))


def _address_space() -> int:
    """Return the bytes of this process's address space, which RLIMIT_AS bounds."""
    pages = int(Path("/proc/self/statm").read_bytes().split()[0])  # proc(5): size
    return pages * resource.getpagesize()


def _send_all(connection: Connection[Any, Any], outbox: queue.Queue[Message | Bug]) -> None:
    import os

    while True:
        message = outbox.get()
        try:
            connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)  # the parent is gone


def start_child() -> Child:
    """Start a child that will decode."""
    return Child("vidatt.extract.decoder:serve")


class Decoder:
    """One decoding child; restarted by itself after a hang or a crash.

    Parameters
    ----------
    ahead : a child that `start_child` has started while there was other work: it has its imports behind it
    """

    def __init__(
        self, streams: tuple[StreamInput, ...], settings: DecoderSettings, *, ahead: Child | None = None
    ) -> None:
        self._streams, self._settings, self._ahead = streams, settings, ahead
        self._child: Child | None = None
        self._job: VideoJob | CountJob | PictureJob | None = None
        self._interrupted = False

    @property
    def pid(self) -> int | None:
        """Process id of the child that is running, if one is."""
        return self._child.process.pid if self._child else None

    def submit(self, job: VideoJob | CountJob | PictureJob) -> None:
        """Start on a video; its messages must be read to the end before the next is submitted."""
        self._job, self._interrupted = job, False
        if self._child is not None and self._child.process.poll() is not None:
            self.close()  # it died between two videos: this one is innocent of that
        self._send(job)

    def _send(self, job: VideoJob | CountJob | PictureJob) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # what ended it, messages() will say
            if self._child is None:
                self._child, self._ahead = self._ahead or start_child(), None
                self._child.connection.send((self._settings.memory_bytes, self._streams))
            self._child.connection.send(job)

    def messages(self) -> Iterator[Message]:
        """Yield what the decoder says about the submitted video; its `VideoEnd` or `Counted` is the last message.

        A child that was killed from outside is replaced and the video read again: then what came of it is void, as a
        second `VideoStart` says.

        Raises
        ------
        ChildBugError
            If our own code failed in the child: that is no outcome of the video.
        """
        if self._job is None:
            raise RuntimeError("messages() before submit()")
        for tries in range(1, TRIES + 1):
            child = self._child
            if child is None:  # interrupted
                yield nothing_read("decoder_crash", "the decoder process was stopped")
                return
            try:
                yield from self._listen(child)
                return
            except EOFError:
                cause = child.died_of()
                self._child = None
            if self._interrupted or not child.killed_from_outside:
                break
            if tries < TRIES:
                self._send(self._job)
        often = f", {tries} times" if tries > 1 else ""
        yield nothing_read("decoder_crash", f"the decoder process was {cause}{often}")

    def _listen(self, child: Child) -> Iterator[Message]:
        timeout = self._settings.timeout_seconds
        while child.connection.poll(timeout):
            message: Message = child.receive()
            if isinstance(message, Alive):
                continue
            yield message
            if isinstance(message, VideoEnd | Counted):
                return
        child.kill()
        self._child = None
        yield nothing_read("decoder_hang", f"the decoder gave no sign of life for {timeout:g} s and was stopped")

    def interrupt(self) -> None:
        """Kill the child from another thread; whoever reads its messages sees a crash at once instead of waiting."""
        self._interrupted = True
        child = self._child
        if child is not None:
            child.process.kill()

    def close(self) -> None:
        """End the child."""
        for child in (self._child, self._ahead):
            if child is not None:
                child.kill()
        self._child = self._ahead = None
