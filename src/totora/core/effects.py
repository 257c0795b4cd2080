"""What the core asks for. Values, carried out elsewhere in this order; the core never learns how.

Writes are carried out in the order of their tokens. A `Send` whose `after` is a token leaves only once that write is on
stable storage; one with None leaves at once, even while earlier writes are under way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..types import LogIndex, NodeId, RoleName, Term
from .batch import Batch
from .messages import Message, RefusalReason
from .quorum import Configuration

__all__ = [
    "Append",
    "Apply",
    "Became",
    "Effect",
    "HardState",
    "Persist",
    "ReadEntries",
    "ReadReady",
    "ReadRefused",
    "Reconfigured",
    "Refused",
    "RequestKey",
    "Send",
    "Told",
    "TransferRefused",
    "WriteToken",
]

RequestKey: TypeAlias = tuple[object, int]
"""Who asked for something, and its number for it; comes back with the answer and means nothing to the core."""

WriteToken: TypeAlias = int
"""Numbers the writes of one node from 1; a write with a higher token completes later."""


@dataclass(slots=True, frozen=True)
class HardState:
    """Figure 2, persistent state on all servers, but for the log."""

    current_term: Term = 0
    voted_for: NodeId | None = None


@dataclass(slots=True)
class Persist:
    """Write to stable storage, in this order: the truncation, the hard state, the batches.

    truncate_after: remove every entry after this index; None: remove nothing.
    commit_index: what was known to be committed; a lower bound to restart from, of no weight for safety.
    """

    token: WriteToken
    truncate_after: LogIndex | None
    hard_state: HardState | None
    batches: tuple[Batch, ...]
    commit_index: LogIndex


@dataclass(slots=True)
class Send:
    """Send a message once write `after` is durable; None: no write is needed first (thesis 10.2.1)."""

    to: NodeId
    message: Message
    after: WriteToken | None = None


@dataclass(slots=True)
class Apply:
    """Every entry up to this index is committed."""

    commit_index: LogIndex


@dataclass(slots=True)
class ReadEntries:
    """Read batches for a follower, from the one that holds `first_index` on; an `EntriesRead` answers."""

    peer: NodeId
    first_index: LogIndex
    last_index: LogIndex
    max_bytes: int


@dataclass(slots=True)
class Append:
    """The proposal `key` stands in the log at these indexes, in the term of its batch; not yet committed.

    A retry of what was appended before is answered by the place where it stands.
    """

    key: RequestKey
    first_index: LogIndex
    last_index: LogIndex
    term: Term


@dataclass(slots=True)
class Refused:
    """The proposal `key` was not appended, and this attempt never will be.

    not_leader: this node does not lead.
    gap: an earlier entry of the session is missing; `last_index` is the sequence number that is expected.
    expired: the session is not remembered: whether the entries were appended earlier cannot be told.
    mismatch: the condition failed; (`last_index`, `last_term`) is the last user's entry, committed and confirmed.
    overloaded: too much is uncommitted already.
    transfer: this leader is handing over.
    """

    key: RequestKey
    reason: RefusalReason
    last_index: LogIndex = 0
    last_term: Term = 0


@dataclass(slots=True)
class ReadReady:
    """A read that has applied `read_index` is linearizable as of the request `key`."""

    key: RequestKey
    read_index: LogIndex


@dataclass(slots=True)
class ReadRefused:
    """This node does not lead (any more), or too many reads wait."""

    key: RequestKey
    overloaded: bool = False


@dataclass(slots=True)
class TransferRefused:
    """The transfer `key` is not begun, or given up; `why`, as a sentence. This server goes on as it is."""

    key: RequestKey
    why: str


@dataclass(slots=True)
class Became:
    """The role, the term or the known leader changed; for logs, status and those who wait for a leader."""

    role: RoleName
    term: Term
    leader_id: NodeId | None


@dataclass(slots=True)
class Reconfigured:
    """Another configuration is in force: the latest in the log, committed or not (section 6)."""

    configuration: Configuration


Told: TypeAlias = (
    Apply | ReadEntries | Append | Refused | ReadReady | ReadRefused | TransferRefused | Became | Reconfigured
)
"""What needs no place in the order of writes and messages."""

Effect: TypeAlias = Persist | Send | Told
