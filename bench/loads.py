"""What is measured: a load, and the figure that a system reached under it."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import msgspec

__all__ = ["Figure", "Load", "Session", "System", "Via", "present"]

Via: TypeAlias = Literal["node", "requests", "client", "reads"]
"""node: in the leader's process, one entry each; requests: there, `AppendRequest`s of many entries over the channels of
`RaftNode.start`; client: another process over TCP; reads: such a process reads one entry linearizably."""


class Load(msgspec.Struct, frozen=True):
    """A closed loop: `in_flight` requests of `entries` entries each; the next one goes when one is answered."""

    via: Via
    payload_bytes: int
    in_flight: int
    entries: int = 1

    def __str__(self) -> str:
        size = f"{self.payload_bytes} B" if self.payload_bytes < 1024 else f"{self.payload_bytes >> 10} KiB"
        many = f" x {self.entries}" if self.entries > 1 else ""
        return f"{self.via}, {size}{many}, {self.in_flight:,} in flight"


class Figure(msgspec.Struct, frozen=True):
    """per_s: entries, or reads. cpu_us: processor time of all nodes together for each. failed: requests without success.
    memory_mib: the most that any node's process had in memory during the load.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float = 0.0
    failed: int = 0
    memory_mib: float = 0.0


class Session(Protocol):
    """A running cluster."""

    def measure(self, load: Load, seconds: float) -> Figure: ...

    def fail_over(self) -> float:
        """`kill -9` of the leader, which stays dead; milliseconds until a survivor has carried out a request that was begun
        after that, or is of a later term."""
        ...

    def restart(self) -> float:
        """Write at a survivor and start the killed node again; milliseconds from the start of its process until it has
        itself answered a linearizable read of what was written. A leader is known to all in the end."""
        ...


class System(Protocol):
    """What can be measured. why_not: what is missing here; empty: nothing."""

    @property
    def name(self) -> str: ...

    @property
    def why_not(self) -> str: ...

    def start(self, folder: Path) -> AbstractContextManager[Session]: ...


def present(systems: dict[str, System]) -> dict[str, System]:
    """Those that are installed; what is missing for the others goes to stderr."""
    for name, system in systems.items():
        if system.why_not:
            print(f"without {name}: {system.why_not}", file=sys.stderr)
    return {name: system for name, system in systems.items() if not system.why_not}
