"""Engines joined in memory: a clock of integers, messages that tests deliver, drop, double and reorder, disks that they hold.

Nothing happens by itself: `deliver` moves messages, `settle` also writes, `advance` lets time pass. The safety properties that
can be seen from outside are checked as it goes, and each request counts its outcomes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from tests.core.cluster import Disk
from totora.config import Settings
from totora.core import effects as fx
from totora.core import invariants
from totora.core.batch import Batch
from totora.core.effects import Persist
from totora.core.messages import Message, Propose, ProposeAccepted, ProposeRejected
from totora.core.quorum import Configuration, Member
from totora.core.roles import Leader
from totora.errors import OutcomeUnknown, Overloaded, RaftError
from totora.session.engine import ClientKey, Engine
from totora.session.proposals import Proposals
from totora.session.units import Appended
from totora.types import LogIndex, NodeId, RoleName, Term

MS: Final = 1_000_000
S: Final = 1_000 * MS

Place: TypeAlias = tuple[NodeId, int]
"""A process: a node and which of its lives. What is addressed to a former life is lost."""


class Cancelled:
    """The timer of a clock that nobody rings."""

    def cancel(self) -> None: ...


class Clock:
    """Integers that only a test moves."""

    def __init__(self) -> None:
        self.now = 0

    def now_ns(self) -> int:
        return self.now

    def wall_ns(self) -> int:
        return 10**18 + self.now

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Cancelled:
        raise AssertionError("an engine names its deadline, it sets no timers")

    def call_soon(self, callback: Callable[[], None]) -> None:
        raise AssertionError("an engine calls nobody back")


@dataclass(eq=False)
class Asked:
    """One request and what it was answered: exactly once, or the process died before."""

    values: tuple[bytes, ...]
    by: object
    number: int
    condition: tuple[LogIndex, Term] | None = None
    outcome: Appended | LogIndex | RaftError | None = None
    floor: LogIndex = 0

    def resolve(self, outcome: Appended | LogIndex | RaftError) -> None:
        assert self.outcome is None, "a request gets one outcome"
        self.outcome = outcome

    @property
    def appended(self) -> Appended:
        assert isinstance(self.outcome, Appended), f"{self.values!r} is not acknowledged: {self.outcome!r}"
        return self.outcome

    @property
    def acknowledged(self) -> bool:
        return isinstance(self.outcome, Appended)

    @property
    def error(self) -> RaftError:
        assert isinstance(self.outcome, RaftError), f"{self.values!r} did not fail: {self.outcome!r}"
        return self.outcome


@dataclass(eq=False)
class Envelope:
    """A message under way. `sender` and `to` are a place, or a client."""

    sender: Place | Client
    to: Place | Client
    message: Message

    @property
    def sender_id(self) -> NodeId | None:
        return None if isinstance(self.sender, Client) else self.sender[0]

    @property
    def to_id(self) -> NodeId | None:
        return None if isinstance(self.to, Client) else self.to[0]


class Host:
    """One life of one node: its engine, and the Outlet that leads to the cluster."""

    def __init__(self, cluster: Cluster, place: Place) -> None:
        self.cluster = cluster
        self.place = place
        self.id = place[0]
        self.dead = False
        self.writing: Sequence[Persist] | None = None
        self.reading: list[fx.ReadEntries] = []
        self.configurations: list[Configuration] = []
        self.roles: list[tuple[RoleName, Term, NodeId | None]] = []
        self.groups: list[int] = []
        self.engine = Engine(
            self.id,
            cluster.disks[self.id].recover(),
            self,
            settings=cluster.settings,
            clock=cluster.clock,
            random=random.Random(cluster.random.getrandbits(32)),
            store_id=bytes([self.id]) * 16,
        )

    # -- Outlet

    def send(self, peer: NodeId, message: Message) -> None:
        to = self.cluster.hosts[peer].place
        self.cluster.put(Envelope(self.place, to, message))

    def send_client(self, client: ClientKey, message: Message) -> None:
        assert isinstance(client, Client)
        self.cluster.put(Envelope(self.place, client, message))

    def write(self, group: Sequence[Persist]) -> None:
        assert self.writing is None, "one group is written at a time"
        assert [write.token for write in group] == sorted({write.token for write in group})
        self.writing = group
        self.groups.append(len(group))

    def read_entries(self, effect: fx.ReadEntries) -> None:
        self.reading.append(effect)

    def committed(self, commit_index: LogIndex) -> None:
        self.cluster.check_committed(self, commit_index)

    def became(self, role: RoleName, term: Term, leader_id: NodeId | None) -> None:
        self.roles.append((role, term, leader_id))
        if role == "leader":
            invariants.election_safety(self.cluster.leaders_of_terms, term, self.id)

    def reconfigured(self, configuration: Configuration) -> None:
        self.configurations.append(configuration)

    # -- looking

    def log(self) -> list[Batch]:
        log = self.engine.raft.log
        return (log.batches_from(1, 1 << 40) or []) if log.last_index else []

    def values(self, up_to: LogIndex | None = None) -> dict[LogIndex, bytes]:
        """The users' entries of the log and where they stand."""
        return {
            batch.first_index + offset: bytes(payload)
            for batch in self.log()
            if batch.kind == 2 and (up_to is None or batch.last_index <= up_to)
            for offset, payload in enumerate(batch.payloads())
        }


class Client:
    """A process beside the cluster: holds a session, talks to one node at a time."""

    def __init__(self, cluster: Cluster, at: NodeId) -> None:
        self.cluster = cluster
        self.at = cluster.hosts[at].place
        self.random = random.Random(cluster.random.getrandbits(32))
        self._request_id = 0
        self.proposals = Proposals(self.random, self._next, cluster.settings.batch_limit_bytes)
        self.refusals: list[ProposeRejected] = []
        self.commit_index = 0

    def _next(self) -> int:
        self._request_id += 1
        return self._request_id

    def flush(self) -> None:
        now = self.cluster.clock.now
        for unit in self.proposals.outgoing(now, self.commit_index):
            call = Propose(
                unit.request_id,
                unit.session,
                unit.sequence,
                unit.count,
                unit.opened_at,
                max(1, self.proposals.patience_ns - now),
                unit.body,
                *(unit.condition or (None, None)),
            )
            self.cluster.put(Envelope(self, self.at, call))

    def answered(self, message: Message) -> None:
        if isinstance(message, ProposeAccepted):
            self.commit_index = max(self.commit_index, message.first_index)
            self.proposals.accepted(message)
        else:
            assert isinstance(message, ProposeRejected)
            self.refusals.append(message)
            self.proposals.rejected(message, self.cluster.clock.now)
        self.flush()

    def move(self, to: NodeId) -> None:
        """The stream broke, another node welcomes this client."""
        self.at = self.cluster.hosts[to].place
        self.proposals.leader_changed()
        self.flush()

    def tick(self) -> None:
        self.proposals.expire(self.cluster.clock.now, lambda: "no answer")
        self.flush()


class Cluster:
    """`size` engines, all linked."""

    def __init__(self, size: int = 3, *, seed: int = 1, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.clock = Clock()
        self.random = random.Random(seed)
        ids = range(1, size + 1)
        configuration = Configuration(tuple(Member(id, "host", id) for id in ids), frozenset(ids))
        self.disks = {id: Disk(configuration) for id in ids}
        self.down: set[NodeId] = set()
        self.held: set[NodeId] = set()
        self.cut: set[frozenset[NodeId]] = set()
        self.messages: list[Envelope] = []
        self.sent: list[Envelope] = []
        self.clients: list[Client] = []
        self.requests: list[Asked] = []
        self.leaders_of_terms: dict[Term, NodeId] = {}
        self._committed: dict[LogIndex, Batch] = {}
        self._checked: dict[NodeId, LogIndex] = dict.fromkeys(ids, 0)
        self._number = 0
        self.acknowledged = 0
        self.hosts = {id: Host(self, (id, 0)) for id in ids}
        for id in ids:
            for peer in ids:
                if peer != id:
                    self.engine(id).link_up(peer, bytes([peer]) * 16)

    def engine(self, id: NodeId) -> Engine:
        return self.hosts[id].engine

    @property
    def alive(self) -> list[NodeId]:
        return [id for id in self.hosts if id not in self.down]

    # -- requests

    def append(
        self,
        by: NodeId | Client,
        *values: bytes,
        condition: tuple[LogIndex, Term] | None = None,
        timeout_ms: float = 5_000,
        flush: bool = True,
    ) -> Asked:
        self._number += 1
        asked = Asked(values, by if isinstance(by, Client) else self.hosts[by].place, self._number, condition)
        self.requests.append(asked)
        deadline_ns = self.clock.now + round(timeout_ms * MS)
        holder = by.proposals if isinstance(by, Client) else self.engine(by)

        def resolve(outcome: Appended | RaftError) -> None:
            if isinstance(outcome, Appended):
                self.acknowledged = max(self.acknowledged, outcome.first_index + len(values) - 1)
            asked.resolve(outcome)

        try:
            holder.submit(values, condition, deadline_ns, resolve)
        except Overloaded as error:
            asked.resolve(error)
        if flush:
            by.flush() if isinstance(by, Client) else self.engine(by).flush()
        return asked

    def read(self, by: NodeId, *, timeout_ms: float = 5_000) -> Asked:
        """Ask for a read index; `floor` is what was acknowledged before, so it must not be less."""
        self._number += 1
        asked = Asked((), self.hosts[by].place, self._number, floor=self.acknowledged)
        self.requests.append(asked)

        def resolve(outcome: LogIndex | RaftError) -> None:
            if isinstance(outcome, int):
                assert outcome >= asked.floor, "a read sees every write that was acknowledged before it"
                assert self.engine(by).raft.commit_index >= outcome, "what may be read is committed here"
            asked.resolve(outcome)

        self.engine(by).read_index(self.clock.now + round(timeout_ms * MS), resolve)
        self.engine(by).flush()
        return asked

    def client(self, at: NodeId) -> Client:
        client = Client(self, at)
        self.clients.append(client)
        return client

    # -- messages

    def put(self, envelope: Envelope) -> None:
        self.messages.append(envelope)
        self.sent.append(envelope)

    def hand_over(self, envelope: Envelope) -> None:
        """One message arrives, or is lost because nobody is there."""
        to, message = envelope.to, envelope.message
        if isinstance(to, Client):
            to.answered(message)
            return
        id = to[0]
        if id in self.down or self.hosts[id].place != to:
            return
        if isinstance(envelope.sender, Client):
            assert isinstance(message, Propose)
            self.engine(id).client_message(envelope.sender, message)
        elif frozenset((id, envelope.sender[0])) not in self.cut:
            self.engine(id).message(envelope.sender[0], message)

    def deliver(
        self, wanted: Callable[[Envelope], bool] = lambda envelope: True, *, limit: int = 100_000
    ) -> int:
        """Deliver what is wanted and what follows from it, in order."""
        delivered = 0
        while delivered < limit:
            at = next((n for n, envelope in enumerate(self.messages) if wanted(envelope)), None)
            if at is None:
                return delivered
            self.hand_over(self.messages.pop(at))
            delivered += 1
        raise AssertionError("messages never end")

    def take(self, wanted: Callable[[Envelope], bool]) -> list[Envelope]:
        """Take messages out of the network: drop them, keep them for later, double them."""
        taken = [envelope for envelope in self.messages if wanted(envelope)]
        self.messages = [envelope for envelope in self.messages if not wanted(envelope)]
        return taken

    # -- disks

    def write(self, id: NodeId) -> bool:
        """The group that is being written is durable, and what was to be read is read."""
        host = self.hosts[id]
        group, host.writing = host.writing, None
        if group is not None:
            for write in group:
                self.disks[id].write(write)
            host.engine.written()
        self.read_disk(id)
        return group is not None

    def read_disk(self, id: NodeId) -> None:
        host = self.hosts[id]
        reading, host.reading = host.reading, []
        for effect in reading:
            found = [
                batch
                for batch in self.disks[id].batches
                if batch.last_index >= effect.first_index and batch.first_index <= effect.last_index
            ]
            host.engine.entries_read(effect.peer, tuple(found))

    def settle(self, wanted: Callable[[Envelope], bool] = lambda envelope: True) -> None:
        """Deliver and write until nothing is left to do at this time."""
        for _ in range(100_000):
            busy = self.deliver(wanted)
            for id in self.alive:
                if id not in self.held:
                    busy += self.write(id)
            if not busy:
                return
        raise AssertionError("it never settles")

    # -- time

    def advance(self, ms: float, *, wanted: Callable[[Envelope], bool] = lambda envelope: True) -> None:
        """Let time pass, with ticks when engines and clients want them."""
        end = self.clock.now + round(ms * MS)
        self.settle(wanted)
        for _ in range(1_000_000):
            due = min((self.engine(id).deadline() for id in self.alive), default=end + 1)
            due = min([due, *(client.proposals.deadline() for client in self.clients)])
            if due > end:
                break
            self.clock.now = max(self.clock.now, due)
            self.tick()
            self.settle(wanted)
        else:
            raise AssertionError("time stands still")
        self.clock.now = end

    def tick(self) -> None:
        """Whoever is due gets its tick."""
        for id in self.alive:
            if self.engine(id).deadline() <= self.clock.now:
                self.engine(id).tick()
        for client in self.clients:
            if client.proposals.deadline() <= self.clock.now:
                client.tick()

    def elect(self, id: NodeId) -> None:
        """Make `id` the leader, and let everyone know."""
        for _ in range(20):
            engine = self.engine(id)
            if isinstance(engine.raft.role, Leader):
                self.advance(self.settings.heartbeat_ns / MS)
                return
            # Old enough that nobody hears a leader any more.
            self.clock.now = max(self.clock.now + self.settings.election_min_ns, engine.raft.deadline())
            engine.tick()
            self.settle()
        raise AssertionError(f"node {id} was not elected")

    def lead(self) -> NodeId:
        """Let time pass until one leader is known everywhere."""
        for _ in range(200):
            known = {self.engine(id).raft.leader_id for id in self.alive}
            if len(known) == 1 and (leader := known.pop()) is not None and leader not in self.down:
                return leader
            self.advance(100)
        raise AssertionError("no leader is elected")

    # -- faults

    def crash(self, id: NodeId) -> None:
        """The process dies: what was not written is gone, and so are its callers; every link to it breaks."""
        self.down.add(id)
        self.hosts[id].dead = True
        for peer in self.alive:
            if id in self.engine(peer).linked:
                self.engine(peer).link_lost(id)

    def restart(self, id: NodeId) -> None:
        life = self.hosts[id].place[1] + 1
        self.down.discard(id)
        self.held.discard(id)
        self._checked[id] = 0
        self.hosts[id] = Host(self, (id, life))
        for peer in self.alive:
            if peer != id and frozenset((id, peer)) not in self.cut:
                self.link(id, peer)

    def link(self, one: NodeId, other: NodeId) -> None:
        for id, peer in ((one, other), (other, one)):
            if peer not in self.engine(id).linked:
                self.engine(id).link_up(peer, bytes([peer]) * 16)

    def unlink(self, one: NodeId, other: NodeId) -> None:
        for id, peer in ((one, other), (other, one)):
            if peer in self.engine(id).linked:
                self.engine(id).link_lost(peer)

    def partition(self, *groups: Iterable[NodeId]) -> None:
        """Only members of one group reach each other; links stay up (nothing is reset)."""
        side = {id: n for n, group in enumerate(groups) for id in group}
        self.cut = {
            frozenset((a, b)) for a in self.hosts for b in self.hosts if a < b and side.get(a) != side.get(b)
        }

    def heal(self) -> None:
        self.cut = set()

    # -- properties

    def check_committed(self, host: Host, commit_index: LogIndex) -> None:
        """State Machine Safety: no two nodes commit different batches at one place."""
        done = self._checked[host.id]
        for batch in host.log():
            if done < batch.last_index <= commit_index:
                invariants.state_machine_safety(self._committed, batch)
        self._checked[host.id] = commit_index

    def log_of_all(self) -> dict[LogIndex, bytes]:
        """The users' entries, the same on all nodes that are up."""
        logs = [self.hosts[id].values() for id in self.alive]
        assert all(log == logs[0] for log in logs), "once all is quiet, all logs are the same"
        return logs[0]

    def check_outcomes(self) -> None:
        """What was acknowledged stands once, where it was said to; what was refused does not stand anywhere."""
        log = self.log_of_all()
        places: dict[bytes, list[LogIndex]] = {}
        for index, value in log.items():
            places.setdefault(value, []).append(index)
        for value, found in places.items():
            assert len(found) == 1, f"{value!r} stands at {found}: nothing takes effect twice"
        for asked in self.requests:
            outcome = asked.outcome
            if isinstance(outcome, Appended):
                expected = range(outcome.first_index, outcome.first_index + len(asked.values))
                assert [log.get(index) for index in expected] == list(asked.values), (
                    f"{asked.values!r} was acknowledged at {outcome.first_index}"
                )
            elif isinstance(outcome, RaftError) and not isinstance(outcome, OutcomeUnknown):
                assert not any(value in places for value in asked.values), (
                    f"{asked.values!r} got {outcome!r} and stands in the log"
                )


def is_to(id: NodeId, kind: type[Message] | tuple[type[Message], ...]) -> Callable[[Envelope], bool]:
    """Messages of a kind to a node."""
    return lambda envelope: envelope.to_id == id and isinstance(envelope.message, kind)


def is_kind(*kinds: type[Message]) -> Callable[[Envelope], bool]:
    return lambda envelope: isinstance(envelope.message, kinds)


__all__ = [
    "MS",
    "Asked",
    "Client",
    "Clock",
    "Cluster",
    "Envelope",
    "Host",
    "S",
    "is_kind",
    "is_to",
]
