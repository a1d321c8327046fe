"""`vidatt cache info`: what a store holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.store import Store


def store_info(path: Path) -> dict[str, Any]:
    """Return the plan, the streams with their recipes, how much is extracted, and the outcomes.

    Raises
    ------
    StoreNotFoundError
    """
    store = Store.open(path)
    index = store.index
    streams = {}
    for name in store.stream_names:
        stream = store.stream(name)
        missing = stream.missing_shards()
        outcomes = stream.outcomes()
        streams[name] = {
            "fingerprint": stream.fingerprint,
            "recipe": dict(stream.recipe),
            "cube": list(stream.cube_shape),
            "shards_done": store.shard_count - len(missing),
            "outcomes": dict(sorted(Counter(o.outcome for o in outcomes).items())),
            "failed": [o.to_dict() for o in outcomes if o.outcome != "ok"],
            "segments": sum(o.segments for o in outcomes),
            "bytes": sum(
                entry["bytes"]
                for shard in range(store.shard_count)
                if stream.is_done(shard)
                for entry in stream.marker(shard)["files"].values()
            ),
        }
    return {
        "store": str(path),
        "attributes": dict(store.attributes),
        "videos": len(index.ids),
        "classes": len(index.classes),
        "splits": {
            name: {"train": int(np.sum(roles == 1)), "test": int(np.sum(roles == 2))}
            for name, roles in index.splits.items()
        },
        "rows": store.rows,
        "shards": store.shard_count,
        "streams": streams,
    }
