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
from .segments import Alive, Message, VideoEnd, VideoJob, nothing_read, read_segments
from .windows import StreamInput, load_engines

RUN_AHEAD_CHUNKS = 4
"""Chunks that a decoder keeps ready while nobody reads: memory for speed, about 16 MB."""

NEARLY_BYTES = 64 << 20
"""A child this near to its limit has met it: no library that is imported late is larger."""


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """How decoding children are run."""

    timeout_seconds: float = 60.0  # without a sign of life from the decoder while somebody waits for it
    memory_bytes: int = 0  # address space of a child; 0 = no limit


def serve(connection: Connection[Any, Any]) -> None:
    """Answer jobs until the parent closes the pipe; the child's main loop."""
    import cv2

    cv2.setNumThreads(1)
    limit, streams = connection.recv()
    load_engines(streams)  # before the limit, by which an import would fail like a bug
    outbox: queue.Queue[Message | Bug] = queue.Queue(maxsize=RUN_AHEAD_CHUNKS)
    sender = threading.Thread(target=_send_all, args=(connection, outbox), daemon=True)
    sender.start()
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        job = connection.recv()
        try:
            read_segments(job, streams, outbox.put)
        except Exception:  # noqa: BLE001 - whatever is no outcome is a bug, never the video's fault; the parent raises it
            if limit and _address_space() > limit - NEARLY_BYTES:  # PyAV imports as it goes, which then fails
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


class Decoder:
    """One decoding child; restarted by itself after a hang or a crash."""

    def __init__(self, streams: tuple[StreamInput, ...], settings: DecoderSettings) -> None:
        self._streams, self._settings = streams, settings
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child that is running, if one is."""
        return self._child.process.pid if self._child else None

    def submit(self, job: VideoJob) -> None:
        """Start on a video; its messages must be read to the end before the next is submitted."""
        if self._child is not None and self._child.process.poll() is not None:
            self.close()  # it died between two videos: this one is innocent of that
        if self._child is None:
            self._child = Child("vidatt.extract.decoder:serve")
            self._child.connection.send((self._settings.memory_bytes, self._streams))
        with suppress(BrokenPipeError, ConnectionResetError):  # what ended it, messages() will say
            self._child.connection.send(job)

    def messages(self) -> Iterator[Message]:
        """Yield what the decoder says about the submitted video; the last message is its `VideoEnd`.

        Raises
        ------
        ChildBugError
            If our own code failed in the child: that is no outcome of the video.
        """
        child = self._child
        if child is None:
            raise RuntimeError("messages() before submit()")
        timeout = self._settings.timeout_seconds
        while True:
            try:
                if not child.connection.poll(timeout):
                    child.kill()
                    self._child = None
                    yield nothing_read(
                        "decoder_hang", f"the decoder gave no sign of life for {timeout:g} s and was stopped"
                    )
                    return
                message: Message = child.receive()
            except (EOFError, ConnectionResetError):
                cause = child.died_of()
                self._child = None
                yield nothing_read("decoder_crash", f"the decoder process was {cause}")
                return
            if isinstance(message, Alive):
                continue
            yield message
            if isinstance(message, VideoEnd):
                return

    def interrupt(self) -> None:
        """Kill the child from another thread; whoever reads its messages sees a crash at once instead of waiting."""
        child = self._child
        if child is not None:
            child.process.kill()

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child = None
