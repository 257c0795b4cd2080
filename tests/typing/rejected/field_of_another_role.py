"""A field that exists only in one role: there is no `next_index` but while leading, and no votes but while standing."""

from __future__ import annotations

from totora.core.roles import Candidate, Follower, Leader, PreCandidate, Role


def of_a_follower(follower: Follower) -> None:
    print(follower.progress)  # E: only a leader knows its followers' progress
    print(follower.votes)  # E: nobody votes for a follower


def of_a_candidate(candidate: Candidate, pre_candidate: PreCandidate) -> None:
    print(candidate.heard_ns)  # E: it hears no leader
    print(candidate.leader_id)  # E: it knows none
    print(pre_candidate.reads_pending)  # E: it answers no reads


def of_a_leader(leader: Leader) -> None:
    print(leader.heard_ns)  # E: it hears no other leader
    print(leader.votes)  # E: the election is over
    leader.match_index = {}  # E: that is a follower's, within `progress`


def of_any(role: Role) -> None:
    print(role.progress)  # E: look first which role it is
