"""What a commit takes, held down by counts: the same on every machine, they show a slower path where a clock would not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

from bench.counts import Count, count
from totora.aio.face import WAKE_MAX
from totora.config import Settings
from totora.sim.disk import MemoryFile
from totora.sim.network import _End
from totora.sim.world import Host, World
from totora.wire.entries import EntryCodec

COMMITS: Final = 2_048
LARGE_BYTES: Final = 60_000


@pytest.fixture(scope="module", params=[1, 64, 1024])
def counted(request: pytest.FixtureRequest) -> tuple[int, Count]:
    in_flight: int = request.param
    return in_flight, count(in_flight, 16, commits=min(COMMITS, 256 * in_flight))


def test_calls(counted: tuple[int, Count]) -> None:
    """Of functions, all three nodes together, for each batch that is committed and beside that for each entry.

    A batch takes about 705, an entry nine (Python 3.11). More than that: `python -m bench.counts --by-function` says which.
    """
    in_flight, found = counted
    calls = found.calls.total()
    assert calls <= 760 * found.batches + 10 * found.commits
    # If it is far less the bounds guard nothing any more: lower them.
    assert calls >= 500 * found.batches + 5 * found.commits
    together = min(in_flight, WAKE_MAX)
    assert found.commits / found.batches >= together * 0.9, "what wakes in one turn travels together"


def test_system_calls(counted: tuple[int, Count]) -> None:
    """For each batch: one write and one sync on each disk, one message to each follower and an answer from it."""
    _, found = counted
    assert found.pwrites <= 3 * found.batches + 3
    assert found.syncs <= 3 * found.batches + 3
    assert found.sends <= 4 * found.batches + 4


def test_an_entry_is_encoded_once_and_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader's disk and both its followers get the very bytes that were joined once, not copies of them."""
    encoded: list[object] = []
    seen: dict[str, list[bytes]] = {"disk": [], "network": []}
    pwrite, write, encode = MemoryFile.pwrite, _End.write, EntryCodec._encode

    def watched_encode(codec: EntryCodec[object], entry: object) -> bytes:
        encoded.append(entry)
        return encode(codec, entry)

    def keep(where: str, parts: Sequence[bytes | memoryview]) -> None:
        seen[where] += [part for part in parts if isinstance(part, bytes) and len(part) > LARGE_BYTES]

    def watched_pwrite(
        file: MemoryFile, parts: Sequence[bytes | memoryview], offset: int, *, sync: bool = False
    ) -> None:
        keep("disk", parts)
        pwrite(file, parts, offset, sync=sync)

    def watched_write(end: _End, parts: Sequence[bytes]) -> None:
        keep("network", parts)
        write(end, parts)

    monkeypatch.setattr(EntryCodec, "_encode", watched_encode)
    monkeypatch.setattr(MemoryFile, "pwrite", watched_pwrite)
    monkeypatch.setattr(_End, "write", watched_write)

    def leads(host: Host) -> bool:
        return host.running.status().role == "leader"

    async def scenario(world: World) -> None:
        await world.start_all()
        leader = await world.until(lambda: next(filter(leads, world.hosts.values()), None))
        seen["disk"].clear()
        seen["network"].clear()
        await leader.running.propose({"text": "x" * LARGE_BYTES})
        await world.sleep(1.0)
        await world.stop_all()

    World(seed=2, entry_type=dict, settings=Settings(segment_bytes=1 << 20)).run(scenario)
    assert len(encoded) == 1
    assert len(seen["network"]) == 2
    assert len(seen["disk"]) == 3
    assert len({id(data) for data in seen["network"]}) == 1
    assert sum(data is seen["network"][0] for data in seen["disk"]) == 1
    assert len({id(data) for data in seen["disk"]}) == 3, (
        "a follower makes one copy: the batch that it received"
    )
