"""Processor time and memory of other processes, as the kernel counts them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["Spent", "forget_peaks", "peak_memory_bytes", "peak_mib"]

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Spent:
    """What these processes take from now on."""

    def __init__(self, ids: Iterable[int]) -> None:
        self._ids = tuple(ids)
        forget_peaks(self._ids)
        self._before_s = _processor_s(self._ids)

    def cpu_us(self, count: int) -> float:
        """Processor time of all of them, for each of so many, microseconds."""
        return round((_processor_s(self._ids) - self._before_s) * 1e6 / max(1, count), 2)

    @property
    def peak_mib(self) -> float:
        """The most that any of them had in memory, MiB."""
        return peak_mib(self._ids)


def _processor_s(ids: Iterable[int]) -> float:
    """User and system time of these processes so far, seconds."""
    ticks = 0
    for id in ids:
        fields = Path(f"/proc/{id}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def peak_memory_bytes(id: int) -> int:
    """The most that the process had in memory since it began, or since `forget_peaks`."""
    for line in Path(f"/proc/{id}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def forget_peaks(ids: Iterable[int]) -> None:
    """Let the peak of each process be what it has in memory now (proc_pid_clear_refs(5)). Raises OSError."""
    for id in ids:
        Path(f"/proc/{id}/clear_refs").write_text("5")


def peak_mib(ids: Iterable[int]) -> float:
    """The largest of the peaks of these processes, MiB."""
    return round(max(map(peak_memory_bytes, ids)) / (1 << 20), 1)
