"""What `Cluster` does to links beside cutting them, over both transports: what is held arrives later, and all of it."""

from __future__ import annotations

from typing import Any

import pytest

from totora.config import Settings
from totora.errors import OutcomeUnknown
from totora.sim import Cluster, ScriptError
from totora.sim.trace import Record, Step

TCP = Settings(segment_bytes=64 << 10)
UDP = Settings(segment_bytes=64 << 10, transport="udp")

both_transports = pytest.mark.parametrize("settings", [TCP, UDP], ids=["tcp", "udp"])


class Received:
    """The messages that nodes took up: of which kind, by whom, from whom."""

    def __init__(self) -> None:
        self.all: list[tuple[str, int, int]] = []

    def __call__(self, record: Record) -> None:
        if isinstance(record, Step) and record.message is not None:
            message: dict[str, Any] = record.message
            assert record.sender is not None
            self.all.append((message["type"], record.node, record.sender))

    def count(self, *, to: int, sender: int) -> int:
        return sum((at, of) == (to, sender) for _, at, of in self.all)


@both_transports
def test_what_is_held_arrives_at_the_release(settings: Settings) -> None:
    """A minute of heartbeats waits on the wire; the follower takes up all of them, and does what the last ones say."""
    received = Received()
    with Cluster(3, seed=5, settings=settings, record=received) as cluster:
        leader = cluster.start().leader()
        follower = min(cluster.others(leader))
        cluster.settle().hold(leader, follower, one_way=True)
        assert f"held: {leader} to {follower}" in str(cluster)
        cluster.advance(0.01)
        before = received.count(to=follower, sender=leader)
        cluster.propose("x", at=leader)
        cluster.advance(60)
        assert received.count(to=follower, sender=leader) == before
        assert cluster.values(follower) == []
        cluster.release(leader, follower, one_way=True).advance(1)
        assert received.count(to=follower, sender=leader) > before + 10
        assert "held:" not in str(cluster)
        cluster.settle()
        assert cluster.values(follower) == ["x"]


@both_transports
def test_a_leader_whose_words_are_held_is_replaced(settings: Settings) -> None:
    """Both ways, to both others: it is cut off, and learns what happened when its answers arrive."""
    with Cluster(3, seed=5, settings=settings) as cluster:
        old = cluster.start().leader()
        for other in cluster.others(old):
            cluster.hold(old, other)
        assert f"held: {min(old, 3)} x" in str(cluster)
        late = cluster.spawn(lambda node: node.propose("late", timeout_s=3), at=old)
        new = cluster.leader()
        assert new != old
        cluster.propose("new", at=new)
        with pytest.raises(OutcomeUnknown):
            late.result()
        cluster.settle()
        assert cluster.values(old)[0] == "new"


def test_healing_releases_and_a_partition_does_not() -> None:
    with Cluster(3, seed=5) as cluster:
        cluster.start().leader()
        cluster.hold(1, 2).partition({1, 2, 3})
        assert "held: 1 x 2" in str(cluster)
        cluster.heal()
        assert "held:" not in str(cluster)
        assert cluster.release(1, 2).leader() in cluster.ids


def test_a_datagram_that_is_cut_off_while_it_is_held_is_lost() -> None:
    received = Received()
    with Cluster(3, seed=5, settings=UDP, record=received) as cluster:
        leader = cluster.start().leader()
        follower = min(cluster.others(leader))
        cluster.hold(leader, follower, one_way=True).advance(0.5)
        before = received.count(to=follower, sender=leader)
        cluster.cut(leader, follower, one_way=True).release(leader, follower).advance(0.5)
        assert received.count(to=follower, sender=leader) == before


def test_datagrams_arrive_twice() -> None:
    """Every one of them; the same traffic over streams arrives once."""
    counts = {}
    for settings in (TCP, UDP):
        for doubled in (0.0, 1.0):
            received = Received()
            with Cluster(2, seed=5, settings=settings, record=received) as cluster:
                leader = cluster.start().leader()
                cluster.slow(1, 2, delay=0.001, doubled=doubled).advance(1)
                began = len(received.all)
                cluster.advance(5)
                assert cluster.leader() == leader
                counts[settings.transport, doubled] = len(received.all) - began
    assert counts["udp", 1.0] > 1.9 * counts["udp", 0.0]
    assert counts["tcp", 1.0] < 1.1 * counts["tcp", 0.0]


def test_a_link_has_two_ends() -> None:
    with Cluster(3, seed=5) as cluster, pytest.raises(ScriptError, match="no link from node 1 to itself"):
        cluster.start().hold(1, 1)
