"""Bugs in what a request is told, and in how it takes effect once (section 8; thesis 6.3)."""

from __future__ import annotations

from typing import Final

from totora.core import proposals, reads
from totora.core.summary import LogSummary, SessionTable
from totora.session.engine import Engine
from totora.session.proposals import Proposals
from totora.session.scheduler import Scheduler

from .bug import Bug

__all__ = ["BUGS"]

BUGS: Final = (
    Bug(
        "retry_appended_again",
        "a retry of what stands in the log is answered by its place",
        "paper 8, jraft#1053",
        [(proposals._is_next, "if event.sequence == next_sequence:", "if event.sequence <= next_sequence:")],
    ),
    Bug(
        "gap_not_noticed",
        "the appends of a session stand in sending order",
        "thesis 6.3",
        [(proposals._is_next, "if event.sequence == next_sequence:", "if event.sequence >= next_sequence:")],
        unlikely="what was left out is refused afterwards: an outcome becomes unknown, and nothing false",
        by="test_a_gap_is_refused_with_the_number_that_is_expected",
    ),
    Bug(
        "late_copy_of_an_earlier_session_taken",
        "once a holder has appended in a session, its earlier ones are over",
        "found by the simulator",
        [(Proposals._form, "if not self._holder or self._epoch == EPOCHS_MAX:", "if True:")],
        unlikely="a copy must be held until its sender has given it up and gone on, and a leader must then take it",
        by="test_8_what_comes_after_a_later_append_of_its_sender_comes_too_late",
    ),
    Bug(
        "session_table_not_rolled_back",
        "what was cut from the log was not appended",
        "thesis 6.3",
        [(SessionTable.take_back, "known.runs.pop()", "return")],
        unlikely="an outcome becomes unknown that need not, and nothing false",
        by="test_the_table_is_rolled_back_with_the_log",
    ),
    Bug(
        "sessions_lost_at_a_restart",
        "a restart forgets no session",
        "etcd#18424",
        [
            (
                LogSummary.decode,
                "{holder_of(number): Session(number, deque(runs)) for number, runs in encoded.sessions}",
                "{}",
            )
        ],
        unlikely="what a holder appends later brings its session back before it is needed",
        by="test_retry_across_leaders",
    ),
    Bug(
        "retry_in_a_new_session",
        "what may have taken effect keeps its number",
        "jraft#1053",
        [
            (
                Proposals.leader_changed,
                "self._paused_until_ns = 0",
                (
                    "self._paused_until_ns, self._renew = 0, True\n"
                    "    self._take_back(self._units)\n"
                    "    self._units.clear()"
                ),
            )
        ],
    ),
    Bug(
        "unknown_outcome_told_as_failed",
        "what may still take effect is never said to have none",
        "Jepsen, etcd#14890",
        [
            (
                Proposals._is_refuted,
                "return not (waited_for or unit.unanswered or self._retransmit_ns)",
                "return not waited_for and unit.refusal is not None",
            )
        ],
    ),
    Bug(
        "refusal_after_appending_taken_for_certain",
        "a leader that gave way after it appended does not know the outcome",
        "paper 8",
        [(Proposals.rejected, "unit.unanswered -= not response.appended", "unit.unanswered -= 1")],
    ),
    Bug(
        "leader_that_gives_way_says_nothing_was_appended",
        "a leader that gave way after it appended says so",
        "paper 8",
        [
            (
                Engine._became,
                'self._refuse(key, "not_leader", appended=True)',
                'self._refuse(key, "not_leader")',
            )
        ],
    ),
    Bug(
        "answers_whatever_comes_to_stand_there",
        "a proposal is answered if its own entry is committed, not another at its index",
        "paper 8",
        [
            (Engine._committed, "if self.raft.log.term_at(last_index) == term:", "if True:"),
            (Engine._became, "if not isinstance(self.raft.role, Leader):", "if False:"),
            (Proposals.leader_changed, "unit.handed, unit.request_id = False, 0", "unit.handed = False"),
        ],
    ),
    Bug(
        "place_of_a_joined_request",
        "requests that travel together stand one behind the other",
        "paper 8",
        [(Proposals._appended, "first_index += len(request.payloads)", "first_index += 1")],
    ),
    Bug(
        "condition_not_checked",
        "a conditional append holds if the named entry is the last one",
        "DESIGN 4",
        [(proposals.proposed, "if event.condition is not None and", "if False and")],
    ),
    Bug(
        "mismatch_told_without_a_majority",
        "a leader that was replaced learns of it before it says that a condition does not hold",
        "thesis 6.4",
        [
            (
                reads.refuse_condition,
                "read_requested(state, condition)",
                "leader.conditions.append(condition)\n    _answer_conditions(state, leader)",
            )
        ],
    ),
    Bug(
        "mismatch_told_before_it_is_certain",
        "what a mismatch names is committed",
        "DESIGN 4",
        [(reads._answer_conditions, "condition.last_index <= state.commit_index", "True")],
    ),
    Bug(
        "messages_leave_when_their_write_begins",
        "a message leaves after the write that it rests on",
        "paper 5.2, openraft io_ordering",
        [(Scheduler.may_leave, "send.after <= self._durable", "send.after <= self._writing")],
    ),
    Bug(
        "one_write_releases_all_messages",
        "a message waits for its own write, not for the one before",
        "openraft io_ordering",
        [
            (
                Scheduler.written,
                "while self._held and (self._held[0].after or 0) <= self._durable:",
                "while self._held:",
            )
        ],
    ),
)
