"""The few words that every layer shares. Knows nothing of any other module."""

from __future__ import annotations

from typing import Annotated, Final, Generic, Literal, Protocol, TypeAlias, TypeVar

import msgspec

__all__ = [
    "FAR_NS",
    "NUMBER_MAX",
    "Address",
    "Entry",
    "LogIndex",
    "NodeId",
    "NodeStatus",
    "Number",
    "PeerStatus",
    "Random",
    "RoleName",
    "Term",
]

NUMBER_MAX: Final = (1 << 63) - 1
"""Terms, indexes and ids are at most this, on disk and on the wire: what claims more is refused when it is decoded."""

FAR_NS: Final = 1 << 63
"""Later than any deadline."""

Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]

Term: TypeAlias = Number
"""A leader's period of office; 0 before the first election (section 5.1)."""

LogIndex: TypeAlias = Number
"""A place in the log, counted from 1; 0 is the place before the first entry."""

NodeId: TypeAlias = Number
"""A member's number, positive and stable for its life; addresses may change, this may not."""

Address: TypeAlias = tuple[str, int]
"""Host and port."""

RoleName: TypeAlias = Literal["follower", "pre-candidate", "candidate", "leader"]

T = TypeVar("T")


class Random(Protocol):
    """`random.Random` fits. Nothing else of it is used, so that runs replay on every version of Python."""

    def random(self) -> float: ...

    def getrandbits(self, k: int, /) -> int: ...


class Entry(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One of the users' entries, where it stands and what it holds.

    index: its place in the log; no-ops and configurations take places too, so indexes may skip.
    term: the term of the leader that appended it.
    """

    index: LogIndex
    term: Term
    value: T


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What one node knows of another. `match_index` and `lag_bytes` are a leader's knowledge, None elsewhere."""

    id: NodeId
    address: str
    linked: bool
    match_index: LogIndex | None = None
    silent_s: float | None = None
    refused: str | None = None


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable report of a node's state, made for people and monitors.

    why: one sentence where something is amiss (no leader, commit stalled), else None.
    silent_s of a peer: seconds since a leader last heard of it.
    """

    id: NodeId
    role: RoleName
    term: Term
    leader: NodeId | None
    last_index: LogIndex
    commit_index: LogIndex
    applied_index: LogIndex
    durable_index: LogIndex
    cluster_id: str | None
    store_id: str
    incarnation: int
    volatile: bool
    peers: tuple[PeerStatus, ...]
    why: str | None = None
