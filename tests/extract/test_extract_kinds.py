"""Every registered kind keeps what it declares; a wrong entry says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidatt.errors import UnknownNameError, UsageError
from vidatt.extract.backbones.registry import BACKBONES
from vidatt.extract.kinds import FLOW, KINDS, RGB, find_kind, register_kind


@pytest.mark.parametrize("name", list(KINDS))
def test_a_kind_assembles_the_input_that_it_declares(name: str) -> None:
    kind = KINDS[name]
    pictures, channels = (kind.flow_fields, 2) if kind.flow_fields else (kind.window_frames, 3)
    views = np.arange(2 * pictures * 8 * 8 * channels, dtype=np.uint8).reshape(2, pictures, 8, 8, channels)
    inputs = kind.assemble(views)
    assert inputs.shape == (2, *kind.input_shape(8))
    assert inputs.dtype == np.uint8
    assert len(kind.input_shape(8)) == (4 if kind.memory_format == "channels_last_3d" else 3)
    assert kind.name == name
    assert any(kind.seen_as in entry.kinds for entry in BACKBONES.values())


def test_flow_channels_are_x_and_y_of_one_field_after_the_other() -> None:
    views = np.zeros((1, 10, 4, 4, 2), np.uint8)
    views[0, :, 1, 2] = np.arange(20).reshape(10, 2)
    assert FLOW.assemble(views)[0, 1, 2].tolist() == list(range(20))


def test_names_are_found_once() -> None:
    assert find_kind("rgb") is find_kind(RGB) is RGB
    with pytest.raises(UnknownNameError, match=r"Unknown stream 'clap'. Did you mean 'clip'"):
        find_kind("clap")
    with pytest.raises(UsageError, match="Stream 'rgb' is registered already"):
        register_kind(replace(RGB, window_frames=2))
    assert KINDS["rgb"] is RGB


@pytest.mark.parametrize("field", ["window_frames", "channels", "batch_weight", "shard_videos"])
def test_a_kind_counts_from_one(field: str) -> None:
    with pytest.raises(UsageError, match=f"'rgb': {field} is 0, must be 1 or more"):
        replace(RGB, **{field: 0})


def test_flow_fields_lie_between_the_frames_of_the_window() -> None:
    with pytest.raises(UsageError, match="10 flow fields lie between 11 frames, not in a window of 10"):
        replace(FLOW, window_frames=10)
