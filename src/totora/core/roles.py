"""The four roles, one class each: what exists only in a role stands only there (Figure 4).

A transition is a method of the role that is left and returns the role that is entered, so an illegal one, a follower that
leads without an election, say, does not type-check:

    Follower -> stand -> PreCandidate -> stand -> Candidate -> lead -> Leader
    Follower -> take_over -> Candidate
    any of them -> follow -> Follower
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from ..types import LogIndex, NodeId, Term
from .effects import RequestKey
from .progress import Progress

__all__ = [
    "Candidate",
    "Follower",
    "Leader",
    "PendingRead",
    "PreCandidate",
    "Role",
    "Transfer",
    "VoteTally",
    "WaitingCondition",
]


@dataclass(slots=True)
class VoteTally:
    """Who answered an election; each voter counts once, however often its answer arrives."""

    granted: set[NodeId] = field(default_factory=set)
    refused: set[NodeId] = field(default_factory=set)


@dataclass(slots=True)
class _Role:
    def follow(self, leader_id: NodeId | None, deadline_ns: int, heard_ns: int | None) -> Follower:
        """Give way: to a leader that was heard at `heard_ns`, or to a higher term (section 5.1)."""
        return Follower(leader_id=leader_id, deadline_ns=deadline_ns, heard_ns=heard_ns)


@dataclass(slots=True)
class Follower(_Role):
    """Passive: answers, and stands for election when it hears no leader until `deadline_ns`.

    heard_ns: when the leader was last heard; None: never, or the link to it broke since.
    leader_lost: the link to the leader broke and no sign of it came since: ask for votes soon (fast failover).
    new: just started, has heard no leader and given no vote since: asks as soon as it reaches a majority.
    """

    name: ClassVar[Literal["follower"]] = "follower"
    leader_id: NodeId | None
    deadline_ns: int
    heard_ns: int | None = None
    leader_lost: bool = False
    new: bool = False

    def stand(self, deadline_ns: int) -> PreCandidate:
        """Ask whether an election could be won (thesis 9.6)."""
        return PreCandidate(deadline_ns=deadline_ns, leader_lost=self.leader_lost, leader_id=self.leader_id)

    def take_over(self, deadline_ns: int) -> Candidate:
        """The leader handed over: stand at once (thesis 3.10)."""
        return Candidate(deadline_ns=deadline_ns, transfer=True)


@dataclass(slots=True)
class PreCandidate(_Role):
    """Asks, without entering a new term, whether a majority would vote for it (thesis 9.6).

    leader_id, leader_lost: as the follower that it was knew them: it asks again soon while the link is down.
    """

    name: ClassVar[Literal["pre-candidate"]] = "pre-candidate"
    deadline_ns: int
    leader_lost: bool
    leader_id: NodeId | None
    votes: VoteTally = field(default_factory=VoteTally)

    def stand(self, deadline_ns: int) -> Candidate:
        """Enter the next term and ask for votes (section 5.2)."""
        return Candidate(deadline_ns=deadline_ns)


@dataclass(slots=True)
class Candidate(_Role):
    """Asks for votes in its own new term (section 5.2); its own vote counts once it is durable.

    transfer: the leader asked it to.
    """

    name: ClassVar[Literal["candidate"]] = "candidate"
    deadline_ns: int
    votes: VoteTally = field(default_factory=VoteTally)
    transfer: bool = False

    def lead(
        self, peers: Iterable[NodeId], first_index: LogIndex, now: int, heartbeat_ns: int, quorum_ns: int
    ) -> Leader:
        """A majority granted its vote: lead. `first_index` is where the first entry of this term will stand."""
        return Leader(
            progress={peer: Progress(next_index=first_index, contact_ns=now) for peer in peers},
            first_index=first_index,
            heartbeat_ns=now + heartbeat_ns,
            quorum_ns=now + quorum_ns,
            deadline_ns=now + min(heartbeat_ns, quorum_ns),
        )


@dataclass(slots=True)
class PendingRead:
    """Reads that one round of heartbeats confirms (thesis 6.4)."""

    round: int
    read_index: LogIndex
    keys: list[RequestKey | WaitingCondition]


@dataclass(slots=True)
class WaitingCondition:
    """A conditional append whose condition did not hold: told so once leadership is confirmed and the entry committed."""

    key: RequestKey
    last_index: LogIndex
    last_term: Term


@dataclass(slots=True)
class Transfer:
    """A leader's attempt to hand over (thesis 3.10), given up at `deadline_ns`.

    keys: who asked for it. closed: no more proposals are taken. asked: the target was told to stand.
    """

    target: NodeId
    deadline_ns: int
    keys: list[RequestKey]
    closed: bool = False
    asked: bool = False


@dataclass(slots=True)
class Leader(_Role):
    """Handles all requests and replicates its log (sections 5.3, 8).

    first_index: its first entry's place; once that is committed, so is all before it (section 5.4.2).
    round: of heartbeats, rises with each; an answer that returns it confirms leadership as of its sending.
    heartbeat_ns, quorum_ns: when the next heartbeat is due, and the next check that a majority still answers.
    deadline_ns: the earliest of what is due.
    """

    name: ClassVar[Literal["leader"]] = "leader"
    progress: dict[NodeId, Progress]
    first_index: LogIndex
    heartbeat_ns: int
    quorum_ns: int
    deadline_ns: int
    round: int = 0
    uncommitted: deque[tuple[LogIndex, int]] = field(default_factory=deque)
    uncommitted_bytes: int = 0
    reads_waiting: list[RequestKey | WaitingCondition] = field(default_factory=list)
    reads_pending: deque[PendingRead] = field(default_factory=deque)
    conditions: list[WaitingCondition] = field(default_factory=list)
    transfer: Transfer | None = None

    def next_deadline_ns(self) -> int:
        due = min(self.heartbeat_ns, self.quorum_ns)
        return due if self.transfer is None else min(due, self.transfer.deadline_ns)


Role: TypeAlias = Follower | PreCandidate | Candidate | Leader
