"""Random runs of nodes with a state machine: what clients saw is linearizable, all machines agree, and bugs do not hide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from tests.levels import by_level
from totora.aio.applier import Applier
from totora.aio.runtime import Runtime
from totora.core import proposals
from totora.core.batch import Batch
from totora.core.events import Proposed
from totora.core.state import State
from totora.errors import RaftError
from totora.session.requests import Ok, Result
from totora.sim import kv_workload
from totora.sim.history import Operation, dump_history, load_history
from totora.sim.linearizability import check_history
from totora.sim.simulation import Plan, Report, Simulation, simulate
from totora.sim.world import Host, World
from totora.types import Entry, NodeId


def told(report: Report) -> str:
    lines = [f"seed {report.plan.seed}, at {report.at_s} s: {report.violation}"]
    return "\n".join([*lines, *map(str, report.last)])


@pytest.mark.parametrize("seed", range(by_level(quick=12, ci=24)))
def test_every_property_holds(seed: int) -> None:
    report = simulate(Plan(seed=seed, workload="kv"))
    assert report.violation is None, told(report)
    assert sum(report.injected.values()) > 0
    assert report.operations["ok"] > 0


@pytest.mark.parametrize("seed", range(by_level(quick=2, ci=10)))
def test_every_property_holds_where_the_log_is_long(seed: int) -> None:
    """Segments of it are no longer in memory when a node starts again: what it replays comes from the disk."""
    report = simulate(Plan(seed=seed, workload="kv", seconds=120, rate_per_s=40, size=3))
    assert report.violation is None, told(report)
    assert report.committed > 500


def played(seed: int = 3, **plan: Any) -> Simulation:
    simulation = Simulation(Plan(seed=seed, workload="kv", **plan))
    report = simulation.run()
    assert report.violation is None, told(report)
    return simulation


def test_the_same_plan_gives_the_same_history() -> None:
    assert list(played(seconds=30).history) == list(played(seconds=30).history)


def test_a_history_can_be_written_and_checked_elsewhere() -> None:
    """It holds all that clients did, of every kind, with every kind of outcome."""
    history = [operation for seed in range(4) for operation in played(seed).history]
    assert list(load_history(dump_history(history))) == history
    assert {operation.op for operation in history} == {"get", "put", "append", "cas", "delete"}
    assert {operation.status for operation in history} == {"ok", "fail", "unknown"}
    assert any(operation.mismatch for operation in history)
    one = played(1).history
    assert check_history(load_history(dump_history(one))).ok


def test_a_client_has_a_new_number_after_an_unknown_outcome() -> None:
    """So each client of a history does one thing at a time."""
    histories = [played(seed).history for seed in range(4)]
    assert any(operation.status == "unknown" for history in histories for operation in history)
    for history in histories:
        busy_until: dict[int, float] = {}
        for operation in sorted(history, key=lambda operation: operation.call_ns):
            assert operation.call_ns >= busy_until.get(operation.client, 0)
            ends = float("inf") if operation.status == "unknown" else operation.return_ns
            busy_until[operation.client] = ends


def test_keys_are_contended_and_short_lived() -> None:
    """Several clients use the same key; none is used for long, so no part of a history is hard to check."""
    history = played(seconds=300, rate_per_s=10, faults=()).history
    users: dict[str, set[int]] = {}
    uses: Counter[str] = Counter(operation.key for operation in history)
    for operation in history:
        users.setdefault(operation.key, set()).add(operation.client)
    assert len(uses) > 2 * kv_workload.KEYS
    assert max(uses.values()) <= kv_workload.KEY_WEIGHT_MAX
    assert max(map(len, users.values())) == 5


# -- planted bugs

SEEDS_MAX = 40


def queries_answered_from_the_local_state(patch: pytest.MonkeyPatch) -> None:
    def confirm_read(self: Runtime, _: float | None, confirmed: Callable[[int], None]) -> None:
        confirmed(self._engine.raft.commit_index)

    patch.setattr(Runtime, "confirm_read", confirm_read)


def a_retry_counts_as_another_command(patch: pytest.MonkeyPatch) -> None:
    is_next = proposals._is_next

    def careless(state: State, event: Proposed) -> bool:
        session = state.log.summary.sessions.get(event.session)
        return (session is not None and event.sequence < session.next_sequence) or is_next(state, event)

    patch.setattr(proposals, "_is_next", careless)


def calls_get_the_result_of_the_entry_before(patch: pytest.MonkeyPatch) -> None:
    passed = Applier._passed
    before: dict[object, Result[Any]] = {}

    def late(self: Applier[Any, Any, Any, Any], index: int, outcome: Result[Any]) -> None:
        outcome, before[self] = before.get(self, Ok(None)), outcome
        passed(self, index, outcome)

    patch.setattr(Applier, "_passed", late)


def a_replay_passes_a_batch_over(patch: pytest.MonkeyPatch) -> None:
    loaded = Applier._loaded

    def hasty(self: Applier[Any, Any, Any, Any], batches: list[Batch] | RaftError) -> None:
        loaded(self, batches if isinstance(batches, RaftError) else batches[:5] + batches[6:])

    patch.setattr(Applier, "_loaded", hasty)


SHORT = Plan(seed=0, workload="kv")
LONG = Plan(seed=0, workload="kv", seconds=120, rate_per_s=40)
HISTORY = "the history is not linearizable"


@pytest.mark.parametrize(
    ("bug", "plan", "found"),
    [
        (queries_answered_from_the_local_state, SHORT, HISTORY),
        (a_retry_counts_as_another_command, SHORT, HISTORY),
        (calls_get_the_result_of_the_entry_before, SHORT, HISTORY),
        (a_replay_passes_a_batch_over, LONG, "each entry is applied once, in the order of the log"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_planted_bug_is_found_within_a_few_seeds(
    bug: Callable[[pytest.MonkeyPatch], None], plan: Plan, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For what it is; the sound node plays such seeds without a violation (see above)."""
    bug(monkeypatch)
    for seed in range(SEEDS_MAX):
        report = simulate(msgspec.structs.replace(plan, seed=seed))
        if found in (report.violation or ""):
            return
    pytest.fail(f"{SEEDS_MAX} seeds do not find it")


# -- a workload of one's own


class Sum:
    """Adds numbers."""

    def __init__(self) -> None:
        self.sum = 0

    def apply(self, number: int) -> int:
        self.sum += number
        return self.sum

    def query(self, _: None) -> int:
        return self.sum


class Adding:
    """A user's own: one client, who adds one through whichever node runs, every second."""

    entry_type: Any = int
    patience_s: float = 3.0
    history: Sequence[Operation] = ()

    def __init__(self, world: World) -> None:
        self.world = world
        self.counts: Counter[str] = Counter()
        self.ended: list[object] = []

    def machine(self) -> Sum:
        return Sum()

    def begin(self, seconds: float) -> None:
        for second in range(int(seconds)):
            self.world.loop.call_at_ns(self.world.loop.now_ns + second * 10**9, self._add)

    def _add(self) -> None:
        up = next((host for host in self.world.hosts.values() if host.up), None)
        if up is not None:
            node = up.running
            up.gate.enter(lambda: node.submit_command(1, self._told, timeout_s=2.0))

    def _told(self, result: Result[int]) -> None:
        self.counts["ok" if isinstance(result, Ok) else type(result.error).__name__] += 1

    def farewell(self, id: NodeId) -> int:
        return 1_000

    def check(self, log: Sequence[Entry[int]], hosts: Sequence[Host]) -> None:
        added = sum(entry.value for entry in log)
        assert added >= self.counts["ok"] + 1_000 * len(hosts)
        for host in hosts:
            machine = host.machine
            assert isinstance(machine, Sum)
            assert machine.sum == added
            self.ended.append(machine)


def test_a_run_takes_a_workload_of_ones_own() -> None:
    made: list[Adding] = []

    def workload(world: World) -> Adding:
        made.append(Adding(world))
        return made[-1]

    simulation = Simulation(Plan(seed=2, seconds=30), workload=workload)
    report = simulation.run()
    assert report.violation is None, told(report)
    assert report.operations["ok"] > 10
    assert len(made[0].ended) >= 1
    assert list(simulation.history) == []
