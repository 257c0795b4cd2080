"""Time is an argument: deadlines, late Ticks, the check of a leader's quorum (thesis 6.2)."""

from __future__ import annotations

import pytest

from totora.config import Settings
from totora.core import events as ev
from totora.core.messages import AppendEntries, RequestPreVote

from .cluster import MS, Cluster, sent

SETTINGS = Settings()
LATE_NS = SETTINGS.election_min_ns // 2


def test_time_never_runs_backwards() -> None:
    """Whoever drives the core gave it two clocks."""
    c = Cluster()
    c.nodes[1].step(ev.Tick(), 5)
    with pytest.raises(AssertionError, match="backwards"):
        c.nodes[1].step(ev.Tick(), 4)


def test_the_deadline_is_the_next_heartbeat_of_a_leader_and_the_patience_of_others() -> None:
    """`deadline` in each of the roles."""
    alone = Cluster(absent=(2, 3)).nodes[1]
    assert SETTINGS.election_min_ns <= alone.deadline() <= SETTINGS.election_max_ns
    c = Cluster()
    c.tick(1)
    assert c.role(1) == "pre-candidate"
    assert c.nodes[1].deadline() - c.now >= SETTINGS.election_min_ns
    c.deliver(lambda e: e.to == 1 or isinstance(e.message, RequestPreVote))
    assert c.role(1) == "candidate"
    assert c.nodes[1].deadline() - c.now >= SETTINGS.election_min_ns
    c.deliver()
    assert c.nodes[1].deadline() == c.now + SETTINGS.heartbeat_ns


def test_a_tick_always_moves_the_deadline() -> None:
    """In a cluster of which nobody answers, and in one that works: a Tick at the deadline never asks for the same again."""
    for size, cut in ((1, False), (3, True), (3, False)):
        c = Cluster(size)
        if cut:
            c.partition([1], [2], [3])
        for _ in range(200):
            id = min(c.nodes, key=lambda id: c.nodes[id].deadline())
            due = c.nodes[id].deadline()
            c.tick(id)
            c.deliver()
            assert c.nodes[id].deadline() > due


def test_a_followers_late_tick_restarts_its_patience() -> None:
    """The process was held up by over half a timeout: messages of a live leader may wait, unread. It does not stand."""
    c = Cluster()
    c.now = c.nodes[1].deadline() + LATE_NS + 1
    assert c.step(1, ev.Tick()) == []
    assert c.role(1) == "follower"
    assert c.nodes[1].deadline() - c.now >= SETTINGS.election_min_ns


def test_a_tick_that_is_a_little_late_counts() -> None:
    """Half a timeout and no more."""
    c = Cluster()
    c.now = c.nodes[1].deadline() + LATE_NS
    c.step(1, ev.Tick())
    assert c.role(1) == "pre-candidate"


def test_a_leader_that_no_majority_answers_gives_way() -> None:
    """Check-quorum: within two election timeouts, in its own term, without a leader to name."""
    c = Cluster()
    c.elect(1)
    c.partition([1], [2, 3])
    start = c.now
    while 1 in c.leaders():
        assert c.now - start <= 2 * SETTINGS.election_min_ns
        c.tick(1)
    assert (c.role(1), c.nodes[1].current_term, c.nodes[1].leader_id) == ("follower", 1, None)
    assert c.nodes[1].deadline() - c.now >= SETTINGS.election_min_ns


def test_a_leader_that_a_majority_answers_stays() -> None:
    """Two of five are gone."""
    c = Cluster(5)
    c.elect(1)
    c.partition([1, 2, 3], [4], [5])
    c.advance(20_000)
    assert 1 in c.leaders()
    assert c.nodes[1].current_term == 1


def test_answers_that_refuse_count_as_answers() -> None:
    """A follower that is behind is alive."""
    c = Cluster(logs={1: [1, 1, 2], 2: [1, 1, 2], 3: [1]})
    c.partition([1, 2], [3])
    c.elect(1)
    before = c.now
    c.heal()
    c.advance(120)
    assert c.leader(1).progress[3].contact_ns > before


def test_a_late_leader_asks_before_it_believes_that_nobody_is_there() -> None:
    """It was held up for ten seconds, and its hearing too: it sends a heartbeat and waits another timeout for answers."""
    c = Cluster()
    c.elect(1)
    c.now += 10_000 * MS
    effects = c.step(1, ev.Tick())
    assert [to for to, m in sent(effects) if isinstance(m, AppendEntries)] == [2, 3]
    assert c.leaders() == [1]
    c.advance(SETTINGS.election_min_ns / MS + 1, deliver=False)
    assert c.leaders() == [], "this time nobody answered"


def test_a_late_leader_that_is_answered_stays() -> None:
    """The same, but the followers were held up as well and answer now."""
    c = Cluster()
    c.elect(1)
    c.now += 10_000 * MS
    c.step(1, ev.Tick())
    c.deliver()
    c.advance(5_000)
    assert (c.leaders(), c.nodes[1].current_term) == ([1], 1)
