"""Hosts with disks on one network, all from one seed, and on each of them the very node that production runs.

async def scenario(world):
    await world.start_all()
    ...
    world.hosts[1].lose_power()

World(seed=7).run(scenario)
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, TypeVar

from ..aio.node import Node
from ..config import Settings
from ..core.batch import Batch
from ..errors import StorageError
from ..ports import Ports, StateMachine
from ..storage.identity import read_identity
from ..storage.recovery import sound_records
from ..storage.segment import FIRST_RECORD, read_header
from ..storage.wal import WriteAheadLog
from ..types import Address, LogIndex, NodeId, Term
from .clock import VirtualClock, VirtualLoop
from .disk import Fate, MemoryDisk
from .gate import Gate
from .guard import guarded
from .network import Ether
from .recorder import Recorder
from .trace import Crashed, Record
from .worker import VirtualWorker

__all__ = ["Host", "Machine", "World"]

R = TypeVar("R")

Machine: TypeAlias = StateMachine[Any, Any, Any, Any]

PORT: Final = 7_000
SEGMENT_BYTES: Final = 64 << 10
LIMIT_S: Final = 3_600.0
"""A scenario that takes longer in virtual time hangs."""

CHANGES: Final = frozenset(("pwrite", "allocate", "sync", "create", "rename", "remove", "sync_dir"))
"""Operations of a disk that are effects: a crash may strike before each."""


class World:
    """One run. The same seed and the same scenario give the same run, to the byte.

    size: how many hosts there are, with nodes 1 to `size`. machine: makes each node's state machine, if it has one.
    is_committed: whether a leader has committed the entry of this index and term, if somebody watches.
    """

    def __init__(
        self,
        seed: int,
        *,
        size: int = 3,
        settings: Settings | None = None,
        entry_type: Any = str,
        machine: Callable[[], Machine | None] = lambda: None,
        limit_s: float = LIMIT_S,
    ) -> None:
        self.chance = random.Random(seed)
        self.loop = VirtualLoop(limit_ns=round(limit_s * 1e9))
        self.ether = Ether(self.loop, self.fork())
        self.settings = settings or Settings(segment_bytes=SEGMENT_BYTES)
        self.entry_type = entry_type
        self.machine = machine
        self.log: list[tuple[int, str, str, dict[str, Any]]] = []
        self.record: Callable[[Record], None] | None = None
        self.is_committed: Callable[[LogIndex, Term], bool] | None = None
        self.nodes: dict[NodeId, Address] = {id: (f"host-{id}", PORT) for id in range(1, size + 1)}
        self.hosts = {id: Host(self, id) for id in self.nodes}

    def fork(self) -> random.Random:
        """A generator of its own for one part: what another part draws does not shift it."""
        return random.Random(self.chance.getrandbits(64))

    def run(self, scenario: Callable[[World], Awaitable[R]]) -> R:
        """Play the scenario to its end. Raises what it raises, what leaked from any node, and NondeterminismError."""

        async def main() -> R:
            return await scenario(self)

        with guarded():
            return self.loop.run(main())

    def witnessed(self, record: Callable[[Record], None]) -> Callable[[Record], None]:
        """`record`, but what it raises ends the run: a node would take it for an error of its own, and stop."""

        def witness(what: Record) -> None:
            try:
                record(what)
            except BaseException as error:
                self.loop.abort(error)

        return witness

    def task(self, what: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Run beside the scenario; what it raises ends the run."""
        task = self.loop.create_task(what)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.loop.abort(error)

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
    """A machine: its disk outlives its processes. At most one node runs on it at a time.

    machine: the state machine of its node.
    """

    def __init__(self, world: World, id: NodeId) -> None:
        self.world = world
        self.id = id
        self.name = world.nodes[id][0]
        self.disk = MemoryDisk(f"/{self.name}", keeps_operations=False)
        self.chance = world.fork()
        self.gate = Gate()
        self.gate.fallen = True
        self.drift_ppm = 0
        self.writer: VirtualWorker
        self.clock: VirtualClock
        self._node: Node[Any, Any, Any, Any] | None = None
        self.machine: Machine | None = None
        self._wiped = False
        self._fails_next: str | None = None
        self._power_ends: tuple[int, Fate] | None = None
        self._may_fail = False
        self._damages: list[_Damage] = []

    @property
    def up(self) -> bool:
        runtime = None if self._node is None or self.gate.fallen else self._node._runtime
        return runtime is not None and runtime._open

    @property
    def running(self) -> Node[Any, Any, Any, Any]:
        """The node; it must run."""
        assert self._node is not None, f"node {self.id} does not run"
        assert not self.gate.fallen, f"node {self.id} has crashed"
        return self._node

    @property
    def role(self) -> str | None:
        return self.running.status().role if self.up else None

    async def start(self) -> Node[Any, Any, Any, Any]:
        """Start a node here. Raises what `Node.start` raises."""
        assert not self.up, f"node {self.id} runs already"
        if self._node is not None and not self.gate.fallen:
            await self._node.stop()  # It stopped by itself: let it finish.
        self._may_fail = bool(self._damages) or self._fails_next is not None or self.disk.is_limited
        self.spare()
        self.gate = gate = Gate(struck=self._strike)
        self.disk.fault = lambda what, name: self._check(gate, what)
        self.machine = self.world.machine()
        node: Node[Any, Any, Any, Any] = Node(
            self.id,
            self.world.nodes,
            entry_type=self.world.entry_type,
            machine=self.machine,
            settings=self.world.settings,
            ports=lambda: self._ports(gate),
        )
        self._node = node
        task: list[Any] = []
        gate.enter(lambda: task.append(self.world.loop.create_task(node.start())))
        await task[0]
        return node

    def _check(self, gate: Gate, what: str) -> None:
        if what in CHANGES:
            self._count_down(gate)
            if not gate.leaves():
                raise OSError(errno.EIO, "the machine is down")
        if what == self._fails_next:
            self._fails_next = None
            raise OSError(errno.EIO, "Input/output error")

    def _count_down(self, gate: Gate) -> None:
        if self._power_ends is not None and gate is self.gate and not gate.fallen:
            left, fate = self._power_ends
            self._power_ends = left - 1, fate
            if left == 0:
                self.lose_power(fate)

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
            log=self._log,
            observer=self._observer(gate),
        )

    def _log(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self.world.log.append((self.world.loop.now_ns, level, event, fields))
        if event == "failed" and not self.may_fail and not self.gate.fallen:
            self.world.loop.abort(AssertionError(f"node {self.id} stopped by itself: {fields['cause']}"))

    def _observer(self, gate: Gate) -> Recorder | None:
        record, loop = self.world.record, self.world.loop
        if record is None:
            return None
        wiped, self._wiped = self._wiped, False
        told = self.world.witnessed(lambda what: None if gate.fallen else record(what))
        return Recorder(told, lambda: loop.now_ns, lambda: read_all(self._sound_copy()), wiped=wiped)

    def _record(self, how: Literal["power", "kill", "stop"]) -> None:
        if self.world.record is not None:
            self.world.record(Crashed(self.world.loop.now_ns, self.id, how))

    async def stop(self) -> None:
        """A clean stop, once it is not paused, unless the machine goes down meanwhile."""
        gate = self.gate
        await self.world.until(lambda: not gate.paused or gate.fallen, within_s=LIMIT_S)
        if self.up and gate is self.gate:
            node, task = self.running, list[asyncio.Task[None]]()
            gate.enter(lambda: task.append(self.world.loop.create_task(node.stop())))
            await asyncio.wait(task)
            if gate is self.gate and not gate.fallen:
                task[0].result()
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

    def lose_power_after(self, operations: int, fate: Fate = "torn") -> None:
        """Once so many more operations of the disk that change it are done, in place of the next one."""
        self._power_ends = operations, fate

    def spare(self) -> None:
        """No crash waits for it any more."""
        self.gate.armed = None
        self.spare_power()

    def spare_power(self) -> None:
        """It keeps its power."""
        self._power_ends = None

    def wipe(self) -> None:
        """The disk of a machine that is down is replaced by an empty one."""
        assert not self.up, f"node {self.id} runs"
        self.disk.wipe()
        self._wiped = True

    def fail_next(self, what: str | None) -> None:
        """The disk's next operation of this kind ("pwrite", "sync") fails, once; None: none does."""
        self._fails_next = what
        self._may_fail = self._may_fail or what is not None

    def fill_disk(self, free_bytes: int) -> None:
        """No more than this is left, until the disk's capacity is None again; what fails for it may be told later."""
        self.disk.capacity_bytes = self.disk.used_bytes + free_bytes
        self._may_fail = True

    # -- damage to what lies on the disk

    @property
    def may_fail(self) -> bool:
        """Something was done to its disk for which it may stop, or refuse to start."""
        return self._may_fail or self.disk.is_limited

    def damage(self, chance: random.Random, size_bytes: int) -> bool:
        """Change some bytes of the log (or a single bit) that are on stable storage; False if there are none.

        Not in what no later record vouches for: damage there cannot be told from a torn tail.
        """
        names = [
            name for name in self.disk.durable_names if name.endswith(".log") and name in self.disk.names
        ]
        if not names or self.gate.paused:
            return False
        name = sorted(names)[int(chance.random() * len(names))]
        end = vouched_end(self.disk, name)
        if end < size_bytes:
            return False
        offset = int(chance.random() * (end - size_bytes + 1))
        inode = self.disk.names[name]
        before = bytes(inode.data[offset : offset + size_bytes])
        after = (
            bytes([before[0] ^ 1 << int(chance.random() * 8)])
            if size_bytes == 1
            else chance.randbytes(size_bytes)
        )
        inode.overwrite(offset, after)
        self._damages.append(_Damage(name, bytes(inode.data[:FIRST_RECORD]), offset, before, after))
        self._may_fail = True
        return True

    def repair(self) -> None:
        """Restore the damaged files from a copy, as the operator is told to; what was written anew since stays."""
        self._undo_damages(self.disk)
        self._damages.clear()

    def _sound_copy(self) -> MemoryDisk:
        copy = self.disk.copy()
        self._undo_damages(copy)
        return copy

    def _undo_damages(self, disk: MemoryDisk) -> None:
        for damage in reversed(self._damages):
            inode = disk.names.get(damage.name)
            end = damage.offset + len(damage.after)
            if inode is None or bytes(inode.data[damage.offset : end]) != damage.after:
                continue
            if damage.offset < FIRST_RECORD or bytes(inode.data[:FIRST_RECORD]) == damage.header:
                inode.overwrite(damage.offset, damage.before)

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


@dataclass(slots=True, frozen=True)
class _Damage:
    """Bytes that were changed. header: the file's first block then, which says whose it is."""

    name: str
    header: bytes
    offset: int
    before: bytes
    after: bytes


def vouched_end(disk: MemoryDisk, name: str) -> int:
    """Up to where a file of the log is known to have been synced: all of it, or as far as its records say if it is the newest."""
    data = bytes(disk.names[name].data)
    if name != max(other for other in disk.names if other.endswith(".log")):
        return len(data)
    copy = disk.copy()
    file = copy.open(name)
    identity = read_identity(copy)
    try:
        header = read_header(copy, name, file, bytes.fromhex(identity.store_id))
    except StorageError:
        return 0  # It is damaged already.
    records, _ = sound_records(data[FIRST_RECORD:], header)
    return max((record.synced for record, _ in records), default=0)


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
