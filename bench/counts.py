"""What a commit takes, counted: calls of functions, bytes and system calls, in simulated runs where nothing is left to chance.

    python -m bench.counts [--by-function]

One JSON line a load. Counts do not depend on the machine, so a test can hold them (tests/counts); they depend a little on the
version of Python.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import totora
from bench.options import options_of
from totora.config import Settings
from totora.sim.world import World

__all__ = ["Count", "count", "main"]

LAYERS: Final = ("core", "session", "wire", "storage", "aio")
SOURCE: Final = Path(totora.__file__).parent
COMMITS: Final = 4_096
SEGMENT_BYTES: Final = 4 << 20
"""No segment ends within a count."""


@dataclass
class Count:
    """What all nodes together did for `commits` entries.

    calls: of functions, Python's and built-in ones, from the code of the layers below the simulator, by function.
    pwrites, syncs, sends: what a real node asks of the system; a send is one write to one stream.
    """

    commits: int
    batches: int
    calls: Counter[str]
    pwrites: int
    syncs: int
    sends: int

    @property
    def calls_per_commit(self) -> float:
        return self.calls.total() / self.commits

    @property
    def calls_per_batch(self) -> float:
        return self.calls.total() / self.batches


class _Profiler:
    """Counts calls that begin in the layers, and of built-in functions that they call."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._names: dict[Any, str | None] = {}

    def _name(self, code: Any) -> str | None:
        if code not in self._names:
            path = Path(code.co_filename)
            inside = path.is_relative_to(SOURCE) and path.relative_to(SOURCE).parts[0] in LAYERS
            where = f"{path.relative_to(SOURCE)}:{code.co_firstlineno} {code.co_qualname}" if inside else None
            self._names[code] = where
        return self._names[code]

    def __call__(self, frame: FrameType, event: str, what: Any) -> None:
        if event == "call":
            if (name := self._name(frame.f_code)) is not None:
                self.calls[name] += 1
        elif event == "c_call" and (name := self._name(frame.f_code)) is not None:
            self.calls[f"{name} -> {what.__name__}"] += 1


def count(in_flight: int, payload_bytes: int, *, commits: int = COMMITS) -> Count:
    """A closed loop of `in_flight` callers at the leader of three nodes."""

    async def scenario(world: World) -> Count:
        await world.start_all()
        leader = await world.until(lambda: next((h for h in world.hosts.values() if _leads(h)), None))
        node = leader.running
        entry = b"x" * payload_bytes
        left = in_flight * 4

        async def caller() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await node.propose(entry)

        await asyncio.gather(*(caller() for _ in range(in_flight)))
        first = (await node.propose(entry)).index
        left = commits
        profiler = _Profiler()
        for host in world.hosts.values():
            host.disk.operations.clear()
            host.disk.keeps_operations = True
        sys.setprofile(profiler)
        try:
            await asyncio.gather(*(caller() for _ in range(in_flight)))
        finally:
            sys.setprofile(None)
        operations = Counter(what for host in world.hosts.values() for what, _, _ in host.disk.operations)
        last = (await node.propose(entry)).index
        assert last - first == commits + 1
        batches = 0
        store = node._backend()._opened_now().store
        index = first + 1
        while index < last:
            for batch in store.read(index, last - 1, 1 << 20):
                batches += 1
                index = batch.last_index + 1
        await world.stop_all()
        calls = profiler.calls
        sends = sum(times for name, times in calls.items() if name.endswith(" StreamEnd.flush"))
        return Count(commits, batches, calls, operations["pwrite"], operations["sync"], sends)

    settings = Settings(segment_bytes=SEGMENT_BYTES)
    return World(seed=1, entry_type=bytes, settings=settings).run(scenario)


def _leads(host: Any) -> bool:
    return bool(host.running.status().role == "leader")


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__)
    parser.add_argument("--by-function", action="store_true", help="which functions they are")
    options = parser.parse_args(arguments)
    for in_flight, payload_bytes in ((1, 16), (64, 16), (1024, 16)):
        found = count(in_flight, payload_bytes)
        print(
            json.dumps(
                {
                    "bench": "counts",
                    "in_flight": in_flight,
                    "payload_bytes": payload_bytes,
                    "batches": found.batches,
                    "calls_per_commit": round(found.calls_per_commit, 2),
                    "calls_per_batch": round(found.calls_per_batch, 1),
                    "pwrites_per_batch": round(found.pwrites / found.batches, 2),
                    "syncs_per_batch": round(found.syncs / found.batches, 2),
                    "sends_per_batch": round(found.sends / found.batches, 2),
                }
            ),
            flush=True,
        )
        if options.by_function:
            for name, times in found.calls.most_common(70):
                print(f"  {times / found.batches:8.2f}  {name}")


if __name__ == "__main__":
    main()
