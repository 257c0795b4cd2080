"""A leader's heartbeat: an AppendEntries without entries, which matches any follower's log by what it is known to hold.

It never rests on entries that are under way, so it needs no order with them and travels on a connection of its own: a large
batch never delays it.
"""

from __future__ import annotations

from ..types import NodeId
from .messages import AppendEntries
from .roles import Leader
from .state import State

__all__ = ["broadcast_heartbeat", "send_heartbeat"]


def send_heartbeat(state: State, leader: Leader, peer: NodeId) -> None:
    """Tell one follower that this server leads, and how much is committed (section 5.2)."""
    match_index = leader.progress[peer].match_index
    prev_log_term = state.log.term_at(match_index)
    if prev_log_term is None:
        # The follower's last known entry is compacted here; what is before the log's base is committed, so it matches.
        match_index, prev_log_term = state.log.base_index, state.log.base_term
    state.send(
        peer,
        AppendEntries(
            state.current_term, state.id, match_index, prev_log_term, state.commit_index, leader.round
        ),
    )


def broadcast_heartbeat(state: State, leader: Leader) -> None:
    """Begin a round: an answer that returns its number confirms leadership as of now (thesis 6.4)."""
    leader.round += 1
    for peer in leader.progress:
        send_heartbeat(state, leader, peer)
