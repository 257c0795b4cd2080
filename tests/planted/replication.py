"""Bugs in AppendEntries and in what is committed (section 5.3, 5.4.2)."""

from __future__ import annotations

from typing import Final

from totora.core import replication
from totora.core.log import RaftLog
from totora.core.roles import Candidate

from .bug import Bug

__all__ = ["BUGS"]

BUGS: Final = (
    Bug(
        "older_term_committed_by_counting",
        "a leader counts replicas only of entries of its own term",
        "paper 5.4.2, logcabin#44",
        [(replication.advance_commit, "and state.log.term_at(index) == state.current_term", "")],
    ),
    Bug(
        "every_append_truncates",
        "only what conflicts is removed",
        "paper 5.3, openraft 9540c904",
        [(replication._take, "log.term_at(batch.last_index) == batch.term", "False")],
    ),
    Bug(
        "conflict_kept",
        "what conflicts is removed, and all that follows it",
        "paper 5.3",
        [
            (
                replication._take,
                "log.term_at(batch.last_index) == batch.term",
                "batch.last_index <= log.last_index",
            )
        ],
    ),
    Bug(
        "previous_entry_not_compared",
        "entries are taken only behind the entry that they follow in the leader's log",
        "paper 5.3",
        [
            (
                replication._matches,
                "state.log.term_at(call.prev_log_index) == call.prev_log_term",
                "call.prev_log_index <= state.log.last_index",
            )
        ],
    ),
    Bug(
        "stale_leader_heard",
        "an AppendEntries of an earlier term is refused",
        "paper 5.1",
        [(replication.on_append_entries, "if call.term < state.current_term:", "if False:")],
    ),
    Bug(
        "committed_beyond_what_was_verified",
        "a follower commits no more than this message verified",
        "databend#3914",
        [
            (
                replication.on_append_entries,
                "min(call.leader_commit, verified)",
                "min(call.leader_commit, state.log.last_index)",
            )
        ],
    ),
    Bug(
        "stale_ack_counted",
        "an acknowledgement of an earlier leadership proves nothing",
        "PySyncObj",
        [(replication.on_append_accepted, "or response.term != state.current_term", "")],
    ),
    Bug(
        "whole_log_acknowledged",
        "a follower acknowledges what this message verified",
        "paper 5.3",
        [
            (
                replication.on_append_entries,
                "AppendAccepted(state.current_term, sender, verified, call.round)",
                "AppendAccepted(state.current_term, sender, state.log.last_index, call.round)",
            )
        ],
    ),
    Bug(
        "acknowledged_before_the_sync",
        "an acknowledgement waits for the write of what it acknowledges",
        "paper 5.2, Figure 2",
        [
            (
                replication.on_append_entries,
                "if verified <= state.log.durable_index and state.hard_state_durable:",
                "if state.hard_state_durable:",
            )
        ],
    ),
    Bug(
        "heartbeat_answered_before_its_term_is_durable",
        "the term of an answer is on stable storage",
        "paper 5.1, Figure 2",
        [(replication.on_append_entries, "and state.hard_state_durable", "")],
    ),
    Bug(
        "leader_counts_itself_before_its_sync",
        "a leader holds what is on its disk, no more",
        "etcd#14370",
        [(replication.advance_commit, "state.log.durable_index", "state.log.last_index")],
    ),
    Bug(
        "durable_beyond_a_truncation",
        "what is written anew where the log was cut is not durable yet",
        "etcd append ABA",
        [(RaftLog.truncate_after, "self.durable_index = min(self.durable_index, index)", "pass")],
    ),
    Bug(
        "match_index_not_reset",
        "a new leader knows of no follower what it holds",
        "paper, Figure 2",
        [
            (
                Candidate.lead,
                "Progress(next_index=first_index, contact_ns=now)",
                "Progress(next_index=first_index, match_index=first_index - 1, contact_ns=now)",
            )
        ],
    ),
    Bug(
        "match_index_of_what_was_sent",
        "match_index is what the follower acknowledged, not what was sent to it",
        "paper 5.3",
        [
            (
                replication.on_append_accepted,
                "progress.matched(response.match_index, state.now)",
                "progress.matched(max(response.match_index, progress.next_index - 1), state.now)",
            )
        ],
    ),
    Bug(
        "next_index_never_goes_back",
        "a leader steps back until the follower's log matches",
        "paper 5.3",
        [
            (
                replication.on_append_rejected,
                "progress.probe(min(index + 1, response.prev_log_index))",
                "progress.probe(progress.next_index)",
            )
        ],
    ),
    Bug(
        "no_op_left_out",
        "a new leader appends an entry of its term at once",
        "paper 8",
        [(replication.lead, '_append_own(state, leader, Kind.NOOP, b"")', "pass")],
    ),
)
