"""Run folders as version 0.1.0 left them."""

from __future__ import annotations

import json
from pathlib import Path


def without_digests(run: Path) -> Path:
    """Take away what newer versions keep: digests of files and identity, the list of videos, the store's digest."""
    metrics = json.loads((run / "metrics.json").read_text())
    for key in ("seal", "identity", "files"):
        metrics.pop(key, None)
    (run / "metrics.json").write_text(json.dumps(metrics))
    config = json.loads((run / "config.json").read_text())
    config["environment"].pop("store_digest", None)
    (run / "config.json").write_text(json.dumps(config))
    (run / "videos.npz").unlink(missing_ok=True)
    return run
