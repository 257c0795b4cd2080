"""One running node in bytes: carries out what the engine wants through the ports, and tells the engine what happened.

    links, timer, workers -> Runtime -> Engine -> Runtime (as its Outlet) -> links, store

It knows no entry type (see `node`), and decides nothing about consensus: the engine does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ..config import Settings
from ..core import effects as fx
from ..core.batch import Batch
from ..core.effects import Persist
from ..core.messages import Message, Propose
from ..core.quorum import Configuration, Member
from ..errors import (
    ConfigurationError,
    NodeStopped,
    ProtocolError,
    RaftError,
)
from ..ports import Ports, Timer
from ..session.engine import ClientKey, Engine
from ..session.units import Appended, Lot, ResolvePart
from ..storage.store import LogStore
from ..types import Address, LogIndex, NodeId, NodeStatus, RoleName, Term
from ..wire.client import ClientMessage
from ..wire.codec import WireMessage
from ..wire.handshake import Local, Refusal, hash_of_list
from .applier import Applier
from .describing import describe
from .futures import new_future, settle
from .links import Client, Links, PeerLinks
from .opening import Opened, open_store
from .ranges import Answered, RangeReads, Ranges, ResolveRanges
from .reading import LogReader, on_worker
from .serving import serve
from .udp import UdpLinks

__all__ = ["Runtime"]


class Runtime:
    """One incarnation of one node. `start` it once, `stop` it once.

    fingerprint: of the entry type's schema; every member must have the same.
    applier: of the state machine; None: a log without one is its own state.
    """

    def __init__(
        self,
        id: NodeId,
        nodes: Mapping[NodeId, Address],
        fingerprint: bytes,
        ports: Ports,
        settings: Settings,
        bind: Address,
        applier: Applier[Any, Any, Any, Any] | None = None,
    ) -> None:
        self._id = id
        self._nodes = dict(nodes)
        self._fingerprint = fingerprint
        self._ports = ports
        self._clock = ports.clock
        self._settings = settings
        self._bind = bind
        self._applier = applier
        self._opened: Opened | None = None
        self._links: PeerLinks | None = None
        self._store: LogStore
        self._engine: Engine
        self._reader: LogReader
        self._reads: RangeReads
        self._address: Address | None = None
        self._refusals: dict[NodeId, str] = {}
        self._founded = False
        self._list_hash = hash_of_list(nodes)
        self._timer: Timer | None = None
        self._timer_ns = 0
        self._flush_scheduled = False
        self._reserving = False
        self._open = False
        self._was_open = False
        self._cause: BaseException | None = None
        self._stopping: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    # -- life

    async def start(self) -> None:
        """Open the log and bind the address. Raises ConfigurationError, StorageError; nothing stays open then."""
        try:
            await self._start()
        except BaseException as error:
            await self._release(error)
            raise

    async def _start(self) -> None:
        ports, settings = self._ports, self._settings
        members = (Member(id, host, port) for id, (host, port) in self._nodes.items())
        configuration = Configuration(tuple(members), frozenset(self._nodes))

        def open_log() -> Opened:
            # Kept by the worker: whoever gave up waiting still has to close it.
            self._opened = open_store(ports, self._id, configuration, self._fingerprint, settings)
            return self._opened

        opened = await on_worker(ports.writer, open_log)
        self._store = opened.store
        recovered = opened.recovered
        if recovered.largest_batch_bytes > settings.batch_limit_bytes:
            raise ConfigurationError(
                f"the log holds a batch of {recovered.largest_batch_bytes:,} bytes, {settings.transport} carries "
                f"{settings.batch_limit_bytes:,}: start this node with transport 'tcp'"
            )
        self._engine = Engine(
            self._id,
            recovered,
            self,
            settings=settings,
            clock=self._clock,
            random=ports.random,
            store_id=opened.store_id,
            observer=ports.observer,
        )
        self._reader = LogReader(self._engine.raft.log, opened.store, ports.reader, self.fail)
        self._reads = RangeReads(self._engine.raft, self._reader, self._confirm_read)
        self._links = (
            UdpLinks(ports, settings, self) if settings.transport == "udp" else Links(ports, settings, self)
        )
        try:
            self._address = await self._links.start(self._bind)
        except OSError as error:
            host, port = self._bind
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {error.strerror or error}; does another node run there?"
            ) from error
        self._open = self._was_open = True
        self._log(
            "info", "started", address=f"{self._address[0]}:{self._address[1]}", **self._described(opened)
        )
        if opened.volatile:
            self._log("warning", "volatile", remedy="pass data_dir to keep the log")
        self._links.set_peers({id: address for id, address in self._nodes.items() if id != self._id})
        self._arm()
        if self._applier is not None:
            self._applier.start(self._reader, self._clock, self._guard, self._engine.applied, self._log)
            self._applier.committed(self._engine.raft.commit_index)

    def _described(self, opened: Opened) -> dict[str, object]:
        raft = self._engine.raft
        return {
            "incarnation": opened.incarnation,
            "term": raft.current_term,
            "last_index": raft.log.last_index,
            "commit_index": raft.commit_index,
        }

    def _log(self, level: str, event: str, **fields: object) -> None:
        self._ports.log(level, event, {"node": self._id, **fields})

    async def stop(self) -> None:
        """Hand over, if this node leads and the others would do without it; then stop."""
        if self._ended.done():
            return
        if self._stopping is None:
            if self._open and self._engine.may_hand_over:
                self._stopping = asyncio.ensure_future(self._hand_over_and_leave())
            else:
                self._fail(None)
                self._stopping = asyncio.ensure_future(self._release(self._cause))
        await asyncio.shield(self._stopping)

    async def _hand_over_and_leave(self) -> None:
        with suppress(RaftError):  # The others elect one without this.
            await self.transfer(None, self._settings.election_min_ns / 1e9)
        self._fail(None)
        await self._release(self._cause)

    def fail(self, cause: BaseException) -> None:
        """This node must not go on: `cause` says why."""
        if self._open:
            self._log("error", "failed", cause=str(cause) or type(cause).__name__)
        self._fail(cause)
        if self._stopping is None and not self._ended.done():
            self._stopping = asyncio.ensure_future(self._release(cause))

    def _fail(self, cause: BaseException | None) -> None:
        if not self._open:
            return
        self._open, self._cause = False, cause
        if self._timer is not None:
            self._timer.cancel()
        self._engine.stop(cause)
        if self._applier is not None:
            self._applier.stop(cause)

    async def _release(self, cause: BaseException | None) -> None:
        """Close everything that was opened; the log last, with the mark of a clean end unless the disk failed."""
        try:
            if self._links is not None:
                self._links.close()
            if self._was_open:
                await self._reader.finish()
            await on_worker(self._ports.writer, self._close_log)
        except Exception as error:  # whatever it is, whoever waits for the end must hear of it
            self._log("error", "not_closed", cause=str(error) or type(error).__name__)
        finally:
            self._ports.writer.close()
            self._ports.reader.close()
            if not self._ended.done():
                if self._was_open:
                    self._log("info", "stopped")
                self._ended.set_result(cause)

    def _close_log(self) -> None:
        """On the writer, so behind an opening that nobody waits for any more."""
        if self._opened is not None:
            self._opened.close()

    async def stopped(self) -> BaseException | None:
        return await asyncio.shield(self._ended)

    # -- requests

    def submit(
        self,
        payloads: Sequence[bytes],
        condition: tuple[LogIndex, Term] | None,
        timeout_s: float | None,
        resolve: Callable[[Appended | RaftError], None],
    ) -> None:
        self._check_open()
        self._engine.submit(payloads, condition, self.deadline_ns(timeout_s), resolve)
        self._flush_soon()

    def open_lot(self, need_bytes: int, limit_bytes: int, resolve: ResolvePart) -> Lot:
        self._check_open()
        lot = self._engine.open_lot(need_bytes, limit_bytes, self.deadline_ns(None), resolve)
        self._flush_soon()
        return lot

    def open_reads(self, timeout_s: float | None, resolve: ResolveRanges) -> Ranges:
        self._check_open()
        lot = self._reads.open(self.deadline_ns(timeout_s), resolve)
        self._flush_soon()
        return lot

    async def read_index(self, timeout_s: float | None) -> LogIndex:
        future: asyncio.Future[LogIndex] = new_future()
        self.confirm_read(timeout_s, partial(settle, future))
        return await future

    def transfer(self, target: NodeId | None, timeout_s: float | None) -> asyncio.Future[NodeId]:
        """Have the leader hand over; the future has who leads then."""
        future: asyncio.Future[NodeId] = new_future()
        self.hand_over(target, timeout_s, partial(settle, future))
        return future

    def hand_over(
        self, target: NodeId | None, timeout_s: float | None, resolve: Callable[[NodeId | RaftError], None]
    ) -> None:
        self._check_open()
        self._guard(self._engine.transfer, target, self.deadline_ns(timeout_s), resolve)

    def status(self) -> NodeStatus:
        self._check_open()
        return describe(
            self._engine, self._opened_now(), self._refusals, self._clock.now_ns(), self._applied_index
        )

    @property
    def _applied_index(self) -> LogIndex:
        return self._engine.raft.commit_index if self._applier is None else self._applier.applied_index

    @property
    def address(self) -> Address:
        if self._address is None:
            raise NodeStopped(self._cause)
        return self._address

    def confirm_read(
        self, timeout_s: float | None, confirmed: Callable[[LogIndex | RaftError], None]
    ) -> None:
        self._confirm_read(self.deadline_ns(timeout_s), confirmed)

    def _confirm_read(self, deadline_ns: int, confirmed: Callable[[LogIndex | RaftError], None]) -> None:
        self._check_open()
        self._engine.read_index(deadline_ns, confirmed)
        self._flush_soon()

    async def load_page(
        self, start: LogIndex, end: LogIndex, timeout_s: float | None
    ) -> tuple[list[Batch], LogIndex]:
        """Batches that hold committed entries from `start`, up to `end` or 8 MiB; and the index to go on at."""
        self._check_open()
        return await self._reader.page(start, end)

    def deadline_ns(self, timeout_s: float | None) -> int:
        settings = self._settings
        timeout_ns = settings.request_timeout_ns if timeout_s is None else round(timeout_s * 1e9)
        return self._clock.now_ns() + timeout_ns

    def _check_open(self) -> None:
        if not self._open:
            raise NodeStopped(self._cause)

    def _flush_soon(self) -> None:
        """Requests of one turn of the loop travel together."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._clock.call_soon(self._flush)

    def _flush(self) -> None:
        self._reads.hand_over()
        self._flush_scheduled = False
        self._guard(self._engine.flush)

    # -- what happens, told to the engine

    def _guard(self, happened: Callable[..., None], *what: object) -> None:
        """Let the engine handle something; what no correct node meets stops this one rather than going on wrong."""
        links = self._links
        if not self._open or links is None:
            return
        links.holding = True
        try:
            happened(*what)
        except ProtocolError:
            raise
        except Exception as error:
            self.fail(error)
        else:
            self._arm()
        finally:
            links.flush()

    def _deadline(self) -> int:
        deadline = self._engine.deadline()
        return deadline if self._applier is None else min(deadline, self._applier.deadline())

    def _arm(self) -> None:
        """Keep one timer, never later than the deadline; an early one only looks again."""
        when = self._engine.deadline() if self._applier is None else self._deadline()
        if self._timer is None or when < self._timer_ns:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_ns = when
            self._timer = self._clock.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._clock.now_ns() >= self._deadline():
            self._guard(self._expire)
        elif self._open:
            self._arm()

    def _expire(self) -> None:
        self._engine.tick()
        if self._applier is not None:
            self._applier.expire(self._clock.now_ns())

    # -- Outlet: what the engine wants done

    def send(self, peer: NodeId, message: Message) -> None:
        if self._links is not None:
            self._links.send(peer, message)

    def send_client(self, client: ClientKey, message: Message) -> None:
        if self._links is not None and isinstance(client, Client):
            self._links.send_client(client, message)

    def write(self, group: Sequence[Persist]) -> None:
        self._ports.writer.submit(partial(self._store.write, group), self._written)

    def _written(self, _: None, error: BaseException | None) -> None:
        if error is not None:
            self.fail(error)
        else:
            self._guard(self._engine.written)
            if self._store.reserve_due:
                self._reserve()

    def _reserve(self) -> None:
        """Prepare the next segment, a slice at a time, so that writes go in between."""
        store = self._store
        if self._open and not self._reserving and store.reserve_due:
            self._reserving = True
            self._ports.writer.submit(store.reserve, self._reserve_done)

    def _reserve_done(self, _: None, error: BaseException | None) -> None:
        self._reserving = False
        if error is not None:
            self.fail(error)
        else:
            self._reserve()

    def read_entries(self, effect: fx.ReadEntries) -> None:
        store = self._store

        def done(batches: list[Batch] | None, error: BaseException | None) -> None:
            if error is not None:
                self.fail(error)
            elif batches is not None:
                self._guard(self._engine.entries_read, effect.peer, tuple(batches))

        self._ports.reader.submit(
            lambda: store.read(effect.first_index, effect.last_index, effect.max_bytes), done
        )

    def committed(self, commit_index: LogIndex) -> None:
        if self._applier is not None:
            self._applier.committed(commit_index)
        if not self._founded and self._engine.raft.cluster_id is not None:
            # Links that are older than the cluster's id were judged without it.
            self._founded = True
            self._clock.call_soon(self._recheck)

    def became(self, role: RoleName, term: Term, leader_id: NodeId | None) -> None:
        self._log("info", f"became_{role.replace('-', '_')}", term=term, leader=leader_id)

    def reconfigured(self, configuration: Configuration) -> None:
        """The log says who is a member: a link that it no longer allows is cut, after this step."""
        self._clock.call_soon(self._recheck)

    def _recheck(self) -> None:
        if self._open and self._links is not None:
            self._links.recheck()

    def _opened_now(self) -> Opened:
        if self._opened is None:
            raise NodeStopped(self._cause)
        return self._opened

    # -- Observer: what the links report

    def local(self) -> Local:
        opened, raft = self._opened_now(), self._engine.raft
        return Local(
            self._id,
            opened.store_id,
            opened.incarnation,
            self._fingerprint,
            self._list_hash,
            self._nodes[self._id],
            raft.cluster_id,
            raft.configuration,
            raft.commit_index,
        )

    def link_up(self, peer: NodeId, store_id: bytes) -> None:
        self._refusals.pop(peer, None)
        self._log("info", "link_up", peer=peer)
        self._guard(self._engine.link_up, peer, store_id)

    def link_lost(self, peer: NodeId) -> None:
        self._log("info", "link_lost", peer=peer)
        self._guard(self._engine.link_lost, peer)

    def received(self, peer: NodeId, message: Message) -> None:
        self._guard(self._engine.message, peer, message)

    def client_received(self, client: Client, message: WireMessage) -> None:
        if self._open:
            serve(self, client, message)

    def client_lost(self, client: Client) -> None:
        """Its requests go on; their answers have nowhere to go."""

    def refused(self, peer: NodeId, refusal: Refusal) -> None:
        self._refusals[peer] = refusal.text

    # -- Served: what clients ask

    def propose_for(self, client: Client, message: Propose) -> None:
        self._guard(self._engine.client_message, client, message)

    def read_ranges(self, places: Sequence[LogIndex], timeout_s: float, answered: Answered) -> None:
        self._reads.read(places, self.deadline_ns(timeout_s), answered)

    def reply(self, client: Client, message: ClientMessage) -> None:
        if self._links is not None:
            self._links.send_client(client, message)
