"""Read indexes: one question for all who wait, answered once what was confirmed is committed here."""

from __future__ import annotations

from itertools import count

import pytest

from totora.errors import NodeStopped, Overloaded, RaftError, Unavailable
from totora.session import reads as module
from totora.session.reads import RETRY_NS, ReadIndexes
from totora.types import FAR_NS, LogIndex

FAR = 10**12


class Bench:
    """Reads, and what each of them got."""

    def __init__(self, retransmit_ns: int = 0) -> None:
        self.reads = ReadIndexes(count(1).__next__, retransmit_ns=retransmit_ns)
        self.outcomes: dict[str, LogIndex | RaftError] = {}

    def submit(self, name: str, deadline_ns: int = FAR) -> None:
        def resolve(outcome: LogIndex | RaftError) -> None:
            assert name not in self.outcomes, "one outcome for each"
            self.outcomes[name] = outcome

        self.reads.submit(deadline_ns, resolve)

    def expire(self, now: int) -> None:
        self.reads.expire(now, lambda: "no leader")


def test_6_4_all_who_wait_share_one_question() -> None:
    bench = Bench()
    assert bench.reads.outgoing(0) == [], "nobody waits"
    bench.submit("a")
    bench.submit("b")
    assert bench.reads.outgoing(0) == [1]
    assert bench.reads.outgoing(0) == [], "they were asked for"
    bench.submit("c")
    bench.reads.accepted(1, 5, 5)
    assert bench.outcomes == {"a": 5, "b": 5}, "a later read needs a question of its own"
    assert bench.reads.outgoing(0) == [2]
    bench.reads.accepted(2, 6, 7)
    assert bench.outcomes["c"] == 6


def test_a_confirmed_read_waits_until_as_much_is_committed_here() -> None:
    bench = Bench()
    for number, (name, index) in enumerate([("far", 9), ("near", 4), ("next", 5)], 1):
        bench.submit(name)
        assert bench.reads.outgoing(0) == [number]
        bench.reads.accepted(number, index, 3)
    assert bench.outcomes == {}
    bench.reads.committed(5)
    assert bench.outcomes == {"near": 4, "next": 5}
    bench.reads.committed(9)
    assert bench.outcomes["far"] == 9


def test_a_refused_question_is_asked_again_a_little_later() -> None:
    bench = Bench()
    bench.submit("a")
    assert bench.reads.deadline() == FAR
    bench.reads.outgoing(0)
    bench.reads.rejected(1, 100)
    assert bench.reads.outgoing(100) == []
    assert bench.reads.deadline() == 100 + RETRY_NS
    bench.expire(99 + RETRY_NS)
    assert bench.reads.outgoing(99 + RETRY_NS) == []
    bench.expire(100 + RETRY_NS)
    assert bench.reads.deadline() == FAR
    assert bench.reads.outgoing(100 + RETRY_NS) == [2]
    bench.reads.accepted(2, 1, 1)
    assert bench.outcomes == {"a": 1}


def test_answers_to_questions_that_are_no_longer_asked_change_nothing() -> None:
    """Doubled, late, and of a leader that was deposed since: an old confirmation proves nothing about the new one."""
    bench = Bench()
    bench.submit("a")
    bench.reads.outgoing(0)
    bench.reads.leader_changed()
    bench.reads.accepted(1, 3, 9)
    bench.reads.rejected(1, 0)
    assert bench.outcomes == {}
    assert bench.reads.outgoing(0) == [2], "at once: a stale refusal is no reason to wait"
    bench.reads.accepted(2, 7, 9)
    bench.reads.accepted(2, 7, 9)
    assert bench.outcomes == {"a": 7}


def test_a_late_read_is_unavailable_wherever_it_waits() -> None:
    bench = Bench()
    for name in ("confirmed", "asked", "waiting"):
        bench.submit(name, deadline_ns=50)
        if name != "waiting":
            bench.reads.outgoing(0)
    bench.submit("patient", deadline_ns=70)
    bench.reads.accepted(1, 9, 0)
    bench.expire(49)
    assert bench.outcomes == {}
    bench.expire(50)
    assert set(bench.outcomes) == {"confirmed", "asked", "waiting"}
    for outcome in bench.outcomes.values():
        assert isinstance(outcome, Unavailable)
        assert outcome.why == "no leader"
    assert bench.reads.deadline() == 70
    bench.expire(70)
    assert bench.reads.deadline() == FAR_NS
    bench.reads.accepted(2, 1, 9)
    bench.reads.committed(9)
    assert len(bench.outcomes) == 4


def test_where_messages_may_be_lost_a_question_is_asked_again() -> None:
    """Over UDP neither the question nor the answer need arrive; the deadline never lies in the past for long."""
    bench = Bench(retransmit_ns=200)
    bench.submit("a")
    bench.reads.outgoing(0)
    bench.submit("b")
    bench.reads.outgoing(10)
    assert bench.reads.deadline() == 200
    bench.expire(200)
    assert bench.reads.deadline() == 210
    assert bench.reads.outgoing(200) == [1], "under its own number"
    bench.expire(210)
    bench.submit("c")
    assert bench.reads.outgoing(210) == [2, 3]
    bench.reads.accepted(1, 5, 5)
    assert bench.outcomes == {"a": 5}, "an answer to any copy is an answer, however slow the network is"
    bench.expire(410)
    bench.reads.accepted(2, 5, 5)
    bench.reads.accepted(3, 6, 6)
    assert bench.outcomes == {"a": 5, "b": 5, "c": 6}
    assert bench.reads.outgoing(410) == [], "what was answered meanwhile is not asked again"
    assert Bench().reads.deadline() == FAR_NS


def test_pending_reads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING_READS_MAX", 2)
    bench = Bench()
    bench.submit("a")
    bench.submit("b")
    with pytest.raises(Overloaded, match="2 reads"):
        bench.submit("c")
    bench.reads.outgoing(0)
    bench.reads.accepted(1, 1, 1)
    bench.submit("c")


def test_stop_gives_every_read_its_outcome() -> None:
    bench = Bench()
    for name in ("confirmed", "asked"):
        bench.submit(name)
        bench.reads.outgoing(0)
    bench.submit("waiting")
    bench.reads.accepted(1, 9, 0)
    cause = OSError("disk")
    bench.reads.stop(cause)
    assert set(bench.outcomes) == {"confirmed", "asked", "waiting"}
    for outcome in bench.outcomes.values():
        assert isinstance(outcome, NodeStopped)
        assert outcome.cause is cause
