"""The holder of a session: units, window, retries, barriers, deadlines; each request has exactly one outcome."""

from __future__ import annotations

import random
from itertools import count

import pytest

from totora.core.batch import HEADER_BYTES, join_payloads
from totora.core.messages import ProposeAccepted, ProposeRejected, RefusalReason
from totora.errors import (
    EntryTooLarge,
    LogMismatch,
    NodeStopped,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    RaftError,
    SessionExpired,
    Unavailable,
)
from totora.session import proposals as module
from totora.session.proposals import RETRY_NS, Proposals
from totora.session.units import Appended, Unit
from totora.types import FAR_NS, LogIndex, Term

FAR = 10**12


class Bench:
    """One session's requests by name, what was handed over, and what each request got."""

    def __init__(self, batch_limit_bytes: int = 1 << 20, retransmit_ns: int = 0) -> None:
        self.proposals = Proposals(
            random.Random(1), count(1).__next__, batch_limit_bytes, retransmit_ns=retransmit_ns
        )
        self.outcomes: dict[str, Appended | RaftError] = {}
        self.now = 0

    def submit(
        self,
        name: str,
        *payloads: bytes,
        condition: tuple[LogIndex, Term] | None = None,
        deadline_ns: int = FAR,
    ) -> None:
        def resolve(outcome: Appended | RaftError) -> None:
            assert name not in self.outcomes, "one outcome for each"
            self.outcomes[name] = outcome

        self.proposals.submit(payloads or (name.encode(),), condition, deadline_ns, resolve)

    def out(self, commit_index: LogIndex = 0) -> list[Unit]:
        return self.proposals.outgoing(self.now, commit_index)

    def one(self, name: str, **fields: int) -> Unit:
        """A unit of its own, handed over."""
        self.submit(name, **fields)  # type: ignore[arg-type]
        (unit,) = self.out()
        return unit

    def accept(
        self, unit: Unit, first_index: LogIndex, term: Term = 1, request_id: int | None = None
    ) -> None:
        id = unit.request_id if request_id is None else request_id
        self.proposals.accepted(ProposeAccepted(term, 1, id, first_index, term))

    def reject(
        self,
        unit: Unit,
        reason: RefusalReason,
        last_index: int = 0,
        last_term: int = 0,
        *,
        request_id: int = 0,
        appended: bool = False,
    ) -> None:
        id = request_id or unit.request_id
        self.proposals.rejected(ProposeRejected(1, 1, id, reason, appended, last_index, last_term), self.now)

    def pass_time(self, ns: int) -> None:
        self.now += ns
        self.proposals.expire(self.now, lambda: "no leader")

    def kind(self, name: str) -> type[Appended | RaftError]:
        return type(self.outcomes[name])


def numbers(units: list[Unit]) -> list[tuple[int, int]]:
    return [(unit.sequence, unit.count) for unit in units]


# -- units


def test_requests_that_wait_are_joined_into_one_unit() -> None:
    """Encoded once, numbered by entries; each request is answered by its own place."""
    bench = Bench()
    bench.submit("a", b"1", b"2")
    bench.submit("b")
    bench.submit("c", b"4")
    assert bench.proposals.pending == 3
    (unit,) = bench.out(commit_index=7)
    assert (unit.sequence, unit.count, unit.opened_at) == (1, 4, 7)
    assert unit.body == join_payloads([b"1", b"2", b"b", b"4"])
    assert unit.session != 0
    assert bench.out() == []
    bench.accept(unit, 10, term=3)
    assert bench.outcomes == {"a": Appended(10, 3), "b": Appended(12, 3), "c": Appended(13, 3)}
    assert bench.proposals.pending == 0
    later = bench.one("d")
    assert (later.sequence, later.session, later.opened_at) == (5, unit.session, 7), "the session goes on"


def test_a_unit_is_at_most_a_batch() -> None:
    """Two entries of 10 bytes and their lengths fit exactly; a third is another unit, in the same order."""
    bench = Bench(batch_limit_bytes=HEADER_BYTES + 2 * (10 + 4))
    for name in "abc":
        bench.submit(name, bytes(10))
    first, second = bench.out()
    assert numbers([first, second]) == [(1, 2), (3, 1)]
    assert len(first.body) + HEADER_BYTES == HEADER_BYTES + 28
    bench.submit("large", bytes(24))
    bench.submit("next", b"")
    assert numbers(bench.out()) == [(4, 1), (5, 1)], "one that fills a batch travels alone"


def test_the_window_is_what_the_cluster_remembers_of_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNITS_IN_FLIGHT_MAX", 3)
    bench = Bench()
    units = [bench.one(name) for name in "abc"]
    bench.submit("d")
    bench.submit("e")
    assert bench.out() == []
    bench.accept(units[1], 3)
    assert bench.out() == [], "the oldest would be forgotten before it is answered"
    bench.accept(units[0], 2)
    assert numbers(bench.out()) == [(4, 2)]


# -- retries


def test_a_retry_has_the_same_numbers_and_bytes_and_another_request_id() -> None:
    bench = Bench()
    unit = bench.one("a")
    before = unit.session, unit.sequence, unit.count, unit.body, unit.opened_at, unit.request_id
    bench.submit("b")
    bench.proposals.leader_changed()
    again, other = bench.out(commit_index=99)
    assert again is unit
    after = again.session, again.sequence, again.count, again.body, again.opened_at, again.request_id
    assert after[:5] == before[:5]
    assert after[5] != before[5]
    assert again.attempts == 2
    assert other.sequence == 2, "what waited is not joined to what was handed over"
    bench.accept(unit, 2, request_id=before[5])
    assert bench.outcomes == {}, "an answer to a former attempt is not the outcome"
    bench.accept(unit, 2)
    bench.accept(unit, 9)
    assert bench.outcomes == {"a": Appended(2, 1)}


def test_after_a_change_of_leader_all_is_handed_over_again_in_order() -> None:
    bench = Bench()
    units = [bench.one(name) for name in "abcd"]
    bench.accept(units[1], 3)
    bench.reject(units[0], "overloaded")
    bench.proposals.leader_changed()
    assert bench.out() == [units[0], units[2], units[3]], "at once: the pause was the old leader's"


@pytest.mark.parametrize("reason", ["not_leader", "overloaded", "late"])
def test_what_is_refused_for_now_is_handed_over_again_a_little_later(reason: RefusalReason) -> None:
    bench = Bench()
    unit = bench.one("a")
    assert bench.proposals.deadline() == FAR
    bench.reject(unit, reason)
    bench.submit("b")
    assert bench.out() == [], "nothing overtakes it"
    assert bench.proposals.deadline() == RETRY_NS
    bench.pass_time(RETRY_NS - 1)
    assert bench.out() == []
    bench.pass_time(1)
    assert bench.proposals.deadline() == FAR
    assert numbers(bench.out()) == [(1, 1), (2, 1)]
    bench.accept(unit, 2)
    assert bench.outcomes == {"a": Appended(2, 1)}


def test_what_follows_a_refused_unit_is_handed_over_again_behind_it() -> None:
    bench = Bench()
    one, two, three = (bench.one(name) for name in "abc")
    bench.reject(one, "overloaded")
    bench.reject(two, "gap", 1)
    bench.reject(three, "gap", 1)
    bench.pass_time(RETRY_NS)
    assert bench.out() == [one, two, three]


def test_a_gap_means_that_an_earlier_unit_was_lost() -> None:
    """The first of three never arrived, over UDP or on a link that was replaced; it is not answered, the others are refused.

    Handing over those alone would be refused for ever.
    """
    bench = Bench()
    done, lost, refused, under_way = (bench.one(name) for name in "abcd")
    bench.reject(refused, "gap", lost.sequence)
    bench.pass_time(RETRY_NS)
    assert bench.out() == [lost, refused, under_way]
    bench.accept(done, 2)
    assert bench.outcomes == {"a": Appended(2, 1)}, "what the leader has is not handed over again"


def test_answers_to_what_is_no_longer_under_way_change_nothing() -> None:
    bench = Bench()
    unit = bench.one("a")
    bench.accept(unit, 2)
    for reason in ("not_leader", "expired", "mismatch", "too_large"):
        bench.reject(unit, reason)
    assert bench.outcomes == {"a": Appended(2, 1)}
    assert bench.one("b").session == unit.session


def test_what_is_committed_here_is_an_answer() -> None:
    """Its batch names its session and its numbers. What the leader says of it later, or says again, changes nothing."""
    bench = Bench()
    first = bench.one("a")
    bench.submit("b1", b"x", b"y")
    bench.submit("b2")
    (second,) = bench.out()
    assert bench.proposals.settled(second.session, second.sequence, 8, 2)
    assert bench.outcomes == {"b1": Appended(8, 2), "b2": Appended(10, 2)}
    assert bench.proposals.pending == 1
    assert not bench.proposals.settled(second.session, second.sequence, 8, 2)
    bench.accept(second, 8, 2)
    bench.reject(second, "not_leader")
    assert not bench.proposals.settled(first.session + 1, first.sequence, 7, 2)
    assert not bench.proposals.settled(0, 0, 1, 1)
    bench.proposals.leader_changed()
    (again,) = bench.out()
    assert again is first
    assert bench.proposals.settled(first.session, first.sequence, 7, 2)
    assert bench.outcomes["a"] == Appended(7, 2)
    assert bench.proposals.pending == 0


def test_what_is_committed_here_makes_room_in_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNITS_IN_FLIGHT_MAX", 2)
    bench = Bench()
    first = bench.one("a")
    bench.one("b")
    bench.submit("c")
    assert not bench.out()
    assert bench.proposals.settled(first.session, first.sequence, 7, 1)
    assert len(bench.out()) == 1


def test_where_messages_may_be_lost_what_is_unanswered_is_handed_over_again() -> None:
    """And while no leader can be reached, the deadline does not stay in the past."""
    bench = Bench(retransmit_ns=200)
    unit = bench.one("a")
    assert bench.proposals.deadline() == 200
    bench.pass_time(199)
    assert bench.out() == []
    bench.pass_time(1)
    assert bench.proposals.deadline() == FAR
    assert bench.out() == [unit]
    assert bench.proposals.deadline() == 400
    assert unit.attempts == 2


def test_an_answer_to_any_copy_is_an_answer() -> None:
    """The way there and back takes longer than the sender's patience: the first answer comes after three copies left."""
    bench = Bench(retransmit_ns=200)
    unit = bench.one("a")
    first = unit.request_id
    for _ in range(2):
        bench.pass_time(200)
        assert bench.out() == [unit]
    bench.accept(unit, 7, request_id=first)
    assert bench.outcomes == {"a": Appended(7, 1)}


# -- what was refused until nobody waited


@pytest.mark.parametrize(
    ("reason", "kind"), [("not_leader", NotLeader), ("gap", NotLeader), ("overloaded", Overloaded)]
)
def test_what_was_refused_until_its_time_was_over_is_certainly_without_effect(
    reason: RefusalReason, kind: type[RaftError]
) -> None:
    """Each attempt was answered, so nothing is unknown; and it is never handed over again."""
    bench = Bench()
    bench.submit("a", deadline_ns=3 * RETRY_NS)
    (unit,) = bench.out()
    bench.reject(unit, reason, 1)
    bench.pass_time(RETRY_NS)
    assert bench.out() == [unit]
    bench.reject(unit, reason, 1)
    bench.pass_time(2 * RETRY_NS)
    assert bench.kind("a") is kind
    assert bench.out() == []
    assert bench.one("b").session != unit.session


def test_an_attempt_without_an_answer_leaves_it_unknown() -> None:
    """The second was refused, the first may have been appended by a leader that died."""
    bench = Bench()
    bench.submit("a", deadline_ns=50)
    (unit,) = bench.out()
    bench.proposals.leader_changed()
    assert bench.out() == [unit]
    bench.reject(unit, "not_leader")
    bench.pass_time(50)
    assert bench.kind("a") is OutcomeUnknown


def test_what_others_behind_it_need_is_unknown_for_it_goes_on() -> None:
    """It is handed over again for their sake, so nobody may be told that it is without effect."""
    bench = Bench()
    bench.submit("a", deadline_ns=50)
    (one,) = bench.out()
    two = bench.one("b")
    bench.reject(one, "not_leader")
    bench.reject(two, "gap", 1)
    bench.pass_time(50)
    assert bench.kind("a") is OutcomeUnknown
    bench.pass_time(RETRY_NS)
    assert bench.out() == [one, two]


def test_where_messages_may_be_doubled_a_refusal_proves_nothing() -> None:
    """A copy of the attempt that was refused may yet be taken."""
    bench = Bench(retransmit_ns=10**9)
    bench.submit("a", deadline_ns=50)
    (unit,) = bench.out()
    bench.reject(unit, "not_leader")
    bench.pass_time(50)
    assert bench.kind("a") is OutcomeUnknown


# -- a session that is forgotten


def test_an_only_attempt_that_is_expired_goes_in_a_new_session() -> None:
    """It certainly had no effect. The new session knows of as much as the leader, or it would be refused as well."""
    bench = Bench()
    one, two = bench.one("a"), bench.one("b")
    bench.submit("c")
    bench.reject(one, "expired", 40)
    assert bench.out() == [], "no new session while the old one is under way"
    bench.reject(two, "expired", 50)
    assert bench.outcomes == {}
    bench.pass_time(RETRY_NS)
    (unit,) = bench.out(commit_index=3)
    assert unit.body == join_payloads([b"a", b"b", b"c"]), "in sending order"
    assert (unit.sequence, unit.opened_at) == (1, 50)
    assert unit.session != one.session
    bench.accept(unit, 60)
    assert bench.outcomes["c"] == Appended(62, 1)


def test_a_retry_that_is_expired_may_have_taken_effect_before() -> None:
    bench = Bench()
    one, two = bench.one("a"), bench.one("b")
    bench.reject(one, "not_leader")
    bench.pass_time(RETRY_NS)
    assert bench.out() == [one]
    bench.reject(one, "expired", 9)
    assert bench.kind("a") is SessionExpired
    bench.reject(two, "expired", 9)
    assert "b" not in bench.outcomes
    bench.pass_time(RETRY_NS)
    (unit,) = bench.out()
    assert unit.session != one.session


def test_where_one_attempt_can_arrive_twice_expired_is_unknown() -> None:
    """A datagram is appended, forgotten, and its copy refused: the refusal proves nothing."""
    bench = Bench(retransmit_ns=10**9)
    unit = bench.one("a")
    bench.reject(unit, "expired", 9)
    assert bench.kind("a") is SessionExpired


def test_where_a_relay_can_double_it_expired_is_unknown() -> None:
    bench = Bench()
    unit = bench.one("a")
    bench.reject(unit, "expired", 9, appended=True)
    assert bench.kind("a") is SessionExpired


def test_an_expired_unit_does_not_bring_back_who_stopped_waiting() -> None:
    bench = Bench()
    bench.submit("a", deadline_ns=10)
    bench.submit("b")
    (unit,) = bench.out()
    bench.pass_time(10)
    bench.reject(unit, "expired", 9)
    bench.pass_time(RETRY_NS)
    (again,) = bench.out()
    assert again.body == join_payloads([b"b"])
    assert bench.kind("a") is OutcomeUnknown


# -- conditions


def test_a_conditional_unit_travels_alone() -> None:
    bench = Bench()
    bench.submit("a")
    bench.submit("if", condition=(2, 1))
    bench.submit("b")
    bench.submit("c")
    (first,) = bench.out()
    assert first.count == 1
    assert bench.out() == []
    bench.accept(first, 2)
    (conditional,) = bench.out()
    assert (conditional.sequence, conditional.condition) == (2, (2, 1))
    assert bench.out() == []
    bench.accept(conditional, 3)
    (rest,) = bench.out()
    assert (rest.sequence, rest.count) == (3, 2)


def test_after_a_mismatch_its_numbers_are_used_again() -> None:
    """Nothing of it is in the log and nothing ever will be; a gap would stop the session."""
    bench = Bench()
    bench.accept(bench.one("a"), 2)
    bench.submit("if", condition=(2, 1))
    bench.submit("b")
    (conditional,) = bench.out()
    bench.reject(conditional, "mismatch", 5, 1)
    mismatch = bench.outcomes["if"]
    assert isinstance(mismatch, LogMismatch)
    assert (mismatch.last_index, mismatch.last_term) == (5, 1)
    (unit,) = bench.out()
    assert (unit.session, unit.sequence) == (conditional.session, 2)


def test_a_condition_that_names_the_future_leaves_no_numbers_behind() -> None:
    """A late copy of it may still be appended once its entry exists; another request under its numbers would be taken for it."""
    bench = Bench()
    bench.submit("if", condition=(9, 1))
    (conditional,) = bench.out()
    bench.reject(conditional, "mismatch", 5, 1)
    assert bench.kind("if") is LogMismatch
    assert bench.one("b").session != conditional.session


# -- deadlines


def test_only_what_was_never_handed_over_is_unavailable() -> None:
    bench = Bench()
    bench.submit("handed", deadline_ns=50)
    (unit,) = bench.out()
    bench.submit("if", condition=(1, 1), deadline_ns=50)
    assert bench.out() == []
    bench.submit("patient", deadline_ns=60)
    bench.pass_time(49)
    assert bench.outcomes == {}
    bench.pass_time(1)
    unavailable = bench.outcomes["if"]
    assert isinstance(unavailable, Unavailable)
    assert unavailable.why == "no leader"
    assert bench.kind("handed") is OutcomeUnknown
    assert "no leader" in str(bench.outcomes["handed"])
    assert bench.proposals.deadline() == 60
    bench.accept(unit, 2)
    bench.pass_time(10)
    assert bench.kind("patient") is Unavailable
    assert bench.proposals.deadline() == FAR_NS
    assert bench.proposals.pending == 0


def test_abandoned_units_are_resent_while_one_behind_them_has_somebody_waiting() -> None:
    """The session would have a gap without them."""
    bench = Bench()
    bench.submit("a", deadline_ns=50)
    (one,) = bench.out()
    two = bench.one("b")
    bench.pass_time(50)
    assert bench.kind("a") is OutcomeUnknown
    assert one.abandoned
    assert not two.abandoned
    bench.proposals.leader_changed()
    assert bench.out() == [one, two]
    assert bench.proposals.patience_ns == FAR
    bench.accept(one, 2)
    bench.accept(two, 3)
    assert bench.outcomes["b"] == Appended(3, 1)
    assert bench.one("c").session == one.session


def test_when_nobody_waits_the_session_is_dropped() -> None:
    bench = Bench()
    bench.submit("a", deadline_ns=50)
    bench.submit("b", deadline_ns=60)
    (one,) = bench.out()
    bench.submit("c", condition=(0, 0))
    bench.pass_time(50)
    assert bench.out() == []
    bench.pass_time(10)
    bench.accept(one, 2)
    assert bench.kind("b") is OutcomeUnknown
    (unit,) = bench.out(commit_index=4)
    assert unit.session != one.session
    assert (unit.sequence, unit.opened_at) == (1, 4)
    assert bench.proposals.patience_ns == FAR


def test_many_late_requests_among_patient_ones() -> None:
    bench = Bench()
    for number in range(100):
        bench.submit(f"{number}", deadline_ns=50 if number % 2 else FAR)
    bench.pass_time(50)
    assert len(bench.outcomes) == 50
    (unit,) = bench.out()
    assert unit.body == join_payloads([b"%d" % number for number in range(0, 100, 2)])


# -- bounds


def test_pending_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING_PROPOSALS_MAX", 2)
    bench = Bench()
    unit = bench.one("a")
    bench.submit("b")
    with pytest.raises(Overloaded, match="2 requests"):
        bench.submit("c")
    bench.accept(unit, 2)
    bench.submit("c")


def test_pending_bytes_are_bounded_but_one_request_always_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING_BYTES_MAX", 100)
    bench = Bench()
    bench.submit("a", bytes(200), deadline_ns=10)
    with pytest.raises(Overloaded, match="100 bytes of requests"):
        bench.submit("b")
    bench.pass_time(10)
    bench.submit("b", bytes(90))
    with pytest.raises(Overloaded):
        bench.submit("c", bytes(3))
    bench.submit("d", bytes(2))


def test_a_leader_that_takes_only_smaller_batches() -> None:
    """A client process with larger settings than the cluster: what is too large fails, what was joined goes in pieces."""
    bench = Bench()
    before = bench.one("before")
    bench.submit("a", bytes(60))
    bench.submit("large", bytes(101))
    bench.submit("b", bytes(60))
    (unit,) = bench.out()
    behind = bench.one("behind")
    bench.submit("waiting")
    bench.reject(unit, "too_large", HEADER_BYTES + 104)
    error = bench.outcomes["large"]
    assert isinstance(error, EntryTooLarge)
    assert (error.size_bytes, error.limit) == (105, 104)
    assert bench.out() == [], "the old session comes to its end first"
    bench.reject(behind, "gap", unit.sequence)
    bench.accept(before, 2)
    bench.pass_time(RETRY_NS)
    units = bench.out()
    assert [(unit.session == before.session, unit.sequence, unit.count) for unit in units] == [
        (False, 1, 1),
        (False, 2, 3),
    ]
    bench.accept(units[0], 3)
    bench.accept(units[1], 4)
    assert bench.outcomes["behind"] == Appended(5, 1)
    assert bench.outcomes["waiting"] == Appended(6, 1)


def test_too_large_for_this_leader_after_another_attempt_is_unknown() -> None:
    """The former leader may have taken it, and what is behind it."""
    bench = Bench()
    unit, behind = bench.one("a"), bench.one("b")
    bench.proposals.leader_changed()
    bench.out()
    bench.reject(unit, "too_large", HEADER_BYTES + 4)
    assert bench.kind("a") is OutcomeUnknown
    assert bench.kind("b") is OutcomeUnknown
    assert bench.one("c").session != behind.session


# -- the end


def test_stop_gives_every_request_its_outcome() -> None:
    """Even if somebody asks for more in the middle of it."""
    bench = Bench()
    unit = bench.one("handed")
    bench.submit("waiting")
    cause = OSError("disk")
    bench.proposals.submit([b"x"], None, FAR, lambda _: bench.submit("too late"))
    bench.proposals.stop(cause)
    assert bench.kind("handed") is OutcomeUnknown
    stopped = bench.outcomes["waiting"]
    assert isinstance(stopped, NodeStopped)
    assert stopped.cause is cause
    bench.accept(unit, 2)


def test_who_is_answered_may_ask_again_at_once() -> None:
    """`resolve` submits: when it is accepted, refused for good, or late."""
    bench = Bench()

    def ask_again(outcome: Appended | RaftError) -> None:
        bench.submit(f"after {type(outcome).__name__}")

    bench.proposals.submit([b"x"], None, FAR, ask_again)
    (unit,) = bench.out()
    bench.accept(unit, 2)
    bench.proposals.submit([b"x"], None, 10, ask_again)
    bench.out()
    bench.pass_time(10)
    bench.proposals.submit([b"x"], (9, 9), 20, ask_again)
    bench.pass_time(10)
    (unit,) = bench.out()
    assert unit.count == 2
    assert unit.body == join_payloads([b"after OutcomeUnknown", b"after Unavailable"])
