"""A cluster of cores without a runtime: messages wait in a list until a test delivers, drops or doubles them.

Disks are instant unless a test holds them: `hold(id)` keeps writes volatile until `release(id)`; `crash(id)` loses those.
Every step checks, from outside, the properties of Figure 3, and that nothing leaves before what it rests on is on disk.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from totora.config import Settings
from totora.core import effects as fx
from totora.core import events as ev
from totora.core import invariants
from totora.core.batch import Batch, Kind, join_payloads
from totora.core.effects import HardState, Persist, RequestKey, Send
from totora.core.log import Recovered
from totora.core.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    Message,
    PreVoteAccepted,
    PreVoteRejected,
    Propose,
    ProposeAccepted,
    ProposeRejected,
    ReadAccepted,
    ReadRejected,
    RequestPreVote,
    RequestRead,
    RequestTransfer,
    RequestVote,
    TimeoutNow,
    TransferRejected,
    VoteAccepted,
    VoteRejected,
)
from totora.core.quorum import Configuration, Member
from totora.core.raft import Raft
from totora.core.roles import Leader
from totora.core.summary import LogSummary
from totora.types import RoleName

MS = 1_000_000
CLUSTER_ID = b"c" * 16

E = TypeVar("E", bound=fx.Effect)


def store_id(id: int) -> bytes:
    return bytes([id]) * 16


def founding(size: int) -> Configuration:
    """The list that a cluster is first started with."""
    ids = range(1, size + 1)
    return Configuration(tuple(Member(id, "host", id) for id in ids), frozenset(ids))


def founded(size: int) -> Configuration:
    """What the same list becomes once the first leader has met everyone: nothing about it is left to record."""
    ids = range(1, size + 1)
    members = tuple(Member(id, "host", id, store_id(id)) for id in ids)
    return Configuration(members, frozenset(ids), cluster_id=CLUSTER_ID)


def entry(index: int, term: int, *payloads: bytes, session: int = 0, sequence: int = 0) -> Batch:
    """A batch of users' entries as a leader of `term` would have made it; of one entry unless payloads are given."""
    payloads = payloads or (b"%d.%d" % (index, term),)
    body = join_payloads(payloads)
    return Batch.build(Kind.ENTRIES, term, index, len(payloads), body, session=session, sequence=sequence)


def entries(*terms: int) -> list[Batch]:
    """A log of one entry per batch, of these terms: how the paper draws logs."""
    return [entry(index, term) for index, term in enumerate(terms, start=1)]


def noop(index: int, term: int) -> Batch:
    return Batch.build(Kind.NOOP, term, index, 1, join_payloads([b""]))


def terms(log: Iterable[Batch]) -> list[int]:
    return [batch.term for batch in log for _ in range(batch.count)]


def chosen(effects: Iterable[fx.Effect], kind: type[E]) -> list[E]:
    """The effects of one kind, in order."""
    return [effect for effect in effects if isinstance(effect, kind)]


def sent(effects: Iterable[fx.Effect]) -> list[tuple[int, Message]]:
    """To whom messages go, whatever write they wait for."""
    return [(effect.to, effect.message) for effect in effects if isinstance(effect, Send)]


@dataclass
class Disk:
    """What survives a crash of one server."""

    configuration: Configuration
    hard_state: HardState = field(default_factory=HardState)
    batches: list[Batch] = field(default_factory=list)
    commit_index: int = 0

    def write(self, write: Persist) -> None:
        if write.truncate_after is not None:
            self.batches = [batch for batch in self.batches if batch.last_index <= write.truncate_after]
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        self.batches.extend(write.batches)
        self.commit_index = write.commit_index

    def read(self, wanted: fx.ReadEntries) -> tuple[Batch, ...]:
        found: list[Batch] = []
        for batch in self.batches:
            if batch.last_index < wanted.first_index or batch.first_index > wanted.last_index:
                continue
            if found and sum(len(b.data) for b in found) + len(batch.data) > wanted.max_bytes:
                break
            found.append(batch)
        return tuple(found)

    def recover(self) -> Recovered:
        summary = LogSummary(self.configuration)
        runs: list[tuple[int, int]] = []
        for batch in self.batches:
            summary.append(batch)
            if not runs or runs[-1][1] != batch.term:
                runs.append((batch.first_index, batch.term))
        summary.settle(self.commit_index)
        return Recovered(
            hard_state=self.hard_state,
            commit_index=self.commit_index,
            base_index=0,
            base_term=0,
            runs=runs,
            last_index=self.batches[-1].last_index if self.batches else 0,
            summary=summary,
            tail=list(self.batches),
            largest_batch_bytes=max((len(batch.data) for batch in self.batches), default=0),
        )


@dataclass
class Envelope:
    sender: int
    to: int
    message: Message


class Cluster:
    """Servers 1 to `size`, all linked, time at 0.

    logs: what the servers' disks hold at the start, as terms of entries (the way the paper draws logs), or as batches; then,
        and if `is_founded`, the configuration has nothing left to record and a leader's first entry is a no-op.
    absent: servers that are not started yet, and that nobody has met.
    hard_states: the disks' terms and votes; by default the term of the last entry, and no vote.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        seed: int = 1,
        settings: Settings | None = None,
        logs: Mapping[int, Sequence[int | Batch]] | None = None,
        hard_states: Mapping[int, HardState] | None = None,
        is_founded: bool = False,
        absent: Iterable[int] = (),
    ) -> None:
        self.settings = settings or Settings()
        self.now = 0
        ids = range(1, size + 1)
        first = founded(size) if is_founded or logs is not None else founding(size)
        self.random = random.Random(seed)
        self.disks = {id: Disk(first) for id in ids}
        for id, log in (logs or {}).items():
            for index, item in enumerate(log, start=1):
                self.disks[id].batches.append(item if isinstance(item, Batch) else entry(index, item))
            last_term = self.disks[id].batches[-1].term if log else 0
            self.disks[id].hard_state = HardState(last_term)
        for id, hard_state in (hard_states or {}).items():
            self.disks[id].hard_state = hard_state
        self.held: set[int] = set()
        self.down: set[int] = set(absent)
        self.cut: set[tuple[int, int]] = set()
        self.messages: list[Envelope] = []
        self.other: list[tuple[int, fx.Effect]] = []
        self.holds_reading = False
        self.reading: list[tuple[int, fx.ReadEntries]] = []
        self.committed: dict[int, Batch] = {}
        self.committed_index = 0
        self._keys = 0
        self._logs: dict[int, list[Batch]] = {}
        self._waiting: dict[int, list[Persist]] = {id: [] for id in ids}
        self._after: dict[int, list[Send]] = {id: [] for id in ids}
        self._leaders: dict[int, int] = {}
        self._leader_logs: dict[int, list[Batch]] = {}
        self._committed_in: list[tuple[Batch, int]] = []
        self._applied: dict[int, set[int]] = {}
        self._read_floor: dict[RequestKey, int] = {}
        self.nodes = {id: self._start(id) for id in ids}
        for id in ids:
            for peer in ids:
                if peer != id and not self.down & {id, peer}:
                    self.step(id, ev.LinkUp(peer, store_id(peer)))

    def _start(self, id: int) -> Raft:
        self._logs[id] = list(self.disks[id].batches)
        self._applied[id] = set()
        return Raft(
            id,
            self.disks[id].recover(),
            settings=self.settings,
            random=random.Random(self.random.getrandbits(32)),
            store_id=store_id(id),
            now=self.now,
        )

    # -- one step

    def step(self, id: int, event: ev.Event) -> list[fx.Effect]:
        """Let one server handle an event and carry out what it asks for; returns that, for the test to compare."""
        effects = self.nodes[id].step(event, self.now)
        for effect in effects:
            match effect:
                case Persist():
                    self._waiting[id].append(effect)
                    if effect.truncate_after is not None:
                        kept = [b for b in self._logs[id] if b.last_index <= effect.truncate_after]
                        self._logs[id] = kept
                    self._logs[id].extend(effect.batches)
                case Send():
                    self._after[id].append(effect)
                case fx.ReadEntries():
                    self.reading.append((id, effect))
                case fx.Apply(commit_index):
                    self._apply(id, commit_index)
                    self.other.append((id, effect))
                case fx.ReadReady(key, read_index):
                    floor = self._read_floor.get(key, 0)
                    assert read_index >= floor, f"a read index of {read_index}, though {floor} was committed"
                    self.other.append((id, effect))
                case _:
                    self.other.append((id, effect))
        self._check(id)
        self._pump(id)
        if not self.holds_reading:
            self.answer_reading()
        return effects

    def receive(self, id: int, sender: int, message: ev.ConsensusMessage) -> list[fx.Effect]:
        """Let one server handle a message that the test made up."""
        return self.step(id, ev.Received(sender, message))

    def tick(self, id: int) -> list[fx.Effect]:
        """Let time pass until this server wants a Tick, and give it one."""
        self.now = max(self.now, self.nodes[id].deadline())
        return self.step(id, ev.Tick())

    def answer_reading(self) -> None:
        """Let storage return what was asked of it."""
        while self.reading:
            self.answer_reading_once()

    def answer_reading_once(self) -> None:
        id, wanted = self.reading.pop(0)
        self.step(id, ev.EntriesRead(wanted.peer, self.disks[id].read(wanted)))

    def _pump(self, id: int) -> None:
        unwritten = self._waiting[id][0].token if self._waiting[id] else None
        still = []
        for send in self._after[id]:
            if send.after is not None and unwritten is not None and send.after >= unwritten:
                still.append(send)
            else:
                self._check_leaving(id, send)
                self.messages.append(Envelope(id, send.to, send.message))
        self._after[id] = still
        if self._waiting[id] and id not in self.held:
            self.write(id)

    def write(self, id: int) -> None:
        """Complete the oldest write of a server."""
        persist = self._waiting[id].pop(0)
        self.disks[id].write(persist)
        self.step(id, ev.Persisted(persist.token))

    def unwritten(self, id: int) -> list[Persist]:
        """Writes that were asked for and are not on disk."""
        return list(self._waiting[id])

    # -- what is checked at every step

    def _check(self, id: int) -> None:
        node = self.nodes[id]
        log = self._logs[id]
        last = (log[-1].last_index, log[-1].term) if log else (0, 0)
        assert (node.log.last_index, node.log.last_term) == last, "the core holds what it asked to write"
        if not isinstance(node.role, Leader):
            return
        term = node.current_term
        invariants.election_safety(self._leaders, term, id)
        if term in self._leader_logs:
            invariants.leader_append_only(self._leader_logs[term], log)
        else:
            invariants.leader_completeness(self._committed_in, term, log)
        self._leader_logs[term] = list(log)

    def _check_leaving(self, id: int, send: Send) -> None:
        """A promise leaves after it is on disk (Figure 2: 'updated on stable storage before responding to RPCs')."""
        disk = self.disks[id]
        message = send.message
        match message:
            case VoteAccepted() | RequestVote():
                vote = message.candidate_id if isinstance(message, RequestVote) else send.to
                assert disk.hard_state.current_term >= message.term, (
                    "a term is durable before it is spoken of"
                )
                assert disk.hard_state.current_term > message.term or disk.hard_state.voted_for == vote, (
                    "a vote is durable before it leaves"
                )
            case AppendAccepted():
                assert disk.hard_state.current_term >= message.term, (
                    "a term is durable before it is spoken of"
                )
                held = {batch.last_index: batch for batch in disk.batches}
                for batch in self._leader_logs.get(message.term, []):
                    if batch.last_index <= message.match_index:
                        assert held.get(batch.last_index) == batch, "what is acknowledged is durable"
            case AppendRejected() | VoteRejected():
                assert disk.hard_state.current_term >= message.term, (
                    "a term is durable before it is spoken of"
                )
            case AppendEntries() | RequestPreVote() | PreVoteAccepted() | PreVoteRejected() | TimeoutNow():
                pass
            case (
                Propose()
                | ProposeAccepted()
                | ProposeRejected()
                | RequestRead()
                | ReadAccepted()
                | ReadRejected()
                | RequestTransfer()
                | TransferRejected()
            ):
                raise AssertionError("the core does not speak for the session layer")

    def _apply(self, id: int, commit_index: int) -> None:
        applied = self._applied[id]
        for batch in self._logs[id]:
            if batch.last_index > commit_index or batch.first_index in applied:
                continue
            applied.add(batch.first_index)
            term = self.nodes[id].current_term
            if batch.first_index not in self.committed:
                holders = sum(batch in reversed(disk.batches) for disk in self.disks.values())
                made_up = term not in self._leader_logs  # a leader that is only messages of the test's
                assert made_up or holders > len(self.disks) // 2, "what is committed is durable on a majority"
                self._committed_in.append((batch, term))
                self.committed_index = max(self.committed_index, batch.last_index)
            invariants.state_machine_safety(self.committed, batch)

    def check_logs(self) -> None:
        """Log Matching, pairwise."""
        for one in self.nodes:
            for other in self.nodes:
                if one < other:
                    invariants.log_matching(self.log(one), self.log(other))

    # -- looking

    def log(self, id: int) -> list[Batch]:
        """The log as the server has it in memory, the whole of it."""
        return self._logs[id]

    def payloads(self, id: int) -> list[bytes]:
        """The users' entries in a server's log."""
        return [
            bytes(payload)
            for batch in self.log(id)
            if batch.kind == Kind.ENTRIES
            for payload in batch.payloads()
        ]

    def leaders(self) -> list[int]:
        return [
            id for id, node in self.nodes.items() if id not in self.down and isinstance(node.role, Leader)
        ]

    def role(self, id: int) -> RoleName:
        return self.nodes[id].role_name

    def leader(self, id: int) -> Leader:
        """A leader's role, which it must have."""
        role = self.nodes[id].role
        assert isinstance(role, Leader)
        return role

    def found(self, id: int, kind: type[E]) -> list[E]:
        """Effects of one kind that a server asked for so far, writes and messages apart."""
        return [effect for at, effect in self.other if at == id and isinstance(effect, kind)]

    def under_way(self, kind: type[Message], to: int | None = None) -> list[Envelope]:
        return [e for e in self.messages if isinstance(e.message, kind) and to in (None, e.to)]

    # -- acting

    def deliver(
        self, wanted: Callable[[Envelope], bool] = lambda envelope: True, *, limit: int = 10_000
    ) -> int:
        """Deliver what is wanted and what follows from it, in order; what is cut or addressed to the dead is lost."""
        delivered = 0
        while delivered < limit:
            at = next((n for n, envelope in enumerate(self.messages) if wanted(envelope)), None)
            if at is None:
                return delivered
            self.hand_over(self.messages.pop(at))
            delivered += 1
        raise AssertionError("messages never end")

    def hand_over(self, envelope: Envelope) -> None:
        if envelope.to in self.down or (envelope.sender, envelope.to) in self.cut:
            return
        message = envelope.message
        assert isinstance(message, ev.ConsensusMessage), "the session layer's are not the core's"
        self.step(envelope.to, ev.Received(envelope.sender, message))

    def drop(self, unwanted: Callable[[Envelope], bool] = lambda envelope: True) -> list[Envelope]:
        """Lose messages that are under way; returns them."""
        lost = [envelope for envelope in self.messages if unwanted(envelope)]
        self.messages = [envelope for envelope in self.messages if not unwanted(envelope)]
        return lost

    def advance(self, ms: float, *, deliver: bool = True) -> None:
        """Let time pass, with Ticks when servers want them."""
        end = self.now + round(ms * MS)
        while True:
            alive = [id for id in self.nodes if id not in self.down]
            due, id = min((self.nodes[id].deadline(), id) for id in alive) if alive else (end + 1, 0)
            if due > end:
                break
            self.now = max(self.now, due)
            self.step(id, ev.Tick())
            if deliver:
                self.deliver()
        self.now = end

    def until_leader(self, *, within_ms: float) -> int:
        """Let time pass, a millisecond at a time, until exactly one server leads; returns it."""
        end = self.now + round(within_ms * MS)
        while len(self.leaders()) != 1:
            assert self.now < end, f"no leader after {within_ms} ms"
            self.advance(1)
        return self.leaders()[0]

    def elect(self, id: int, *, quietly: bool = False) -> None:
        """Make `id` the leader: everyone else's patience is longer. Quietly: what it sends as a leader stays under way."""
        for _ in range(20):
            if isinstance(self.nodes[id].role, Leader):
                break
            # Old enough that nobody hears a leader any more.
            self.now = max(self.now + self.settings.election_min_ns, self.nodes[id].deadline())
            self.step(id, ev.Tick())
            self.deliver(lambda e: not (quietly and isinstance(e.message, AppendEntries)))
        else:
            raise AssertionError(f"node {id} was not elected")

    def propose(
        self,
        id: int,
        *payloads: bytes,
        key: RequestKey | None = None,
        session: int = 0,
        sequence: int = 0,
        opened_at: int = 0,
        condition: tuple[int, int] | None = None,
    ) -> list[fx.Effect]:
        """Ask a server to append; without a session unless one is named."""
        body = join_payloads(payloads)
        asked = key or self.key()
        return self.step(
            id,
            ev.Proposed(asked, session, sequence, len(payloads), opened_at, body, condition=condition),
        )

    def read(self, id: int, *, key: RequestKey | None = None) -> RequestKey:
        """Ask a server for a read index, which must not be below what is committed anywhere by now; returns the key."""
        asked = key or self.key()
        self._read_floor[asked] = self.committed_index
        self.step(id, ev.ReadRequested(asked))
        return asked

    def key(self) -> RequestKey:
        self._keys += 1
        return "test", self._keys

    def hold(self, id: int) -> None:
        self.held.add(id)

    def release(self, id: int) -> None:
        self.held.discard(id)
        while self._waiting[id]:
            self.write(id)

    def crash(self, id: int, *, links_break: bool = True) -> None:
        """The process dies: what was not written is gone, and every peer's link to it breaks (unless the power went)."""
        self.down.add(id)
        self._waiting[id].clear()
        self._after[id].clear()
        self.reading = [(at, wanted) for at, wanted in self.reading if at != id]
        for peer in self.nodes:
            if links_break and peer not in self.down:
                self.step(peer, ev.LinkLost(id))

    def restart(self, id: int) -> None:
        self.down.discard(id)
        self.held.discard(id)
        self.nodes[id] = self._start(id)
        for peer in self.nodes:
            if peer != id and peer not in self.down:
                self.connect(id, peer)

    def disconnect(self, one: int, other: int) -> None:
        """A connection is reset: what was under way on it is lost, both ends notice."""
        self.drop(lambda e: {e.sender, e.to} == {one, other})
        for id, peer in ((one, other), (other, one)):
            if id not in self.down:
                self.step(id, ev.LinkLost(peer))

    def connect(self, one: int, other: int) -> None:
        for id, peer in ((one, other), (other, one)):
            if id not in self.down:
                self.step(id, ev.LinkUp(peer, store_id(peer)))

    def partition(self, *groups: Iterable[int]) -> None:
        """Only members of one group reach each other; links stay up (nothing is reset)."""
        side = {id: n for n, group in enumerate(groups) for id in group}
        self.cut = {(a, b) for a in self.nodes for b in self.nodes if a != b and side.get(a) != side.get(b)}

    def heal(self) -> None:
        self.cut = set()
