"""Datagrams get lost, come twice and overtake each other: entries do not."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.levels import by_level
from tests.processes.waiting import HANG_S, eventually, run
from tests.udp.cluster import Faults, counters, leader_of, running
from totora import Client, Entry, LogMismatch, Node
from totora.cli.demo_cluster import free_addresses
from totora.cli.demo_logs import read_log

SENDERS: Final = 4
"""One at each of three nodes, and a client process."""


class Said:
    """What senders were told, and whether it is so."""

    def __init__(self) -> None:
        self.sent = 0
        self.entries: dict[str, list[Entry[str]]] = {}

    async def send(self, name: str, face: Node[str] | Client[str], count: int) -> None:
        """Some at a time, each twice as large as the one before it, so that they travel together or alone."""
        told = self.entries.setdefault(name, [])
        while count:
            burst = [f"{name}.{len(told) + n} {'x' * (1 << n)}" for n in range(min(count, 10))]
            self.sent += len(burst)
            told += await asyncio.gather(*(face.propose(entry, timeout_s=HANG_S) for entry in burst))
            count -= len(burst)

    def check(self, log: list[Entry[str]]) -> None:
        acknowledged = [entry for told in self.entries.values() for entry in told]
        assert sorted(acknowledged, key=lambda entry: entry.index) == log, "none is lost, none is doubled"
        for name, told in self.entries.items():
            own = [entry.value.split()[0] for entry in log if entry.value.startswith(f"{name}.")]
            assert own == [f"{name}.{n}" for n in range(len(told))], "a sender's entries stand in its order"


def has(node: Node[str], index: int) -> bool:
    return node.status().commit_index >= index


@pytest.mark.parametrize(
    ("loss", "count"),
    [(0.01, by_level(quick=150, ci=1_000)), (0.2, by_level(quick=60, ci=400))],
    ids=["1 percent", "20 percent"],
)
@pytest.mark.parametrize("seed", range(by_level(quick=1, ci=5)))
def test_no_entry_is_lost_doubled_or_out_of_order(loss: float, count: int, seed: int, tmp_path: Path) -> None:
    """As many come twice and as many late as are lost. All nodes and a client send; in the middle the leader stops."""
    nodes = free_addresses(3)
    faults = Faults(seed=seed, loss=loss, doubled=loss, late=loss)
    said = Said()

    async def scenario() -> int:
        async with (
            running(nodes, tmp_path, faults=faults) as started,
            Client(nodes, entry_type=str) as client,
        ):
            faces: dict[str, Node[str] | Client[str]] = {f"node-{id}": node for id, node in started.items()}
            faces["client"] = client
            assert len(faces) == SENDERS
            await asyncio.gather(*(said.send(name, face, count) for name, face in faces.items()))
            leader = await leader_of(started.values())
            id = leader.status().id
            del faces[f"node-{id}"]
            sending = [
                asyncio.ensure_future(said.send(name, face, count // 2)) for name, face in faces.items()
            ]
            await asyncio.sleep(0)
            await leader.stop()
            await asyncio.gather(*sending)
            async with running(nodes, tmp_path, ids=[id], faults=faults) as again:
                await said.send("returned", again[id], 10)
                last = max(entry.index for told in said.entries.values() for entry in told)
                for node in (*again.values(), *(node for other, node in started.items() if other != id)):
                    await eventually("it has all", partial(has, node, last))
            return last

    run(scenario(), hang_s=4 * HANG_S)
    for id in nodes:
        said.check(read_log(tmp_path / f"node-{id}"))


@pytest.mark.parametrize("loss", [0.01, 0.2])
def test_conditional_appends_hold_once(loss: float) -> None:
    """Three nodes add to a counter, each behind the entry that it read: a doubled append would be a lost count."""
    nodes = free_addresses(3)
    faults = Faults(seed=1, loss=loss, doubled=loss, late=loss)
    each = by_level(quick=8, ci=60)

    async def scenario() -> None:
        async with running(nodes, entry_type=int, faults=faults) as started:

            async def add(node: Node[int], chance: random.Random) -> None:
                done = 0
                place, value = (0, 0), 0
                while done < each:
                    try:
                        (entry,) = await node.append(
                            [value + 1], prev_log_index=place[0], prev_log_term=place[1], timeout_s=HANG_S
                        )
                        done += 1
                    except LogMismatch as error:
                        place = error.last_index, error.last_term
                        (entry,) = await node.index_range(place[0], place[0], timeout_s=HANG_S)
                    place, value = (entry.index, entry.term), entry.value

            await asyncio.gather(*(add(node, random.Random(id)) for id, node in started.items()))
            log: list[Entry[Any]] = [entry async for entry in started[1].entries(timeout_s=HANG_S)]
            assert [entry.value for entry in log] == list(range(1, 3 * each + 1))

    run(scenario(), hang_s=4 * HANG_S)


def test_reads_see_what_was_appended_before() -> None:
    """At whichever node, however often a question is asked again."""
    nodes = free_addresses(3)
    faults = Faults(seed=2, loss=0.2, doubled=0.2, late=0.2)

    async def scenario() -> None:
        async with running(nodes, faults=faults) as started:
            for n in range(by_level(quick=10, ci=60)):
                entry = await started[1 + n % 3].propose(str(n), timeout_s=HANG_S)
                reader = started[1 + (n + 1) % 3]
                assert await reader.read_index(timeout_s=HANG_S) >= entry.index
                assert await reader.index_range(entry.index, entry.index, timeout_s=HANG_S) == [entry]

    run(scenario(), hang_s=4 * HANG_S)


def test_doubled_datagrams_alone_change_nothing() -> None:
    """Every one of them, so that nobody can do without the session or a request's number."""
    nodes = free_addresses(3)
    faults = Faults(doubled=1.0)
    said = Said()

    async def scenario() -> None:
        async with running(nodes, faults=faults) as started:
            await asyncio.gather(*(said.send(f"node-{id}", node, 100) for id, node in started.items()))
            said.check([entry async for entry in started[2].entries()])
            assert all(counters(node).garbage == 0 for node in started.values())

    run(scenario())
