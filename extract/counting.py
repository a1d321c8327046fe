"""How many segments each of many videos should have, by the packets in its file: counted in decoding children."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import numpy as np

from .decoder import Decoder, DecoderSettings
from .segments import Counted, CountJob

MOST_CHILDREN = 8
"""Packets are counted at the speed of the disk, and each child takes 0.1 GB."""
VIDEOS_PER_CHILD = 32
"""Starting a child takes as long as counting some dozens of short videos."""


def count_segments(
    jobs: Sequence[CountJob],
    settings: DecoderSettings,
    *,
    cores: int,
    progress: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Count the segments of all videos, (n,) int32; one where nothing can be counted, whatever is the matter.

    Nothing of a file is read in this process, and each file has the watchdog and the limits of a decoder: what is
    wrong with one becomes its outcome when it is extracted.

    Parameters
    ----------
    progress : called after each video
    """
    counts = np.ones(len(jobs), np.int32)
    places = iter(range(len(jobs)))
    dealing, stop = threading.Lock(), threading.Event()
    decoders = [Decoder((), settings) for _ in range(max(1, min(cores, MOST_CHILDREN, len(jobs) // VIDEOS_PER_CHILD)))]

    def work(decoder: Decoder) -> None:
        while not stop.is_set():
            with dealing:
                place = next(places, None)
            if place is None:
                return
            decoder.submit(jobs[place])
            for message in decoder.messages():
                if isinstance(message, Counted):
                    counts[place] = message.segments
            with dealing:
                progress()

    with ThreadPoolExecutor(len(decoders), thread_name_prefix="counting") as threads:
        running = [threads.submit(work, decoder) for decoder in decoders]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            while wait(running, timeout=0.05).not_done:  # one may wait for a child
                for decoder in decoders:
                    decoder.interrupt()
            for decoder in decoders:
                decoder.close()
    for one in running:
        one.result()
    return counts
