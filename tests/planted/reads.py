"""Bugs in reads without a log write, and in what a state machine is asked (thesis 6.4)."""

from __future__ import annotations

from typing import Final

from totora.aio.applier import Applier
from totora.aio.runtime import Runtime
from totora.core import reads
from totora.session.reads import ReadIndexes

from .bug import Bug

__all__ = ["BUGS"]

BUGS: Final = (
    Bug(
        "read_before_the_no_op",
        "a new leader gives out no read index before an entry of its term is committed",
        "etcd#7331",
        [(reads.advance_reads, "and state.commit_index >= leader.first_index", "")],
    ),
    Bug(
        "read_without_a_majority",
        "a leader that was replaced learns of it before it answers a read",
        "paper 8",
        [
            (
                reads._is_confirmed,
                "voter == state.id or _acked_round(leader, voter) >= asked_round",
                "True",
            )
        ],
    ),
    Bug(
        "read_confirmed_by_an_earlier_round",
        "only an answer to a heartbeat that was sent after the read came confirms it",
        "etcd#20418",
        [(reads._is_confirmed, ">= asked_round", ">= asked_round - 1")],
    ),
    Bug(
        "read_joins_the_round_under_way",
        "what arrives while a round is under way waits for the next one",
        "etcd#20418",
        [
            (
                reads.read_requested,
                "leader.reads_waiting.append(key)",
                "(leader.reads_pending[-1].keys if leader.reads_pending else leader.reads_waiting).append(key)",
            )
        ],
    ),
    Bug(
        "read_before_it_is_committed_here",
        "a follower reads once it has committed as much as the leader said",
        "thesis 6.4",
        [(ReadIndexes.accepted, "self.committed(commit_index)", "self.committed(read_index)")],
    ),
    Bug(
        "query_of_the_local_state",
        "a query is confirmed with the leader",
        "thesis 6.4",
        [
            (
                Runtime._confirm_read,
                "self._engine.read_index(deadline_ns, confirmed)",
                "confirmed(self._engine.raft.commit_index)",
            )
        ],
    ),
    Bug(
        "query_before_what_it_must_see_is_applied",
        "a query waits until the machine has applied what it must see",
        "etcd 3.5 post-mortem",
        [(Applier.query, "elif outcome <= self.applied_index:", "elif outcome:")],
    ),
    Bug(
        "applied_before_it_is_committed",
        "a machine gets what is committed",
        "paper 5.3",
        [
            (
                Applier._take,
                "(batch for batch in batches if batch.last_index <= self._commit_index)",
                "(batches)",
            )
        ],
    ),
    Bug(
        "applied_twice_after_it_was_read_from_the_disk",
        "a machine gets each entry once",
        "etcd#18424",
        [
            (
                Applier._loaded,
                "and self._take(batches)",
                "and self._take(batches) and self._take(batches)",
            )
        ],
    ),
    Bug(
        "result_of_the_next_command",
        "a call gets the result of its own command",
        "paper 8",
        [
            (
                Applier.apply,
                "self._wait(outcome.first_index, call)",
                "self._wait(outcome.first_index + 1, call)",
            )
        ],
    ),
)
