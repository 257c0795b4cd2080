"""The node for asyncio: a typed face over `Runtime`. Entries become bytes here, and bytes entries; nothing else happens here."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Generic, Self, TypeVar

from ..config import Settings, checked_nodes, is_loopback
from ..core.batch import HEADER_BYTES, Batch, Kind
from ..errors import ConfigurationError, DecodeFailed, EntryTooLarge, NodeStopped, RaftError
from ..ports import Ports
from ..session.proposals import Appended
from ..session.requests import AppendRequest, ClientRequest, Err, IndexRange, Ok, Response
from ..types import Address, Entry, LogIndex, NodeId, NodeStatus, Term
from ..wire.entries import EntryCodec
from .real import real_ports
from .runtime import Runtime

__all__ = ["Node", "entries_of"]

T = TypeVar("T")


def entries_of(
    codec: EntryCodec[T], batches: Iterable[Batch], start: LogIndex, end: LogIndex
) -> list[Entry[T]]:
    """The users' entries of `batches` with indexes from `start` to `end`. Raises DecodeFailed."""
    entries: list[Entry[T]] = []
    decode = codec.decode
    for batch in batches:
        if batch.kind != Kind.ENTRIES:
            continue
        index = batch.first_index
        for payload in batch.payloads():
            if start <= index <= end:
                try:
                    entries.append(Entry(index, batch.term, decode(payload)))
                except ValueError as error:
                    raise DecodeFailed(index, str(error)) from error
            index += 1
    return entries


class Node(Generic[T]):
    """One member of a cluster, in this process. An async context manager; `start` and `stop` do the same by hand.

        async with Node(1, nodes, entry_type=str, data_dir="data/1") as node:
            receipt = await node.propose("hello")
            entries = await node.index_range(1, receipt.index)

    nodes: every member's address by id, or pairs of both. On the first start with a data directory this becomes the
        cluster's configuration; later the log alone says who is a member, and addresses here are hints.
    entry_type: `str`, `bytes` or any type that msgspec supports; every member must use the same.
    data_dir: where the log is kept. None: the node is volatile; started anew it is another store, which the cluster refuses.
    bind: the address to listen on, if it is not the one in `nodes`.
    tls: (server, client) contexts for mutual authentication; certificates must name `node-<id>`.
    insecure_plaintext: allow unencrypted traffic beyond loopback.
    ports: what the node needs from outside, for simulation; the real ones by default.

    Raises ConfigurationError, from the constructor or from `start`, which also raises StorageError.
    """

    def __init__(
        self,
        id: NodeId,
        nodes: Mapping[NodeId, Address] | Iterable[tuple[NodeId, Address]],
        *,
        entry_type: type[T],
        data_dir: str | PathLike[str] | None = None,
        bind: Address | None = None,
        tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
        insecure_plaintext: bool = False,
        settings: Settings | None = None,
        ports: Callable[[], Ports] | None = None,
    ) -> None:
        self._id = id
        self._settings = settings or Settings()
        self._nodes = checked_nodes(id, nodes)
        self._bind = bind or self._nodes[id]
        if ports is None and not insecure_plaintext:
            self._require_safety(tls)
        self._codec = EntryCodec(entry_type)
        self._ports = ports or (lambda: real_ports(data_dir, tls))
        self._runtime: Runtime | None = None

    def _require_safety(self, tls: object) -> None:
        exposed = [
            f"{host}:{port}" for host, port in (self._bind, *self._nodes.values()) if not is_loopback(host)
        ]
        if not exposed:
            return
        if self._settings.transport == "udp":
            raise ConfigurationError(
                f"udp is not encrypted and {exposed[0]} is not loopback: pass insecure_plaintext=True if the network is trusted"
            )
        if tls is None:
            raise ConfigurationError(
                f"{exposed[0]} is not loopback: pass tls=, or insecure_plaintext=True if the network is trusted"
            )

    # -- life

    async def start(self) -> None:
        """Open the log and listen; returns as soon as both are done, with or without a leader."""
        if self._runtime is not None:
            raise ConfigurationError("a node starts once: make a new Node")
        self._runtime = Runtime(
            self._id, self._nodes, self._codec.fingerprint, self._ports(), self._settings, self._bind
        )
        await self._runtime.start()

    async def stop(self) -> None:
        """Give every request an outcome, close the log, leave. Safe to call twice."""
        if self._runtime is not None:
            await self._runtime.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def stopped(self) -> BaseException | None:
        """Wait until the node has stopped; returns what stopped it, None if it was asked to."""
        return await self._running().stopped()

    def _running(self) -> Runtime:
        if self._runtime is None:
            raise NodeStopped(ConfigurationError("it was never started: use `async with`, or await start()"))
        return self._runtime

    # -- requests

    async def append(
        self,
        entries: Sequence[T],
        *,
        prev_log_index: LogIndex | None = None,
        prev_log_term: Term | None = None,
        timeout_s: float | None = None,
    ) -> Sequence[Entry[T]]:
        """Append `entries`, all or none, once; returns them with their places when they are committed (section 5.3).

        prev_log_index, prev_log_term: only if this is the last user's entry of the log; (0, 0): there is none yet.
        timeout_s: instead of the setting `request_timeout_s`.
        Raises InvalidRequest, EntryTooLarge, LogMismatch, Overloaded, Unavailable, OutcomeUnknown, NodeStopped.
        """
        return await self._ask(AppendRequest(entries, prev_log_index, prev_log_term), timeout_s)

    async def propose(self, entry: T, *, timeout_s: float | None = None) -> Entry[T]:
        """Append one entry; returns it with its place when it is committed. Raises as `append` does."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Appended] = loop.create_future()
        runtime = self._running()
        payload = self._codec.encode(entry)
        self._check_size((payload,))

        def resolve(outcome: Appended | RaftError) -> None:
            if not future.done():
                if isinstance(outcome, Appended):
                    future.set_result(outcome)
                else:
                    future.set_exception(outcome)

        runtime.submit((payload,), None, timeout_s, resolve)
        appended = await future
        return Entry(appended.first_index, appended.term, entry)

    async def index_range(
        self, start_index: LogIndex, end_index: LogIndex, *, timeout_s: float | None = None
    ) -> Sequence[Entry[T]]:
        """The users' entries from `start_index` to `end_index`, both included, linearizably.

        Raises OutOfRange, RangeTooLarge (over 8 MiB), Compacted, DecodeFailed, Unavailable, NodeStopped.
        """
        return await self._ask(IndexRange(start_index, end_index), timeout_s)

    async def entries(
        self, start_index: LogIndex = 1, *, timeout_s: float | None = None
    ) -> AsyncIterator[Entry[T]]:
        """All users' entries from `start_index` up to what is committed now, read page by page."""
        runtime = self._running()
        last = await runtime.read_index(timeout_s)
        while start_index <= last:
            batches, next_index = await runtime.load_page(start_index, last)
            for entry in entries_of(self._codec, batches, start_index, last):
                yield entry
            start_index = next_index

    async def read_index(self, *, timeout_s: float | None = None) -> LogIndex:
        """An index that is committed and known here, no older than this call (ReadIndex, thesis 6.4)."""
        return await self._running().read_index(timeout_s)

    def status(self) -> NodeStatus:
        """What this node knows now, without asking anyone."""
        return self._running().status()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._running().address

    # -- the same, for faces that have callbacks

    def submit(
        self,
        request: ClientRequest[T],
        respond: Callable[[Response[T]], None],
        timeout_s: float | None = None,
    ) -> None:
        """Carry out a request; `respond` is called once, on the node's loop, possibly at once."""
        try:
            match request:
                case AppendRequest():
                    self._submit_append(request, respond, timeout_s)
                case IndexRange():
                    self._submit_range(request, respond, timeout_s)
        except RaftError as error:
            respond(Err(error))

    def _submit_append(
        self, request: AppendRequest[T], respond: Callable[[Response[T]], None], timeout_s: float | None
    ) -> None:
        runtime = self._running()
        values = tuple(request.entries)
        payloads = tuple(map(self._codec.encode, values))
        self._check_size(payloads)

        def resolve(outcome: Appended | RaftError) -> None:
            if isinstance(outcome, Appended):
                term = outcome.term
                respond(
                    Ok([Entry(index, term, value) for index, value in enumerate(values, outcome.first_index)])
                )
            else:
                respond(Err(outcome))

        runtime.submit(payloads, request.condition, timeout_s, resolve)

    def _submit_range(
        self, request: IndexRange, respond: Callable[[Response[T]], None], timeout_s: float | None
    ) -> None:
        runtime = self._running()
        start, end = request.start_index, request.end_index

        def loaded(batches: list[Batch] | RaftError) -> None:
            if isinstance(batches, RaftError):
                respond(Err(batches))
                return
            try:
                respond(Ok(entries_of(self._codec, batches, start, end)))
            except RaftError as error:
                respond(Err(error))

        runtime.read_range(start, end, timeout_s, loaded)

    async def _ask(self, request: ClientRequest[T], timeout_s: float | None) -> Sequence[Entry[T]]:
        future: asyncio.Future[Sequence[Entry[T]]] = asyncio.get_running_loop().create_future()

        def respond(response: Response[T]) -> None:
            if not future.done():
                if isinstance(response, Ok):
                    future.set_result(response.value)
                else:
                    future.set_exception(response.error)

        self.submit(request, respond, timeout_s)
        return await future

    def _check_size(self, payloads: Sequence[bytes]) -> None:
        settings = self._settings
        total = HEADER_BYTES + 4 * len(payloads)
        for payload in payloads:
            size_bytes = len(payload)
            if size_bytes > settings.entry_max_bytes:
                raise EntryTooLarge(size_bytes, settings.entry_max_bytes)
            total += size_bytes
        if total > settings.batch_limit_bytes:
            raise EntryTooLarge(total, settings.batch_limit_bytes, "a request")
