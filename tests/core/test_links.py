"""Broken links hasten an election, without deposing anybody who is alive (docs/design/failover.md)."""

from __future__ import annotations

import pytest

from totora.config import Settings
from totora.core import effects as fx
from totora.core import events as ev
from totora.core.messages import (
    AppendEntries,
    PreVoteAccepted,
    PreVoteRejected,
    RequestPreVote,
    RequestVote,
    VoteRejected,
)
from totora.core.roles import Follower, PreCandidate

from .cluster import MS, Cluster, sent, store_id

SETTINGS = Settings()
DELAY_NS = SETTINGS.failover_delay_ns


def led() -> Cluster:
    """Three servers, 1 leads, everyone just heard it."""
    c = Cluster(is_founded=True)
    c.elect(1)
    c.advance(150)
    return c


@pytest.mark.parametrize("seed", range(20))
def test_a_dead_leader_is_replaced_in_milliseconds(seed: int) -> None:
    """The kernel resets the links of a killed process: no election timeout is waited for."""
    c = Cluster(5, seed=seed)
    c.elect(1)
    c.advance(150)
    start = c.now
    c.crash(1)
    c.until_leader(within_ms=500)
    assert c.now - start <= 200 * MS
    assert {c.nodes[id].current_term for id in c.nodes if id not in c.down} == {2}


def test_a_follower_that_lost_its_link_to_the_leader_asks_within_the_delay() -> None:
    """A random time of 0 to 30 ms."""
    waits = []
    for seed in range(200):
        c = Cluster(seed=seed, is_founded=True)
        c.elect(1)
        c.step(2, ev.LinkLost(1))
        waits.append(c.nodes[2].deadline() - c.now)
        assert {to for to, m in sent(c.tick(2)) if isinstance(m, RequestPreVote)} == {1, 3}
    assert min(waits) >= 0
    assert max(waits) < DELAY_NS
    assert max(waits) - min(waits) > DELAY_NS * 0.9


def test_a_link_lost_to_anyone_but_the_leader_changes_nothing() -> None:
    """A follower's link to a follower; a leader's; a candidate's."""
    c = led()
    deadline = c.nodes[2].deadline()
    assert c.step(2, ev.LinkLost(3)) == []
    assert c.nodes[2].deadline() == deadline
    assert c.step(1, ev.LinkLost(2)) == []
    assert c.leaders() == [1]


def test_a_voter_that_hears_the_leader_refuses_and_no_term_rises() -> None:
    """One link is reset, leader and voters live: the follower asks again and again, everyone refuses, nothing moves."""
    c = led()
    c.cut = {(1, 2), (2, 1)}
    c.disconnect(1, 2)
    c.advance(20_000)
    assert c.leaders() == [1]
    assert {node.current_term for node in c.nodes.values()} == {1}


def test_while_the_link_is_down_a_refused_follower_asks_again_soon() -> None:
    """Every 30 to 60 ms; not so soon that an answer could not have come."""
    c = led()
    c.cut = {(1, 2), (2, 1)}
    c.disconnect(1, 2)
    c.tick(2)
    for _ in range(5):
        start = c.now
        c.receive(2, 3, PreVoteRejected(1, 1, 2))
        c.tick(2)
        assert DELAY_NS <= c.now - start < 2 * DELAY_NS
        assert c.role(2) == "pre-candidate"


def test_the_leaders_next_message_ends_the_search() -> None:
    """Over whatever link it comes: the leader is heard, the patience is an election timeout again."""
    c = led()
    c.step(2, ev.LinkLost(1))
    c.receive(2, 1, AppendEntries(1, 1, 0, 0, 0, 9))
    role = c.nodes[2].role
    assert isinstance(role, Follower)
    assert (role.leader_lost, role.heard_ns) == (False, c.now)
    assert c.nodes[2].deadline() - c.now >= c.settings.election_min_ns


def test_a_link_that_comes_back_ends_the_hurry() -> None:
    """Before it asked: patience is renewed. While it asks: no more soon than any pre-candidate."""
    c = led()
    c.step(2, ev.LinkLost(1))
    c.step(2, ev.LinkUp(1, store_id(1)))
    assert c.role(2) == "follower"
    assert c.nodes[2].deadline() - c.now >= c.settings.election_min_ns
    c.step(2, ev.LinkLost(1))
    c.tick(2)
    c.step(2, ev.LinkUp(1, store_id(1)))
    role = c.nodes[2].role
    assert isinstance(role, PreCandidate)
    assert not role.leader_lost
    c.tick(2)
    assert c.nodes[2].deadline() - c.now >= c.settings.election_min_ns


def test_a_link_that_comes_back_to_another_peer_does_not_end_the_hurry() -> None:
    """Only the leader's link counts."""
    c = led()
    c.step(2, ev.LinkLost(1))
    deadline = c.nodes[2].deadline()
    c.step(2, ev.LinkUp(3, store_id(3)))
    assert c.nodes[2].deadline() == deadline
    c.tick(2)
    c.step(2, ev.LinkUp(3, store_id(3)))
    role = c.nodes[2].role
    assert isinstance(role, PreCandidate)
    assert role.leader_lost


def test_a_refusal_of_a_higher_term_is_asked_again_soon() -> None:
    """The follower lost the leader, a voter is in a later term: it enters that and asks again at once, not after a timeout."""
    c = led()
    c.step(2, ev.LinkLost(1))
    c.tick(2)
    c.receive(2, 3, PreVoteRejected(5, None, 2))
    assert c.nodes[2].current_term == 5
    assert c.nodes[2].deadline() - c.now <= DELAY_NS
    assert [m for _, m in sent(c.tick(2))] == [RequestPreVote(6, 2, 1, 1)] * 2


def test_a_split_vote_is_retried_soon() -> None:
    """Both survivors stand at once and refuse each other: another round follows within 60 ms, in pre-vote's peace."""
    c = Cluster(is_founded=True)
    c.tick(2)
    c.drop()
    c.receive(2, 3, PreVoteAccepted(1, None))
    assert c.role(2) == "candidate"
    c.step(2, ev.LinkLost(1))
    c.receive(2, 3, VoteRejected(1, None))
    assert DELAY_NS <= c.nodes[2].deadline() - c.now <= 2 * DELAY_NS
    c.tick(2)
    assert c.role(2) == "pre-candidate"


def test_late_refusals_move_nobody() -> None:
    """They reach a follower, and a candidate of a later term."""
    c = led()
    deadline = c.nodes[2].deadline()
    assert c.receive(2, 3, VoteRejected(1, None)) == []
    assert c.nodes[2].deadline() == deadline


def test_a_leader_sends_no_entries_over_a_dead_link_and_all_of_them_over_the_next() -> None:
    """LinkUp makes it find out what the follower has: what was under way may be lost."""
    c = led()
    c.propose(1, b"x")
    c.disconnect(1, 2)
    c.propose(1, b"y")
    assert c.under_way(AppendEntries, to=2) == []
    c.connect(1, 2)
    assert c.leader(1).progress[2].probing
    c.deliver()
    assert c.payloads(2) == [b"x", b"y"]
    assert not c.leader(1).progress[2].probing


def test_a_link_that_is_renewed_while_probing_goes_on_where_it_was() -> None:
    """The follower's log is not known to match; the question is asked again, at the same place."""
    c = Cluster(logs={1: [1, 1, 2], 2: [1, 1, 2], 3: [1]})
    c.partition([1, 2], [3])
    c.elect(1)
    before = c.leader(1).progress[3].next_index
    c.heal()
    c.disconnect(1, 3)
    c.connect(1, 3)
    assert c.leader(1).progress[3].next_index == before
    (envelope,) = c.under_way(AppendEntries, to=3)
    assert isinstance(envelope.message, AppendEntries)
    assert envelope.message.prev_log_index == before - 1
    c.deliver()
    assert c.log(3) == c.log(1)


def test_became_tells_that_the_leader_is_unknown() -> None:
    """While it asks, a server names no leader."""
    c = led()
    c.step(2, ev.LinkLost(1))
    assert c.nodes[2].leader_id == 1
    c.tick(2)
    assert c.found(2, fx.Became)[-1] == fx.Became("pre-candidate", 1, None)


# -- a start


def test_a_server_that_starts_asks_as_soon_as_it_reaches_a_majority() -> None:
    """Of five, two more must be linked; then it waits for as long as after a lost link, not for an election timeout."""
    c = Cluster(5, absent=(2, 3, 4, 5))
    assert c.nodes[1].deadline() >= SETTINGS.election_min_ns
    c.step(1, ev.LinkUp(2, store_id(2)))
    assert c.nodes[1].deadline() >= SETTINGS.election_min_ns
    c.step(1, ev.LinkUp(3, store_id(3)))
    assert c.nodes[1].deadline() - c.now <= DELAY_NS


def test_a_cluster_that_starts_has_a_leader_in_milliseconds() -> None:
    """All at once, as after a loss of power: asked, voted, elected before a tenth of an election timeout is over."""
    for size in (1, 2, 3, 5):
        for seed in range(20):
            c = Cluster(size, seed=seed)
            c.advance(SETTINGS.election_min_s * 200)
            assert len(c.leaders()) == 1, (size, seed)


def test_a_server_that_starts_beside_a_leader_disturbs_nobody() -> None:
    """It is refused, hears the leader and follows: no term rises."""
    c = Cluster()
    c.elect(1)
    term = c.nodes[1].current_term
    c.crash(3)
    c.restart(3)
    c.advance(3_000)
    assert c.leaders() == [1]
    assert {node.current_term for node in c.nodes.values()} == {term}


def test_a_server_that_gave_its_vote_or_heard_a_leader_is_new_no_more() -> None:
    """A link that comes up later does not hurry it."""
    for message in (RequestVote(1, 2, 0, 0), AppendEntries(1, 2, 0, 0, 0, 0)):
        c = Cluster(absent=(2, 3))
        c.receive(1, 2, message)
        c.step(1, ev.LinkUp(2, store_id(2)))
        c.step(1, ev.LinkUp(3, store_id(3)))
        assert c.nodes[1].deadline() - c.now >= SETTINGS.election_min_ns
