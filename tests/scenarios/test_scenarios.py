"""Scenarios that broke others, with whole nodes: each is a page of a script, and the specification watches every step.

The name of a test is that of its scenario in docs/design/scenarios.md, which tells where it comes from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from totora.aio.node import Node
from totora.config import Settings
from totora.errors import OutcomeUnknown, RaftError, StorageError
from totora.sim import Cluster
from totora.types import Entry


def proposing(value: str) -> Callable[[Node[Any]], Awaitable[Entry[Any]]]:
    return lambda node: node.propose(value)


def terms_of(cluster: Cluster) -> dict[int, int]:
    return {id: cluster.status(id).term for id in cluster.ids}


def has_terms(cluster: Cluster, terms: dict[int, int]) -> bool:
    return terms_of(cluster) == terms


def test_crash_before_vote_persisted() -> None:
    """The leader dies, and so does a voter at each operation of its disk in turn: it never votes twice in a term."""
    for operation in range(6):
        for fate in ("lost", "torn", "kept"):
            with Cluster(3, seed=operation) as cluster:
                old = cluster.start().leader()
                cluster.settle()
                voter = min(cluster.others(old))
                cluster.lose_power(voter, after=operation, fate=fate).kill(old)
                cluster.advance(2)
                if cluster.role(voter) == "down":
                    cluster.start(voter)
                assert cluster.leader() != old


def test_restart_all() -> None:
    """All machines lose power at once, again and again: no term falls, and what was acknowledged is there."""
    with Cluster(3, seed=1, settings=Settings(segment_bytes=4 << 10)) as cluster:
        term, values = 0, []
        for number in range(12):
            cluster.start()
            values.append(f"{number} " + "x" * 500)
            cluster.propose(values[-1])
            now = max(cluster.status(id).term for id in cluster.ids)
            assert now >= term
            term = now
            cluster.lose_power(1, 2, 3)
        cluster.start().settle()
        assert all(cluster.values(id) == values for id in cluster.ids)


def test_duplicate_append() -> None:
    """Every datagram comes twice, and they overtake each other: no old one removes what a later one brought."""
    settings = Settings(segment_bytes=64 << 10, transport="udp")
    with Cluster(3, seed=3, settings=settings) as cluster:
        leader = cluster.start().leader()
        for other in cluster.others(leader):
            cluster.slow(leader, other, delay=0.05, doubled=1.0)
        values = [f"{number}" for number in range(30)]
        asked = []
        for value in values:
            asked.append(cluster.spawn(proposing(value), at=leader))
            cluster.advance(0.01)
        assert [one.result().value for one in asked] == values
        cluster.settle()
        assert all(cluster.values(id) == values for id in cluster.ids)


def test_follower_commit_bound() -> None:
    """A leader that was cut off has a tail of its own when it hears how much is committed: nothing of the tail is."""
    for seed in range(10):
        with Cluster(3, seed=seed) as cluster:
            old = cluster.start().leader()
            cluster.propose("both")
            cluster.partition({old})
            lost = [cluster.spawn(lambda node: node.propose("alone", timeout_s=1), at=old) for _ in range(5)]
            new = cluster.leader()
            for number in range(8):
                cluster.propose(f"{number}", at=new)
            assert all(isinstance(one.error, OutcomeUnknown) for one in lost)
            # Heartbeats overtake what is missing.
            cluster.heal().slow(old, new, delay=0.3).advance(3).settle()
            assert cluster.values(old) == ["both", *(f"{number}" for number in range(8))]


def test_single_node_ack() -> None:
    """The disk hangs: a cluster of one has nothing to tell. What was not synced is gone, and was not acknowledged."""
    with Cluster(1, seed=5) as cluster:
        cluster.start().propose("kept")
        cluster.host(1).writer.stall()
        asked = cluster.spawn(lambda node: node.propose("lost"), at=1)
        cluster.advance(3)
        assert not asked.done
        cluster.lose_power(1, fate="lost").advance(0.1)
        assert isinstance(asked.error, OutcomeUnknown)
        assert cluster.start().settle().values(1) == ["kept"]


def test_lost_unsynced_writes() -> None:
    """Power goes at each operation of the disk in turn, renames of segments among them: what was acknowledged is there."""
    for operation in range(0, 60, 3):
        with Cluster(1, seed=operation, settings=Settings(segment_bytes=4 << 10)) as cluster:
            cluster.start(1).lose_power(1, after=operation, fate="torn" if operation % 2 else "lost")
            acknowledged = []
            for number in range(30):
                try:
                    acknowledged.append(cluster.propose(f"{number} " + "x" * 500, at=1).value)
                except RaftError:
                    break
            cluster.restart(1).settle()
            assert cluster.values(1)[: len(acknowledged)] == acknowledged


def test_lost_unsynced_writes_of_a_killed_process() -> None:
    """The process dies between its write and the sync, the machine later: what was read in between is not there by luck."""
    for operation in range(14):
        with Cluster(1, seed=operation) as cluster:
            cluster.start(1).propose("kept")
            cluster.host(1).gate.armed = operation
            with contextlib.suppress(RaftError):
                while True:
                    cluster.propose("x", at=1, within=1)
            seen = cluster.restart(1).settle().values(1)
            cluster.lose_power(1, fate="lost").start(1).settle()
            assert cluster.values(1) == seen


def test_fsync_eio() -> None:
    """A sync fails once: the node stops there. Nothing that it could not write was ever acknowledged."""
    with Cluster(1, seed=6) as cluster:
        cluster.start().propose("kept")
        cluster.advance(1).host(1).fail_next("sync")
        with pytest.raises(RaftError):
            cluster.propose("lost", at=1)
        cluster.expect(lambda: cluster.role(1) == "down", "it stops at the failure")
        cluster.host(1).lose_power("lost")
        assert cluster.start(1).settle().values(1)[:1] == ["kept"]


def test_midlog_corruption() -> None:
    """Bits turn over in a follower's log, far from its end: it does not start, or serves none of it; a copy brings all back."""
    with Cluster(3, seed=7, settings=Settings(segment_bytes=8 << 10)) as cluster:
        leader = cluster.start().leader()
        values = [f"{number} " + "x" * 500 for number in range(30)]
        for value in values:
            cluster.propose(value, at=leader)
        follower = min(cluster.settle().others(leader))
        refused = 0
        for _ in range(40):
            cluster.kill(follower)
            assert cluster.host(follower).damage(cluster.chance, 64)
            with contextlib.suppress(StorageError):
                cluster.start(follower).advance(1)
            refused += cluster.role(follower) == "down"
            cluster.host(follower).repair()
            assert cluster.settle().values(follower) == values
        assert refused


def test_partial_partition() -> None:
    """Two nodes cannot reach each other, both reach the third: a leader emerges and stays, and everyone is served."""
    for cut in ((1, 2), (1, 3), (2, 3)):
        with Cluster(3, seed=8) as cluster:
            cluster.start().leader()
            cluster.cut(*cut).advance(10)
            settled = partial(has_terms, cluster, terms_of(cluster))
            cluster.always(settled, "terms do not rise any more", during=60)
            (between,) = cluster.others(*cut)
            for id in cluster.ids:
                if cluster.status(id).leader is not None:
                    cluster.propose(f"through {id}", at=id)
            assert f"through {between}" in cluster.values(between)


def test_stalled_disk_leader() -> None:
    """The leader's disk stands still, its heartbeats would go on. It gives way within an election timeout.

    What it took the others hold, so it is kept; they go on without it, and it follows when its disk moves again.
    """
    with Cluster(3, seed=11) as cluster:
        old = cluster.start().leader()
        cluster.settle().advance(1)
        cluster.host(old).writer.stall()
        asked = cluster.spawn(proposing("kept"), at=old)
        cluster.expect(
            lambda: cluster.role(old) != "leader",
            "it gives way within an election timeout",
            within=Settings().election_max_s,
        )
        new = cluster.leader()
        assert new != old
        cluster.propose("later", at=new)
        cluster.host(old).writer.resume()
        assert asked.result().value == "kept"
        cluster.settle()
        assert cluster.values(old) == ["kept", "later"]


def test_wiped_node_returns() -> None:
    """An entry stands on the leader and on a disk that is lost. The empty disk may not help to elect who lacks the entry."""
    with Cluster(3, seed=9) as cluster:
        leader = cluster.start().leader()
        cluster.settle()
        holder, without = sorted(cluster.others(leader))
        cluster.partition({without}).propose("kept", at=leader)
        cluster.wipe(holder).kill(leader).heal().start(holder)
        cluster.always(
            lambda: {cluster.role(without), cluster.role(holder)}.isdisjoint({"leader"}),
            "nobody leads without the entry",
            during=30,
        )
        cluster.start(leader).settle()
        assert cluster.values(without) == ["kept"]


def test_retry_across_leaders() -> None:
    """A follower's append is committed, and the answer never comes. Leaders change, all of them start anew, log files are full.

    It asks again until it gets the answer to its first attempt: it stands in the log once.
    """
    with Cluster(3, seed=10, settings=Settings(segment_bytes=4 << 10)) as cluster:
        leader = cluster.start().leader()
        asking, other = sorted(cluster.settle().others(leader))
        cluster.hold(leader, asking, one_way=True).cut(asking, other)
        asked = cluster.spawn(lambda node: node.propose("once", timeout_s=50), at=asking)
        cluster.expect(lambda: "once" in cluster.values(leader), "it is committed")
        for number in range(40):
            cluster.propose(f"{number} " + "x" * 500, at=leader)
        cluster.lose_power(leader, other).heal().start(leader, other)
        first = asked.result()
        assert first == cluster.settle().log(leader)[0]
        cluster.kill(cluster.leader())
        cluster.leader()
        cluster.propose("next", at=asking)
        cluster.settle()
        assert cluster.values(other).count("once") == cluster.values(other).count("next") == 1
