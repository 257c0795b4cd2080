"""Processor time of other processes, as the kernel counts it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["peak_memory_bytes", "processor_s"]

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def processor_s(ids: Iterable[int]) -> float:
    """User and system time of these processes so far, seconds."""
    ticks = 0
    for id in ids:
        fields = Path(f"/proc/{id}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def peak_memory_bytes(id: int) -> int:
    """The most that the process ever had in memory."""
    for line in Path(f"/proc/{id}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
