"""Pipelining (thesis 10.2.1): probing, the window, older entries from storage, hints that skip whole terms."""

from __future__ import annotations

from dataclasses import replace

import pytest

from totora.config import Settings
from totora.core import effects as fx
from totora.core import events as ev
from totora.core import log as log_module
from totora.core import progress as progress_module
from totora.core import replication
from totora.core.effects import HardState
from totora.core.messages import AppendAccepted, AppendEntries, AppendRejected
from totora.core.progress import APPEND_BYTES_MAX, IN_FLIGHT_MESSAGES_MAX, Progress

from .cluster import MS, Cluster, entry, terms

WINDOW = Settings().in_flight_limit_bytes


def led(**changed: object) -> Cluster:
    c = Cluster(is_founded=True, settings=replace(Settings(), **changed))  # type: ignore[arg-type]
    c.elect(1)
    return c


def data(c: Cluster, to: int) -> list[AppendEntries]:
    """Messages with entries that are under way."""
    return [
        e.message
        for e in c.under_way(AppendEntries, to)
        if isinstance(e.message, AppendEntries) and e.message.batches
    ]


# -- Progress


def test_a_follower_that_is_probed_gets_one_message_at_a_time() -> None:
    """Until its log is known to match."""
    progress = Progress(next_index=5)
    assert progress.may_send(WINDOW)
    progress.sent(9, 100, now=0)
    assert not progress.may_send(WINDOW)
    assert (progress.next_index, progress.under_way) == (5, False)


def test_a_follower_that_matches_gets_messages_up_to_a_window_of_messages() -> None:
    """256 without an answer."""
    progress = Progress(next_index=1, probing=False)
    for index in range(1, IN_FLIGHT_MESSAGES_MAX + 1):
        assert progress.may_send(WINDOW)
        progress.sent(index, 1, now=0)
    assert not progress.may_send(WINDOW)
    progress.matched(1, now=7)
    assert (progress.may_send(WINDOW), progress.progress_ns, progress.match_index) == (True, 7, 1)


def test_a_follower_that_matches_gets_messages_up_to_a_window_of_bytes() -> None:
    """16 MiB without an answer."""
    progress = Progress(next_index=1, probing=False)
    progress.sent(1, WINDOW, now=3)
    assert (progress.may_send(WINDOW), progress.progress_ns) == (False, 3)
    progress.matched(1, now=4)
    assert (progress.may_send(WINDOW), progress.in_flight_bytes, progress.under_way) == (True, 0, False)


def test_match_index_never_falls_and_next_index_stays_above_it() -> None:
    """Figure 2, volatile state on leaders: match_index increases monotonically."""
    progress = Progress(next_index=1, probing=False)
    progress.matched(5, now=1)
    progress.matched(3, now=2)
    assert (progress.match_index, progress.next_index, progress.progress_ns) == (5, 6, 1)
    progress.probe(2)
    assert (progress.match_index, progress.next_index, progress.probing) == (5, 6, True)


def test_probing_begins_the_window_anew() -> None:
    """What was under way may be lost."""
    progress = Progress(next_index=1, probing=False)
    progress.sent(1, 10, now=0)
    progress.sent(2, 10, now=0)
    progress.reading = True
    progress.probe(1)
    assert (progress.may_send(WINDOW), progress.in_flight_bytes, progress.under_way) == (True, 0, False)


# -- the window at work


def test_entries_follow_each_other_without_waiting_for_answers() -> None:
    """Ten requests, ten messages under way to each follower, none delivered."""
    c = led()
    for n in range(10):
        c.propose(1, b"%d" % n)
    assert [m.prev_log_index for m in data(c, 2)] == list(range(1, 11))


def test_the_window_closes_and_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three messages at most; each answer lets go what waits, together in one message."""
    monkeypatch.setattr(progress_module, "IN_FLIGHT_MESSAGES_MAX", 3)
    c = led()
    for n in range(10):
        c.propose(1, b"%d" % n)
    assert len(data(c, 2)) == 3
    c.drop(lambda e: e.to != 2)
    first, *rest = data(c, 2)
    c.drop()
    c.receive(2, 1, first)
    c.deliver(lambda e: e.sender == 2)
    (following,) = data(c, 2)
    assert (following.prev_log_index, len(following.batches)) == (4, 7)
    for message in rest:
        c.receive(2, 1, message)
    c.deliver()
    assert c.payloads(2) == [b"%d" % n for n in range(10)]


def test_over_datagrams_less_is_under_way_at_once() -> None:
    """A socket keeps only so much: batches of 40 KiB, and no more bytes than the setting without an answer, but for one."""
    c = led(transport="udp")
    for _ in range(8):
        c.propose(1, bytes(40 << 10))
    assert len(data(c, 2)) == 4
    under_way = sum(len(batch.data) for message in data(c, 2) for batch in message.batches)
    assert c.settings.in_flight_limit_bytes < under_way < c.settings.in_flight_limit_bytes + (44 << 10)
    c.deliver()
    assert len(c.payloads(2)) == 8


def test_a_message_holds_no_more_than_its_bound_or_one_batch() -> None:
    """Batches of 0.4 MiB: two fit; one of 2 MiB travels alone."""
    c = led()
    c.disconnect(1, 2)
    for size in (4, 4, 4, 20, 4):
        c.propose(1, b"x" * (size * APPEND_BYTES_MAX // 10))
    c.connect(1, 2)
    c.deliver()
    counts = []
    c.disconnect(1, 2)
    c.connect(1, 2)
    leader = c.leader(1)
    leader.progress[2] = Progress(next_index=2, probing=False)
    c.propose(1, b"y")
    for message in data(c, 2):
        counts.append(len(message.batches))
        size_bytes = sum(len(b.data) for b in message.batches)
        assert size_bytes <= APPEND_BYTES_MAX or len(message.batches) == 1
    assert counts == [2, 1, 1, 2]


def test_lost_messages_are_sent_again_over_a_transport_that_loses() -> None:
    """UDP: what is unanswered for two heartbeats is begun anew."""
    c = led(transport="udp")
    c.propose(1, b"x")
    c.propose(1, b"y")
    c.drop()
    c.advance(c.settings.retransmit_ns / MS + 2 * c.settings.heartbeat_ns / MS)
    assert c.payloads(2) == [b"x", b"y"]


def test_over_a_transport_that_does_not_lose_nothing_is_sent_twice() -> None:
    """TCP: an answer that takes its time is waited for, as long as the link is up."""
    c = led()
    c.propose(1, b"x")
    c.drop(lambda e: e.to == 3)
    waiting = c.drop()
    for _ in range(8):
        c.tick(1)
        assert data(c, 2) == []
        c.deliver()
    for envelope in waiting:
        c.hand_over(envelope)
    assert c.payloads(2) == [b"x"]


# -- hints


def rounds_to_agree(leader_log: list[int], follower_log: list[int], term: int) -> int:
    """How many AppendEntries a new leader's follower refuses until they agree."""
    hard_states = {1: HardState(term), 2: HardState(term), 3: HardState(term)}
    c = Cluster(logs={1: leader_log, 2: leader_log, 3: follower_log}, hard_states=hard_states)
    c.partition([1, 2], [3])
    c.elect(1)
    c.drop()
    c.heal()
    refused = 0
    c.advance(c.settings.heartbeat_ns / MS, deliver=False)
    c.now += 1
    if not c.under_way(AppendEntries, to=3):
        c.tick(1)
    while c.messages:
        envelope = c.messages.pop(0)
        refused += isinstance(envelope.message, AppendRejected)
        c.hand_over(envelope)
    assert terms(c.log(3)) == [*leader_log, c.nodes[1].current_term]
    return refused


def test_5_3_hints_skip_what_the_follower_lacks_in_one_step() -> None:
    """A follower that lacks a thousand entries refuses once."""
    assert rounds_to_agree([1] * 1_000, [1], term=1) == 1


def test_5_3_hints_skip_whole_terms() -> None:
    """A hundred entries of each of three wrong terms: refused once for each pair of terms, not for each entry."""
    assert rounds_to_agree([1] + [5] * 100, [1] + [2] * 100 + [3] * 100 + [4] * 100, term=5) == 1
    interleaved = rounds_to_agree(
        [1] * 5 + [3] * 50 + [5] * 50 + [7] * 50, [1] * 5 + [2] * 50 + [4] * 50 + [6] * 50, term=7
    )
    assert interleaved <= 4


def test_a_refusal_of_what_has_matched_since_is_ignored() -> None:
    """It was overtaken by the acknowledgement of the same entries."""
    c = led()
    c.propose(1, b"x")
    c.deliver()
    assert c.receive(1, 2, AppendRejected(1, 1, 2, 1, 1, 1)) == []
    assert not c.leader(1).progress[2].probing


def test_a_refusal_of_an_earlier_question_is_ignored() -> None:
    """While probing only the answer to the question under way counts."""
    c = Cluster(logs={1: [1, 1, 1, 2], 2: [1, 1, 1, 2], 3: [1]})
    c.partition([1, 2], [3])
    c.elect(1)
    leader, term = c.leader(1), c.nodes[1].current_term
    before = leader.progress[3].next_index
    assert c.receive(1, 3, AppendRejected(term, 1, before - 3, 1, 1, 1)) == []
    assert leader.progress[3].next_index == before


def test_answers_from_servers_that_are_no_members_are_ignored() -> None:
    """Acknowledgements, refusals, entries that were read, links."""
    c = led()
    assert c.receive(1, 9, AppendAccepted(1, 1, 1, 1)) == []
    assert c.receive(1, 9, AppendRejected(1, 1, 1, 0, 0, 1)) == []
    assert c.step(1, ev.EntriesRead(9, ())) == []
    assert c.step(1, ev.LinkUp(9, b"9" * 16)) == []


# -- entries from storage


def far_behind(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Server 3 lacks a hundred entries that the leader's memory holds no longer; its read of the disk is under way."""
    monkeypatch.setattr(log_module, "TAIL_BYTES_MAX", 1_000)
    monkeypatch.setattr(replication, "APPEND_BYTES_MAX", 2_000)
    c = led()
    c.disconnect(1, 3)
    for n in range(100):
        c.propose(1, b"%d" % n)
        c.deliver()
    assert c.nodes[1].log.tail_bytes <= 2_000
    c.holds_reading = True
    c.connect(1, 3)
    c.deliver()
    return c


def test_what_memory_holds_no_longer_is_read_from_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """One read at a time, each continued where the last one ended, until the follower has everything."""
    c = far_behind(monkeypatch)
    ((id, wanted),) = c.reading
    assert (id, wanted) == (1, fx.ReadEntries(3, 2, 101, 2_000))
    reads = 0
    while c.reading:
        assert len(c.reading) == 1
        c.answer_reading_once()
        c.deliver()
        reads += 1
    assert c.payloads(3) == [b"%d" % n for n in range(100)]
    assert 3 <= reads < 20


def test_while_a_read_is_under_way_nothing_else_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proposal goes to the other follower alone; heartbeats go on."""
    c = far_behind(monkeypatch)
    c.propose(1, b"new")
    assert data(c, 3) == []
    assert len(data(c, 2)) == 1
    c.tick(1)
    assert len(c.under_way(AppendEntries, to=3)) == 1


def test_what_was_read_for_a_link_that_broke_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new link, the same question again: whichever answer comes first is sent, the other one is not wanted."""
    c = far_behind(monkeypatch)
    c.disconnect(1, 3)
    c.connect(1, 3)
    assert len(c.reading) == 2
    c.answer_reading_once()
    assert len(data(c, 3)) == 1
    c.answer_reading_once()
    assert len(data(c, 3)) == 1
    c.holds_reading = False
    c.deliver()
    assert c.payloads(3) == c.payloads(1)


def test_what_was_read_is_sent_only_if_it_is_what_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries elsewhere, of another term, or none at all: they are not sent, storage is asked again."""
    c = far_behind(monkeypatch)
    wanted = c.reading[0][1]
    for batches in ((), tuple(c.disks[1].batches[50:52]), (entry(2, 9),)):
        effects = c.step(1, ev.EntriesRead(3, batches))
        assert effects == [wanted]
    c.holds_reading = False
    c.answer_reading()
    c.deliver()
    assert c.payloads(3) == c.payloads(1)


def test_a_read_that_a_former_leader_asked_for_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """It follows another by now."""
    c = far_behind(monkeypatch)
    c.elect(2)
    assert c.step(1, ev.EntriesRead(3, tuple(c.disks[1].batches[1:3]))) == []


def test_a_heartbeat_to_a_follower_below_the_start_of_the_log_names_that_start() -> None:
    """Its last known entry is compacted here, the one before the log's start is committed: it matches (10.2)."""
    c = Cluster(logs={1: [1, 1, 1], 2: [1, 1, 1], 3: [1, 1, 1]})
    recovered = c.disks[1].recover()
    recovered.base_index, recovered.base_term, recovered.commit_index = 2, 1, 2
    recovered.runs, recovered.tail = [(3, 1)], recovered.tail[2:]
    c.disks[1].recover = lambda: recovered  # type: ignore[method-assign]
    c.crash(1)
    c.restart(1)
    c.elect(1, quietly=True)
    c.drop()
    c.tick(1)
    beats = [e.message for e in c.under_way(AppendEntries) if not e.message.batches]  # type: ignore[union-attr]
    places = [(m.prev_log_index, m.prev_log_term) for m in beats]  # type: ignore[union-attr]
    assert places.count((2, 1)) == 2
    assert set(places) == {(2, 1), (3, 1)}, (
        "and the question whether the new leader's entry fits is asked again"
    )


def test_entries_that_are_slow_to_arrive_are_not_sent_again() -> None:
    """A stream loses nothing: what is asked again at each heartbeat, while a large message crawls, is small."""
    c = Cluster(logs={1: [1, 1, 4], 2: [1, 1, 4], 3: [1]})
    c.elect(1, quietly=True)
    for _ in range(20):
        c.tick(1)
    calls = [e.message for e in c.under_way(AppendEntries) if e.to == 3]
    assert sum(bool(m.batches) for m in calls) == 1  # type: ignore[union-attr]
    assert len(calls) > 20
