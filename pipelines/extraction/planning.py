"""One plan for an array of tasks: while one of them plans a store that is not there yet, the others wait for it.

Planning looks into every video, so 256 tasks that start at once would do it 256 times. The planner shows itself by a
scratch folder beside the store, which `Store.create` sweeps if its owner is killed, and which it touches as it goes on.
Nothing depends on it but time: whoever sees no planner, or sees one stand still, plans for itself, and the first store
that is whole is the one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...cache.publish import SCRATCH
from ...cache.scratch import abandoned, scratch_name
from ..jobs.place import Place

log = logging.getLogger(__name__)

START_SECONDS = 5.0
"""How much later than the others the first task of an array may begin."""
STILL_SECONDS = 60.0
"""A planner that has shown no sign of life for so long counts as dead."""
TOUCH_SECONDS = 10.0


@contextmanager
def planning(store: Path, place: Place) -> Iterator[None]:
    """Plan within this: it begins when no other task of the job is seen to plan the same store."""
    if place.count == 1 or store.exists():
        yield
        return
    if not place.first and _wait(store):
        yield
        return
    store.parent.mkdir(parents=True, exist_ok=True)
    sign = store.parent / f"{store.name}{SCRATCH}-{scratch_name()}"
    sign.mkdir()
    over = threading.Event()
    touching = threading.Thread(target=_touch, args=(sign, over), daemon=True)
    touching.start()
    try:
        yield
    finally:
        over.set()
        touching.join()
        sign.rmdir()


def _touch(sign: Path, over: threading.Event) -> None:
    while not over.wait(TOUCH_SECONDS):
        sign.touch()


def _wait(store: Path) -> bool:
    """Wait for the store as long as somebody is seen to plan it; whether it is there."""
    prefix = f"{store.name}{SCRATCH}-"
    begun = time.monotonic()
    seen: dict[tuple[str, int], float] = {}  # a planner with the time of its last sign -> when that was seen first
    told = False
    while not store.exists():
        now = time.monotonic()
        dead = {folder.name for folder in abandoned(store.parent, prefix)}
        signs = [(f.name, _stamp(f)) for f in store.parent.glob("*") if f.name.startswith(prefix)]
        seen = {sign: seen.get(sign, now) for sign in signs if sign[0] not in dead}
        if not any(now - first < STILL_SECONDS for first in seen.values()) and now - begun > START_SECONDS:
            return False
        if seen and not told:
            log.info("%s: another task plans it, this one waits for the store", store)
            told = True
        time.sleep(0.2 if now - begun < START_SECONDS else 2.0)
    return True


def _stamp(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:  # it has just gone
        return 0
