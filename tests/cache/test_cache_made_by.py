"""The commands beside a store: whatever lies there, what is a command is read, and what is not is none."""

from __future__ import annotations

from vidatt.cache.made_by import commands_file, continuing, made_by, note_command


def test_commands_are_noted_once_and_read_in_their_order(tmp_path):
    store = tmp_path / "s.zarr"
    assert made_by(store) == ()
    for command, streams in (
        ("vidatt extract a", ["rgb"]),
        ("vidatt extract b", ["flow"]),
        ("vidatt extract a", ["rgb"]),
    ):
        note_command(store, command=command, again=f"cd / && {command}", streams=streams)
    assert [one.command for one in made_by(store)] == ["vidatt extract a", "vidatt extract b"]
    assert continuing(store, ["flow"]) == "cd / && vidatt extract b"
    assert continuing(store, ["clip"]) is None


def test_lines_that_are_no_command_are_passed_over(tmp_path):
    store = tmp_path / "s.zarr"
    note_command(store, command=None, again="go", streams=["rgb"])
    whole = commands_file(store).read_bytes()
    lines = [b"\xff\xfe", b"{", b"[]", b"3", b"null", b'{"again": "x"}',
             b'{"again": 3, "command": null, "streams": []}',
             b'{"again": "x", "command": 5, "streams": ["rgb"]}', b'{"again": "x", "command": "y", "streams": [1]}',
             b'{"again": "x", "command": "y", "streams": ["rgb"], "more": 1}', whole[:20]]  # fmt: skip
    commands_file(store).write_bytes(b"\n".join([*lines, whole]))
    assert [one.again for one in made_by(store)] == ["go"]
    assert continuing(store, ["rgb"]) == "go"
