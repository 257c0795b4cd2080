"""Bugs in handing the leadership over, and in giving it up (thesis 3.10)."""

from __future__ import annotations

from typing import Final

from totora.core import election, proposals, transfer
from totora.core.roles import PreCandidate
from totora.core.state import State

from .bug import Bug

__all__ = ["BUGS"]

BUGS: Final = (
    Bug(
        "transfer_to_whoever_lacks_entries",
        "the leader brings its successor up to date before it hands over",
        "thesis 3.10",
        [(transfer.advance_transfer, "progress.match_index == state.log.last_index", "True")],
    ),
    Bug(
        "order_of_an_earlier_term_obeyed",
        "an order to stand counts in the term in which it was given",
        "thesis 3.10",
        [(election.on_timeout_now, "and call.term == state.current_term\n        and role", "and role")],
        unlikely="the node must follow the same leader again, in a later term, before the order arrives",
        by="test_an_order_of_nobody_who_leads_is_passed_over",
    ),
    Bug(
        "consent_claimed_without_it",
        "only whom the leader told to stand says so: others would depose a leader that is heard",
        "thesis 4.2.3",
        [
            (
                PreCandidate.stand,
                "Candidate(deadline_ns=deadline_ns)",
                "Candidate(deadline_ns=deadline_ns, transfer=True)",
            )
        ],
    ),
    Bug(
        "consent_replaces_the_log",
        "with the leader's consent too a vote goes only to a log that is at least as up to date",
        "paper 5.4.1",
        [
            (
                election.on_request_vote,
                "and _is_up_to_date(state, call.last_log_index, call.last_log_term)",
                "and (call.transfer or _is_up_to_date(state, call.last_log_index, call.last_log_term))",
            )
        ],
        unlikely="the order must come so late that the leader has given the transfer up and gone on",
        by="test_consent_replaces_neither_a_log_nor_a_vote",
    ),
    Bug(
        "entries_taken_while_handing_over",
        "once its successor is told to stand, a leader takes no entry that it lacks",
        "thesis 3.10",
        [
            (
                proposals.proposed,
                "if leader.transfer is not None and leader.transfer.closed:",
                "if False:",
            )
        ],
        unlikely="it costs the successor its election, and nobody an entry",
        by="test_what_stands_in_the_log_is_answered_while_it_hands_over",
    ),
    Bug(
        "stalled_leader_keeps_its_office",
        "a leader whose disk stands still gives way: its heartbeats would keep everyone waiting",
        "hashicorp#683",
        [
            (
                State.stalled_ns,
                "return now - self._storage_ns if self._writes else 0",
                "return 0",
            )
        ],
        unlikely="the others commit without its disk; that they do so under another leader shows in no answer",
        by="test_stalled_disk_leader",
    ),
)
