"""`kill -9` of any one of three processes at any moment, again and again: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.levels import by_level
from tests.processes.waiting import HANG_S, run
from totora import Client, Entry
from totora.cli.demo_cluster import LocalCluster, free_addresses
from totora.cli.demo_logs import read_log
from totora.cli.demo_verify import compare

CALLERS: Final = 16


class Appends:
    """A closed loop of appends of 1 to 4 lines, all different, and what the cluster answered."""

    def __init__(self, chance: random.Random) -> None:
        self.lines: list[str] = []
        self.acknowledged: dict[int, Entry[str]] = {}
        self._chance = chance
        self._ending = False
        self._grew = asyncio.Event()

    async def run(self, client: Client[str]) -> None:
        """Until `end`. An append that fails fails the test: every caller waits longer than any election."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CALLERS):
                tasks.create_task(self._call(client))

    async def _call(self, client: Client[str]) -> None:
        while not self._ending:
            first = len(self.lines)
            lines = [f"line {first + n}" for n in range(self._chance.randint(1, 4))]
            self.lines += lines
            entries: Sequence[Entry[str]] = await client.append(lines, timeout_s=HANG_S)
            self.acknowledged.update(enumerate(entries, first))
            self._grew.set()

    async def more(self, count: int) -> None:
        """Wait until so many more lines are acknowledged."""
        goal = len(self.acknowledged) + count
        while len(self.acknowledged) < goal:
            self._grew.clear()
            await self._grew.wait()

    def end(self) -> None:
        self._ending = True


@pytest.mark.timeout(600)
def test_kill_9_at_any_moment_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Three processes take appends from a client; a random one, leader or not, is killed after a random number of
    acknowledgements, the others go on, it returns and catches up. At the end the logs are read from disk."""
    kills = by_level(quick=3, ci=50)
    chance = random.SystemRandom()

    async def scenario() -> None:
        cluster = LocalCluster(free_addresses(3), tmp_path, segment_bytes=1 << 20)
        appends = Appends(chance)
        try:
            await cluster.start_all()
            async with Client(cluster.nodes, entry_type=str) as client, asyncio.TaskGroup() as tasks:
                tasks.create_task(appends.run(client))
                for _ in range(kills):
                    await appends.more(chance.randint(1, 500))
                    victim = chance.choice(sorted(cluster.nodes))
                    await cluster.processes[victim].kill()
                    await appends.more(chance.randint(1, 500))
                    await cluster.start(victim)
                    await cluster.caught_up(victim)
                appends.end()
            await cluster.agreed()
            assert await cluster.stop() == [], "every node stops cleanly"
        finally:
            await cluster.stop()
        logs = {id: read_log(cluster.data_dir(id)) for id in cluster.nodes}
        assert len(appends.acknowledged) == len(appends.lines), "every append was answered"
        assert [str(finding) for finding in compare(logs, appends.lines, appends.acknowledged)] == []

    run(scenario(), hang_s=500.0)
