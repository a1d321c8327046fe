"""A configuration that cannot be is refused when it is made, in Python as on the command line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from vidatt.errors import UsageError
from vidatt.extract.streams import StreamConfig
from vidatt.pipelines.extraction.config import ExtractConfig

RGB = StreamConfig(name="rgb", backbone="hog")


def _config(**given: Any) -> ExtractConfig:
    return ExtractConfig(**{"dataset": "folder", "videos": Path("v"), "store": Path("s"), "streams": (RGB,), **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"streams": ()}, "An extraction needs a stream"),
        ({"streams": (RGB, dataclasses.replace(RGB, crop_px=112))}, "Stream 'rgb' is named twice"),
        ({"sampler": "nonsense:1"}, "Unknown sampler nonsense:1; write one of uniform:T"),
        ({"default_sampler": "uniform:0"}, "Sampler uniform:0: the numbers must be positive"),
        ({"views": "centre"}, "Unknown views 'centre'; write center, 10crop or train:K"),
        ({"slice": "4/4"}, "--shard '4/4': write I/N"),
        ({"window_frames": 0}, "window_frames of an extraction is 0: must be 1 or more"),
        ({"shard_videos": 0}, "shard_videos of an extraction is 0"),
        ({"workers": -3}, "workers of an extraction is -3"),
        ({"decoders": 0}, "decoders of an extraction is 0"),
        ({"batch_segments": 0}, "batch_segments of an extraction is 0"),
        ({"seed": -1}, "Seed -1: must be 0 or more"),
        ({"device": "gpu"}, "Unknown device 'gpu'; write auto, cpu, cuda or cuda:I"),
        ({"decode_timeout_seconds": float("nan")}, "Decoding timeout nan s: must be above 0"),
        ({"decode_memory_bytes": -1}, "Memory of a decoder -1 bytes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_cannot_be_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        _config(**given)
    assert "\n" not in str(refused.value)


def test_views_are_of_the_extraction_alone() -> None:
    assert _config(views="train:2").views == "train:2"
    assert not {"views", "seed"} & {field.name for field in dataclasses.fields(StreamConfig)}
