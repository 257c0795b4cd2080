"""One run: a cluster, a workload, faults, all checks, then peace, in which everything must come right again."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from ..config import Settings
from ..types import Entry, NodeId
from .faults import FAULTS, Fault, Injector, schedule
from .history import Operation
from .kv_workload import KvWorkload
from .log_workload import LogWorkload
from .specification import Specification
from .trace import Header, Record
from .world import Host, Machine, World

__all__ = [
    "WORKLOADS",
    "Plan",
    "Report",
    "Simulation",
    "Workload",
    "broken_property",
    "scheduled",
    "simulate",
]

CONVERGES_S: Final = 60.0
"""After the last fault a cluster has a leader, the same log everywhere, and serves, within so much virtual time."""

STEPS_PER_S_MAX: Final = 2_000
STEPS_PER_OPERATION_MAX: Final = 100
"""Nodes together take no more than this, in the mean from ten seconds before the run on: nobody talks for talking's sake."""

LAST_EVENTS: Final = 30


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is: the same plan gives the same run.

    faults: the kinds that happen. size, transport: None: drawn from the seed. workload: what clients do, of WORKLOADS.
    """

    seed: int
    seconds: float = 60.0
    faults: tuple[str, ...] = tuple(FAULTS)
    rate_per_s: float = 5.0
    size: int | None = None
    transport: Literal["tcp", "udp"] | None = None
    workload: Literal["log", "kv"] = "log"


class Workload(Protocol):
    """What clients do in a run, and what must be true in the end. Made for one run, before its nodes are started."""

    @property
    def entry_type(self) -> Any: ...

    @property
    def patience_s(self) -> float:
        """No request waits longer for its outcome."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """Operations by outcome."""
        ...

    @property
    def history(self) -> Sequence[Operation]:
        """What clients did to keys and saw of them; may be empty."""
        ...

    def machine(self) -> Machine | None:
        """A new state machine, for a node that is started; None: nodes have none."""
        ...

    def begin(self, seconds: float) -> None:
        """All nodes were started: work for so long."""
        ...

    def farewell(self, id: NodeId) -> Any:
        """An entry that is appended through this node in the end."""
        ...

    def check(self, log: Sequence[Entry[Any]], hosts: Sequence[Host]) -> None:
        """Peace has come: `log` is what all of these nodes hold and have applied. Raises AssertionError."""
        ...


WORKLOADS: Final[Mapping[str, Callable[[World, Plan], Workload]]] = {
    "log": lambda world, plan: LogWorkload(world, rate_per_s=plan.rate_per_s),
    "kv": lambda world, plan: KvWorkload(world, rate_per_s=plan.rate_per_s),
}


class Report(msgspec.Struct, kw_only=True):
    """What came of it. violation: the property that broke, and how; None: nothing did."""

    plan: Plan
    simulated_s: float = 0.0
    steps: int = 0
    operations: dict[str, int] = {}
    injected: dict[str, int] = {}
    committed: int = 0
    violation: str | None = None
    at_s: float | None = None
    last: list[Any] = []

    @property
    def broken(self) -> str | None:
        """The property that broke, without what differs from run to run: two runs that break it are of one kind."""
        return None if self.violation is None else broken_property(self.violation)


def broken_property(violation: str) -> str:
    """The rule of a specification's violation, else the assertion without its numbers and what follows a colon."""
    kind, _, words = violation.partition(": ")
    clause = re.split(r": |\n", words)[0]
    if kind == "Violation":
        return clause
    clause = re.sub(r"'[^']*'|\"[^\"]*\"", "'..'", clause)
    clause = re.sub(r"\d+(?:[.,]\d+)*", "N", clause).strip()
    return clause if kind == "AssertionError" and clause else f"{kind}: {clause}" if clause else kind


class _Drawn:
    """What the seed says of a run, whatever else its plan says: the schedule does not depend on size or transport."""

    def __init__(self, plan: Plan) -> None:
        chance = random.Random(plan.seed)
        sizes = (1, 2, 3, 3, 3, 3, 4, 5, 5)
        timeouts = ((0.1, 1.0, 2.0), (0.1, 1.0, 2.0), (0.05, 0.3, 0.6), (0.02, 0.15, 0.3))
        self.size = sizes[int(chance.random() * len(sizes))]
        self.transport: Literal["tcp", "udp"] = "udp" if chance.random() < 0.2 else "tcp"
        self.timeouts = timeouts[int(chance.random() * len(timeouts))]
        self.world = chance.getrandbits(48)
        self.drifts_ppm = [int((chance.random() - 0.5) * 400) for _ in range(self.size)]
        self.segment_bytes = (4, 8, 16, 64)[int(chance.random() * 4)] << 10
        self.sector_bytes = (8, 8, 512, 4096)[int(chance.random() * 4)]
        self.faults = schedule(chance, plan.faults, plan.seconds)


def scheduled(plan: Plan) -> list[Fault]:
    """The faults of a run, without playing it."""
    return _Drawn(plan).faults


class Simulation:
    """A run that can be looked at while it is put together.

    workload: makes another one than the plan's. record: gets every record of the trace.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        faults: Sequence[Fault] | None = None,
        workload: Callable[[World], Workload] | None = None,
        record: Callable[[Record], None] | None = None,
    ) -> None:
        drawn = _Drawn(plan)
        heartbeat_s, election_min_s, election_max_s = drawn.timeouts
        settings = Settings(
            heartbeat_s=heartbeat_s,
            election_min_s=election_min_s,
            election_max_s=election_max_s,
            transport=plan.transport or drawn.transport,
            segment_bytes=drawn.segment_bytes,
        )
        self.plan = plan
        self.world = World(
            drawn.world,
            size=plan.size or drawn.size,
            settings=settings,
            limit_s=plan.seconds + 10 * CONVERGES_S,
        )
        for host in self.world.hosts.values():
            host.drift_ppm = drawn.drifts_ppm[(host.id - 1) % drawn.size]
            host.disk.sector_bytes = drawn.sector_bytes
        self.faults = drawn.faults if faults is None else list(faults)
        self.specification = Specification(self.world.nodes)
        self.world.is_committed = self.specification.is_committed
        self.injector = Injector(self.world)
        made = WORKLOADS[plan.workload](self.world, plan) if workload is None else workload(self.world)
        self.workload = made
        self.world.entry_type, self.world.machine = made.entry_type, made.machine
        self.last: list[Record] = []
        self._also = record
        self.world.record = self._record
        if record is not None:
            record(Header(sorted(self.world.nodes), run=msgspec.to_builtins(plan)))

    def _record(self, record: Record) -> None:
        self.last.append(record)
        if len(self.last) > 2 * LAST_EVENTS:
            del self.last[:LAST_EVENTS]
        if self._also is not None:
            self._also(record)
        self.specification.check(record)
        if self.specification.steps > self._steps_max():
            raise AssertionError(f"{self.specification.steps:,} steps: nodes talk without end")

    def _steps_max(self) -> float:
        seconds = self.world.loop.now_ns / 1e9 + 10
        return seconds * (STEPS_PER_S_MAX + STEPS_PER_OPERATION_MAX * self.plan.rate_per_s)

    @property
    def history(self) -> Sequence[Operation]:
        """What the workload's clients saw, fit for `history.dump_history`."""
        return self.workload.history

    def run(self) -> Report:
        """Play it; a violation is reported, not raised."""
        report = Report(plan=self.plan)
        try:
            self.world.run(self._play)
        except Exception as error:  # whatever it is, this seed shows it
            report.violation = f"{type(error).__name__}: {error}"
            report.at_s = self.world.loop.now_ns / 1e9
            report.last = [msgspec.to_builtins(record) for record in self.last[-LAST_EVENTS:]]
        report.simulated_s = self.world.loop.now_ns / 1e9
        report.steps = self.specification.steps
        report.operations = dict(sorted(self.workload.counts.items()))
        report.injected = dict(sorted(self.injector.injected.items()))
        report.committed = self.specification.committed_index
        return report

    async def _play(self, world: World) -> None:
        await world.start_all()
        self.injector.begin(self.faults)
        self.workload.begin(self.plan.seconds)
        await world.sleep(self.plan.seconds)
        await self.injector.peace()
        await world.sleep(self.workload.patience_s)
        log = await self._converged()
        self.workload.check(log, self.injector.hosts())
        await world.stop_all()

    async def _converged(self) -> list[Entry[Any]]:
        """Liveness: within a stated time there is a leader, everyone serves, and all hold the same log."""
        world = self.world
        hosts = self.injector.hosts()
        for host in hosts:
            # First, while nobody appends: a leader must come to know by itself what is committed.
            await host.running.read_index(timeout_s=CONVERGES_S)
        for host in hosts:
            await host.running.propose(self.workload.farewell(host.id), timeout_s=CONVERGES_S)
        last = max(host.running.status().commit_index for host in hosts)
        await world.until(
            lambda: all(host.running.status().applied_index >= last for host in hosts), within_s=CONVERGES_S
        )
        logs = [[entry async for entry in host.running.entries()] for host in hosts]
        for log in logs[1:]:
            assert log == logs[0], "all nodes hold the same log in the end"
        return logs[0]


def simulate(plan: Plan, faults: Iterable[Fault] | None = None) -> Report:
    """Play one plan; a function of its arguments, fit for any `concurrent.futures.Executor`."""
    return Simulation(plan, faults=None if faults is None else list(faults)).run()
