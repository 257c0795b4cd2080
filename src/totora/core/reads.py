"""Linearizable reads without a log write: ReadIndex, batched (thesis 6.4).

A read index may be given out once the leader has committed an entry of its own term and a majority has answered a heartbeat
that was sent after the read arrived. All reads that arrive while a round is under way share the next one.
"""

from __future__ import annotations

from typing import Final

from .effects import ReadReady, ReadRefused, Refused, RequestKey
from .heartbeat import broadcast_heartbeat
from .quorum import has_quorum
from .roles import Leader, PendingRead, WaitingCondition
from .state import State

__all__ = ["READS_WAITING_MAX", "abandon_reads", "advance_reads", "read_requested", "refuse_condition"]

READS_WAITING_MAX: Final = 65_536
"""Reads that wait for a round to begin, and conditional appends that wait to be told that theirs did not hold."""


def read_requested(state: State, key: RequestKey | WaitingCondition) -> None:
    """Someone asks for a read index."""
    leader = state.role
    if not isinstance(leader, Leader):
        _refuse(state, key)
    elif len(leader.reads_waiting) + len(leader.conditions) >= READS_WAITING_MAX:
        _refuse(state, key, overloaded=True)
    else:
        leader.reads_waiting.append(key)
        advance_reads(state, leader)


def refuse_condition(state: State, leader: Leader, key: RequestKey) -> None:
    """A condition does not hold; say so once the entry that it should have named is known to stay."""
    summary = state.log.summary
    condition = WaitingCondition(key, summary.last_user_index, summary.last_user_term)
    read_requested(state, condition)


def advance_reads(state: State, leader: Leader) -> None:
    """Answer the reads whose round a majority confirmed, and begin a round for those that wait."""
    pending = leader.reads_pending
    while pending and _is_confirmed(state, leader, pending[0].round):
        read = pending.popleft()
        for key in read.keys:
            if isinstance(key, WaitingCondition):
                leader.conditions.append(key)
            else:
                state.emit(ReadReady(key, read.read_index))
    _answer_conditions(state, leader)
    if leader.reads_waiting and not pending and state.commit_index >= leader.first_index:
        # Not before the no-op is committed: an earlier leader may have committed what this one does not know of yet.
        keys, leader.reads_waiting = leader.reads_waiting, []
        broadcast_heartbeat(state, leader)
        pending.append(PendingRead(leader.round, state.commit_index, keys))
        if _is_confirmed(state, leader, leader.round):
            advance_reads(state, leader)


def _is_confirmed(state: State, leader: Leader, asked_round: int) -> bool:
    return has_quorum(
        state.configuration, lambda voter: voter == state.id or _acked_round(leader, voter) >= asked_round
    )


def _acked_round(leader: Leader, voter: int) -> int:
    progress = leader.progress.get(voter)
    return -1 if progress is None else progress.acked_round


def _answer_conditions(state: State, leader: Leader) -> None:
    waiting = []
    for condition in leader.conditions:
        if condition.last_index <= state.commit_index:
            state.emit(Refused(condition.key, "mismatch", condition.last_index, condition.last_term))
        else:
            waiting.append(condition)
    leader.conditions = waiting


def abandon_reads(state: State, leader: Leader) -> None:
    """Leadership is lost: nothing that waits can be confirmed any more."""
    keys = [key for read in leader.reads_pending for key in read.keys] + leader.reads_waiting
    for key in (*keys, *leader.conditions):
        _refuse(state, key)


def _refuse(state: State, key: RequestKey | WaitingCondition, *, overloaded: bool = False) -> None:
    if isinstance(key, WaitingCondition):
        state.emit(Refused(key.key, "overloaded" if overloaded else "not_leader"))
    else:
        state.emit(ReadRefused(key, overloaded))
