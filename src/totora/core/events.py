"""What can happen to the core. A closed union: a new event does not type-check until it is handled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..types import LogIndex, NodeId, Term
from .batch import Batch
from .effects import RequestKey, WriteToken
from .messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    PreVoteAccepted,
    PreVoteRejected,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteAccepted,
    VoteRejected,
)

__all__ = [
    "ConsensusMessage",
    "EntriesRead",
    "Event",
    "LinkLost",
    "LinkUp",
    "Persisted",
    "Proposed",
    "ReadRequested",
    "Received",
    "Tick",
    "TransferRequested",
]

ConsensusMessage: TypeAlias = (
    RequestVote
    | RequestPreVote
    | AppendEntries
    | VoteAccepted
    | VoteRejected
    | PreVoteAccepted
    | PreVoteRejected
    | AppendAccepted
    | AppendRejected
    | TimeoutNow
)
"""The messages that the core itself speaks; the others are carried by the session layer."""


@dataclass(slots=True)
class Tick:
    """The time that `Raft.deadline()` named has come. What arrived before is handled before."""


@dataclass(slots=True)
class Received:
    """A message from another member arrived."""

    sender: NodeId
    message: ConsensusMessage


@dataclass(slots=True)
class Persisted:
    """Write `token`, and with it every earlier one, is on stable storage."""

    token: WriteToken


@dataclass(slots=True)
class EntriesRead:
    """The answer to `ReadEntries`: whole batches, the first of which holds the index that was asked for."""

    peer: NodeId
    batches: tuple[Batch, ...]


@dataclass(slots=True)
class LinkUp:
    """Messages can reach this peer; `store_id` is the data directory that it showed."""

    peer: NodeId
    store_id: bytes


@dataclass(slots=True)
class LinkLost:
    """The link to or from this peer broke: its process may be dead, what was under way to it may be lost."""

    peer: NodeId


@dataclass(slots=True)
class Proposed:
    """Someone asks to append: `Append` or `Refused` with the same key answers."""

    key: RequestKey
    session: int
    sequence: int
    count: int
    opened_at: LogIndex
    body: bytes
    leader_time_ns: int = 0
    condition: tuple[LogIndex, Term] | None = None


@dataclass(slots=True)
class ReadRequested:
    """Someone asks for a read index: `ReadReady` or `ReadRefused` with the same key answers."""

    key: RequestKey


@dataclass(slots=True)
class TransferRequested:
    """Someone asks this leader to hand over to `target`; None: to whoever holds most. `Became` answers, or `TransferRefused`."""

    key: RequestKey
    target: NodeId | None


Event: TypeAlias = (
    Tick
    | Received
    | Persisted
    | EntriesRead
    | LinkUp
    | LinkLost
    | Proposed
    | ReadRequested
    | TransferRequested
)
