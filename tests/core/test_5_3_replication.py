"""Section 5.3: log replication. Figure 2, AppendEntries RPC and the leader's rules for it."""

from __future__ import annotations

import pytest

from totora.core import effects as fx
from totora.core import events as ev
from totora.core.batch import Batch, Kind, join_payloads
from totora.core.effects import HardState
from totora.core.messages import AppendAccepted, AppendEntries, AppendRejected
from totora.core.quorum import Configuration
from totora.core.roles import Leader
from totora.errors import ConfigurationError, ProtocolError

from .cluster import MS, Cluster, chosen, entries, entry, founded, noop, sent, terms


def follower(*log: int | Batch, term: int = 5) -> Cluster:
    """Server 1 of three, with a log and a term; server 2 will be its leader."""
    return Cluster(logs={1: log}, hard_states={1: HardState(term)})


def append(
    prev: tuple[int, int], *batches: Batch, term: int = 5, commit: int = 0, read_round: int = 1
) -> AppendEntries:
    return AppendEntries(term, 2, *prev, commit, read_round, batches)


# -- AppendEntries RPC, receiver implementation


def test_5_3_receiver_1_a_stale_term_is_refused() -> None:
    """Reply false if term < currentTerm; the log stays."""
    c = follower(1, 1)
    effects = c.receive(1, 2, append((2, 1), entry(3, 4), term=4))
    assert effects == [fx.Send(2, AppendRejected(5, None, 2, 0, 0, 1), None)]
    assert terms(c.log(1)) == [1, 1]


def test_5_3_receiver_2_a_log_that_lacks_the_previous_entry_refuses() -> None:
    """Reply false if the log holds no entry at prevLogIndex; the hint names the last one that it does hold."""
    c = follower(1, 1)
    effects = c.receive(1, 2, append((3, 1), entry(4, 5)))
    assert sent(effects) == [(2, AppendRejected(5, 2, 3, 2, 1, 1))]
    assert terms(c.log(1)) == [1, 1]


def test_5_3_receiver_2_a_log_with_another_term_at_the_previous_entry_refuses() -> None:
    """Reply false if the entry at prevLogIndex is not of prevLogTerm; the hint skips the whole wrong term."""
    c = follower(1, 2, 2, 2)
    effects = c.receive(1, 2, append((4, 1), entry(5, 5)))
    assert sent(effects) == [(2, AppendRejected(5, 2, 4, 1, 1, 1))]
    assert terms(c.log(1)) == [1, 2, 2, 2]


def test_5_3_receiver_3_a_conflict_removes_the_entry_and_all_that_follow() -> None:
    """An entry of another term at the same index: it goes, with everything after it, and the new one stands there."""
    c = follower(1, 2, 2, 2)
    effects = c.receive(1, 2, append((1, 1), entry(2, 5)))
    (write,) = chosen(effects, fx.Persist)
    assert (write.truncate_after, write.batches) == (1, (entry(2, 5),))
    assert terms(c.log(1)) == terms(c.disks[1].batches) == [1, 5]


def test_5_3_receiver_3_what_agrees_before_a_conflict_stays() -> None:
    """Of three entries sent the first is there: only from the second on the log is replaced."""
    c = follower(1, 1, 2, 2)
    effects = c.receive(1, 2, append((1, 1), entry(2, 1), entry(3, 5), entry(4, 5)))
    assert [(w.truncate_after, len(w.batches)) for w in chosen(effects, fx.Persist)] == [(2, 2)]
    assert terms(c.log(1)) == [1, 1, 5, 5]


def test_5_3_receiver_4_entries_that_are_not_in_the_log_are_appended() -> None:
    """Append any new entries; the acknowledgement names the last and waits for the disk."""
    c = follower(1)
    effects = c.receive(1, 2, append((1, 1), entry(2, 1), entry(3, 4)))
    (write,) = chosen(effects, fx.Persist)
    assert write.truncate_after is None
    assert chosen(effects, fx.Send) == [fx.Send(2, AppendAccepted(5, 2, 3, 1), write.token)]
    assert terms(c.log(1)) == [1, 1, 4]


def test_5_3_receiver_5_the_commit_index_follows_the_leaders() -> None:
    """If leaderCommit > commitIndex, commitIndex = min(leaderCommit, index of the last new entry)."""
    c = follower(1)
    effects = c.receive(1, 2, append((1, 1), entry(2, 5), entry(3, 5), commit=2))
    assert chosen(effects, fx.Apply) == [fx.Apply(2)]
    c.receive(1, 2, append((3, 5), commit=2))
    assert c.nodes[1].commit_index == 2


def test_5_3_receiver_5_the_commit_index_never_falls() -> None:
    """An overtaken message names a smaller one."""
    c = follower(1)
    c.receive(1, 2, append((1, 1), entry(2, 5), commit=2))
    assert chosen(c.receive(1, 2, append((2, 5), commit=1)), fx.Apply) == []
    assert c.nodes[1].commit_index == 2


def test_follower_commit_bound() -> None:
    """The leader has committed 3; the follower's entries 2 and 3 are others, not yet overwritten.

    A heartbeat that verifies entry 1 commits entry 1 and no more: not what merely stands in the log (databend#3914).
    """
    c = follower(1, 2, 2)
    effects = c.receive(1, 2, append((1, 1), commit=3))
    assert chosen(effects, fx.Apply) == [fx.Apply(1)]
    c.receive(1, 2, append((1, 1), entry(2, 5), commit=3))
    assert (c.nodes[1].commit_index, terms(c.log(1))) == (2, [1, 5])


def test_duplicate_append() -> None:
    """Duplicated and reordered AppendEntries never remove entries that match: every order of ten copies of three."""
    calls = [
        append((1, 1), entry(2, 5), commit=1),
        append((2, 5), entry(3, 5), entry(4, 5)),
        append((4, 5), entry(5, 5), commit=2),
    ]
    for seed in range(100):
        c = follower(1)
        for call in calls:
            c.receive(1, 2, call)
        for call in c.random.choices(calls, k=seed % 10):
            effects = c.receive(1, 2, call)
            assert chosen(effects, fx.Persist) == [], "nothing is written, so nothing is removed"
        assert terms(c.log(1)) == [1, 5, 5, 5, 5]
    c = follower(1)
    for call in reversed(calls):
        c.receive(1, 2, call)
    assert terms(c.log(1)) == [1, 5]


def test_5_3_an_empty_append_acknowledges_what_it_verified_not_what_the_log_holds() -> None:
    """The follower's log is longer than the leader's: a heartbeat at 1 proves nothing about 2 and 3."""
    c = follower(1, 2, 2)
    assert sent(c.receive(1, 2, append((1, 1), read_round=9))) == [(2, AppendAccepted(5, 2, 1, 9))]


def test_5_3_an_acknowledgement_waits_for_no_write_that_it_does_not_rest_on() -> None:
    """A large write is under way; a heartbeat about durable entries is answered at once, the entries are not."""
    c = follower(1)
    c.receive(1, 2, append((1, 1)))
    c.drop()
    c.hold(1)
    c.receive(1, 2, append((1, 1), entry(2, 5)))
    c.receive(1, 2, append((1, 1), read_round=2))
    assert [e.message for e in c.messages] == [AppendAccepted(5, 2, 1, 2)]
    c.release(1)
    assert [e.message for e in c.messages][1:] == [AppendAccepted(5, 2, 2, 1)]


def test_5_3_a_heartbeat_of_a_new_term_is_answered_once_the_term_is_durable() -> None:
    """The entries are durable, the term is not: the answer waits."""
    c = follower(1, term=4)
    c.hold(1)
    c.receive(1, 2, append((1, 1)))
    assert c.messages == []
    c.release(1)
    assert [e.message for e in c.messages] == [AppendAccepted(5, 2, 1, 1)]


def test_persist_order() -> None:
    """The term reaches the disk before, or with, the entries that rest on it: one write holds both."""
    c = follower(1, term=3)
    (write,) = chosen(c.receive(1, 2, append((1, 1), entry(2, 5))), fx.Persist)
    assert (write.hard_state, write.batches) == (HardState(5), (entry(2, 5),))
    # As a candidate: the vote for itself is one write, what it appends as the leader a later one.
    c = Cluster(1)
    c.hold(1)
    c.tick(1)
    c.write(1)
    (noop_write,) = c.unwritten(1)
    assert c.disks[1].hard_state == HardState(1, 1)
    assert (noop_write.token, [b.term for b in noop_write.batches]) == (2, [1])


def test_append_aba() -> None:
    """A write completes after the same indexes were removed and written anew: it proves nothing about the new ones.

    Entries 2 and 3 of term 5 are being written when a leader of term 6 replaces them. The first write completes: entry 3
    of term 6 is not durable by that, so it is not acknowledged.
    """
    c = follower(1)
    c.hold(1)
    c.receive(1, 2, append((1, 1), entry(2, 5), entry(3, 5)))
    c.receive(1, 3, AppendEntries(6, 3, 1, 1, 0, 1, (entry(2, 6), entry(3, 6))))
    c.write(1)
    assert terms(c.disks[1].batches) == [1, 5, 5]
    assert c.nodes[1].log.durable_index == 1
    c.receive(1, 3, AppendEntries(6, 3, 3, 6, 0, 2))
    assert [e.message for e in c.messages if e.to == 3] == []
    c.release(1)
    assert [e.message for e in c.messages if e.to == 3] == [
        AppendAccepted(6, 3, 3, 1),
        AppendAccepted(6, 3, 3, 2),
    ]
    assert c.nodes[1].log.durable_index == 3


def test_5_3_a_message_below_the_start_of_the_log_is_no_conflict() -> None:
    """What a snapshot replaced is committed, so it matches; only what follows is looked at (`purged_prev_log`)."""
    c = follower(1, 1, 1, 4)
    recovered = c.disks[1].recover()
    recovered.base_index, recovered.base_term = 2, 1
    recovered.commit_index, recovered.runs, recovered.tail = 2, [(3, 1), (4, 4)], recovered.tail[2:]
    raft = type(c.nodes[1])(1, recovered, settings=c.settings, random=c.random, store_id=b"1" * 16, now=0)
    call = append((0, 0), *entries(1, 1, 1), entry(4, 5))
    effects = raft.step(ev.Received(2, call), 0)
    assert [(w.truncate_after, w.batches) for w in chosen(effects, fx.Persist)] == [(3, (entry(4, 5),))]
    assert raft.log.first_index == 3


# -- what no correct leader sends


@pytest.mark.parametrize(
    "call",
    [
        append((1, 1), entry(3, 5)),
        append((1, 1), entry(2, 5), entry(4, 5)),
        append((1, 3), entry(2, 2)),
        append((1, 1), entry(2, 6)),
        append((1, 1), entry(2, 5), entry(3, 4)),
    ],
    ids=["hole", "hole within", "older than the previous", "newer than the call", "falling terms"],
)
def test_5_3_entries_that_cannot_follow_each_other_are_an_error(call: AppendEntries) -> None:
    """Nothing has changed then, not even the term."""
    c = follower(1, term=4)
    with pytest.raises(ProtocolError, match="cannot follow"):
        c.receive(1, 2, call)
    assert (c.nodes[1].current_term, terms(c.log(1))) == (4, [1])


def test_5_3_a_conflict_with_what_is_committed_is_an_error() -> None:
    """A leader that would remove a committed entry is none: the message is refused, nothing is removed."""
    c = follower(1, 1, 1)
    c.receive(1, 2, append((3, 1), commit=3))
    with pytest.raises(ProtocolError, match="committed"):
        c.receive(1, 2, append((1, 1), entry(2, 5)))
    assert terms(c.log(1)) == [1, 1, 1]


def test_5_3_a_batch_of_an_unknown_kind_stops_the_node() -> None:
    """It is from a newer version; to go on without it would be to differ from the others."""
    c = follower(1)
    with pytest.raises(ConfigurationError, match="upgrade"):
        c.receive(1, 2, append((1, 1), Batch.build(77, 5, 2, 1, join_payloads([b""]))))
    assert terms(c.log(1)) == [1]


def test_5_3_a_configuration_that_makes_no_sense_is_an_error() -> None:
    """The payload is no configuration."""
    c = follower(1)
    with pytest.raises(ProtocolError, match="configuration"):
        c.receive(1, 2, append((1, 1), Batch.build(Kind.CONFIGURATION, 5, 2, 1, join_payloads([b"\x93"]))))
    assert terms(c.log(1)) == [1]


def test_5_3_an_acknowledgement_beyond_the_leaders_log_is_an_error() -> None:
    """No correct follower holds more of this term than the leader sent."""
    c = Cluster(is_founded=True)
    c.elect(1)
    with pytest.raises(ProtocolError, match="acknowledges 9"):
        c.receive(1, 2, AppendAccepted(1, 1, 9, 1))
    assert c.leader(1).progress[2].match_index == 1


# -- leaders


def test_5_3_a_leader_appends_sends_and_writes_at_once() -> None:
    """Figure 2, leaders, second rule; the followers write at the same time as the leader (thesis 10.2.1)."""
    c = Cluster(is_founded=True)
    c.elect(1)
    effects = c.propose(1, b"x", key=("a", 1))
    (write,) = chosen(effects, fx.Persist)
    assert [bytes(p) for p in write.batches[0].payloads()] == [b"x"]
    assert sent(effects) == [
        (peer, AppendEntries(1, 1, 1, 1, 1, c.leader(1).round, write.batches)) for peer in (2, 3)
    ]
    assert {send.after for send in chosen(effects, fx.Send)} == {None}
    assert chosen(effects, fx.Append) == [fx.Append(("a", 1), 2, 2, 1)]


def test_5_3_what_a_follower_lacks_is_sent_from_its_next_index_on() -> None:
    """Figure 2, leaders, third rule: the last index is at or above next_index, so the entries go, in one message."""
    c = Cluster(is_founded=True)
    c.elect(1)
    c.disconnect(1, 3)
    for payload in (b"x", b"y"):
        c.propose(1, payload)
    assert c.under_way(AppendEntries, to=3) == []
    c.connect(1, 3)
    (envelope,) = c.under_way(AppendEntries, to=3)
    assert isinstance(envelope.message, AppendEntries)
    assert (envelope.message.prev_log_index, terms(envelope.message.batches)) == (1, [1, 1])


def test_5_3_success_raises_both_indexes_of_the_follower() -> None:
    """Figure 2, leaders, third rule, if successful: update nextIndex and matchIndex."""
    c = Cluster(is_founded=True)
    c.elect(1)
    c.propose(1, b"x")
    progress = c.leader(1).progress[2]
    assert (progress.next_index, progress.match_index) == (3, 1)
    c.deliver()
    assert (progress.next_index, progress.match_index) == (3, 2)


def test_5_3_failure_lowers_the_next_index_and_tries_again() -> None:
    """Figure 2, leaders, third rule, if it fails because of log inconsistency: decrement nextIndex and retry."""
    c = Cluster(logs={1: [1, 1, 4], 2: [1, 1, 4], 3: [1]})
    c.partition([1, 2], [3])
    c.elect(1)
    term = c.nodes[1].current_term
    c.heal()
    c.advance(100, deliver=False)
    c.drop(lambda e: e.to != 3)
    (probe,) = [e for e in c.messages if isinstance(e.message, AppendEntries) and e.message.prev_log_index]
    c.drop()
    effects = c.receive(3, 1, probe.message)  # type: ignore[arg-type]
    assert sent(effects) == [(1, AppendRejected(term, 1, 3, 1, 1, probe.message.round))]  # type: ignore[union-attr]
    c.deliver()
    assert terms(c.log(3)) == [1, 1, 4, term]


def test_5_3_the_indexes_of_a_follower_never_fall() -> None:
    """Answers arrive in the wrong order: match_index is what is known, not what was said last."""
    c = Cluster(is_founded=True)
    c.elect(1)
    c.propose(1, b"x")
    c.deliver()
    progress = c.leader(1).progress[2]
    c.receive(1, 2, AppendAccepted(1, 1, 1, 0))
    c.receive(1, 2, AppendRejected(1, 1, 1, 0, 0, 0))
    assert (progress.next_index, progress.match_index, progress.probing) == (3, 2, False)


def test_stale_ack() -> None:
    """An answer from an earlier leadership of the same server is not counted in this one.

    Server 1 led in term 1 and got entries 2 to 4 to server 2, whose answer is late. Others led; 1 leads again with other
    entries at the same indexes. The late answer arrives: it proves nothing.
    """
    c = Cluster(5, is_founded=True)
    c.elect(1)
    c.partition([1, 2], [3, 4, 5])
    for payload in (b"a", b"b", b"c"):
        c.propose(1, payload)
    c.deliver(lambda e: e.to == 2)
    late = c.drop(lambda e: e.sender == 2 and isinstance(e.message, AppendAccepted))
    assert isinstance(late[-1].message, AppendAccepted)
    assert late[-1].message.match_index == 4
    c.partition([1, 3, 4, 5], [2])
    c.drop()
    c.elect(3)
    c.elect(1)
    c.partition([1], [2], [3], [4], [5])
    for payload in (b"d", b"e"):
        c.propose(1, payload)
    c.deliver()
    leader = c.leader(1)
    before = leader.progress[2].match_index, c.nodes[1].commit_index
    c.heal()
    for envelope in late:
        c.hand_over(envelope)
    assert (leader.progress[2].match_index, c.nodes[1].commit_index) == before
    assert isinstance(c.nodes[1].role, Leader)
    c.advance(3_000)
    c.check_logs()


def test_single_node_ack() -> None:
    """A cluster of one commits only what its disk has synced (etcd#14370)."""
    c = Cluster(1, is_founded=True)
    c.elect(1)
    c.hold(1)
    c.propose(1, b"x")
    c.propose(1, b"y")
    assert (c.nodes[1].log.last_index, c.nodes[1].commit_index) == (3, 1)
    c.write(1)
    assert c.nodes[1].commit_index == 2
    c.release(1)
    assert c.nodes[1].commit_index == 3


def test_5_3_a_leader_counts_itself_only_up_to_what_is_durable() -> None:
    """The leader and one follower hold the entry, but the leader's disk is slow: a majority of three is not durable."""
    c = Cluster(is_founded=True)
    c.elect(1)
    c.hold(1)
    c.partition([1, 2], [3])
    c.propose(1, b"x")
    c.deliver()
    assert (c.leader(1).progress[2].match_index, c.nodes[1].commit_index) == (2, 1)
    c.release(1)
    assert c.nodes[1].commit_index == 2


def test_5_3_followers_can_commit_what_the_leader_has_not_on_disk() -> None:
    """Thesis 10.2.1: two followers are a majority of three, the leader's own disk need not be one of them."""
    c = Cluster(is_founded=True)
    c.elect(1)
    c.hold(1)
    c.propose(1, b"x")
    c.deliver()
    assert (c.nodes[1].log.durable_index, c.nodes[1].commit_index) == (1, 2)
    c.crash(1)
    c.restart(1)
    assert c.nodes[1].log.last_index == 1
    c.until_leader(within_ms=4_000)
    c.advance(300)
    assert c.payloads(1) == [b"x"]


def test_5_3_every_server_applies_in_the_order_of_the_log() -> None:
    """All servers, first rule: while commitIndex > lastApplied, apply; the effect names how far, it only rises."""
    c = Cluster()
    c.elect(1)
    for n in range(20):
        c.propose(1, b"%d" % n)
        c.deliver()
    c.advance(200)
    for id in c.nodes:
        applied = [effect.commit_index for effect in c.found(id, fx.Apply)]
        assert applied == sorted(set(applied))
        assert applied[-1] == c.nodes[1].log.last_index
        assert c.payloads(id) == [b"%d" % n for n in range(20)]


FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("name", FIGURE_7)
def test_5_3_figure_7_a_new_leader_makes_every_log_like_its_own(name: str) -> None:
    """The leader's log is [1 1 1 4 4 5 5 6 6 6]; whatever a follower lacks or has too much, it ends up with that."""
    leader_log = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
    hard_states = {1: HardState(7), 2: HardState(7), 3: HardState(7)}
    c = Cluster(logs={1: leader_log, 2: leader_log, 3: FIGURE_7[name]}, hard_states=hard_states)
    c.partition([1, 2], [3])
    c.elect(1)
    c.heal()
    c.advance(500)
    assert (
        terms(c.log(3))
        == terms(c.disks[3].batches)
        == terms(c.log(1))
        == [*leader_log, c.nodes[1].current_term]
    )
    c.check_logs()


def test_5_3_a_batch_is_never_split_merged_or_cut() -> None:
    """Requests of 1, 5 and 3 entries, conflicts in between: on all disks the batches are the leader's, to the byte."""
    c = Cluster(is_founded=True)
    c.elect(1)
    c.propose(1, b"a")
    c.deliver()
    c.partition([1], [2, 3])
    c.propose(1, *[b"lost%d" % n for n in range(5)])
    c.elect(2)
    c.propose(2, *[b"b%d" % n for n in range(5)])
    c.propose(2, *[b"c%d" % n for n in range(3)])
    c.heal()
    c.advance(500)
    assert [b.data for b in c.disks[1].batches] == [b.data for b in c.disks[2].batches]
    assert [b.count for b in c.disks[1].batches] == [1, 1, 1, 5, 3]


def test_5_3_a_truncation_takes_the_configuration_back() -> None:
    """A configuration that was never committed is removed with its entry: the one before is in force again."""
    other = founded(5)
    changed = Batch.build(Kind.CONFIGURATION, 5, 2, 1, join_payloads([other.encode()]))
    c = follower(1)
    effects = c.receive(1, 2, append((1, 1), changed))
    assert chosen(effects, fx.Reconfigured) == [fx.Reconfigured(other)]
    effects = c.receive(1, 3, AppendEntries(6, 3, 1, 1, 0, 1, (noop(2, 6),)))
    assert chosen(effects, fx.Reconfigured) == [fx.Reconfigured(founded(3))]
    assert c.nodes[1].configuration == founded(3)
    assert isinstance(c.nodes[1].configuration, Configuration)


def test_5_3_time_until_a_follower_catches_up_is_a_heartbeat_when_messages_are_lost() -> None:
    """A probe is lost: the next heartbeat sends it again."""
    c = Cluster(is_founded=True)
    c.elect(1)
    c.disconnect(1, 3)
    c.connect(1, 3)
    c.propose(1, b"x")
    c.drop(lambda e: e.to == 3)
    c.advance(c.settings.heartbeat_ns / MS + 1)
    assert c.payloads(3) == [b"x"]
