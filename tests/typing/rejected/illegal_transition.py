"""A transition that Raft does not know: only a candidate leads, only through pre-vote does a follower become one."""

from __future__ import annotations

from totora.core.roles import Candidate, Follower, Leader, PreCandidate, Role


def skips_the_election(follower: Follower) -> Leader:
    return follower.lead([2, 3], 1, 0, 1, 1)  # E: a follower wins nothing


def skips_the_vote(role: PreCandidate) -> Leader:
    return role.lead([2, 3], 1, 0, 1, 1)  # E: pre-votes elect nobody


def skips_the_pre_vote(follower: Follower) -> Candidate:
    return follower.stand(1)  # E: standing makes a pre-candidate


def stands_against_itself(leader: Leader) -> PreCandidate:
    return leader.stand(1)  # E: a leader gives way before it stands again


def stands_twice(candidate: Candidate) -> PreCandidate:
    return candidate.stand(1)  # E: a candidate gives way before it stands again


def gives_way_to_a_candidacy(leader: Leader) -> Candidate:
    return leader.follow(2, 1, 0)  # E: whoever gives way follows


def whoever_it_is(role: Role) -> Leader:
    return role.lead([2, 3], 1, 0, 1, 1)  # E: most roles cannot
