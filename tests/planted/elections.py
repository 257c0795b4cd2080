"""Bugs in votes, terms and majorities (sections 5.1, 5.2, 5.4.1; thesis 9.6)."""

from __future__ import annotations

from typing import Final

from totora.core import election, quorum, transitions
from totora.core.state import State

from .bug import Bug

__all__ = ["BUGS"]

BUGS: Final = (
    Bug(
        "vote_not_persisted",
        "a vote is on stable storage before it leaves: after a restart it would be given again",
        "PySyncObj#84",
        [(State.promise, "staged.hard_state = self.hard_state", "staged.hard_state = HardState(term, None)")],
    ),
    Bug(
        "vote_leaves_before_it_is_durable",
        "a vote waits for the write that holds it",
        "PySyncObj#84",
        [
            (
                election.on_request_vote,
                "state.answer(sender, VoteAccepted",
                "state.send(sender, VoteAccepted",
            )
        ],
    ),
    Bug(
        "vote_for_everyone_who_asks",
        "one vote in a term",
        "paper 5.2",
        [(election.on_request_vote, "and state.hard_state.voted_for in (None, call.candidate_id)", "")],
    ),
    Bug(
        "log_not_compared",
        "a vote goes only to a log that is at least as up to date",
        "paper 5.4.1",
        [
            (
                election._is_up_to_date,
                "return (last_log_term, last_log_index) >= (state.log.last_term, state.log.last_index)",
                "return True",
            )
        ],
    ),
    Bug(
        "log_compared_by_its_length_alone",
        "the log with the later term is more up to date, however short",
        "paper 5.4.1",
        [
            (
                election._is_up_to_date,
                "return (last_log_term, last_log_index) >= (state.log.last_term, state.log.last_index)",
                "return last_log_index >= state.log.last_index",
            )
        ],
    ),
    Bug(
        "log_compared_by_its_term_alone",
        "of two logs that end in one term the longer is more up to date",
        "paper 5.4.1",
        [
            (
                election._is_up_to_date,
                "return (last_log_term, last_log_index) >= (state.log.last_term, state.log.last_index)",
                "return last_log_term >= state.log.last_term",
            )
        ],
    ),
    Bug(
        "half_is_a_majority",
        "in an even cluster a majority is more than half",
        "paper 5.2",
        [(quorum._majority, "len(voters) // 2 + 1", "(len(voters) + 1) // 2")],
    ),
    Bug(
        "vote_counted_twice",
        "a voter counts once, however often its answer arrives",
        "xraft#27",
        [
            (
                election.on_vote_accepted,
                "role.votes.granted.add(sender)",
                (
                    "role.votes.granted.add(\n"
                    "            sender if sender not in role.votes.granted\n"
                    "            else min(state.configuration.voters - role.votes.granted)\n"
                    "        )"
                ),
            )
        ],
    ),
    Bug(
        "vote_of_an_earlier_term_counted",
        "a vote counts in the term in which it was given",
        "paper 5.2",
        [(election.on_vote_accepted, "and response.term == state.current_term", "")],
    ),
    Bug(
        "pre_vote_counted_as_vote",
        "who would vote has not voted",
        "thesis 9.6",
        [
            (
                election.on_pre_vote_accepted,
                "role = state.role",
                (
                    "role = state.role\n"
                    "    if isinstance(role, Candidate) and response.term == state.current_term:\n"
                    "        role.votes.granted.add(sender)\n"
                    "        _count_votes(state, role)"
                ),
            )
        ],
    ),
    Bug(
        "own_vote_counted_before_it_is_durable",
        "a candidate's own vote counts once it is on stable storage",
        "paper 5.2",
        [
            (
                election._campaign,
                "state.role = candidate",
                (
                    "state.role = candidate\n"
                    "    candidate.votes.granted.add(state.id)\n"
                    "    _count_votes(state, candidate)"
                ),
            )
        ],
    ),
    Bug(
        "leader_stays_at_a_higher_term",
        "a leader that hears of a higher term follows",
        "paper 5.1",
        [
            (
                transitions.follow,
                "state.promise(term, None)",
                (
                    "state.promise(term, None)\n"
                    "        if isinstance(state.role, Leader) and leader_id is None:\n"
                    "            return state.role"
                ),
            )
        ],
    ),
    Bug(
        "vote_asked_for_with_the_committed_log",
        "a candidate tells where its log ends, committed or not",
        "paper 5.4.1",
        [
            (
                election._ask_vote,
                "RequestVote(state.current_term, state.id, log.last_index, log.last_term, candidate.transfer)",
                "RequestVote(state.current_term, state.id, state.commit_index, log.last_term, candidate.transfer)",
            )
        ],
    ),
    Bug(
        "refused_pre_vote_teaches_no_term",
        "whoever is refused for an old term enters the newer one, or can never win",
        "etcd#8501",
        [(election.on_pre_vote_rejected, "response.term > state.current_term", "False")],
        unlikely="somebody else tells it of the term, unless a third server is gone for good at that moment",
        by="test_prevote_deadlock",
    ),
    Bug(
        "stands_only_once",
        "a candidacy that leads nowhere is followed by another",
        "paper 5.2",
        [
            (
                election.election_timeout,
                "if not state.configuration.is_voter(state.id):",
                "if not isinstance(role, Follower):",
            )
        ],
    ),
)
