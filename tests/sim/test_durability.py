"""Nothing leaves before the sync that it rests on: no vote, no acknowledgement, no response (DESIGN 2 and 10)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.levels import by_level
from tests.sim.witness import Witness
from totora.errors import RaftError
from totora.sim.world import World


def restless(world: World, acknowledge: Callable[[int], None] = lambda index: None, *, rounds: int) -> None:
    """Appends through all nodes while power and processes fail and links break; then every node reads the same."""
    chance = world.fork()
    acknowledged: dict[int, str] = {}

    async def append(number: int) -> None:
        up = [host for host in world.hosts.values() if host.up]
        if not up:
            return
        node = up[int(chance.random() * len(up))].running
        try:
            entry = await node.propose(f"entry {number}", timeout_s=0.5 + 2 * chance.random())
        except RaftError:
            return
        acknowledge(entry.index)
        acknowledged[entry.index] = entry.value

    async def disturb() -> None:
        host = world.hosts[1 + int(chance.random() * len(world.hosts))]
        kind = int(chance.random() * 7)
        if not host.up:
            await host.start()
        elif kind == 0:
            host.lose_power()
        elif kind == 1:
            host.kill()
        elif kind == 2:
            host.gate.armed = int(chance.random() * 40)
        elif kind == 3:
            world.isolate(host.id)
        elif kind == 4:
            world.ether.reset(host.name, "host-1" if host.id != 1 else "host-2")
        else:
            world.heal()

    async def scenario(world: World) -> None:
        await world.start_all()
        number = 0
        for _ in range(rounds):
            tasks = []
            for _ in range(int(chance.random() * 4)):
                number += 1
                tasks.append(world.loop.create_task(append(number)))
            await world.sleep(chance.random() * 0.3)
            if chance.random() < 0.3:
                await disturb()
        world.heal()
        for host in world.hosts.values():
            host.gate.armed = None
            if not host.up:
                await host.start()
        await world.elected()
        await world.sleep(5)
        for host in world.hosts.values():
            found = {entry.index: entry.value async for entry in host.running.entries()}
            assert found.items() >= acknowledged.items(), f"node {host.id} lacks what was acknowledged"
            assert len(set(found.values())) == len(found), "nothing stands in the log twice"
        await world.stop_all()

    world.run(scenario)


@pytest.mark.parametrize("first", range(0, by_level(quick=10, ci=100), 10))
def test_nothing_leaves_before_the_sync_it_rests_on(first: int) -> None:
    """Every message and response of a restless cluster is true of what its disks would hold without power."""
    seen: Counter[str] = Counter()
    for seed in range(first, first + 10):
        world = World(seed)
        witness = Witness(world)
        restless(world, witness.acknowledged, rounds=60)
        seen += witness.seen
    for kind in (
        "Hello",
        "Welcome",
        "RequestVote",
        "VoteAccepted",
        "AppendAccepted",
        "AppendEntries",
        "ProposeAccepted",
        "response",
    ):
        assert seen[kind] > 10, f"{kind} was seen"
