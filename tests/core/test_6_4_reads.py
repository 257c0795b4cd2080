"""Thesis 6.4: linearizable reads by read index, batched. The harness compares every index with what was committed."""

from __future__ import annotations

import pytest

from totora.core import effects as fx
from totora.core import reads
from totora.core.messages import AppendAccepted, AppendEntries

from .cluster import Cluster


def led(size: int = 3) -> Cluster:
    c = Cluster(size, is_founded=True)
    c.elect(1)
    return c


def test_6_4_a_read_index_is_given_out_once_a_majority_confirmed_leadership() -> None:
    """A heartbeat goes out, one follower answers: with the leader that is a majority of three."""
    c = led()
    c.propose(1, b"x")
    c.deliver()
    key = c.read(1)
    assert c.found(1, fx.ReadReady) == []
    c.deliver(lambda e: e.to == 2)
    c.deliver(lambda e: e.sender == 2)
    assert c.found(1, fx.ReadReady) == [fx.ReadReady(key, 2)]


def test_6_4_answers_to_earlier_heartbeats_do_not_confirm() -> None:
    """They were sent before the read arrived: another may have been elected since."""
    c = led()
    c.tick(1)
    c.deliver(lambda e: e.to != 1)
    c.read(1)
    c.deliver(lambda e: e.to == 1 and isinstance(e.message, AppendAccepted))
    assert c.found(1, fx.ReadReady) == []
    c.deliver()
    assert len(c.found(1, fx.ReadReady)) == 1


def test_6_4_a_majority_not_less_confirms() -> None:
    """Of five, the leader and one are too few; one that answers twice is still one."""
    c = led(5)
    c.read(1)
    c.deliver(lambda e: e.to == 2)
    (answer,) = c.drop(lambda e: e.sender == 2)
    c.drop()
    for _ in range(3):
        c.hand_over(answer)
    assert c.found(1, fx.ReadReady) == []
    assert isinstance(answer.message, AppendAccepted)
    c.receive(1, 3, answer.message)
    assert len(c.found(1, fx.ReadReady)) == 1


def test_read_before_noop() -> None:
    """A new leader answers no read before an entry of its own term is committed.

    Its predecessor committed entry 2 and died before anyone knew; the successor's commit_index is 1. A read must see 2.
    """
    c = led()
    c.propose(1, b"x")
    c.deliver()
    assert (c.nodes[1].commit_index, c.nodes[2].commit_index) == (2, 1)
    c.crash(1)
    c.elect(2, quietly=True)
    key = c.read(2)
    term = c.nodes[2].current_term
    c.receive(2, 3, AppendAccepted(term, 2, 0, 99))
    assert c.found(2, fx.ReadReady) == []
    c.deliver()
    assert c.found(2, fx.ReadReady) == [fx.ReadReady(key, 3)]


def test_6_4_read_contexts_are_not_reused_by_a_later_leadership() -> None:
    """Rounds count from 1 in every leadership; an answer of an earlier term confirms nothing (etcd#20418)."""
    c = led()
    for _ in range(5):
        c.tick(1)
        c.deliver()
    late = AppendAccepted(1, 1, 1, 5)
    c.elect(2)
    c.elect(1)
    c.partition([1], [2, 3])
    c.read(1)
    for peer in (2, 3):
        c.receive(1, peer, late)
    assert c.found(1, fx.ReadReady) == []


def test_6_4_a_leader_that_was_cut_off_answers_no_read() -> None:
    """The others have another leader and have committed more: the read is refused when the office is given up."""
    c = led()
    c.partition([1], [2, 3])
    c.elect(2)
    c.propose(2, b"x")
    c.deliver()
    keys = [c.read(1), c.read(1)]
    c.deliver()
    assert c.found(1, fx.ReadReady) == []
    c.heal()
    c.advance(300)
    assert c.found(1, fx.ReadRefused) == [fx.ReadRefused(key) for key in keys]


def test_6_4_only_a_leader_is_asked() -> None:
    """Everyone else refuses at once."""
    c = led()
    key = c.read(2)
    assert c.found(2, fx.ReadRefused) == [fx.ReadRefused(key)]


def test_6_4_reads_that_arrive_during_a_round_share_the_next() -> None:
    """A hundred reads take two rounds of heartbeats, not a hundred."""
    c = led()
    before = c.leader(1).round
    for _ in range(100):
        c.read(1)
    assert len(c.under_way(AppendEntries)) == 2
    c.deliver()
    assert len(c.found(1, fx.ReadReady)) == 100
    assert c.leader(1).round == before + 2


def test_6_4_a_lost_round_is_confirmed_by_a_later_heartbeat() -> None:
    """Its messages are lost; the next regular heartbeat's answers are newer still."""
    c = led()
    key = c.read(1)
    c.drop()
    c.advance(101)
    assert [ready.key for ready in c.found(1, fx.ReadReady)] == [key]


def test_6_4_a_cluster_of_one_answers_at_once() -> None:
    """It is its own majority."""
    c = led(1)
    key = c.read(1)
    assert c.found(1, fx.ReadReady) == [fx.ReadReady(key, 1)]


def test_6_4_reads_of_a_cluster_of_one_wait_for_its_no_op() -> None:
    """The no-op is not durable, so not committed."""
    c = Cluster(1, is_founded=True)
    c.hold(1)
    c.tick(1)
    c.write(1)
    assert c.role(1) == "leader"
    key = c.read(1)
    assert c.found(1, fx.ReadReady) == []
    c.release(1)
    assert c.found(1, fx.ReadReady) == [fx.ReadReady(key, 1)]


def test_6_4_reads_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """While no round can begin they pile up to a bound; beyond it they are refused as too many."""
    monkeypatch.setattr(reads, "READS_WAITING_MAX", 3)
    c = Cluster(is_founded=True)
    c.elect(1, quietly=True)
    keys = [c.read(1) for _ in range(5)]
    assert c.found(1, fx.ReadRefused) == [fx.ReadRefused(key, overloaded=True) for key in keys[3:]]
    c.deliver()
    assert [ready.key for ready in c.found(1, fx.ReadReady)] == keys[:3]


def test_6_4_a_read_costs_no_write() -> None:
    """Neither on the leader nor on the followers."""
    c = led()
    c.propose(1, b"x")
    c.deliver()
    for id in c.nodes:
        c.hold(id)
    c.read(1)
    c.deliver()
    assert len(c.found(1, fx.ReadReady)) == 1
    assert all(c.unwritten(id) == [] for id in c.nodes)


def test_6_4_a_round_gives_out_the_index_as_of_its_beginning() -> None:
    """What is committed while it is under way need not be seen; entries sent since confirm it as heartbeats do."""
    c = led()
    key = c.read(1)
    c.propose(1, b"x")
    c.drop(lambda e: isinstance(e.message, AppendEntries) and not e.message.batches)
    c.deliver()
    assert c.nodes[1].commit_index == 2
    assert c.found(1, fx.ReadReady) == [fx.ReadReady(key, 1)]


def test_6_4_a_heartbeat_carries_what_the_follower_is_known_to_hold() -> None:
    """So it never conflicts and needs no order with entries that are under way."""
    c = led()
    c.propose(1, b"x")
    c.drop()
    c.read(1)
    beats = [e.message for e in c.under_way(AppendEntries)]
    assert beats == [AppendEntries(1, 1, 1, 1, 1, c.leader(1).round)] * 2
