"""What a reader of the core may do: every legal transition, and matches over the closed unions."""

from __future__ import annotations

from typing import assert_never, assert_type

from totora.core.roles import Candidate, Follower, Leader, PreCandidate, Role


def the_way_to_office(follower: Follower) -> Leader:
    pre_candidate = follower.stand(1)
    assert_type(pre_candidate, PreCandidate)
    candidate = pre_candidate.stand(2)
    assert_type(candidate, Candidate)
    return candidate.lead([2, 3], 1, 0, 1, 1)


def anyone_gives_way(role: Role) -> Follower:
    return role.follow(2, 1, 0)


def of_each(role: Role) -> int:
    match role:
        case Follower() | PreCandidate() | Candidate():
            return role.deadline_ns
        case Leader():
            return len(role.progress)
        case _:
            assert_never(role)
