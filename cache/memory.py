"""Sizes in bytes: how much memory a process may still take, and how a number of bytes is written for people."""

from __future__ import annotations

import os
from pathlib import Path

_GROUPS = (
    # version 2, then 1: folder, limit, usage, keys of memory.stat that the kernel gives back under pressure
    ("", "memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


def available_ram_bytes(root: Path = Path("/")) -> int:
    """Return the bytes of RAM that can be taken without swapping or being killed by the job's memory limit.

    The machine's, or those of the control groups that the job is in if that is less.

    Parameters
    ----------
    root : where `proc` and `sys` are
    """
    return max(0, min([_machine_bytes(root), *_group_bytes(root)]))


def _machine_bytes(root: Path) -> int:
    try:
        text = (root / "proc/meminfo").read_text()
    except FileNotFoundError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def _group_bytes(root: Path) -> list[int]:
    """Return what is left in each control group above this process that has a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except FileNotFoundError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for kind, limit, usage, reclaimable in _GROUPS:
            if kind not in controllers.split(","):
                continue
            top = root / "sys/fs/cgroup" / kind
            folder = top / path.lstrip("/")
            for group in [folder, *folder.parents]:
                if not group.is_relative_to(top):
                    break
                try:
                    most = (group / limit).read_text().strip()
                    if most != "max":
                        pairs = (entry.split() for entry in (group / "memory.stat").read_text().splitlines())
                        cached = sum(int(value) for key, value in pairs if key in reclaimable)
                        left.append(int(most) - int((group / usage).read_text()) + cached)
                except FileNotFoundError:  # a group of the host that this container does not see, or the root
                    continue
    return left


def size_text(size_bytes: float) -> str:
    """Return a number of bytes as a short text, powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
