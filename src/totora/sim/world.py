"""Hosts with disks on one network, all from one seed, and on each of them the very node that production runs.

async def scenario(world):
    await world.start_all()
    ...
    world.hosts[1].lose_power()

World(seed=7).run(scenario)
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeVar

from ..aio.node import Node
from ..config import Settings
from ..core.batch import Batch
from ..ports import Ports
from ..storage.identity import _read as read_identity
from ..storage.wal import WriteAheadLog
from ..types import Address, NodeId
from .clock import VirtualClock, VirtualLoop
from .disk import Fate, MemoryDisk
from .gate import Gate
from .network import Ether
from .recorder import Recorder
from .trace import Crashed, Record
from .worker import VirtualWorker

__all__ = ["Host", "World"]

R = TypeVar("R")

PORT: Final = 7_000
SEGMENT_BYTES: Final = 64 << 10
LIMIT_S: Final = 3_600.0
"""A scenario that takes longer in virtual time hangs."""

CHANGES: Final = frozenset(("pwrite", "sync", "create", "rename", "remove", "sync_dir"))
"""Operations of a disk that are effects: a crash may strike before each."""


class World:
    """One run. The same seed and the same scenario give the same run, to the byte.

    size: how many hosts there are, with nodes 1 to `size`.
    """

    def __init__(
        self,
        seed: int,
        *,
        size: int = 3,
        settings: Settings | None = None,
        entry_type: type[Any] = str,
        limit_s: float = LIMIT_S,
    ) -> None:
        self.chance = random.Random(seed)
        self.loop = VirtualLoop(limit_ns=round(limit_s * 1e9))
        self.ether = Ether(self.loop, self.fork())
        self.settings = settings or Settings(segment_bytes=SEGMENT_BYTES)
        self.entry_type = entry_type
        self.log: list[tuple[int, str, str, dict[str, Any]]] = []
        self.record: Callable[[Record], None] | None = None
        self.nodes: dict[NodeId, Address] = {id: (f"host-{id}", PORT) for id in range(1, size + 1)}
        self.hosts = {id: Host(self, id) for id in self.nodes}

    def fork(self) -> random.Random:
        """A generator of its own for one part: what another part draws does not shift it."""
        return random.Random(self.chance.getrandbits(64))

    def run(self, scenario: Callable[[World], Awaitable[R]]) -> R:
        """Play the scenario to its end. Raises what it raises, and what leaked from any node."""

        async def main() -> R:
            return await scenario(self)

        return self.loop.run(main())

    def witnessed(self, record: Callable[[Record], None]) -> Callable[[Record], None]:
        """`record`, but what it raises ends the run: a node would take it for an error of its own, and stop."""

        def witness(what: Record) -> None:
            try:
                record(what)
            except BaseException as error:
                self.loop.abort(error)

        return witness

    # -- for scenarios

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        future = self.loop.create_future()
        self.loop.call_at_ns(self.loop.now_ns + round(seconds * 1e9), lambda: future.set_result(None))
        await future

    async def until(
        self, condition: Callable[[], R | None], *, within_s: float = 60.0, step_s: float = 0.01
    ) -> R:
        """The first true result of `condition`. AssertionError if there is none within so much virtual time."""
        deadline_ns = self.loop.now_ns + round(within_s * 1e9)
        while not (result := condition()):
            assert self.loop.now_ns < deadline_ns, f"not within {within_s} virtual seconds"
            await self.sleep(step_s)
        return result

    async def start_all(self) -> None:
        for host in self.hosts.values():
            await host.start()

    async def stop_all(self) -> None:
        for host in self.hosts.values():
            await host.stop()

    def leader(self) -> Host | None:
        """The running node that leads in the highest term."""
        leading = [host for host in self.hosts.values() if host.role == "leader"]
        return max(leading, key=lambda host: host.running.status().term, default=None)

    async def elected(self) -> Host:
        """A leader that every running node follows."""

        def agreed() -> Host | None:
            leader = self.leader()
            running = [host for host in self.hosts.values() if host.up]
            return leader if leader and all(h.running.status().leader == leader.id for h in running) else None

        return await self.until(agreed)

    def isolate(self, id: NodeId) -> None:
        """Cut one host off from all others."""
        self.ether.partition([self.hosts[id].name], [h.name for h in self.hosts.values() if h.id != id])

    def heal(self) -> None:
        self.ether.heal_all()


class Host:
    """A machine: its disk outlives its processes. At most one node runs on it at a time."""

    def __init__(self, world: World, id: NodeId) -> None:
        self.world = world
        self.id = id
        self.name = world.nodes[id][0]
        self.disk = MemoryDisk(f"/{self.name}")
        self.chance = world.fork()
        self.gate = Gate()
        self.gate.fallen = True
        self.drift_ppm = 0
        self.writer: VirtualWorker
        self.clock: VirtualClock
        self._node: Node[Any] | None = None
        self._wiped = False

    @property
    def up(self) -> bool:
        return self._node is not None and not self.gate.fallen and self._node._backend()._open

    @property
    def running(self) -> Node[Any]:
        """The node; it must run."""
        assert self._node is not None, f"node {self.id} does not run"
        assert not self.gate.fallen, f"node {self.id} has crashed"
        return self._node

    @property
    def role(self) -> str | None:
        return self.running.status().role if self.up else None

    async def start(self) -> Node[Any]:
        """Start a node here. Raises what `Node.start` raises."""
        assert self._node is None or self.gate.fallen or not self.up, f"node {self.id} runs already"
        self.gate = gate = Gate(struck=self._strike)
        self.disk.fault = lambda what, name: self._check(gate, what)
        node: Node[Any] = Node(
            self.id,
            self.world.nodes,
            entry_type=self.world.entry_type,
            settings=self.world.settings,
            ports=lambda: self._ports(gate),
        )
        self._node = node
        task: list[Any] = []
        gate.enter(lambda: task.append(self.world.loop.create_task(node.start())))
        await task[0]
        return node

    def _check(self, gate: Gate, what: str) -> None:
        if what in CHANGES and not gate.leaves():
            raise OSError(5, "the machine is down")

    def _ports(self, gate: Gate) -> Ports:
        world, loop = self.world, self.world.loop
        self.clock = VirtualClock(loop, gate, drift_ppm=self.drift_ppm)
        self.writer = VirtualWorker(loop, world.fork(), gate)
        return Ports(
            network=world.ether.port(self.name, gate),
            clock=self.clock,
            random=world.fork(),
            disk=self.disk,
            writer=self.writer,
            reader=VirtualWorker(loop, world.fork(), gate),
            log=lambda level, event, fields: world.log.append((loop.now_ns, level, event, fields)),
            observer=self._observer(),
        )

    def _observer(self) -> Recorder | None:
        record, loop = self.world.record, self.world.loop
        if record is None:
            return None
        wiped, self._wiped = self._wiped, False
        return Recorder(
            self.world.witnessed(record), lambda: loop.now_ns, lambda: read_all(self.disk), wiped=wiped
        )

    def _record(self, how: Literal["power", "kill", "stop"]) -> None:
        if self.world.record is not None:
            self.world.record(Crashed(self.world.loop.now_ns, self.id, how))

    async def stop(self) -> None:
        """A clean stop."""
        if self.up:
            await self.running.stop()
            self._record("stop")

    def kill(self) -> None:
        """`kill -9`: the process is gone; the machine, and what its kernel holds of the disk, goes on."""
        self.gate.fall()
        self.world.ether.process_died(self.name, self.gate)
        self.disk.process_died()
        self._record("kill")

    def lose_power(self, fate: Fate = "torn") -> None:
        """The machine is gone at once: what was not synced meets its fate, and nobody is told."""
        self.gate.fall()
        self.world.ether.process_died(self.name, self.gate, silently=True)
        self.disk.crash(self.chance, fate)
        self._record("power")

    def wipe(self) -> None:
        """The disk of a machine that is down is replaced by an empty one."""
        assert not self.up, f"node {self.id} runs"
        self.disk.wipe()
        self._wiped = True

    def _strike(self) -> None:
        """A crash in the middle of something (see `Gate.armed`)."""
        if self.chance.random() < 0.5:
            self.kill()
        else:
            self.lose_power()

    def pause(self) -> None:
        """The process gets no time until `resume`; its kernel goes on."""
        self.gate.pause()

    def resume(self) -> None:
        self.gate.resume()


def read_all(disk: MemoryDisk) -> list[Batch]:
    """All batches of the log on a disk, whoever uses it; nothing is changed there."""
    copy = disk.copy()
    identity = read_identity(copy)
    log = WriteAheadLog(
        copy,
        random.Random(0),
        store_id=bytes.fromhex(identity.store_id),
        configuration=identity.configuration,
        segment_bytes=SEGMENT_BYTES,
        may_create=True,
    )
    recovered = log.recover()
    batches: list[Batch] = []
    while (last_index := batches[-1].last_index if batches else 0) < recovered.last_index:
        batches += log.read(last_index + 1, recovered.last_index, SEGMENT_BYTES)
    return batches
