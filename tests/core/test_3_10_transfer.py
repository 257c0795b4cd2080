"""Thesis 3.10: leadership transfer. And a leader whose disk stands still gives way."""

from __future__ import annotations

import pytest

from totora.config import Settings
from totora.core import effects as fx
from totora.core import events as ev
from totora.core.messages import (
    AppendAccepted,
    AppendEntries,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteAccepted,
    VoteRejected,
)
from totora.core.roles import Candidate, Follower
from totora.errors import ProtocolError

from .cluster import MS, Cluster, chosen, sent

SETTINGS = Settings()


def led(size: int = 3) -> Cluster:
    """Node 1 leads, everyone just heard it and holds everything."""
    c = Cluster(size, is_founded=True)
    c.elect(1)
    c.advance(150)
    return c


def ask(c: Cluster, target: int | None, id: int = 1, number: int = 1) -> list[fx.Effect]:
    return c.step(id, ev.TransferRequested(("test", number), target))


def refusals(c: Cluster, id: int = 1) -> list[str]:
    return [effect.why for effect in c.found(id, fx.TransferRefused)]


def propose(c: Cluster, number: int, payload: bytes = b"x", id: int = 1) -> list[fx.Effect]:
    """Entries of no session."""
    body = len(payload).to_bytes(4, "little") + payload
    return c.step(id, ev.Proposed(("test", 100 + number), 0, 0, 1, 0, body))


def refused(effects: list[fx.Effect]) -> list[str]:
    return [effect.reason for effect in chosen(effects, fx.Refused)]


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("named", [True, False])
def test_the_target_leads_after_a_few_messages(size: int, named: bool) -> None:
    """No time passes, nobody waits for a timeout, the term rises by one; the no-op of the new leader commits."""
    c = led(size)
    before = c.now
    ask(c, 2 if named else None)
    assert [e.message for e in c.under_way(TimeoutNow)] == [TimeoutNow(1, 1)]
    c.deliver()
    (leader,) = c.leaders()
    assert leader == 2 if named else leader != 1
    assert c.now == before
    assert {node.current_term for node in c.nodes.values()} == {2}
    assert c.nodes[leader].commit_index == c.nodes[leader].log.last_index
    assert refusals(c) == []
    c.check_logs()


def test_the_target_stands_at_once_and_says_with_whose_consent() -> None:
    """No pre-vote; its term and vote are on disk before it asks."""
    c = led()
    c.held.add(2)
    assert sent(c.receive(2, 1, TimeoutNow(1, 1))) == [
        (peer, RequestVote(2, 2, c.nodes[2].log.last_index, 1, True)) for peer in (1, 3)
    ]
    assert c.under_way(RequestVote) == []
    assert c.under_way(RequestPreVote) == []
    c.release(2)
    assert len(c.under_way(RequestVote)) == 2


def test_a_voter_that_hears_the_leader_votes_with_its_consent_alone() -> None:
    """And the leader itself does: it gives way."""
    c = led()
    last = c.nodes[3].log.last_index
    assert sent(c.receive(3, 2, RequestVote(2, 2, last, 1))) == [(2, VoteRejected(1, 1))]
    assert sent(c.receive(1, 2, RequestVote(2, 2, last, 1))) == [(2, VoteRejected(1, 1))]
    assert sent(c.receive(3, 2, RequestVote(2, 2, last, 1, True))) == [(2, VoteAccepted(2, None))]
    assert sent(c.receive(1, 2, RequestVote(2, 2, last, 1, True))) == [(2, VoteAccepted(2, None))]
    assert c.leaders() == []


@pytest.mark.parametrize("holds", [1, 0])
def test_consent_replaces_neither_a_log_nor_a_vote(holds: int) -> None:
    """A log that lacks an entry gets no vote; who voted for another in this term does not vote again."""
    c = led()
    last = c.nodes[3].log.last_index
    assert sent(c.receive(3, 2, RequestVote(2, 2, last - holds, 1 if holds else 0, True))) == [
        (2, VoteRejected(2, None))
    ]
    assert sent(c.receive(3, 1, RequestVote(2, 1, last, 1, True))) == [(1, VoteAccepted(2, None))]
    assert sent(c.receive(3, 2, RequestVote(2, 2, last, 1, True))) == [(2, VoteRejected(2, None))]


def test_a_target_that_lacks_entries_gets_them_first() -> None:
    """Proposals are taken until all that is there has left, and then no more until it ends."""
    c = led()
    c.cut = {(1, 2), (2, 1)}
    propose(c, 1)
    c.deliver()
    lost = c.log(1)[-1]
    c.cut.clear()
    c.disconnect(1, 2)
    c.connect(1, 2)
    ask(c, 2)
    assert c.under_way(TimeoutNow) == [], "it lacks an entry"
    assert refused(propose(c, 2)) == [], "the probe is not answered, so not all has left"
    transfer = c.leader(1).transfer
    assert transfer is not None
    while not transfer.closed:
        c.hand_over(c.messages.pop(0))
    assert refused(propose(c, 3)) == ["transfer"]
    c.deliver()
    assert c.leaders() == [2]
    assert lost in c.log(2)
    assert c.payloads(2) == [b"x", b"x"]


def test_what_stands_in_the_log_is_answered_while_it_hands_over() -> None:
    """A retry is no new entry."""
    c = led()
    body = b"\1\0\0\0x"
    first = c.step(1, ev.Proposed(("test", 5), 7 << 20, 1, 1, 99, body))
    (appended,) = chosen(first, fx.Append)
    c.deliver()
    ask(c, 2)
    again = c.step(1, ev.Proposed(("test", 6), 7 << 20, 1, 1, 99, body))
    assert [(a.first_index, a.term) for a in chosen(again, fx.Append)] == [
        (appended.first_index, appended.term)
    ]
    fresh = c.step(1, ev.Proposed(("test", 7), 7 << 20, 2, 1, 99, body))
    assert refused(fresh) == ["transfer"]


def test_it_is_given_up_after_an_election_timeout_and_the_leader_goes_on() -> None:
    """The target is deaf: it is reminded with each heartbeat, then the leader takes proposals again."""
    c = led()
    c.cut = {(1, 2)}
    ask(c, 2)
    ask(c, 2, number=2)
    start = c.now
    reminded = 0
    while not refusals(c):
        c.tick(1)
        reminded += len(c.under_way(TimeoutNow))
        c.deliver()
        assert refused(propose(c, 0)) == ["transfer"] or refusals(c)
    assert c.now - start == SETTINGS.election_min_ns
    assert refusals(c) == ["node 2 did not stand for election within an election timeout"] * 2
    assert reminded >= SETTINGS.election_min_ns // SETTINGS.heartbeat_ns - 1
    assert c.leaders() == [1]
    assert refused(propose(c, 1)) == []


def test_a_target_that_is_lost_is_given_up_at_once() -> None:
    c = led()
    ask(c, 2)
    c.step(1, ev.LinkLost(3))
    assert refusals(c) == []
    c.step(1, ev.LinkLost(2))
    assert refusals(c) == ["node 2 cannot be reached any more"]
    assert refused(propose(c, 1)) == []


def test_what_cannot_be_is_refused_with_the_reason() -> None:
    c = led()
    ask(c, 1)
    ask(c, 9)
    ask(c, None, id=2)
    assert refusals(c) == ["node 1 leads already", "node 9 is no voter"]
    assert refusals(c, 2) == ["node 2 does not lead"]
    ask(c, 2)
    ask(c, 3)
    assert refusals(c)[2:] == ["node 2 is taking over"]
    c = led()
    c.step(1, ev.LinkLost(2))
    ask(c, 2)
    c.step(1, ev.LinkLost(3))
    ask(c, None)
    assert refusals(c) == ["node 2 cannot be reached", "no other voter can be reached"]
    alone = Cluster(1, is_founded=True)
    alone.elect(1)
    ask(alone, None)
    assert refusals(alone) == ["no other voter can be reached"]


def test_without_a_name_it_goes_to_whoever_holds_most() -> None:
    c = led(5)
    c.cut = {(1, peer) for peer in (2, 3, 5)}
    propose(c, 1)
    c.deliver()
    c.cut.clear()
    ask(c, None)
    assert [e.to for e in c.under_way(TimeoutNow)] == [4]


@pytest.mark.parametrize(("term", "leader"), [(0, 1), (1, 3)])
def test_an_order_of_nobody_who_leads_is_passed_over(term: int, leader: int) -> None:
    """Of a former term; of a node that this one does not follow."""
    c = led()
    assert sent(c.receive(2, leader, TimeoutNow(term, leader))) == []
    assert isinstance(c.nodes[2]._state.role, Follower)


def test_what_no_correct_node_says_is_an_error() -> None:
    c = led()
    with pytest.raises(ProtocolError, match="hands over for node 3"):
        c.receive(2, 1, TimeoutNow(1, 3))
    with pytest.raises(ProtocolError, match="which this node leads"):
        c.receive(1, 2, TimeoutNow(1, 2))


def test_a_late_order_deposes_nobody() -> None:
    """It was given up, and another leads a later term."""
    c = led()
    ask(c, 2)
    (late,) = c.under_way(TimeoutNow)
    c.messages.remove(late)
    c.step(1, ev.LinkLost(2))
    c.step(1, ev.LinkUp(2, bytes([2]) * 16))
    ask(c, 3, number=2)
    c.deliver()
    assert c.leaders() == [3]
    c.messages.append(late)
    c.deliver()
    assert c.leaders() == [3]
    assert {node.current_term for node in c.nodes.values()} == {2}


def test_a_candidate_with_consent_that_loses_asks_as_anyone_does() -> None:
    """Nobody answers it: after its timeout it asks for pre-votes first."""
    c = led()
    c.receive(2, 1, TimeoutNow(1, 1))
    assert isinstance(c.nodes[2]._state.role, Candidate)
    c.messages.clear()
    assert {type(m) for _, m in sent(c.tick(2))} == {RequestPreVote}


# -- storage


def test_a_leader_whose_disk_stands_still_gives_way_within_an_election_timeout() -> None:
    """Its heartbeats would go on for ever, and nothing of its own be committed (hashicorp#683)."""
    c = led()
    c.held.add(1)
    propose(c, 1)
    c.deliver()
    start = c.now
    while c.leaders() == [1]:
        c.tick(1)
        c.deliver(lambda e: isinstance(e.message, AppendEntries | AppendAccepted))
    assert SETTINGS.election_min_ns < c.now - start <= SETTINGS.election_max_ns
    assert c.nodes[1].current_term == 1
    c.until_leader(within_ms=5_000)
    assert c.leaders() != [1]
    assert b"x" in c.payloads(c.leaders()[0])


def test_a_disk_that_is_slow_but_moves_keeps_its_leader() -> None:
    """Each write takes most of an election timeout, and there is always another."""
    c = led()
    c.held.add(1)
    for number in range(10):
        propose(c, number)
    for _ in range(9):
        until = c.now + SETTINGS.election_min_ns * 9 // 10
        while c.nodes[1].deadline() < until:
            c.tick(1)
            c.deliver()
        c.now = until
        c.write(1)
        c.deliver()
    assert c.leaders() == [1]


@pytest.mark.parametrize(("size", "lost"), [(1, ()), (2, ()), (3, (3,))])
def test_a_leader_that_the_others_cannot_do_without_stays(size: int, lost: tuple[int, ...]) -> None:
    """They could elect nobody: it waits for its disk."""
    c = led(size)
    for peer in lost:
        c.step(1, ev.LinkLost(peer))
    c.held.add(1)
    propose(c, 1)
    for _ in range(50):
        c.tick(1)
        c.deliver()
    assert c.leaders() == [1]
    c.release(1)
    c.deliver()
    assert c.nodes[1].commit_index == c.nodes[1].log.last_index


def test_a_disk_that_was_idle_is_not_taken_for_a_stalled_one() -> None:
    c = led()
    c.advance(20_000)
    c.held.add(1)
    propose(c, 1)
    c.deliver()
    c.tick(1)
    c.deliver()
    assert c.leaders() == [1]
    c.release(1)
    c.advance(5_000)
    assert c.leaders() == [1]
    assert c.now >= 25_000 * MS
