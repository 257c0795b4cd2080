"""Engines joined in memory: any node takes any request, and each has one outcome, whoever leads and whatever is lost."""

from __future__ import annotations

import msgspec
import pytest

from tests.session.cluster import MS, Asked, Client, Cluster, Envelope, S, is_kind, is_to
from totora.config import Settings
from totora.core import summary
from totora.core.batch import HEADER_BYTES, join_payloads
from totora.core.messages import (
    AppendEntries,
    Propose,
    ProposeAccepted,
    ProposeRejected,
    ReadAccepted,
    ReadRejected,
    RequestRead,
)
from totora.errors import (
    LogMismatch,
    NodeStopped,
    OutcomeUnknown,
    ProtocolError,
    RaftError,
    SessionExpired,
    Unavailable,
)
from totora.session import proposals
from totora.session import relays as module
from totora.session.proposals import RETRY_NS
from totora.session.units import Appended

UDP = Settings(transport="udp")


@pytest.fixture
def cluster() -> Cluster:
    """Three nodes, node 1 leads."""
    cluster = Cluster()
    cluster.elect(1)
    return cluster


def values(cluster: Cluster) -> list[bytes]:
    return list(cluster.log_of_all().values())


# -- any node takes any request


def test_any_node_takes_any_request(cluster: Cluster) -> None:
    """Appends and reads at the leader and at followers, several entries each."""
    appends = [cluster.append(id, b"%d" % id, b"also %d" % id) for id in (1, 2, 3)]
    cluster.settle()
    assert [asked.appended.term for asked in appends] == [1, 1, 1]
    reads = [cluster.read(id) for id in (1, 2, 3)]
    cluster.settle()
    assert [asked.outcome for asked in reads] == [7, 7, 7]
    cluster.advance(100)
    cluster.check_outcomes()
    assert len(values(cluster)) == 6


def test_one_node_alone_serves_itself() -> None:
    cluster = Cluster(1)
    cluster.elect(1)
    append = cluster.append(1, b"x")
    read = cluster.read(1)
    assert read.outcome == 1
    assert append.outcome is None, "not before its write"
    cluster.settle()
    assert append.appended == Appended(2, 1)


def test_what_a_node_applies_answers_its_own_proposal(cluster: Cluster) -> None:
    """The leader's answers are lost, and its own log says the same; what had no room is handed over."""

    def arrives(envelope: Envelope) -> bool:
        return not isinstance(envelope.message, ProposeAccepted)

    asked = [cluster.append(2, b"%d" % n) for n in range(proposals.UNITS_IN_FLIGHT_MAX + 1)]
    cluster.advance(200, wanted=arrives)
    assert [one.outcome for one in asked] == [None] * len(asked)
    engine = cluster.engine(2)
    assert engine.raft.commit_index == len(asked), (
        "the last one had no room, the first entry is a leader's own"
    )
    for batch in cluster.hosts[2].log():
        engine.applied(batch)
    assert [one.appended.first_index for one in asked[:-1]] == list(range(2, len(asked) + 1))
    assert asked[-1].outcome is None
    cluster.settle()
    assert asked[-1].appended.first_index == len(asked) + 1
    cluster.check_outcomes()


def test_requests_of_one_turn_travel_together(cluster: Cluster) -> None:
    """One Propose, one batch, one write, at a follower as at the leader."""
    cluster.sent.clear()
    asked = [cluster.append(2, b"%d" % n, flush=False) for n in range(50)]
    cluster.engine(2).flush()
    cluster.settle()
    assert [a.appended.first_index for a in asked] == list(range(2, 52))
    assert len([e for e in cluster.sent if isinstance(e.message, Propose)]) == 1


def test_what_is_proposed_during_a_write_rides_in_the_next_one(cluster: Cluster) -> None:
    host = cluster.hosts[1]
    for n in range(5):
        cluster.append(1, b"%d" % n)
    assert host.writing is not None
    assert len(host.writing) == 1
    cluster.write(1)
    assert host.writing is not None
    assert len(host.writing) == 4


def test_10_2_1_nothing_is_answered_before_the_write_it_rests_on(cluster: Cluster) -> None:
    """A node whose disk is held acknowledges nothing, be it the leader itself; one disk is no majority."""
    for held, released in (({2, 3}, {3}), ({1, 3}, {3}), ({1, 2}, {1})):
        cluster.held = held
        asked = cluster.append(1, b"x of %d" % cluster.clock.now)
        cluster.settle()
        cluster.advance(100)
        assert asked.outcome is None
        cluster.held = released
        cluster.settle()
        assert asked.acknowledged
        cluster.held = set()
        cluster.advance(100)


def test_a_request_is_handed_on_as_soon_as_the_answer_it_waits_for_comes(cluster: Cluster) -> None:
    """Two conditional appends at a follower: the second waits for the first, and for no tick."""
    one = cluster.append(2, b"one", condition=(0, 0))
    two = cluster.append(2, b"two", condition=(2, 1))
    three = cluster.append(2, b"three")
    cluster.settle()
    assert [a.appended.first_index for a in (one, two, three)] == [2, 3, 4]


def test_a_full_window_moves_on_with_each_answer(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "UNITS_IN_FLIGHT_MAX", 2)
    for id in (1, 2):
        asked = [cluster.append(id, b"%d of %d" % (n, id)) for n in range(10)]
        cluster.settle()
        assert all(a.outcome is not None for a in asked), "at one moment of the clock"


# -- leaders that come and go


def test_a_leader_dies_while_requests_are_under_way(cluster: Cluster) -> None:
    """Some were appended and replicated, some reached the leader alone, some never left: each is applied once, in order."""
    replicated = [cluster.append(2, b"r%d" % n) for n in range(3)]
    cluster.deliver(is_to(1, Propose))
    cluster.deliver(is_to(3, AppendEntries))
    cluster.write(3)
    alone = [cluster.append(2, b"a%d" % n) for n in range(3)]
    cluster.deliver(is_to(1, Propose))
    never = [cluster.append(2, b"n%d" % n) for n in range(3)]
    asked = replicated + alone + never
    assert all(a.outcome is None for a in asked)
    cluster.messages.clear()
    cluster.crash(1)
    leader = cluster.lead()
    cluster.advance(500)
    assert leader == 3, "it alone holds what was replicated"
    places = [a.appended.first_index for a in asked]
    assert places == sorted(places)
    assert [a.appended.term for a in replicated] == [1, 1, 1], (
        "answered by the place where the former leader put it"
    )
    cluster.restart(1)
    cluster.advance(500)
    cluster.check_outcomes()


def test_a_deposed_leader_gives_its_own_requests_to_the_next_one(cluster: Cluster) -> None:
    """What only the old leader appended is overwritten, and appended anew under the same numbers."""
    cluster.partition([1], [2, 3])
    asked = [cluster.append(1, b"%d" % n) for n in range(3)]
    read = cluster.read(1)
    cluster.advance(4_000)
    assert all(a.outcome is None for a in asked)
    cluster.heal()
    leader = cluster.lead()
    assert leader != 1
    cluster.advance(900)
    assert all(a.appended.term > 1 for a in asked)
    assert read.outcome is not None
    assert not isinstance(read.outcome, RaftError)
    cluster.check_outcomes()


def test_who_loses_the_office_says_that_it_does_not_know(cluster: Cluster) -> None:
    """Nobody answers 1 any more: what others gave it may be in a log, so it is `appended`; it waits for nothing."""
    askers: tuple[int | Client, ...] = (2, cluster.client(1), 1)
    asked = [cluster.append(by, b"%d" % n, timeout_ms=30_000) for n, by in enumerate(askers)]
    cluster.deliver(is_to(1, Propose))
    quiet = is_kind(Propose, ProposeRejected)
    cluster.sent.clear()
    cluster.advance(2_500, wanted=lambda e: quiet(e) and e.to_id != 2)
    first = {
        e.to_id: e.message.appended
        for e in reversed(cluster.sent)
        if isinstance(e.message, ProposeRejected) and e.message.reason == "not_leader"
    }
    assert first == {2: True, None: True}
    assert all(a.outcome is None for a in asked)


def test_a_link_that_breaks_loses_nothing(cluster: Cluster) -> None:
    """What was under way on it, in either direction, is handed over again once it is up."""
    call_lost = cluster.append(2, b"call lost")
    cluster.take(is_to(1, Propose))
    answer_lost = cluster.append(3, b"answer lost")
    read_lost = cluster.read(3)
    cluster.take(is_to(1, RequestRead))
    cluster.settle(lambda envelope: not isinstance(envelope.message, ProposeAccepted))
    assert cluster.take(is_to(3, ProposeAccepted))
    for id in (2, 3):
        cluster.unlink(1, id)
        cluster.link(1, id)
    cluster.settle()
    assert call_lost.acknowledged
    assert answer_lost.acknowledged
    assert read_lost.outcome == 2
    cluster.check_outcomes()


def test_a_refusal_by_a_node_that_no_longer_leads_is_tried_again(cluster: Cluster) -> None:
    """Node 3 does not know yet that node 1 was deposed."""
    cluster.partition([1, 3], [2])
    cluster.advance(50)
    cluster.heal()
    cluster.clock.now += 3 * S
    cluster.engine(1).tick()
    cluster.engine(1).tick()
    cluster.clock.now += 3 * S
    cluster.messages.clear()
    asked, read = cluster.append(3, b"x", timeout_ms=30_000), cluster.read(3, timeout_ms=30_000)
    cluster.messages = [e for e in cluster.messages if isinstance(e.message, Propose | RequestRead)]
    cluster.advance(10_000)
    assert asked.acknowledged
    assert read.outcome is not None
    cluster.check_outcomes()


def test_refused_reads_and_appends_are_asked_again_without_another_leader(cluster: Cluster) -> None:
    """A refusal that is out of date: whoever got it asks again after a pause, by itself."""
    asked, read = cluster.append(2, b"x"), cluster.read(2)
    calls = cluster.take(is_to(1, Propose)) + cluster.take(is_to(1, RequestRead))
    for call in calls:
        answer: ProposeRejected | ReadRejected
        if isinstance(call.message, Propose):
            answer = ProposeRejected(1, None, call.message.request_id, "not_leader")
        else:
            assert isinstance(call.message, RequestRead)
            answer = ReadRejected(1, None, call.message.request_id, "not_leader")
        cluster.engine(2).message(1, answer)
    cluster.settle()
    assert asked.outcome is None
    cluster.advance(RETRY_NS / MS)
    assert asked.acknowledged
    assert read.outcome is not None


# -- doubles and late copies


def test_8_a_doubled_propose_is_appended_once(cluster: Cluster) -> None:
    """At once, after commitment, and at a new leader."""
    asked = cluster.append(2, b"x")
    (call,) = cluster.take(is_to(1, Propose))
    for _ in range(3):
        cluster.hand_over(call)
    cluster.settle()
    cluster.hand_over(call)
    cluster.settle()
    assert asked.appended == Appended(2, 1)
    cluster.crash(1)
    assert isinstance(call.message, Propose)
    cluster.engine(cluster.lead()).message(2, call.message)
    cluster.advance(200)
    assert values(cluster) == [b"x"]


def test_8_a_late_copy_after_the_sender_gave_up_is_appended_at_most_once(cluster: Cluster) -> None:
    """It may still take effect, as was said; once, and before all that its sender appends afterwards."""
    gave_up = cluster.append(2, b"late", timeout_ms=100)
    (call,) = cluster.take(is_to(1, Propose))
    cluster.advance(150)
    assert isinstance(gave_up.error, OutcomeUnknown)
    assert "may still take effect" in str(gave_up.error)
    for _ in range(3):
        cluster.hand_over(call)
        cluster.settle()
    after = cluster.append(2, b"after")
    cluster.settle()
    assert after.appended == Appended(3, 1)
    cluster.hand_over(call)
    cluster.advance(100)
    assert values(cluster) == [b"late", b"after"]


def test_8_what_comes_after_a_later_append_of_its_sender_comes_too_late(cluster: Cluster) -> None:
    """The sender gave it up and went on: its copy is refused, at this leader and at the next."""
    gave_up = cluster.append(2, b"late", timeout_ms=100)
    (call,) = cluster.take(is_to(1, Propose))
    cluster.advance(150)
    assert isinstance(gave_up.error, OutcomeUnknown)
    after = cluster.append(2, b"after")
    cluster.settle()
    assert after.appended == Appended(2, 1)
    cluster.hand_over(call)
    cluster.settle()
    cluster.crash(1)
    assert isinstance(call.message, Propose)
    cluster.engine(cluster.lead()).message(2, call.message)
    cluster.advance(200)
    assert values(cluster) == [b"after"]
    next_one = cluster.append(2, b"next")
    cluster.advance(200)
    assert isinstance(next_one.appended, Appended)
    assert values(cluster) == [b"after", b"next"]


def test_8_a_copy_of_a_forgotten_session_is_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sessions are remembered: the third makes the first one be forgotten, and its horizon keeps it out."""
    monkeypatch.setattr(summary, "SESSIONS_MAX", 2)
    first = cluster.append(2, b"first")
    (call,) = cluster.take(is_to(1, Propose))
    cluster.hand_over(call)
    cluster.settle()
    for id in (1, 3):
        cluster.append(id, b"other %d" % id)
        cluster.settle()
    cluster.hand_over(call)
    cluster.settle()
    assert values(cluster).count(b"first") == 1
    assert first.appended == Appended(2, 1)
    again = cluster.append(2, b"again")
    cluster.advance(20)
    assert again.appended == Appended(5, 1), "in a session of its own, after a refusal"
    cluster.check_outcomes()


def test_a_holder_that_knows_little_learns_enough_to_open_a_session(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that has been idle: what it knows lies below the horizon, and so would every session that it opens."""
    monkeypatch.setattr(summary, "SESSIONS_MAX", 1)
    idle = cluster.client(2)
    for id in (1, 3):
        cluster.append(id, b"%d" % id)
        cluster.settle()
    asked = cluster.append(idle, b"x")
    cluster.advance(20)
    assert asked.acknowledged
    assert [refusal.reason for refusal in idle.refusals] == ["expired"]


def test_a_retry_that_is_expired_is_unknown(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer was lost, meanwhile the session was forgotten."""
    monkeypatch.setattr(summary, "SESSIONS_MAX", 1)
    asked = cluster.append(2, b"x")
    cluster.settle(lambda envelope: not isinstance(envelope.message, ProposeAccepted))
    cluster.take(is_to(2, ProposeAccepted))
    cluster.append(3, b"y")
    cluster.settle()
    cluster.unlink(1, 2)
    cluster.link(1, 2)
    cluster.settle()
    assert isinstance(asked.error, SessionExpired)
    assert values(cluster) == [b"x", b"y"]


@pytest.mark.parametrize("lost", [(Propose,), (ProposeAccepted,), (RequestRead,), (ReadAccepted,)])
def test_over_udp_what_is_lost_is_sent_again(lost: tuple[type[Propose], ...]) -> None:
    """A datagram is lost, no link breaks and no leader changes: the sender, and only it, can tell."""
    cluster = Cluster(settings=UDP)
    cluster.elect(1)
    client = cluster.client(3)
    append, read, relayed = cluster.append(2, b"x"), cluster.read(2), cluster.append(client, b"y")
    cluster.settle(
        lambda e: not isinstance(e.message, lost) or isinstance(e.sender, Client) or isinstance(e.to, Client)
    )
    assert cluster.take(is_kind(*lost))
    cluster.advance(450)
    assert append.acknowledged
    assert read.outcome is not None
    assert not isinstance(read.outcome, RaftError)
    cluster.advance(1_000)
    assert relayed.acknowledged
    cluster.check_outcomes()


def test_over_udp_the_first_of_three_is_lost() -> None:
    """The others are refused for the gap; it is handed over again, and stands before them."""
    cluster = Cluster(settings=UDP)
    cluster.elect(1)
    one = cluster.append(2, b"one")
    cluster.take(is_to(1, Propose))
    two, three = cluster.append(2, b"two"), cluster.append(2, b"three")
    cluster.advance(10)
    assert [a.appended.first_index for a in (one, two, three)] == [2, 3, 4]


# -- clients


def test_a_client_behind_any_node(cluster: Cluster) -> None:
    clients = [cluster.client(id) for id in (1, 2, 3)]
    asked = [
        cluster.append(client, b"%d of %d" % (n, c)) for n in range(3) for c, client in enumerate(clients)
    ]
    cluster.settle()
    assert all(a.acknowledged for a in asked)
    cluster.check_outcomes()
    for client in clients:
        mine = [a.appended.first_index for a in asked if a.by is client]
        assert mine == sorted(mine)


def test_two_clients_with_the_same_numbers_get_their_own_answers(cluster: Cluster) -> None:
    """Request ids are each client's own."""
    one, two = cluster.client(2), cluster.client(2)
    first, second = cluster.append(one, b"one"), cluster.append(two, b"two")
    calls = [e.message for e in cluster.messages if isinstance(e.message, Propose)]
    assert calls[0].request_id == calls[1].request_id
    cluster.settle()
    assert (first.appended.first_index, second.appended.first_index) == (2, 3)


def test_a_client_behind_a_follower_while_the_leader_changes(cluster: Cluster) -> None:
    """The relay says so at once, the client hands over again, the next leader recognizes what stands in its log."""
    client = cluster.client(2)
    known = cluster.append(client, b"known")
    cluster.deliver(is_to(2, Propose))
    cluster.deliver(is_to(1, Propose))
    for id in (2, 3):
        cluster.deliver(is_to(id, AppendEntries))
        cluster.write(id)
    lost = cluster.append(client, b"lost")
    cluster.deliver(is_to(2, Propose))
    cluster.messages.clear()
    cluster.crash(1)
    cluster.deliver(lambda e: e.to is client)
    assert [(r.reason, r.appended) for r in client.refusals] == [("not_leader", True)] * 2
    cluster.lead()
    cluster.advance(500)
    assert (known.appended, lost.appended.first_index) == (Appended(2, 1), 4)
    cluster.check_outcomes()


def test_a_client_moves_to_another_node_and_is_recognized(cluster: Cluster) -> None:
    """Both relays bring the same requests."""
    client = cluster.client(2)
    asked = [cluster.append(client, b"%d" % n) for n in range(3)]
    client.move(3)
    cluster.settle()
    assert [a.appended.first_index for a in asked] == [2, 3, 4]
    cluster.check_outcomes()


def test_a_node_without_a_leader_refuses_its_clients() -> None:
    cluster = Cluster()
    client = cluster.client(2)
    asked = cluster.append(client, b"x", timeout_ms=20_000)
    cluster.settle()
    assert [r.reason for r in client.refusals] == ["not_leader"]
    cluster.advance(5_000)
    assert asked.acknowledged, "it tried until there was one"


def test_relays_are_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELAYS_MAX", 1)
    client = cluster.client(2)
    asked = [cluster.append(client, b"%d" % n) for n in range(2)]
    cluster.settle()
    assert [r.reason for r in client.refusals] == ["overloaded"]
    cluster.advance(20)
    assert all(a.acknowledged for a in asked)


def test_a_relay_that_is_never_answered_is_given_back(cluster: Cluster) -> None:
    """Nothing is kept for ever: the client hands over again."""
    client = cluster.client(2)
    asked = cluster.append(client, b"x", timeout_ms=60_000)
    cluster.deliver(is_to(2, Propose))
    cluster.take(is_to(1, Propose))
    cluster.advance(4_900)
    assert asked.outcome is None
    cluster.advance(300)
    assert asked.acknowledged


def test_a_relayed_datagram_that_was_doubled_and_forgotten_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first copy is appended and the answer lost; the refusal of the other is no proof for the client."""
    monkeypatch.setattr(summary, "SESSIONS_MAX", 1)
    cluster = Cluster(settings=UDP)
    cluster.elect(1)
    client = cluster.client(2)
    asked = cluster.append(client, b"x")
    cluster.deliver(is_to(2, Propose))
    (relayed,) = cluster.take(is_to(1, Propose))
    cluster.hand_over(relayed)
    cluster.settle(lambda envelope: not isinstance(envelope.message, ProposeAccepted))
    cluster.take(is_to(2, ProposeAccepted))
    cluster.append(3, b"another session")
    cluster.settle()
    cluster.hand_over(relayed)
    cluster.settle()
    assert [(r.reason, r.appended) for r in client.refusals] == [("expired", True)]
    assert isinstance(asked.error, SessionExpired)
    assert values(cluster).count(b"x") == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"count": 0}, "out of range"),
        ({"session": 0}, "out of range"),
        ({"sequence": 0}, "out of range"),
        ({"sequence": 1 << 63}, "out of range"),
        ({"count": 2}, "does not hold 2 entries"),
        ({"count": 1 << 40}, "does not hold"),
        ({"body": b""}, "a body of 0 bytes"),
        ({"body": join_payloads([b"x"]) + b"more"}, "does not hold 1 entries"),
        ({"prev_log_index": 1}, "an index and a term, or neither"),
    ],
)
def test_what_no_correct_sender_proposes_is_refused_where_it_enters(
    cluster: Cluster, changes: dict[str, object], why: str
) -> None:
    """A batch that nobody can read would stop every node for good; a relay would be blamed for its client."""
    call = msgspec.structs.replace(Propose(1, 5, 1, 1, 0, S, join_payloads([b"x"])), **changes)
    for id in (1, 2):
        with pytest.raises(ProtocolError, match=why):
            cluster.engine(id).client_message(cluster.client(id), call)
    with pytest.raises(ProtocolError, match=why):
        cluster.engine(1).message(2, call)
    assert cluster.messages == []


def test_spent_time_and_batches_that_are_too_large_are_refused(cluster: Cluster) -> None:
    """Whoever sent them hears why; nothing is appended."""
    limit = cluster.settings.batch_limit_bytes
    body = join_payloads([bytes(limit - HEADER_BYTES - 3)])
    for call, reason, last in (
        (Propose(1, 5, 1, 1, 0, 0, join_payloads([b"x"])), "late", 0),
        (Propose(2, 5, 1, 1, 0, S, body), "too_large", limit),
    ):
        cluster.engine(1).message(2, call)
        (answer,) = cluster.take(is_to(2, ProposeRejected))
        assert isinstance(answer.message, ProposeRejected)
        assert (answer.message.reason, answer.message.last_index) == (reason, last)
    cluster.settle()
    assert values(cluster) == []


# -- reads


def test_6_4_a_read_at_a_follower_waits_until_as_much_is_committed_there(cluster: Cluster) -> None:
    """The leader committed x; node 2 has it, but does not know yet that it is committed."""
    asked = cluster.append(1, b"x")
    cluster.settle()
    cluster.take(lambda e: True)
    assert asked.acknowledged
    assert cluster.engine(2).raft.commit_index == 1
    read = cluster.read(2)
    cluster.settle(lambda e: not isinstance(e.message, AppendEntries) or e.to_id != 2)
    assert read.outcome is None, "the index is confirmed, but not committed here"
    cluster.settle()
    cluster.advance(100)
    assert read.outcome == 2


def test_6_4_a_deposed_leader_confirms_no_read(cluster: Cluster) -> None:
    cluster.partition([1], [2, 3])
    for id in (2, 3):
        cluster.unlink(1, id)
    read = cluster.read(1, timeout_ms=900)
    cluster.advance(800)
    write = cluster.append(2, b"x")
    cluster.advance(500)
    assert write.outcome is not None
    assert isinstance(read.error, Unavailable)
    assert "no quorum" in read.error.why


def test_reads_beyond_the_leaders_bound_are_asked_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from totora.core import reads as core_reads

    monkeypatch.setattr(core_reads, "READS_WAITING_MAX", 0)
    local, remote = cluster.read(1), cluster.read(2)
    cluster.settle()
    refusals = [e.message for e in cluster.sent if isinstance(e.message, ReadRejected)]
    assert [refusal.reason for refusal in refusals] == ["overloaded"]
    monkeypatch.undo()
    cluster.advance(10)
    assert (local.outcome, remote.outcome) == (1, 1)


def test_a_client_gets_no_read_index_by_the_engine(cluster: Cluster) -> None:
    """Only nodes ask the leader: an answer to a question that nobody asks is dropped."""
    cluster.engine(2).message(1, ReadAccepted(1, 1, 12345, 9))
    cluster.engine(2).message(1, ProposeAccepted(1, 1, 12345, 9, 1))
    read = cluster.read(2)
    cluster.settle()
    assert read.outcome == 1


# -- deadlines


def test_without_a_leader_requests_wait_and_are_unavailable_with_a_reason(cluster: Cluster) -> None:
    cluster.crash(1)
    cluster.crash(3)
    asked, read = cluster.append(2, b"x", timeout_ms=4_000), cluster.read(2, timeout_ms=4_000)
    cluster.advance(3_999)
    assert asked.outcome is None
    assert read.outcome is None
    cluster.advance(1)
    for error in (asked.error, read.error):
        assert isinstance(error, Unavailable)
        assert error.why == "no quorum: 1 of 3 voters reachable from node 2, nodes 1, 3 are not"
    cluster.restart(1)
    cluster.advance(5_000)
    cluster.check_outcomes()


def test_a_request_that_was_handed_over_and_not_answered_is_unknown() -> None:
    cluster = Cluster(settings=UDP)
    cluster.elect(1)
    cluster.partition([1], [2], [3])
    handed = [cluster.append(id, b"%d" % id, timeout_ms=500) for id in (1, 2)]
    cluster.advance(600)
    for asked in handed:
        assert isinstance(asked.error, OutcomeUnknown)
    assert "the leader did not answer in time" in str(handed[1].error)
    cluster.heal()
    cluster.lead()
    cluster.advance(500)
    cluster.check_outcomes()


def test_a_forwarded_request_carries_its_remaining_time(cluster: Cluster) -> None:
    """The latest of its senders counts, for it stands on all before it."""
    cluster.append(2, b"a", timeout_ms=100)
    cluster.append(2, b"b", timeout_ms=900)
    cluster.append(2, b"c", timeout_ms=300)
    calls = [e.message.remaining_ns for e in cluster.messages if isinstance(e.message, Propose)]
    assert calls == [100 * MS, 900 * MS, 900 * MS]


# -- conditional appends


def test_concurrent_conditionals_exactly_one_wins(cluster: Cluster) -> None:
    """At every node and at clients, all on the same entry."""
    base = cluster.append(1, b"base")
    cluster.settle()
    place = base.appended.first_index, base.appended.term
    bys: list[int | Client] = [1, 2, 3, cluster.client(2), cluster.client(3)]
    asked = [cluster.append(by, b"%d" % n, condition=place) for n, by in enumerate(bys)]
    cluster.settle()
    winners = [a for a in asked if isinstance(a.outcome, Appended)]
    assert len(winners) == 1
    for loser in asked:
        if loser not in winners:
            assert isinstance(loser.outcome, LogMismatch)
            assert (loser.outcome.last_index, loser.outcome.last_term) == (3, 1)
    cluster.advance(100)
    cluster.check_outcomes()


def test_0_0_means_that_there_is_no_users_entry_yet(cluster: Cluster) -> None:
    first = cluster.append(2, b"first", condition=(0, 0))
    second = cluster.append(3, b"second", condition=(0, 0))
    cluster.settle()
    assert {type(first.outcome), type(second.outcome)} == {Appended, LogMismatch}


def test_a_mismatch_is_not_answered_from_what_may_yet_be_lost(cluster: Cluster) -> None:
    """The condition fails because of an entry that only the leader holds: it is lost with it, and the condition holds."""
    cluster.partition([1], [2, 3])
    lost = cluster.append(1, b"lost", timeout_ms=600)
    call = cluster.append(2, b"conditional", condition=(0, 0), timeout_ms=30_000)
    (envelope,) = cluster.take(is_to(1, Propose))
    assert isinstance(envelope.message, Propose)
    cluster.engine(1).message(2, envelope.message)
    cluster.advance(700)
    refused = [
        e.message.reason for e in cluster.sent if isinstance(e.message, ProposeRejected) and e.to_id == 2
    ]
    assert "mismatch" not in refused, "nothing is certain yet"
    assert call.outcome is None
    assert isinstance(lost.error, OutcomeUnknown)
    cluster.advance(4_000)
    cluster.heal()
    cluster.advance(1_000)
    assert call.acknowledged
    assert values(cluster) == [b"conditional"]


def test_a_mismatch_reuses_its_numbers_and_late_copies_of_it_do_nothing(cluster: Cluster) -> None:
    cluster.append(1, b"base")
    cluster.settle()
    failing = cluster.append(2, b"never", condition=(0, 0))
    (call,) = cluster.take(is_to(1, Propose))
    cluster.hand_over(call)
    cluster.settle()
    assert isinstance(failing.error, LogMismatch)
    cluster.hand_over(call)
    following = cluster.append(2, b"following")
    cluster.settle()
    cluster.hand_over(call)
    cluster.settle()
    assert following.appended == Appended(3, 1)
    cluster.advance(100)
    assert values(cluster) == [b"base", b"following"]


def test_a_condition_on_the_future_never_costs_another_request_its_entry(cluster: Cluster) -> None:
    """A late copy of it is appended once its entry exists; what was sent after it is not taken for it."""
    failing = cluster.append(2, b"guess", condition=(2, 1))
    (call,) = cluster.take(is_to(1, Propose))
    cluster.hand_over(call)
    cluster.settle()
    assert isinstance(failing.error, LogMismatch)
    cluster.append(3, b"two")
    cluster.settle()
    cluster.hand_over(call)
    following = cluster.append(2, b"following")
    cluster.settle()
    cluster.advance(100)
    log = cluster.log_of_all()
    assert log[following.appended.first_index] == b"following"


# -- the rest of the outlet


def test_a_follower_that_was_away_is_served_from_storage(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from totora.core import log as core_log

    monkeypatch.setattr(core_log, "TAIL_BYTES_MAX", 1)
    cluster.crash(3)
    for n in range(20):
        cluster.append(1, b"%d" % n)
        cluster.settle()
    cluster.restart(3)
    assert cluster.hosts[1].reading, "the tail in memory does not reach back so far"
    cluster.advance(300)
    assert cluster.engine(3).raft.commit_index == 21


def test_the_outlet_hears_of_roles_and_configurations() -> None:
    cluster = Cluster()
    cluster.elect(1)
    assert cluster.hosts[1].roles[-1] == ("leader", 1, 1)
    assert cluster.hosts[2].roles[-1] == ("follower", 1, 1)
    for host in cluster.hosts.values():
        assert host.configurations[-1].cluster_id is not None
        assert host.configurations[-1] == cluster.hosts[1].configurations[-1]


# -- the end


def outcomes(asked: list[Asked]) -> list[type]:
    return [type(a.outcome) for a in asked]


def test_stop_gives_everyone_an_outcome(cluster: Cluster) -> None:
    """Of a follower: its own requests, and those of the clients it relays for."""
    handed = cluster.append(2, b"handed")
    waiting = cluster.append(2, b"waiting", condition=(0, 0))
    read = cluster.read(2)
    client = cluster.client(2)
    cluster.append(client, b"relayed")
    cluster.deliver(is_to(2, Propose))
    cluster.engine(2).stop(None)
    assert outcomes([handed, waiting, read]) == [OutcomeUnknown, NodeStopped, NodeStopped]
    (answer,) = [e.message for e in cluster.messages if e.to is client]
    assert isinstance(answer, ProposeRejected)
    assert (answer.reason, answer.appended) == ("not_leader", True)


def test_a_leader_that_stops_tells_others_that_it_is_not_known(cluster: Cluster) -> None:
    """Peers and clients hear that their entries may be in a log; its own requests are unknown."""
    own, forwarded = cluster.append(1, b"own"), cluster.append(2, b"forwarded")
    client = cluster.client(1)
    relayed = cluster.append(client, b"of a client")
    cluster.deliver(is_to(1, Propose))
    cluster.engine(1).stop(OSError("disk"))
    assert isinstance(own.error, OutcomeUnknown)
    rejections = [e for e in cluster.messages if isinstance(e.message, ProposeRejected)]
    assert {e.to_id for e in rejections} == {2, None}
    for envelope in rejections:
        assert isinstance(envelope.message, ProposeRejected)
        assert envelope.message.appended
    cluster.take(lambda e: not isinstance(e.message, ProposeRejected))
    cluster.crash(1)
    client.move(2)
    cluster.lead()
    cluster.advance(1_000)
    assert forwarded.acknowledged
    assert relayed.acknowledged
    cluster.restart(1)
    cluster.advance(500)
    cluster.check_outcomes()


def test_an_answer_for_a_former_life_of_the_node_is_dropped(cluster: Cluster) -> None:
    """Numbers of requests start at random in each life."""
    before = cluster.append(2, b"before")
    cluster.deliver(is_to(1, Propose))
    cluster.settle(lambda e: not isinstance(e.message, ProposeAccepted))
    (answer,) = cluster.take(is_to(2, ProposeAccepted))
    cluster.crash(2)
    cluster.restart(2)
    cluster.advance(200)
    after = cluster.append(2, b"after")
    cluster.hand_over(Envelope((1, 0), cluster.hosts[2].place, answer.message))
    assert after.outcome is None
    cluster.settle()
    assert after.appended == Appended(3, 1)
    assert before.outcome is None, "its caller died with it"
