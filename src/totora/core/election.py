"""Leader election: section 5.2, the restriction of 5.4.1, pre-vote (thesis 9.6), and how a broken link hastens it.

Every function handles one thing that can happen, for the state of one server.
"""

from __future__ import annotations

from ..errors import ProtocolError
from ..types import LogIndex, NodeId, Term
from . import replication
from .messages import (
    PreVoteAccepted,
    PreVoteRejected,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteAccepted,
    VoteRejected,
)
from .quorum import has_quorum
from .roles import Candidate, Follower, Leader, PreCandidate
from .state import State
from .transitions import follow

__all__ = [
    "election_timeout",
    "hasten_start",
    "hears_leader",
    "link_lost",
    "link_up",
    "on_pre_vote_accepted",
    "on_pre_vote_rejected",
    "on_request_pre_vote",
    "on_request_vote",
    "on_timeout_now",
    "on_vote_accepted",
    "on_vote_rejected",
    "own_vote_persisted",
]


def hears_leader(state: State) -> bool:
    """True while a leader is heard, or is this server: then no vote is given, whatever term asks for it.

    Without this a server that was cut off for a while, or a partial partition, deposes healthy leaders again and again
    (thesis 4.2.3).
    """
    match state.role:
        case Leader():
            return True
        case Follower(heard_ns=heard_ns):
            return heard_ns is not None and state.now - heard_ns < state.settings.election_min_ns
        case _:
            return False


def _is_up_to_date(state: State, last_log_index: LogIndex, last_log_term: Term) -> bool:
    """The candidate's log holds everything that may be committed, as far as this voter can tell (section 5.4.1)."""
    return (last_log_term, last_log_index) >= (state.log.last_term, state.log.last_index)


# -- asking


def election_timeout(state: State, role: Follower | PreCandidate | Candidate) -> None:
    """No leader was heard for an election timeout (section 5.2), or a candidacy led nowhere: ask for pre-votes."""
    if not state.configuration.is_voter(state.id):
        # A learner, or a server that was removed, waits to be told.
        role.deadline_ns = state.election_deadline()
        return
    follower = role if isinstance(role, Follower) else _back_to_follower(state, role)
    deadline_ns = _retry_deadline(state) if follower.leader_lost else state.election_deadline()
    candidate = follower.stand(deadline_ns)
    candidate.votes.granted.add(state.id)
    state.role = candidate
    for peer in state.peers:
        _ask_pre_vote(state, peer)
    _count_pre_votes(state, candidate)


def _back_to_follower(state: State, role: PreCandidate | Candidate) -> Follower:
    follower = role.follow(None, state.election_deadline(), None)
    if isinstance(role, PreCandidate):
        follower.leader_id, follower.leader_lost = role.leader_id, role.leader_lost
    return follower


def _retry_deadline(state: State) -> int:
    """Soon, while the link to the leader is down; not so soon that an answer could not have come."""
    return state.failover_deadline() + state.settings.failover_delay_ns


def _ask_pre_vote(state: State, peer: NodeId) -> None:
    log = state.log
    state.send(peer, RequestPreVote(state.current_term + 1, state.id, log.last_index, log.last_term))


def _count_pre_votes(state: State, role: PreCandidate) -> None:
    if has_quorum(state.configuration, role.votes.granted.__contains__):
        _campaign(state, role.stand(state.election_deadline()))


def _campaign(state: State, candidate: Candidate) -> None:
    """Begin an election: enter the next term, vote for oneself, ask everyone (Figure 2, candidates)."""
    state.promise(state.current_term + 1, state.id)
    state.role = candidate
    for peer in state.peers:
        _ask_vote(state, candidate, peer)


def _ask_vote(state: State, candidate: Candidate, peer: NodeId) -> None:
    log = state.log
    state.answer(
        peer,
        RequestVote(state.current_term, state.id, log.last_index, log.last_term, candidate.transfer),
    )


def on_timeout_now(state: State, sender: NodeId, call: TimeoutNow) -> None:
    """TimeoutNow RPC, receiver implementation (thesis 3.10): stand at once, unless the one who asks leads no more."""
    role = state.role
    if call.leader_id != sender:
        raise ProtocolError(sender, f"hands over for node {call.leader_id}")
    if isinstance(role, Leader) and call.term == state.current_term:
        raise ProtocolError(sender, f"hands over term {call.term}, which this node leads (Election Safety)")
    if (
        isinstance(role, Follower)
        and call.term == state.current_term
        and role.leader_id == sender
        and state.configuration.is_voter(state.id)
    ):
        _campaign(state, role.take_over(state.election_deadline()))


# -- being asked


def on_request_pre_vote(state: State, sender: NodeId, call: RequestPreVote) -> None:
    """Would this server vote for the sender? An answer changes nothing here, and is no sign of a leader (9.6)."""
    _check_sender(sender, call)
    if (
        call.term > state.current_term
        and not hears_leader(state)
        and _is_up_to_date(state, call.last_log_index, call.last_log_term)
    ):
        state.answer(sender, PreVoteAccepted(call.term, state.leader_id))
    else:
        state.answer(sender, PreVoteRejected(state.current_term, state.leader_id, call.term))


def on_request_vote(state: State, sender: NodeId, call: RequestVote) -> None:
    """RequestVote RPC, receiver implementation (Figure 2)."""
    _check_sender(sender, call)
    if call.term > state.current_term and (call.transfer or not hears_leader(state)):
        follow(state, call.term, None)
    if (
        call.term == state.current_term
        and state.hard_state.voted_for in (None, call.candidate_id)
        and _is_up_to_date(state, call.last_log_index, call.last_log_term)
    ):
        if state.hard_state.voted_for is None:
            state.promise(call.term, call.candidate_id)
        # Whoever was about to stand itself waits for the candidate that it votes for, as any voter does.
        follower = state.role if isinstance(state.role, Follower) else follow(state, call.term, None)
        follower.deadline_ns, follower.new = state.election_deadline(), False
        state.answer(sender, VoteAccepted(call.term, state.leader_id))
    else:
        state.answer(sender, VoteRejected(state.current_term, state.leader_id))


def _check_sender(sender: NodeId, call: RequestVote | RequestPreVote) -> None:
    """A vote is counted by whoever sent the call: it must be the candidate."""
    if call.candidate_id != sender:
        raise ProtocolError(sender, f"asks for a vote for node {call.candidate_id}")


# -- being answered


def on_pre_vote_accepted(state: State, sender: NodeId, response: PreVoteAccepted) -> None:
    role = state.role
    if isinstance(role, PreCandidate) and response.term == state.current_term + 1:
        role.votes.granted.add(sender)
        _count_pre_votes(state, role)


def on_pre_vote_rejected(state: State, sender: NodeId, response: PreVoteRejected) -> None:
    if response.term > state.current_term:
        # The voter is in a higher term: enter it, so that the next question is about a term that can be won.
        lost = state.role.leader_lost if isinstance(state.role, PreCandidate) else False
        follower = follow(state, response.term, None)
        if lost:
            follower.leader_lost, follower.deadline_ns = True, state.failover_deadline()


def on_vote_accepted(state: State, sender: NodeId, response: VoteAccepted) -> None:
    role = state.role
    if isinstance(role, Candidate) and response.term == state.current_term:
        role.votes.granted.add(sender)
        _count_votes(state, role)


def on_vote_rejected(state: State, sender: NodeId, response: VoteRejected) -> None:
    role = state.role
    if not isinstance(role, Candidate) or response.term != state.current_term:
        return
    role.votes.refused.add(sender)
    if not has_quorum(
        state.configuration, lambda voter: voter not in role.votes.refused and _may_answer(state, voter)
    ):
        # Whoever can be reached refused: a split vote. Ask again soon, at a random time, rather than after a timeout.
        role.deadline_ns = min(role.deadline_ns, _retry_deadline(state))


def _may_answer(state: State, voter: NodeId) -> bool:
    return voter == state.id or voter in state.linked


def own_vote_persisted(state: State) -> None:
    """A candidate counts its own vote once that is durable (Figure 2, persistent state)."""
    role = state.role
    if isinstance(role, Candidate) and state.unpersisted is None:
        role.votes.granted.add(state.id)
        _count_votes(state, role)


def _count_votes(state: State, role: Candidate) -> None:
    if has_quorum(state.configuration, role.votes.granted.__contains__):
        replication.lead(state, role)


# -- links


def link_lost(state: State, peer: NodeId) -> None:
    """The process at the other end may be dead: if it led, ask soon whether it can be replaced.

    Only this follower stops hearing the leader; a voter that still hears it refuses, and nobody's term rises.
    """
    role = state.role
    if isinstance(role, Follower) and role.leader_id == peer and state.configuration.is_voter(state.id):
        role.heard_ns, role.leader_lost = None, True
        role.deadline_ns = min(role.deadline_ns, state.failover_deadline())


def link_up(state: State, peer: NodeId) -> None:
    """What was asked over a dead link was lost: ask again."""
    role = state.role
    if isinstance(role, PreCandidate):
        if peer == role.leader_id:
            role.leader_lost = False
        _ask_pre_vote(state, peer)
    elif isinstance(role, Candidate):
        _ask_vote(state, role, peer)
    elif isinstance(role, Follower) and peer == role.leader_id and role.leader_lost:
        role.leader_lost = False
        role.deadline_ns = state.election_deadline()
    hasten_start(state)


def hasten_start(state: State) -> None:
    """A server that just started asks as soon as it reaches a majority: if there is a leader, others refuse (9.6)."""
    role = state.role
    if (
        isinstance(role, Follower)
        and role.new
        and has_quorum(state.configuration, lambda voter: _may_answer(state, voter))
    ):
        role.deadline_ns = min(role.deadline_ns, state.failover_deadline())
