"""Giving way: the one transition that any role can make at any time (Figure 2, rules for servers, all servers)."""

from __future__ import annotations

from ..types import NodeId, Term
from .reads import abandon_reads
from .roles import Follower, Leader
from .state import State

__all__ = ["follow"]


def follow(state: State, term: Term, leader_id: NodeId | None) -> Follower:
    """Become a follower, in a higher term or of a leader that was just heard.

    A higher term alone does not restart the election timer: only a leader or a vote that was given does (section 5.2),
    or servers whose logs are too old to win could keep the others from standing.
    """
    if term > state.current_term:
        state.promise(term, None)
    role = state.role
    if isinstance(role, Leader):
        abandon_reads(state, role)
        deadline_ns = state.election_deadline()
    elif leader_id is None:
        deadline_ns = role.deadline_ns
    else:
        deadline_ns = state.election_deadline()
    follower = role.follow(leader_id, deadline_ns, None if leader_id is None else state.now)
    state.role = follower
    return follower
