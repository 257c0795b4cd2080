"""A cluster of cores without a runtime: messages wait in a list until a test delivers, drops or doubles them.

Disks are instant unless a test holds them: `hold(id)` keeps writes volatile until `release(id)`; `crash(id)` loses those.
Every step checks the safety properties that can be seen from outside.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from totora.config import Settings
from totora.core import effects as fx
from totora.core import events as ev
from totora.core import invariants
from totora.core.batch import Batch, join_payloads
from totora.core.effects import HardState, Persist, Send
from totora.core.log import Recovered
from totora.core.messages import Message
from totora.core.quorum import Configuration, Member
from totora.core.raft import Raft
from totora.core.roles import Leader
from totora.core.summary import LogSummary

MS = 1_000_000


@dataclass
class Disk:
    """What survives a crash of one server."""

    configuration: Configuration
    hard_state: HardState = HardState()
    batches: list[Batch] = field(default_factory=list)
    commit_index: int = 0

    def write(self, write: Persist) -> None:
        if write.truncate_after is not None:
            self.batches = [batch for batch in self.batches if batch.last_index <= write.truncate_after]
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        self.batches.extend(write.batches)
        self.commit_index = write.commit_index

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
    def __init__(self, size: int = 3, *, seed: int = 1, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.now = 0
        ids = range(1, size + 1)
        configuration = Configuration(tuple(Member(id, "host", id) for id in ids), frozenset(ids))
        self.random = random.Random(seed)
        self.disks = {id: Disk(configuration) for id in ids}
        self.held: set[int] = set()
        self.down: set[int] = set()
        self.cut: set[tuple[int, int]] = set()
        self.messages: list[Envelope] = []
        self.other: list[tuple[int, fx.Effect]] = []
        self._waiting: dict[int, list[Persist]] = {id: [] for id in ids}
        self._after: dict[int, list[Send]] = {id: [] for id in ids}
        self._leaders: dict[int, int] = {}
        self._applied: dict[int, dict[int, Batch]] = {id: {} for id in ids}
        self._committed: dict[int, Batch] = {}
        self.nodes = {id: self._start(id) for id in ids}
        for id in ids:
            for peer in ids:
                if peer != id:
                    self.step(id, ev.LinkUp(peer, bytes([peer]) * 16))

    def _start(self, id: int) -> Raft:
        return Raft(
            id,
            self.disks[id].recover(),
            settings=self.settings,
            random=random.Random(self.random.getrandbits(32)),
            store_id=bytes([id]) * 16,
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
                case Send():
                    self._after[id].append(effect)
                case fx.ReadEntries(peer, first_index, last_index, _):
                    found = [
                        b
                        for b in self.disks[id].batches
                        if b.last_index >= first_index and b.first_index <= last_index
                    ]
                    self.step(id, ev.EntriesRead(peer, tuple(found)))
                case fx.Apply(commit_index):
                    self._apply(id, commit_index)
                    self.other.append((id, effect))
                case _:
                    self.other.append((id, effect))
        self._check(id)
        self._pump(id)
        return effects

    def _pump(self, id: int) -> None:
        unwritten = self._waiting[id][0].token if self._waiting[id] else None
        still = []
        for send in self._after[id]:
            if send.after is not None and unwritten is not None and send.after >= unwritten:
                still.append(send)
            else:
                self.messages.append(Envelope(id, send.to, send.message))
        self._after[id] = still
        if self._waiting[id] and id not in self.held:
            self.write(id)

    def write(self, id: int) -> None:
        """Complete the oldest write of a server."""
        persist = self._waiting[id].pop(0)
        self.disks[id].write(persist)
        self.step(id, ev.Persisted(persist.token))

    def _apply(self, id: int, commit_index: int) -> None:
        applied = self._applied[id]
        for batch in self.log(id):
            if batch.last_index <= commit_index and batch.first_index not in applied:
                applied[batch.first_index] = batch
                invariants.state_machine_safety(self._committed, batch)

    def _check(self, id: int) -> None:
        node = self.nodes[id]
        if isinstance(node.role, Leader):
            invariants.election_safety(self._leaders, node.current_term, id)

    # -- looking

    def log(self, id: int) -> list[Batch]:
        """The log as the server has it in memory: the whole of it, in these small tests."""
        return self.nodes[id].log.batches_from(1, 1 << 40) or [] if self.nodes[id].log.last_index else []

    def payloads(self, id: int) -> list[bytes]:
        """The users' entries in a server's log."""
        return [bytes(payload) for batch in self.log(id) if batch.kind == 2 for payload in batch.payloads()]

    def leaders(self) -> list[int]:
        return [
            id for id, node in self.nodes.items() if id not in self.down and isinstance(node.role, Leader)
        ]

    def found(self, id: int, kind: type[fx.Effect]) -> list[fx.Effect]:
        return [effect for at, effect in self.other if at == id and isinstance(effect, kind)]

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
            envelope = self.messages.pop(at)
            delivered += 1
            if envelope.to in self.down or (envelope.sender, envelope.to) in self.cut:
                continue
            self.step(envelope.to, ev.Received(envelope.sender, envelope.message))
        raise AssertionError("messages never end")

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

    def elect(self, id: int) -> None:
        """Make `id` the leader: everyone else's patience is longer."""
        for _ in range(20):
            node = self.nodes[id]
            if isinstance(node.role, Leader):
                self.deliver()
                return
            # Old enough that nobody hears a leader any more.
            self.now = max(self.now + self.settings.election_min_ns, node.deadline())
            self.step(id, ev.Tick())
            self.deliver()
        raise AssertionError(f"node {id} was not elected")

    def propose(self, id: int, *payloads: bytes, key: object = None, **fields: object) -> list[fx.Effect]:
        """Ask a server to append; without a session unless `fields` name one."""
        defaults: dict[str, object] = {"session": 0, "sequence": 0, "opened_at": 0}
        return self.step(
            id,
            ev.Proposed(key=key, count=len(payloads), body=join_payloads(payloads), **{**defaults, **fields}),  # type: ignore[arg-type]
        )

    def hold(self, id: int) -> None:
        self.held.add(id)

    def release(self, id: int) -> None:
        self.held.discard(id)
        while self._waiting[id]:
            self.write(id)

    def crash(self, id: int) -> None:
        """The process dies: what was not written is gone, and every peer's link to it breaks."""
        self.down.add(id)
        self._waiting[id].clear()
        self._after[id].clear()
        for peer in self.nodes:
            if peer not in self.down:
                self.step(peer, ev.LinkLost(id))

    def restart(self, id: int) -> None:
        self.down.discard(id)
        self.held.discard(id)
        self.nodes[id] = self._start(id)
        self._applied[id] = {}
        for peer in self.nodes:
            if peer != id and peer not in self.down:
                self.step(id, ev.LinkUp(peer, bytes([peer]) * 16))
                self.step(peer, ev.LinkUp(id, bytes([id]) * 16))

    def partition(self, *groups: Iterable[int]) -> None:
        """Only members of one group reach each other; links stay up (nothing is reset)."""
        side = {id: n for n, group in enumerate(groups) for id in group}
        self.cut = {(a, b) for a in self.nodes for b in self.nodes if a != b and side.get(a) != side.get(b)}

    def heal(self) -> None:
        self.cut = set()

    def check_logs(self) -> None:
        """Log Matching, pairwise."""
        for one in self.nodes:
            for other in self.nodes:
                if one < other:
                    invariants.log_matching(self.log(one), self.log(other))
