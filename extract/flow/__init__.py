"""TV-L1 optical flow: own engines (numba, torch, triton) behind one function, and its 8-bit form.

The public names are resolved when they are asked for: a decoding child uses the numba engine and never imports torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ENGINES": "engines",
    "choose_engine": "engines",
    "tvl1": "engines",
    "dequantise": "levels",
    "quantise": "levels",
    "PRESETS": "preset",
    "TVL1Preset": "preset",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
