"""What nodes say to each other: one struct per message, so that no field is valid only sometimes.

A `RemoteProcedureCall` is answered by one `RemoteProcedureResponse`, `Accepted` or `Rejected`; every response carries the
responder's `term` and the leader that it knows, `current_leader`. Field names are Figure 2's.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from ..types import LogIndex, NodeId, Term
from .batch import Batch

__all__ = [
    "Accepted",
    "AppendAccepted",
    "AppendEntries",
    "AppendRejected",
    "Message",
    "PreVoteAccepted",
    "PreVoteRejected",
    "Propose",
    "ProposeAccepted",
    "ProposeRejected",
    "ReadAccepted",
    "ReadRejected",
    "RefusalReason",
    "Rejected",
    "RemoteProcedureCall",
    "RemoteProcedureResponse",
    "RequestPreVote",
    "RequestRead",
    "RequestTransfer",
    "RequestVote",
    "TimeoutNow",
    "TransferRejected",
    "VoteAccepted",
    "VoteRejected",
]


class RequestVote(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A candidate asks for a vote (Figure 2, RequestVote RPC).

    transfer: the leader handed its office over to the candidate: whoever hears that leader may vote all the same (thesis 3.10).
    """

    term: Term
    candidate_id: NodeId
    last_log_index: LogIndex
    last_log_term: Term
    transfer: bool = False


class RequestPreVote(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Would you vote for me in term `term`, which I have not entered? (thesis 9.6). Changes nobody's state."""

    term: Term
    candidate_id: NodeId
    last_log_index: LogIndex
    last_log_term: Term


class AppendEntries(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A leader replicates batches, or with none of them says that it leads (Figure 2, AppendEntries RPC).

    round: rises with each heartbeat of a leadership; an answer that returns it proves that its sender still
        followed this leader when the message was sent (ReadIndex, thesis 6.4).
    """

    term: Term
    leader_id: NodeId
    prev_log_index: LogIndex
    prev_log_term: Term
    leader_commit: LogIndex
    round: int
    batches: tuple[Batch, ...] = ()


class VoteAccepted(msgspec.Struct, frozen=True, array_like=True, tag=16):
    term: Term
    current_leader: NodeId | None


class VoteRejected(msgspec.Struct, frozen=True, array_like=True, tag=17):
    term: Term
    current_leader: NodeId | None


class PreVoteAccepted(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """`term` is the term that was asked about, not the responder's own."""

    term: Term
    current_leader: NodeId | None


class PreVoteRejected(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """`term` is the responder's own; `asked_term` the one that was asked about."""

    term: Term
    current_leader: NodeId | None
    asked_term: Term


class AppendAccepted(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """The responder's log equals the leader's up to `match_index`, on stable storage."""

    term: Term
    current_leader: NodeId | None
    match_index: LogIndex
    round: int


class AppendRejected(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """The log has no entry (prev_log_index, prev_log_term).

    hint_index, hint_term: the responder's last entry at or before prev_log_index whose term is at most
        prev_log_term: where the leader may look next (section 5.3, the optimization that skips whole terms).
    """

    term: Term
    current_leader: NodeId | None
    prev_log_index: LogIndex
    hint_index: LogIndex
    hint_term: Term
    round: int


class Propose(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Append these entries, once (section 8; DESIGN: sessions). Sent to the leader by whoever holds the session.

    request_id: the sender's number of this attempt, returned in the answer.
    session, sequence: the session, and the number of the first entry within it; numbers are dense from 1.
    opened_at: the sender's commit index when it opened the session: an old session cannot be opened again.
    remaining_ns: how much of the caller's time is left; spent, the request is dropped.
    prev_log_index, prev_log_term: the last user's entry must be this one; None: append in any case.
    body: `count` lengths and entries, as a batch's body.
    """

    request_id: int
    session: int
    sequence: int
    count: int
    opened_at: LogIndex
    remaining_ns: int
    body: bytes
    prev_log_index: LogIndex | None = None
    prev_log_term: Term | None = None


class ProposeAccepted(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """The entries are committed: the first at `first_index`, all in term `entry_term`."""

    term: Term
    current_leader: NodeId | None
    request_id: int
    first_index: LogIndex
    entry_term: Term


RefusalReason: TypeAlias = Literal[
    "not_leader", "overloaded", "gap", "expired", "mismatch", "late", "too_large", "transfer"
]
"""Why entries were not appended: see `effects.Refused`."""


class ProposeRejected(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """The entries were not appended by this attempt.

    appended: False: certainly not, and they never will be by this attempt; True: they may be in a log, and whether
        they will be committed is not known (the leader lost its office, or another copy of the attempt may be under way).
    last_index, last_term: for `mismatch`, the last user's entry, committed; for `gap`, last_index is the sequence
        number that was expected.
    """

    term: Term
    current_leader: NodeId | None
    request_id: int
    reason: RefusalReason
    appended: bool = False
    last_index: LogIndex = 0
    last_term: Term = 0


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The leader hands over: stand for election at once, without asking whether it could be won (thesis 3.10)."""

    term: Term
    leader_id: NodeId


class RequestTransfer(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Hand your office over to `target`; None: to whoever holds most. That another leads is the answer, or `TransferRejected`."""

    request_id: int
    target: NodeId | None


class TransferRejected(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """The leader goes on leading, and why."""

    term: Term
    current_leader: NodeId | None
    request_id: int
    why: str


class RequestRead(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """What index must a linearizable read have applied? (thesis 6.4)"""

    request_id: int


class ReadAccepted(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Leadership was confirmed after the call arrived; a read that has applied `read_index` is linearizable."""

    term: Term
    current_leader: NodeId | None
    request_id: int
    read_index: LogIndex


class ReadRejected(msgspec.Struct, frozen=True, array_like=True, tag=25):
    term: Term
    current_leader: NodeId | None
    request_id: int
    reason: Literal["not_leader", "overloaded"]


RemoteProcedureCall: TypeAlias = (
    RequestVote | RequestPreVote | AppendEntries | Propose | RequestRead | TimeoutNow | RequestTransfer
)
Accepted: TypeAlias = VoteAccepted | PreVoteAccepted | AppendAccepted | ProposeAccepted | ReadAccepted
Rejected: TypeAlias = (
    VoteRejected | PreVoteRejected | AppendRejected | ProposeRejected | ReadRejected | TransferRejected
)
RemoteProcedureResponse: TypeAlias = Accepted | Rejected
Message: TypeAlias = RemoteProcedureCall | RemoteProcedureResponse
