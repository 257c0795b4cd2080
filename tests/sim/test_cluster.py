"""`totora.sim.Cluster`: what a script may do, what it is told, and that it is one run, to the byte."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import totora.sim
from totora.core import election
from totora.errors import CommandFailed, NodeStopped, OutcomeUnknown, Unavailable
from totora.sim import FAULTS, Cluster, Divergence, ScriptError, Violation
from totora.sim.key_value import Append, Command, CompareAndSet, Get, KeyValue, Put
from totora.sim.replicas import difference, plain
from totora.sim.trace import Record, Step

ROOT = Path(__file__).parents[2]


def diverges(machine: Callable[[], Any], script: Callable[[Cluster], object], match: str) -> None:
    def whole() -> None:
        with kv(machine) as cluster:
            script(cluster)

    with pytest.raises(Divergence, match=match) as raised:
        whole()
    assert any("last events:" in note for note in raised.value.__notes__)


def kv(machine: Callable[[], Any] = KeyValue, seed: int = 1, size: int = 3) -> Cluster:
    return Cluster(size, seed=seed, machine=machine, entry_type=Command).start()


# -- one run


def script(seed: int = 7, *, look: bool = False) -> str:
    """A bit of everything."""

    def see(cluster: Cluster) -> None:
        if look:
            _ = str(cluster), repr(cluster), [cluster.log(id) for id in cluster.running], cluster.leader
            _ = [cluster.status(id) for id in cluster.running], cluster.check()

    with Cluster(3, seed=seed) as cluster:
        leader = cluster.start().leader()
        cluster.propose("kept", at=leader)
        cluster.partition({leader}, cluster.others(leader))
        see(cluster)
        lost = cluster.spawn(lambda node: node.propose("lost"), at=leader)
        cluster.advance(3)
        see(cluster)
        cluster.propose("new")
        cluster.heal().settle()
        see(cluster)
        assert lost.done
        cluster.kill(2).lose_power(1).restart(2).pause(3).advance(1)
        see(cluster)
        cluster.chaos(5, work=lambda: cluster.propose(f"{cluster.chance.getrandbits(20)}"))
        see(cluster)
        return cluster.trace_sha256


def test_a_script_and_a_seed_are_one_run() -> None:
    assert script() == script()
    assert script(8) != script()


def test_looking_changes_nothing() -> None:
    assert script(look=True) == script()


def test_it_is_the_same_run_in_another_process() -> None:
    expected = script()
    for hash_seed in ("0", "4711"):
        ended = subprocess.run(
            [sys.executable, "-c", "from tests.sim.test_cluster import script; print(script())"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stdout.strip() == expected


def test_time_that_passes_in_parts_is_the_same_time() -> None:
    def run(*parts: float) -> str:
        with Cluster(3, seed=5) as cluster:
            cluster.start()
            for seconds in parts:
                cluster.advance(seconds)
            assert cluster.now == pytest.approx(2, abs=0.01)
            return cluster.trace_sha256

    assert run(2) == run(0.5, 1.5) == run(*[0.01] * 200)


def test_the_trace_goes_to_whoever_wants_it() -> None:
    records: list[Record] = []
    with Cluster(1, record=records.append) as cluster:
        cluster.start().leader()
    assert any(isinstance(record, Step) and record.role == "leader" for record in records)


# -- what a script does


def test_a_leader_that_is_cut_off_gives_way_and_what_it_took_is_unknown() -> None:
    with Cluster(5, seed=2) as cluster:
        old = cluster.start().leader()
        cluster.partition({old}, cluster.others(old))
        lost = cluster.spawn(lambda node: node.propose("lost", timeout_s=4), at=old)
        assert not lost.done
        assert lost.error is None
        new = cluster.leader()
        assert new != old
        cluster.propose("kept", at=new)
        cluster.expect(lambda: cluster.role(old) != "leader", "it gives way")
        with pytest.raises(OutcomeUnknown):
            lost.result()
        assert isinstance(lost.error, OutcomeUnknown)
        assert cluster.values(old) == []
        cluster.heal().settle()
        assert all(cluster.values(id) == ["kept"] for id in cluster.ids)


def test_a_partition_leaves_those_that_are_not_named_among_themselves() -> None:
    with Cluster(5, seed=3) as cluster:
        cluster.start().leader()
        cluster.partition({1, 2})
        assert cluster.leader() in {3, 4, 5}
        assert "cut: 1 x 3, 1 x 4, 1 x 5, 2 x 3, 2 x 4, 2 x 5" in str(cluster)
        cluster.partition({3, 4, 5, 1})
        cluster.expect(lambda: cluster.status(1).leader == cluster.leader(), "node 1 is back")
        assert "cut: 1 x 2, 2 x 3" in str(cluster)


def test_a_cut_may_go_one_way() -> None:
    with Cluster(3, seed=3) as cluster:
        leader = cluster.start().leader()
        other = min(cluster.others(leader))
        cluster.cut(leader, other, one_way=True)
        assert f"cut: {leader} to {other}" in str(cluster)
        cluster.heal().settle()
        assert "cut:" not in str(cluster)


def test_slow_links_cost_time_and_heal() -> None:
    def takes(cluster: Cluster) -> float:
        began = cluster.now
        cluster.propose("x", at=cluster.leader())
        return cluster.now - began

    with Cluster(2, seed=3) as cluster:
        leader = cluster.start().leader()
        fast = takes(cluster)
        cluster.slow(1, 2, delay=0.4)
        assert takes(cluster) > 0.1 > 10 * fast
        cluster.heal().advance(2)
        assert cluster.leader() == leader
        assert takes(cluster) < 0.1


def test_nodes_go_down_and_come_back_with_what_they_had() -> None:
    with Cluster(3, seed=4) as cluster:
        leader = cluster.start().leader()
        cluster.propose("a", at=leader)
        cluster.kill(leader)
        assert cluster.role(leader) == "down"
        assert cluster.running == cluster.others(leader)
        assert f"{leader}     was killed" in str(cluster)
        cluster.propose("b")
        cluster.restart(leader).settle()
        cluster.lose_power(*cluster.ids, fate="lost")
        assert "lost power" in str(cluster)
        assert cluster.running == set()
        with pytest.raises(Unavailable):
            cluster.propose("nobody runs")
        cluster.start().settle()
        assert cluster.values(1) == cluster.values(2) == cluster.values(3) == ["a", "b"]
        cluster.stop(1)
        assert "was stopped" in str(cluster)
        cluster.restart().settle()
        assert cluster.running == {1, 2, 3}


def test_a_paused_node_takes_up_what_waited_when_it_is_resumed() -> None:
    with Cluster(3, seed=4) as cluster:
        leader = cluster.start().leader()
        paused = min(cluster.others(leader))
        cluster.pause(paused)
        assert "paused" in str(cluster)
        waiting = cluster.spawn(lambda node: node.propose("late"), at=paused)
        with pytest.raises(AssertionError, match=f"node {paused} answers: not within 3 s"):
            waiting.result(within=3)
        cluster.propose("early", at=leader)
        cluster.resume(paused)
        assert waiting.result().value == "late"
        assert cluster.settle().values(paused) == ["early", "late"]


def test_what_a_node_that_dies_was_asked_is_unknown_or_never_began() -> None:
    with Cluster(3, seed=4) as cluster:
        leader = cluster.start().leader()
        asked = cluster.spawn(lambda node: node.propose("x"), at=leader)
        cluster.kill(leader)
        with pytest.raises(OutcomeUnknown, match="went down"):
            asked.result()
        other = cluster.leader()
        cluster.pause(other)
        never = cluster.spawn(lambda node: node.propose("y"), at=other)
        cluster.kill(other)
        with pytest.raises(Unavailable, match="before it took it up"):
            never.result()
        survivor = min(cluster.running)
        stopping = cluster.spawn(lambda node: node.propose("no majority"), at=survivor)
        cluster.stop(survivor)
        with pytest.raises((NodeStopped, OutcomeUnknown)):
            stopping.result()


def test_a_script_may_ask_a_node_anything() -> None:
    with Cluster(3, seed=4) as cluster:
        cluster.start()
        both = cluster.call(lambda node: node.append(["a", "b"]), at=3)
        assert [entry.value for entry in both] == ["a", "b"] == cluster.values(cluster.leader())
        assert cluster.log(cluster.leader()) == list(both)


def test_a_log_that_memory_no_longer_holds_is_read_from_the_disk() -> None:
    with Cluster(1, seed=4) as cluster:
        cluster.start()
        entries = [f"{n} " + "x" * 3_000 for n in range(100)]
        for entry in entries:
            cluster.propose(entry)
        cluster.restart().leader()
        log = cluster.host(1).running._backend()._engine.raft.log
        assert log.batches_from(1, 1) is None, "the test is about a log whose beginning is on the disk alone"
        assert cluster.values(1) == entries


# -- state machines


def test_a_machine_is_applied_asked_and_looked_at() -> None:
    with kv() as cluster:
        assert cluster.apply(Put("x", 1)) is None
        assert cluster.apply(CompareAndSet("x", 1, 2), at=2) == 1
        assert cluster.query(Get("x"), at=3) == 2
        cluster.settle()
        assert [cluster.machine(id).values for id in cluster.ids] == [{"x": 2}] * 3


def test_what_a_machine_raises_is_the_callers_and_the_log_goes_on() -> None:
    class Picky(KeyValue):
        def apply(self, command: Command) -> Any:
            if command.key == "":
                raise KeyError("empty")
            return super().apply(command)

    with kv(Picky) as cluster:
        with pytest.raises(CommandFailed, match="empty"):
            cluster.apply(Put("", 1))
        assert cluster.apply(Put("x", 1)) is None
        cluster.settle()


def test_results_that_differ_between_replicas_are_named() -> None:
    """The third command is told what no other replica knows: how many machines there were."""
    born = itertools.count()

    class Numbered(KeyValue):
        def __init__(self) -> None:
            super().__init__()
            self.number = next(born)

        def apply(self, command: Command) -> Any:
            return self.number if command.key == "n" else super().apply(command)

    def script(cluster: Cluster) -> None:
        cluster.apply(Put("x", 0))
        cluster.apply(Put("n", 0))
        cluster.settle()

    diverges(Numbered, script, r"of command 2, Put\(key='n', value=0\): they differ at result: \d and \d: ")


def test_states_that_differ_between_replicas_are_found_in_peace() -> None:
    """Nobody ever returned it, but one machine remembers what it was asked."""

    class Curious(KeyValue):
        def __init__(self) -> None:
            super().__init__()
            self.asked = 0

        def query(self, query: Get) -> Any:
            self.asked += 1
            return super().query(query)

    def script(cluster: Cluster) -> None:
        cluster.apply(Put("x", 0))
        cluster.query(Get("x"))
        cluster.settle()

    diverges(Curious, script, r"after the same 1 commands .* differ at \.asked: ")


def test_they_are_found_at_the_end_of_a_script_too() -> None:
    def script(cluster: Cluster) -> None:
        cluster.apply(Put("x", 0))
        cluster.advance(1)
        cluster.machine(2).values["x"] = 5

    diverges(KeyValue, script, r"differ at \.values\['x'\]: 0 and 5")


def test_a_replica_that_starts_again_is_compared_with_its_former_life() -> None:
    """All three lived through the same, but the second life of a class that counts is another one."""
    applied: dict[int, int] = {}

    class Counting(KeyValue):
        def apply(self, command: Command) -> Any:
            super().apply(command)
            applied[id(self)] = applied.get(id(self), 100 * (len(applied) > 2)) + 1
            return applied[id(self)]

    def script(cluster: Cluster) -> None:
        cluster.apply(Put("x", 0))
        cluster.settle()
        cluster.restart(1).advance(5)

    diverges(Counting, script, "come to different results of command 1, ")


def test_other_commands_than_those_of_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: one node applies a command twice."""
    from totora.aio.applier import Applier

    apply, twice = Applier._apply, list[object]()

    def planted(self: Any, payload: memoryview) -> None:
        if len(twice) == 1 and self not in twice:
            self._machine.apply(self._codec.decode(payload))
        twice.append(self)
        apply(self, payload)

    monkeypatch.setattr(Applier, "_apply", planted)

    def script(cluster: Cluster) -> None:
        for suffix in "ab":
            cluster.apply(Append("x", suffix))
        cluster.settle()

    diverges(KeyValue, script, "carries out Append")


class Shape:
    __slots__ = ("kind", "size")

    def __init__(self, size: object) -> None:
        self.size = size


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, r"['a']['b'][1]: 2 and 3"),
        ({1: "x"}, {"1": "x"}, "['1'], which only one of them has"),
        ({1, 2}, {1, 3}, "{2}, which only one of them has"),
        ([1], [1, 1], "all: [1] and [1, 1]"),
        (Shape(1), Shape(2), ".size: 1 and 2"),
        (Put("x", 1), Put("x", 2), ".value: 1 and 2"),
        (1, True, "all: 1 and True"),
        (b"a", b"b", "all: '61' and '62'"),
        (Put, Get, "all: 'Put' and 'Get'"),
        (Decimal("1.5"), Decimal("2.5"), ".state[0][0]: '1.5' and '2.5'"),
    ],
)
def test_a_difference_is_a_place(one: object, other: object, where: str) -> None:
    assert difference(plain(one), plain(other)) == where


@pytest.mark.parametrize(
    "value",
    [
        {"b", "a", "c"},
        {"x": 1, "y": 2},
        float("nan"),
        Shape([Shape(None)]),
        random.Random(3),
        Decimal("1.5"),
        timedelta(3),
        deque([1, 2]),
        (1, "a", 2.5),
        frozenset([(1, 2)]),
    ],
)
def test_equal_contents_are_no_difference(value: object) -> None:
    import copy

    assert difference(plain(value), plain(copy.deepcopy(value))) is None
    backwards = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert difference(plain(value), plain(backwards)) is None


def test_generators_with_other_states_are_other_states() -> None:
    drawn = random.Random(3)
    drawn.random()
    assert str(difference(plain(random.Random(3)), plain(drawn))).startswith(".state")


def test_a_state_that_holds_itself_has_an_end() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert plain(loop) == ["itself"]


# -- what goes wrong


def test_an_expectation_that_fails_shows_the_cluster() -> None:
    with Cluster(3, seed=1) as cluster:
        leader = cluster.start().leader()
        cluster.propose("x")
        began = cluster.now
        with pytest.raises(AssertionError) as raised:
            cluster.expect(lambda: cluster.role(leader) == "down", "the leader is gone", within=1.5)
        lines = str(raised.value).splitlines()
        assert lines[0] == "the leader is gone: not within 1.5 s"
        assert lines[1].startswith("seed 1, at ")
        assert lines[2].split() == ["node", "role", "term", "leader", "committed", "log"]
        assert lines[2 + leader].split() == [str(leader), "leader", "1", str(leader), "2", "'x'"]
        assert any("became" in line or "leader of term 1" in line for line in lines)
        assert cluster.now == pytest.approx(began + 1.5)
        assert cluster.expect(lambda: cluster.now, "it goes on") == cluster.now


def test_what_always_holds_is_watched_for_a_while() -> None:
    with Cluster(3, seed=1) as cluster:
        leader = cluster.start().leader()
        assert cluster.always(lambda: cluster.role(leader) == "leader", "it leads", during=2) is cluster
        cluster.partition({leader})
        with pytest.raises(AssertionError, match=r"^it leads: not any more after [12]\.\d+ s"):
            cluster.always(lambda: cluster.role(leader) == "leader", "it leads", during=5)


def test_a_step_that_the_specification_does_not_allow_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a node votes for whoever asks, also for one whose log lacks what is committed."""
    monkeypatch.setattr(election, "_is_up_to_date", lambda *_: True)

    seen: list[Cluster] = []

    def scenario(seed: int) -> None:
        with Cluster(3, seed=seed) as cluster:
            leader = cluster.start().leader()
            behind = min(cluster.others(leader))
            cluster.partition({behind}).propose("x", at=leader)
            seen.append(cluster)
            cluster.lose_power(leader).heal().advance(10)

    with pytest.raises(Violation) as raised:
        deque(map(scenario, range(50)), maxlen=0)
    assert "last events:" in raised.value.__notes__[0]
    with pytest.raises(ScriptError, match="this cluster is over: it ended with Violation"):
        seen[-1].advance(1)


def test_an_error_of_the_script_inside_a_node_ends_the_run() -> None:
    async def broken(node: object) -> None:
        raise ZeroDivisionError("a mistake")

    with Cluster(1, seed=1) as cluster:
        cluster.start()
        with pytest.raises(ZeroDivisionError):
            cluster.call(broken)
        with pytest.raises(ScriptError, match="over: it ended with ZeroDivisionError: a mistake"):
            cluster.leader()


def address_of(node: Any) -> Any:
    return node.address


def closed(cluster: Cluster) -> Cluster:
    cluster.close()
    return cluster


MISUSE: dict[str, tuple[Callable[[Cluster], object], str]] = {
    "unknown node": (lambda c: c.kill(4), r"there is no node 4: this cluster has \[1, 2, 3\]"),
    "unknown node elsewhere": (lambda c: c.others(9), "no node 9"),
    "not a node": (lambda c: c.partition({"1"}), "no node '1'"),  # type: ignore[arg-type]
    "runs already": (lambda c: c.start(1), "node 1 runs already"),
    "is down": (lambda c: c.kill(1).kill(1), "node 1 does not run: start it first"),
    "is down, so has no log": (lambda c: c.kill(1).log(1), "node 1 does not run"),
    "is down, so takes no request": (lambda c: c.kill(1).propose("x", at=1), "node 1 does not run"),
    "which": (lambda c: c.pause(), "which node"),
    "both sides": (lambda c: c.partition({1, 2}, {2, 3}), "on one side"),
    "itself": (lambda c: c.cut(1, 1), "no link from node 1 to itself"),
    "back in time": (lambda c: c.advance(-1), "time goes forward"),
    "no time": (lambda c: c.advance(float("nan")), "time goes forward"),
    "for ever": (lambda c: c.advance(float("inf")), "not for ever"),
    "no such fault": (
        lambda c: c.chaos(1, faults=("fire",)),
        r"no faults \['fire'\]: choose from \['clock', ",
    ),
    "no machine": (lambda c: c.machine(1), "pass machine="),
    "no nodes": (lambda c: Cluster(0), "at least one node"),
    "after its end": (
        lambda c: closed(c).advance(1),
        "this cluster is over: it was closed",
    ),
    "nothing to await": (
        lambda c: c.call(address_of),
        "asked with what can be awaited, such as node.propose",
    ),
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_is_named(name: str) -> None:
    what, message = MISUSE[name]
    with Cluster(3, seed=1) as cluster:
        cluster.start().leader()
        with pytest.raises(ScriptError, match=message):
            what(cluster)


def test_a_callback_cannot_let_time_pass() -> None:
    async def inside(cluster: Cluster) -> None:
        cluster.advance(1)

    with Cluster(1, seed=1) as cluster:
        cluster.start()
        with pytest.raises(ScriptError, match="time passes already"):
            cluster.call(lambda node: inside(cluster))


# -- chance


def test_chaos_tells_what_happened_and_ends_in_peace() -> None:
    done: list[str] = []

    def work() -> None:
        done.append(cluster.propose(f"{len(done)}").value)

    with Cluster(3, seed=6) as cluster:
        counts = cluster.start().chaos(60, work=work)
        assert sum(count for kind, count in counts.items() if kind in FAULTS) > 10
        assert len(done) > 50
        assert cluster.running == {1, 2, 3}
        assert set(done) <= set(cluster.values(1))
        assert cluster.values(1) == cluster.values(2) == cluster.values(3)
        assert cluster.chaos(5, faults=()) == {}


def test_a_storm_goes_on_while_the_script_does() -> None:
    with Cluster(3, seed=6) as cluster:
        cluster.start().storm(30, ("kill",)).leader()
        cluster.expect(lambda: len(cluster.running) < 3, "someone is killed", within=30)
        cluster.settle()
        assert cluster.running == {1, 2, 3}
        cluster.always(lambda: cluster.running == {1, 2, 3}, "peace lasts", during=40)


# -- nothing is left


def test_nothing_is_left_pending() -> None:
    """Whatever was going on, and however the script ends."""
    from totora.sim import guard

    cluster = Cluster(3, seed=1)

    def script() -> None:
        with cluster:
            leader = cluster.start().leader()
            cluster.partition({leader}).pause(leader)
            _ = cluster.spawn(lambda node: node.propose("x"), at=min(cluster.others(leader)))
            _ = cluster.spawn(lambda node: node.propose("x"), at=leader)
            cluster.storm(10).advance(0.01)
            assert guard._depth == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        script()
    assert cluster.world.loop.is_closed()
    assert not cluster.world.loop._tasks
    assert guard._depth == 0
    cluster.close()


def test_it_runs_where_a_loop_runs_already() -> None:
    """As in a notebook: the loop and the task that are there stand aside, and go on afterwards."""

    async def cell() -> str:
        before = asyncio.current_task(), asyncio.get_running_loop()
        with Cluster(3, seed=1) as cluster:
            cluster.start().propose("x")
            assert (asyncio.current_task(), asyncio.get_running_loop()) == before
            await asyncio.sleep(0)
            return cluster.trace_sha256

    def plainly() -> str:
        with Cluster(3, seed=1) as cluster:
            cluster.start().propose("x")
            return cluster.trace_sha256

    assert asyncio.run(cell()) == plainly()


def test_two_clusters_take_turns() -> None:
    with Cluster(1, seed=1) as one, Cluster(3, seed=2) as other:
        assert one.start().propose("a").value == "a"
        assert other.start().propose("b").value == "b"
        assert one.propose("c").index == 3
        assert (one.values(1), other.values(other.leader())) == (["a", "c"], ["b"])


# -- the public names


@pytest.mark.parametrize("name", totora.sim.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(totora.sim, name)
    assert name == "FAULTS" or (thing.__doc__ or "").strip()


def test_public_methods_of_a_cluster_are_documented() -> None:
    undocumented = [
        name
        for name in dir(Cluster)
        if not name.startswith("_") and not (getattr(Cluster, name).__doc__ or "").strip()
    ]
    assert undocumented == []


def test_dir_lists_what_is_public_and_only_what_is_used_is_loaded() -> None:
    assert dir(totora.sim) == sorted(totora.sim.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Clusters'"):
        _ = totora.sim.Clusters
    script = "import sys, totora.sim; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"asyncio", "totora.sim.world", "pytest"}.isdisjoint(loaded.stdout.split())
