"""Figure 2's state of one server, with what the sections of the protocol do to it in common.

`election`, `replication` and `reads` are functions over this state; each adds effects, `raft.step` hands them out. A step
stages at most one write: everything that the step changed in persistent state goes to disk together, and what may leave only
after it names its token.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ..config import Settings
from ..types import LogIndex, NodeId, Random, Term
from .batch import Batch
from .effects import Effect, HardState, Persist, Send, WriteToken
from .log import RaftLog
from .messages import Message
from .quorum import Configuration
from .roles import Follower, Leader, Role

__all__ = ["State"]


@dataclass(slots=True)
class _Write:
    token: WriteToken
    last_index: LogIndex


class State:
    """One server's state.

    now: the time of the event that is being handled, nanoseconds.
    linked, store_ids: peers that messages can reach, and the data directory each of them showed.
    """

    def __init__(
        self,
        id: NodeId,
        settings: Settings,
        random: Random,
        hard_state: HardState,
        log: RaftLog,
        commit_index: LogIndex,
        store_id: bytes,
        now: int,
    ) -> None:
        self.id = id
        self.settings = settings
        self.random = random
        self.hard_state = hard_state
        self.current_term = hard_state.current_term
        self.log = log
        self.commit_index = commit_index
        self.now = now
        self.linked: set[NodeId] = set()
        self.store_ids: dict[NodeId, bytes] = {id: store_id}
        self.effects: list[Effect] = []
        self.role: Role = Follower(leader_id=None, deadline_ns=self.election_deadline(), new=True)
        self.staged: Persist | None = None
        self._staged_batches: list[Batch] = []
        self._last_token: WriteToken = 0
        self._writes: deque[_Write] = deque()
        self._storage_ns = now
        self._promise_token: WriteToken = 0

    # -- what is asked often

    @property
    def configuration(self) -> Configuration:
        return self.log.summary.configuration

    @property
    def peers(self) -> list[NodeId]:
        """The other members, in the configuration's order."""
        return [member.id for member in self.configuration.members if member.id != self.id]

    @property
    def leader_id(self) -> NodeId | None:
        return self.led_by(self.role)

    def led_by(self, role: Role) -> NodeId | None:
        """Whom a node in `role` takes for the leader."""
        if isinstance(role, Leader):
            return self.id
        return role.leader_id if isinstance(role, Follower) else None

    @property
    def unpersisted(self) -> WriteToken | None:
        """The latest write that is not durable yet; None: everything is."""
        if self.staged is not None:
            return self.staged.token
        return self._writes[-1].token if self._writes else None

    @property
    def hard_state_durable(self) -> bool:
        """The term and the vote are on stable storage."""
        oldest = self._writes[0].token if self._writes else self.staged.token if self.staged else None
        return oldest is None or self._promise_token < oldest

    def stalled_ns(self, now: int) -> int:
        """For how long writes are under way and none has become durable; 0: none is under way."""
        return now - self._storage_ns if self._writes else 0

    def election_deadline(self) -> int:
        """When to stand for election if nothing is heard: random, so that votes rarely split (section 5.2)."""
        settings = self.settings
        spread = settings.election_max_ns - settings.election_min_ns
        return self.now + settings.election_min_ns + int(self.random.random() * spread)

    def failover_deadline(self) -> int:
        return self.now + int(self.random.random() * self.settings.failover_delay_ns)

    # -- effects

    def emit(self, effect: Effect) -> None:
        self.effects.append(effect)

    def send(self, to: NodeId, message: Message, after: WriteToken | None = None) -> None:
        self.effects.append(Send(to, message, after))

    def answer(self, to: NodeId, message: Message) -> None:
        """Send once everything that was promised or appended so far is durable (Figure 2: 'before responding')."""
        self.effects.append(Send(to, message, self.unpersisted))

    # -- persistent state

    def promise(self, term: Term, voted_for: NodeId | None) -> None:
        """Change `current_term` and `voted_for` (Figure 2, persistent state)."""
        assert term > self.current_term or (
            term == self.current_term and self.hard_state.voted_for in (None, voted_for)
        ), "terms never fall, and a vote is never changed (section 5.2)"
        self.hard_state, self.current_term = HardState(term, voted_for), term
        staged = self._stage()
        staged.hard_state = self.hard_state
        self._promise_token = staged.token

    def append(self, batch: Batch) -> None:
        self.log.append(batch)
        self._stage()
        self._staged_batches.append(batch)

    def truncate_after(self, index: LogIndex) -> None:
        assert index >= self.commit_index, "a committed entry is never removed (State Machine Safety)"
        assert not self._staged_batches, "one step truncates before it appends"
        self.log.truncate_after(index)
        for write in self._writes:
            # An earlier write completes for what is left of it: the same indexes may be written anew (append ABA).
            write.last_index = min(write.last_index, index)
        self._stage().truncate_after = index

    def _stage(self) -> Persist:
        if self.staged is None:
            self._last_token += 1
            self.staged = Persist(self._last_token, None, None, (), self.commit_index)
        return self.staged

    def take_write(self) -> Persist:
        """The write that this step staged, complete."""
        staged, self.staged = self.staged, None
        assert staged is not None, "there is something to write"
        staged.batches, self._staged_batches = tuple(self._staged_batches), []
        staged.commit_index = self.commit_index
        if not self._writes:
            self._storage_ns = self.now
        self._writes.append(_Write(staged.token, self.log.last_index))
        return staged

    def persisted(self, token: WriteToken) -> None:
        """Writes up to `token` are durable."""
        while self._writes and self._writes[0].token <= token:
            write = self._writes.popleft()
            self._storage_ns = self.now
            self.log.durable_index = max(self.log.durable_index, write.last_index)
        self.log.trim()
