"""A leader takes a proposal: once, in its session's order, if its condition holds (section 8; thesis 6.3)."""

from __future__ import annotations

from typing import Final

from .batch import Batch, Kind
from .effects import Append, Refused
from .events import Proposed
from .reads import refuse_condition
from .replication import append
from .roles import Leader
from .state import State

__all__ = ["UNCOMMITTED_BYTES_MAX", "proposed"]

UNCOMMITTED_BYTES_MAX: Final = 64 << 20
"""A leader takes no more than this beyond what is committed."""


def proposed(state: State, event: Proposed) -> None:
    """Answer with `Append` or `Refused`; a retry of what stands in the log is answered by its place."""
    leader = state.role
    if not isinstance(leader, Leader):
        state.emit(Refused(event.key, "not_leader"))
        return
    if event.session and not _is_next(state, event):
        return
    if leader.transfer is not None and leader.transfer.closed:
        state.emit(Refused(event.key, "transfer"))
        return
    if leader.uncommitted_bytes + len(event.body) > UNCOMMITTED_BYTES_MAX:
        state.emit(Refused(event.key, "overloaded"))
        return
    summary = state.log.summary
    if event.condition is not None and event.condition != (summary.last_user_index, summary.last_user_term):
        refuse_condition(state, leader, event.key)
        return
    batch = Batch.build(
        Kind.ENTRIES,
        state.current_term,
        state.log.last_index + 1,
        event.count,
        event.body,
        session=event.session,
        sequence=event.sequence,
        leader_time_ns=event.leader_time_ns,
    )
    append(state, leader, batch)
    state.emit(Append(event.key, batch.first_index, batch.last_index, batch.term))


def _is_next(state: State, event: Proposed) -> bool:
    """True if these entries follow the session's last ones; otherwise the answer is given here."""
    table = state.log.summary.sessions
    session = table.get(event.session)
    if session is None and (event.opened_at < table.horizon or table.is_over(event.session)):
        # It may have been forgotten, and with it that these very entries were appended; or its holder has gone on without it.
        state.emit(Refused(event.key, "expired"))
        return False
    next_sequence = 1 if session is None else session.next_sequence
    if event.sequence == next_sequence:
        return True
    if event.sequence > next_sequence:
        state.emit(Refused(event.key, "gap", next_sequence))
        return False
    run = session.find(event.sequence, event.count) if session is not None else None
    if run is None:
        state.emit(Refused(event.key, "expired"))
        return False
    sequence, first_index, _, term = run
    first_index += event.sequence - sequence
    state.emit(Append(event.key, first_index, first_index + event.count - 1, term))
    return False
