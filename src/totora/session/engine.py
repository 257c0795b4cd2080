"""The node without I/O: the core, the schedule of its effects, and the way of each request to the leader and back.

    messages, completions, links, time, requests -> Engine -> Outlet

Whoever drives it (the asyncio node, a simulator, another network's node) carries out what it tells the `Outlet`, reports
completions, and calls `flush` once per turn after requests came in and `tick` at `deadline`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, assert_never

import msgspec

from ..config import Settings
from ..core import effects as fx
from ..core import events as ev
from ..core.batch import HEADER_BYTES, Batch
from ..core.effects import Persist, RequestKey, Send
from ..core.events import Event
from ..core.log import Recovered
from ..core.messages import (
    Message,
    Propose,
    ProposeAccepted,
    ProposeRejected,
    ReadAccepted,
    ReadRejected,
    RefusalReason,
    RequestRead,
    RequestTransfer,
    TransferRejected,
)
from ..core.quorum import Configuration, has_quorum
from ..core.raft import Raft
from ..core.roles import Leader
from ..errors import ProtocolError, RaftError, Unavailable
from ..ports import Clock, Observer
from ..types import FAR_NS, NUMBER_MAX, LogIndex, NodeId, Random, RoleName, Term
from .explain import explain
from .proposals import Proposals
from .reads import ReadIndexes
from .relays import RELAY_PATIENCE_NS, ClientKey, Relay, Relays
from .scheduler import Scheduler
from .tracker import CommitTracker
from .transfers import Transfers
from .units import Lot, Resolve, ResolvePart

__all__ = ["ClientKey", "Engine", "Outlet"]

_LOCAL: Final = "local"


class _Client:
    """Wraps a client's key, so that it is never taken for a peer's id."""

    __slots__ = ("key",)

    def __init__(self, key: ClientKey) -> None:
        self.key = key


class Outlet(Protocol):
    """What the engine wants done. Calls must not call back into the engine."""

    def send(self, peer: NodeId, message: Message) -> None: ...

    def send_client(self, client: ClientKey, message: Message) -> None: ...

    def write(self, group: Sequence[Persist]) -> None:
        """Make durable; then call `Engine.written`."""
        ...

    def read_entries(self, effect: fx.ReadEntries) -> None:
        """Read from storage; then call `Engine.entries_read`."""
        ...

    def committed(self, commit_index: LogIndex) -> None: ...

    def became(self, role: RoleName, term: Term, leader_id: NodeId | None) -> None: ...

    def reconfigured(self, configuration: Configuration) -> None: ...


class Engine:
    """One node. Not thread-safe: everything happens on the driver's one loop."""

    def __init__(
        self,
        id: NodeId,
        recovered: Recovered,
        outlet: Outlet,
        *,
        settings: Settings,
        clock: Clock,
        random: Random,
        store_id: bytes,
        observer: Observer | None = None,
    ) -> None:
        self.raft = Raft(
            id, recovered, settings=settings, random=random, store_id=store_id, now=clock.now_ns()
        )
        self._id = id
        self._settings = settings
        self._clock = clock
        self._outlet = outlet
        self._observer = observer
        self._scheduler = Scheduler()
        self._tracker: CommitTracker[RequestKey] = CommitTracker()
        # Numbers start at random: an answer to a former incarnation is never taken for one to this.
        self._request_id = random.getrandbits(48)
        retransmit_ns = settings.retransmit_ns
        self._proposals = Proposals(
            random, self._next_request_id, settings.batch_limit_bytes, retransmit_ns=retransmit_ns
        )
        self._reads = ReadIndexes(self._next_request_id, retransmit_ns=retransmit_ns)
        self._transfers = Transfers()
        self._relays = Relays(RELAY_PATIENCE_NS if retransmit_ns else settings.request_timeout_ns)
        self.linked: set[NodeId] = set()
        self._target: tuple[Term, NodeId] | None = None
        if observer is not None:
            observer.opened(self.raft)
        self._flushing = False
        self._made_room = False
        """An answer may have made room in the window, or ended what others had to wait for."""

    def _next_request_id(self) -> int:
        self._request_id += 1
        return self._request_id

    # -- what happens

    def message(self, sender: NodeId, message: Message) -> None:
        """A peer sent this. Raises ProtocolError if no correct peer would."""
        match message:
            case Propose():
                _check_shape(sender, message)
                self._propose_for(sender, message)
            case RequestRead():
                self._step(ev.ReadRequested((sender, message.request_id)))
            case ProposeAccepted() | ProposeRejected():
                self._proposal_answered(message)
            case ReadAccepted():
                self._reads.accepted(message.request_id, message.read_index, self.raft.commit_index)
            case ReadRejected():
                self._reads.rejected(message.request_id, self._clock.now_ns())
            case RequestTransfer():
                self._step(ev.TransferRequested((sender, message.request_id), message.target))
            case TransferRejected():
                self._transfers.refused(message.request_id, message.why)
            case _:
                self._step(ev.Received(sender, message))
        if self._made_room:
            self.flush()

    def client_message(self, client: ClientKey, message: Propose) -> None:
        """A client process asks to append: any node serves it (DESIGN, sessions). Raises ProtocolError."""
        _check_shape("client", message)
        origin = _Client(client)
        target = self._reachable_leader()
        if target is None:
            self._refuse((origin, message.request_id), "not_leader")
        elif target == self._id:
            self._propose_for(origin, message)
        elif self._relays.full:
            self._refuse((origin, message.request_id), "overloaded")
        else:
            request_id = self._next_request_id()
            self._relays.add(request_id, client, message.request_id, self._clock.now_ns())
            self._outlet.send(target, msgspec.structs.replace(message, request_id=request_id))

    def link_up(self, peer: NodeId, store_id: bytes) -> None:
        self.linked.add(peer)
        self._step(ev.LinkUp(peer, store_id))
        if self._target is not None and self._target[1] == peer:
            self._ask_again()

    def link_lost(self, peer: NodeId) -> None:
        self.linked.discard(peer)
        self._step(ev.LinkLost(peer))
        if self._target is not None and self._target[1] == peer:
            self._ask_again()

    def written(self) -> None:
        """The group that `Outlet.write` got is on stable storage."""
        token, sends = self._scheduler.written()
        self._step(ev.Persisted(token))
        for send in sends:
            self._outlet.send(send.to, send.message)
        if self._made_room:
            self.flush()

    def entries_read(self, peer: NodeId, batches: tuple[Batch, ...]) -> None:
        self._step(ev.EntriesRead(peer, batches))

    def deadline(self) -> int:
        """When `tick` is wanted next, nanoseconds."""
        when = self.raft.deadline()
        if (other := self._proposals.deadline()) < when:
            when = other
        if self._reads.earliest_ns < FAR_NS:
            when = min(when, self._reads.deadline())
        if self._relays.under_way:
            when = min(when, self._relays.deadline())
        if self._transfers.under_way:
            when = min(when, self._transfers.deadline())
        return when

    def tick(self) -> None:
        now = self._clock.now_ns()
        if now >= self.raft.deadline():
            self._step(ev.Tick())
        self._proposals.expire(now, self._why_waiting)
        self._reads.expire(now, self._why_waiting)
        self._give_up_relays(self._relays.expired(now))
        self._transfers.expire(now)
        self.flush()

    def _give_up_relays(self, relays: Iterable[Relay]) -> None:
        """The client hands over again what was not answered: its session makes that safe."""
        for relay in relays:
            self._refuse((_Client(relay.client), relay.request_id), "not_leader", appended=True)

    def applied(self, batch: Batch) -> None:
        """The state machine of this node comes to this batch: whoever waits for its place learns it before its results."""
        if self._proposals.settled(batch.session, batch.sequence, batch.first_index, batch.term):
            self.flush()

    # -- requests of this process

    def submit(
        self,
        payloads: Sequence[bytes],
        condition: tuple[LogIndex, Term] | None,
        deadline_ns: int,
        resolve: Resolve,
    ) -> None:
        """Append these entries; `resolve` is called once with the outcome. Raises Overloaded. Call `flush` after, but not
        from within `resolve`."""
        self._proposals.submit(payloads, condition, deadline_ns, resolve)

    def open_lot(self, need_bytes: int, limit_bytes: int, deadline_ns: int, resolve: ResolvePart) -> Lot:
        """Where requests of one entry each go until `flush`, as with `Proposals.open_lot`. Raises Overloaded."""
        return self._proposals.open_lot(need_bytes, limit_bytes, deadline_ns, resolve)

    def read_index(self, deadline_ns: int, resolve: Callable[[LogIndex | RaftError], None]) -> None:
        """Confirm, with the leader, an index that a linearizable read must have seen; `resolve` is called once, when it is
        committed here. Raises Overloaded. Call `flush` after."""
        self._reads.submit(deadline_ns, resolve)

    def transfer(
        self, target: NodeId | None, deadline_ns: int, resolve: Callable[[NodeId | RaftError], None]
    ) -> None:
        """Have the leader hand over to `target`, None: to whoever holds most; `resolve` is called once, with who leads then.

        That may be at once: what cannot be asked for is refused.
        """
        leader_id = self._reachable_leader()
        if leader_id is None:
            resolve(Unavailable(self._why_waiting()))
            return
        if target == leader_id:
            resolve(leader_id)
            return
        request_id = self._next_request_id()
        if not self._transfers.ask(
            request_id, target, leader_id, self.raft.current_term, deadline_ns, resolve
        ):
            return
        if leader_id == self._id:
            self._step(ev.TransferRequested((_LOCAL, request_id), target))
        else:
            self._outlet.send(leader_id, RequestTransfer(request_id, target))

    @property
    def may_hand_over(self) -> bool:
        """This node leads, and the others would do without it."""
        raft = self.raft
        return isinstance(raft.role, Leader) and has_quorum(raft.configuration, self.linked.__contains__)

    def flush(self) -> None:
        """Hand what waits to the leader, if there is one that can be reached."""
        self._made_room = False
        if self._flushing:
            return
        self._flushing = True
        try:
            target = self._reachable_leader()
            if target is None:
                self._proposals.close_lot()
            else:
                self._flush_to(target)
        finally:
            self._flushing = False

    def _flush_to(self, target: NodeId) -> None:
        now = self._clock.now_ns()
        units = self._proposals.outgoing(now, self.raft.commit_index)
        remaining_ns = max(1, self._proposals.patience_ns - now) if units else 0
        for unit in units:
            call = Propose(
                unit.request_id,
                unit.session,
                unit.sequence,
                unit.count,
                unit.opened_at,
                remaining_ns,
                unit.body,
                *(unit.condition or (None, None)),
            )
            if target == self._id:
                self._propose_for(_LOCAL, call)
            else:
                self._outlet.send(target, call)
        for request_id in self._reads.outgoing(now):
            if target == self._id:
                self._step(ev.ReadRequested((_LOCAL, request_id)))
            else:
                self._outlet.send(target, RequestRead(request_id))

    def _reachable_leader(self) -> NodeId | None:
        leader_id = self.raft.leader_id
        return leader_id if leader_id == self._id or leader_id in self.linked else None

    def _why_waiting(self) -> str:
        return explain(self.raft, self.linked, self._clock.now_ns()) or "the leader did not answer in time"

    # -- proposals at the leader

    def _propose_for(self, origin: object, call: Propose) -> None:
        key = (origin, call.request_id)
        if call.remaining_ns <= 0:
            self._refuse(key, "late")
            return
        limit_bytes = self._settings.batch_limit_bytes
        if HEADER_BYTES + len(call.body) > limit_bytes:
            self._refuse(key, "too_large", last=(limit_bytes, 0))
            return
        condition = None
        if call.prev_log_index is not None and call.prev_log_term is not None:
            condition = call.prev_log_index, call.prev_log_term
        self._step(
            ev.Proposed(
                key,
                call.session,
                call.sequence,
                call.count,
                call.opened_at,
                call.body,
                self._clock.wall_ns(),
                condition,
            )
        )

    def _accept(self, key: RequestKey, first_index: LogIndex, term: Term) -> None:
        raft = self.raft
        self._answer(key, ProposeAccepted(raft.current_term, raft.leader_id, key[1], first_index, term))

    def _refuse(
        self,
        key: RequestKey,
        reason: RefusalReason,
        *,
        appended: bool = False,
        last: tuple[int, int] = (0, 0),
    ) -> None:
        raft = self.raft
        self._answer(key, ProposeRejected(raft.current_term, raft.leader_id, key[1], reason, appended, *last))

    def _answer(self, key: RequestKey, response: ProposeAccepted | ProposeRejected) -> None:
        origin = key[0]
        if origin is _LOCAL:
            self._proposal_answered(response)
        elif isinstance(origin, _Client):
            self._outlet.send_client(origin.key, response)
        elif isinstance(origin, int):
            self._outlet.send(origin, response)

    def _proposal_answered(self, response: ProposeAccepted | ProposeRejected) -> None:
        relay = self._relays.answered(response.request_id)
        if relay is not None:
            response = msgspec.structs.replace(response, request_id=relay.request_id)
            if isinstance(response, ProposeRejected) and self._settings.retransmit_ns:
                # Between nodes it may have been doubled: that one copy was refused says nothing of the other.
                response = msgspec.structs.replace(response, appended=True)
            self._outlet.send_client(relay.client, response)
            return
        self._made_room = True
        if isinstance(response, ProposeAccepted):
            self._proposals.accepted(response)
        else:
            self._proposals.rejected(response, self._clock.now_ns())

    # -- effects

    def _step(self, event: Event) -> None:
        effects = self.raft.step(event, self._clock.now_ns())
        if self._observer is not None:
            self._observer.stepped(self.raft, event, effects)
        scheduler = self._scheduler
        for effect in effects:
            if isinstance(effect, Send):
                if scheduler.may_leave(effect):
                    self._outlet.send(effect.to, effect.message)
            elif isinstance(effect, Persist):
                scheduler.queued.append(effect)
            else:
                self._carry_out(effect)
        if scheduler.queued and (group := scheduler.next_group()):
            self._outlet.write(group)

    def _carry_out(self, effect: fx.Told) -> None:
        match effect:
            case fx.Apply():
                self._committed(effect.commit_index)
            case fx.Append():
                if effect.last_index <= self.raft.commit_index:
                    self._accept(effect.key, effect.first_index, effect.term)
                else:
                    self._tracker.appended(effect.key, effect.first_index, effect.last_index, effect.term)
            case fx.Refused():
                last = effect.last_index, effect.last_term
                if effect.reason == "expired":
                    # Whoever opens another session must know of at least this much.
                    last = self.raft.commit_index, 0
                self._refuse(effect.key, effect.reason, last=last)
            case fx.ReadReady():
                self._read_ready(effect)
            case fx.ReadRefused():
                self._read_refused(effect)
            case fx.TransferRefused():
                self._transfer_refused(effect)
            case fx.ReadEntries():
                self._outlet.read_entries(effect)
            case fx.Became():
                self._became(effect)
            case fx.Reconfigured():
                self._outlet.reconfigured(effect.configuration)
            case _:
                assert_never(effect)

    def _committed(self, commit_index: LogIndex) -> None:
        self._outlet.committed(commit_index)
        if self._tracker.waiting:
            for key, first_index, last_index, term in self._tracker.committed(commit_index):
                if self.raft.log.term_at(last_index) == term:
                    self._accept(key, first_index, term)
                else:
                    self._refuse(key, "not_leader")
        if self._reads.earliest_ns < FAR_NS:
            self._reads.committed(commit_index)

    def _read_ready(self, effect: fx.ReadReady) -> None:
        origin, request_id = effect.key
        if origin is _LOCAL:
            self._reads.accepted(request_id, effect.read_index, self.raft.commit_index)
        elif isinstance(origin, int):
            raft = self.raft
            self._outlet.send(
                origin, ReadAccepted(raft.current_term, raft.leader_id, request_id, effect.read_index)
            )

    def _read_refused(self, effect: fx.ReadRefused) -> None:
        origin, request_id = effect.key
        if origin is _LOCAL:
            self._reads.rejected(request_id, self._clock.now_ns())
        elif isinstance(origin, int):
            raft = self.raft
            self._outlet.send(
                origin,
                ReadRejected(
                    raft.current_term,
                    raft.leader_id,
                    request_id,
                    "overloaded" if effect.overloaded else "not_leader",
                ),
            )

    def _transfer_refused(self, effect: fx.TransferRefused) -> None:
        origin, request_id = effect.key
        if origin is _LOCAL:
            self._transfers.refused(request_id, effect.why)
        elif isinstance(origin, int):
            raft = self.raft
            self._outlet.send(
                origin, TransferRejected(raft.current_term, raft.leader_id, request_id, effect.why)
            )

    def _became(self, effect: fx.Became) -> None:
        if not isinstance(self.raft.role, Leader):
            for key in self._tracker.abandon():
                self._refuse(key, "not_leader", appended=True)
        target = None if effect.leader_id is None else (effect.term, effect.leader_id)
        if target != self._target:
            self._target = target
            self._ask_again()
        if effect.leader_id is not None:
            self._transfers.led(effect.leader_id, effect.term)
        self._outlet.became(effect.role, effect.term, effect.leader_id)

    def _ask_again(self) -> None:
        """Another leader, or another link to it: what was under way may be lost."""
        self._give_up_relays(self._relays.take_all())
        self._proposals.leader_changed()
        self._reads.leader_changed()
        self.flush()

    # -- the end

    def stop(self, cause: BaseException | None) -> None:
        """Give every request its outcome; nothing else happens any more."""
        for key in self._tracker.abandon():
            if key[0] is not _LOCAL:
                self._refuse(key, "not_leader", appended=True)
        self._give_up_relays(self._relays.take_all())
        self._proposals.stop(cause)
        self._reads.stop(cause)
        self._transfers.stop(cause)


def _check_shape(sender: NodeId | str, call: Propose) -> None:
    """What no correct sender asks to append: it would be a batch that nobody can read. Raises ProtocolError."""
    if not (0 < call.session <= NUMBER_MAX and 0 < call.sequence <= NUMBER_MAX and call.count > 0):
        raise ProtocolError(
            sender, f"session {call.session}, sequence {call.sequence} or count {call.count} is out of range"
        )
    if (call.prev_log_index is None) != (call.prev_log_term is None):
        raise ProtocolError(sender, "a condition names an index and a term, or neither")
    lengths_bytes = 4 * call.count
    if lengths_bytes > len(call.body) or (
        lengths_bytes + sum(struct.unpack_from(f"<{call.count}I", call.body)) != len(call.body)
    ):
        raise ProtocolError(sender, f"a body of {len(call.body)} bytes does not hold {call.count} entries")
