"""A server of writers that can be killed: started by testkit.commits, one JSON object a line on standard input.

`{"store", "stream", "shards", "seed", "kill_at"}` forks a writer, which publishes the shards with content that tells
its seed and, if `kill_at` is given, sends itself SIGKILL right before its nth change to the file system; with
`"replace"` it replaces what stands there, with `"stop_at"` it sends itself SIGSTOP instead. Without shards it sweeps.
The answer is its process id. `{"wait": id}` answers its exit status (negative: the signal that ended or stopped it).
Forking is much faster than starting an interpreter, and safe as long as the server itself never lets zarr start its
thread.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import numpy as np

from vidatt.cache.publish import marker_digest
from vidatt.cache.store import Store
from vidatt.cache.synthetic import synthetic_shard

CHANGES = {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def write(job: dict[str, Any]) -> None:
    store = Store.open(job["store"])
    seen = 0

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            seen += 1
            if seen == job["kill_at"]:
                os.kill(os.getpid(), signal.SIGKILL)
            if seen == job["stop_at"]:
                os.kill(os.getpid(), signal.SIGSTOP)

    sys.addaudithook(count)
    if not job["shards"]:
        store.sweep()
    for shard in job["shards"]:
        stream = store.stream(job["stream"])
        content = synthetic_shard(stream, shard)
        real = content["frames"][:, 0] >= 0
        content["cubes"][real] = job["seed"]
        content["frames"][real] = job["seed"]
        content["seconds"][real] = job["seed"]
        content["outcomes"] = [
            type(outcome)(**{**outcome.to_dict(), "detail": str(job["seed"])}) for outcome in content["outcomes"]
        ]
        replaces = marker_digest(stream.path, shard) if job["replace"] else None
        stream.publish(shard, **content, replaces=replaces)
    np.save(f"{job['store']}.changes.npy", seen)


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            status = os.waitpid(job["wait"], os.WUNTRACED)[1]
            answer = -os.WSTOPSIG(status) if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if not answer:
                status = 1
                try:
                    write(job)
                    status = 0
                finally:
                    sys.stderr.flush()
                    os._exit(status)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
