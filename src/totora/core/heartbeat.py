"""A leader's heartbeat: an AppendEntries without entries, which matches any follower's log by what it is known to hold.

It never rests on entries that are under way, so it needs no order with them and travels on a connection of its own: a large
batch never delays it.
"""

from __future__ import annotations

from ..types import LogIndex, NodeId
from .messages import AppendEntries
from .roles import Leader
from .state import State

__all__ = ["broadcast_heartbeat", "send_heartbeat", "send_probe"]


def send_heartbeat(state: State, leader: Leader, peer: NodeId) -> None:
    """Tell one follower that this server leads, and how much is committed (section 5.2)."""
    _send_empty(state, leader, peer, leader.progress[peer].match_index)


def send_probe(state: State, leader: Leader, peer: NodeId, prev_log_index: LogIndex) -> None:
    """Ask once more whether a follower's log matches there: the first question, with its entries, may be lost or slow."""
    _send_empty(state, leader, peer, prev_log_index)


def _send_empty(state: State, leader: Leader, peer: NodeId, prev_log_index: LogIndex) -> None:
    prev_log_term = state.log.term_at(prev_log_index)
    if prev_log_term is None:
        # The entry is compacted here; what is before the log's base is committed, so it matches.
        prev_log_index, prev_log_term = state.log.base_index, state.log.base_term
    state.send(
        peer,
        AppendEntries(
            state.current_term, state.id, prev_log_index, prev_log_term, state.commit_index, leader.round
        ),
    )


def broadcast_heartbeat(state: State, leader: Leader) -> None:
    """Begin a round: an answer that returns its number confirms leadership as of now (thesis 6.4)."""
    leader.round += 1
    for peer in leader.progress:
        send_heartbeat(state, leader, peer)
