"""A message where another one belongs: each has a type of its own, with the fields that it always has."""

from __future__ import annotations

from totora import Accepted, Rejected, RemoteProcedureResponse
from totora.core.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    RequestVote,
    VoteAccepted,
    VoteRejected,
)


def on_append_accepted(response: AppendAccepted) -> int:
    return response.match_index


def handles(vote: VoteAccepted, refusal: AppendRejected, call: RequestVote) -> None:
    on_append_accepted(vote)  # E: a vote acknowledges nothing
    on_append_accepted(refusal)  # E: neither does a refusal
    print(call.batches)  # E: a candidate sends no entries
    print(refusal.match_index)  # E: a refusal holds a hint, no match
    call.term = 2  # E: a message never changes


def families(accepted: Accepted, rejected: Rejected, vote: VoteRejected, call: AppendEntries) -> None:
    response: RemoteProcedureResponse = accepted
    response = rejected
    response = vote
    response = call  # E: a call is no response
    yes: Accepted = vote  # E: a refusal accepts nothing
    print(response, yes)
    print(accepted.match_index)  # E: only some have it
    print(accepted.term, accepted.current_leader, rejected.term, rejected.current_leader)
