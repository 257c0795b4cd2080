"""The typed face that a node and a client share: entries become bytes here, and bytes entries; nothing else happens here."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from types import UnionType
from typing import Final, Generic, Protocol, TypeVar

from ..config import SECONDS_MAX, Settings
from ..core.batch import HEADER_BYTES, Batch
from ..errors import EntryTooLarge, InvalidRequest, RaftError
from ..session.requests import AppendRequest, ClientRequest, Err, IndexRange, Ok, Response, check_numbers
from ..session.units import LENGTH_BYTES, Appended, Lot, ResolvePart
from ..types import Entry, LogIndex, NodeId, Term
from ..wire.entries import EntryCodec
from .futures import asked, failed, new_future, settle
from .ranges import Ranges, Readers, ResolveRanges, entries_of

__all__ = ["Backend", "Face", "values_of"]

T = TypeVar("T")

WAKE_MAX: Final = 256
"""How many who wait for the same batch wake in one turn of the loop."""


def values_of(request: AppendRequest[T]) -> tuple[T, ...]:
    """The entries to append, as they are now: a list may have changed since the request was made. Raises InvalidRequest."""
    try:
        values = tuple(request.entries)
    except TypeError as error:
        raise InvalidRequest(
            f"entries is a sequence of entries, not {type(request.entries).__name__}"
        ) from error
    if not values:
        raise InvalidRequest("a request to append needs at least one entry")
    return values


class Backend(Protocol):
    """What carries requests out. All times are seconds, None: the settings' `request_timeout_s`."""

    def submit(
        self,
        payloads: Sequence[bytes],
        condition: tuple[LogIndex, Term] | None,
        timeout_s: float | None,
        resolve: Callable[[Appended | RaftError], None],
    ) -> None:
        """Append; `resolve` is called once, later. Raises what is known at once."""
        ...

    def open_lot(self, need_bytes: int, limit_bytes: int, resolve: ResolvePart) -> Lot:
        """Where requests of one entry each go while it has room; `resolve` is called once for each. Raises as `submit` does."""
        ...

    def open_reads(self, timeout_s: float | None, resolve: ResolveRanges) -> Ranges:
        """Where ranges to read go while it has room; `resolve` is called once for each, with the committed batches that
        hold it. Raises as `submit` does."""
        ...

    async def read_index(self, timeout_s: float | None) -> LogIndex: ...

    async def load_page(
        self, start: LogIndex, end: LogIndex, timeout_s: float | None
    ) -> tuple[Sequence[Batch], LogIndex]:
        """Batches that hold committed entries from `start`, up to `end` or one page; and the index to go on at."""
        ...

    def transfer(self, target: NodeId | None, timeout_s: float | None) -> asyncio.Future[NodeId]: ...


class _Group(Generic[T]):
    """Who waits for the entries of a lot: those that were proposed in one turn of the loop."""

    __slots__ = ("create_future", "entries", "futures", "lot")

    lot: Lot

    def __init__(self) -> None:
        self.create_future: Callable[[], asyncio.Future[Entry[T]]] = asyncio.get_running_loop().create_future
        self.entries: list[T] = []
        self.futures: list[asyncio.Future[Entry[T]]] = []

    def resolve(self, start: int, stop: int, outcome: Appended | RaftError) -> None:
        """The futures from `start` up to `stop` get it, unless whoever waited has given up.

        Of very many the rest in the next turn of the loop: what the first ask for next travels meanwhile.
        """
        if stop - start > WAKE_MAX:
            rest = start + WAKE_MAX
            later = (
                outcome
                if isinstance(outcome, RaftError)
                else Appended(outcome.first_index + WAKE_MAX, outcome.term)
            )
            asyncio.get_running_loop().call_soon(self.resolve, rest, stop, later)
            stop = rest
        futures = self.futures[start:stop]
        if isinstance(outcome, RaftError):
            for future in futures:
                if not future.done():
                    future.set_exception(outcome)
            return
        index, term = outcome.first_index, outcome.term
        for future, entry in zip(futures, self.entries[start:stop], strict=True):
            try:  # noqa: SIM105 - costs nothing unless it is raised
                future.set_result(Entry(index, term, entry))
            except asyncio.InvalidStateError:
                pass
            index += 1


class Face(ABC, Generic[T]):
    """Requests of entries of type T, over a `Backend`.

    A request returns a future: it is on its way when the call returns, awaited or not, in the order of the calls. What is wrong
    with it, the future raises. Who cancels the future stops waiting, while the request goes on.
    """

    def __init__(self, entry_type: type[T] | UnionType, settings: Settings | None) -> None:
        self._settings = settings or Settings()
        self._lot_bytes = min(
            self._settings.entry_max_bytes + LENGTH_BYTES, self._settings.batch_limit_bytes - HEADER_BYTES
        )
        self._codec: EntryCodec[T] = EntryCodec(entry_type)
        self._encode = self._codec.encode
        self._group: _Group[T] | None = None
        self._readers: Readers[T] | None = None

    @abstractmethod
    def _backend(self) -> Backend:
        """Raises NodeStopped if it does not run."""

    # -- requests

    def append(
        self,
        entries: Sequence[T],
        *,
        prev_log_index: LogIndex | None = None,
        prev_log_term: Term | None = None,
        timeout_s: float | None = None,
    ) -> asyncio.Future[Sequence[Entry[T]]]:
        """Append `entries`, all or none, once; returns them with their places when they are committed (section 5.3).

        prev_log_index, prev_log_term: only if this is the last user's entry of the log; (0, 0): there is none yet.
        timeout_s: instead of the setting `request_timeout_s`.
        Raises InvalidRequest, EntryTooLarge, LogMismatch, Overloaded, Unavailable, OutcomeUnknown, NodeStopped.
        """
        return asked(
            lambda respond: self.submit(
                AppendRequest(entries, prev_log_index, prev_log_term), respond, timeout_s
            )
        )

    def propose(self, entry: T, *, timeout_s: float | None = None) -> asyncio.Future[Entry[T]]:
        """Append one entry; returns it with its place when it is committed. Raises as `append` does."""
        if timeout_s is not None:
            return self._propose_alone(entry, timeout_s)
        try:
            payload = self._encode(entry)
            need_bytes = len(payload) + LENGTH_BYTES
            group = self._group
            if group is None or need_bytes > group.lot.room_bytes:
                group = self._begin_group(payload)
        except RaftError as error:
            return failed(error)
        lot = group.lot
        lot.room_bytes -= need_bytes
        lot.taken.append(payload)
        future = group.create_future()
        group.entries.append(entry)
        group.futures.append(future)
        return future

    def _propose_alone(self, entry: T, timeout_s: float) -> asyncio.Future[Entry[T]]:
        """With a deadline of its own, it travels with others but shares no lot with them."""
        future: asyncio.Future[Entry[T]] = new_future()

        def respond(response: Response[T]) -> None:
            settle(future, response.value[0] if isinstance(response, Ok) else response.error)

        self.submit(AppendRequest((entry,)), respond, timeout_s)
        return future

    def _begin_group(self, payload: bytes) -> _Group[T]:
        """The first entry of a turn, or one that the group has no room for."""
        self._check_size((payload,))
        need_bytes = len(payload) + LENGTH_BYTES
        group: _Group[T] = _Group()
        group.lot = self._backend().open_lot(need_bytes, self._lot_bytes, group.resolve)
        former, self._group = self._group, group
        if former is not None:
            del (
                former.lot
            )  # It refers to the group: both go with their last entry, not with a garbage collection.
        return group

    def index_range(
        self, start_index: LogIndex, end_index: LogIndex, *, timeout_s: float | None = None
    ) -> asyncio.Future[Sequence[Entry[T]]]:
        """The users' entries from `start_index` to `end_index`, both included, linearizably.

        Raises OutOfRange, RangeTooLarge (over 8 MiB), Compacted, DecodeFailed, Unavailable, NodeStopped.
        """
        future: asyncio.Future[Sequence[Entry[T]]] = new_future()
        try:
            self._read(IndexRange(start_index, end_index), timeout_s, partial(settle, future))
        except RaftError as error:
            future.set_exception(error)
        return future

    async def entries(
        self, start_index: LogIndex = 1, *, timeout_s: float | None = None
    ) -> AsyncIterator[Entry[T]]:
        """All users' entries from `start_index` up to what is committed now, read page by page. Raises as `index_range` does."""
        backend = self._backend()
        check_numbers(start_index=start_index)
        if start_index == 0:
            raise InvalidRequest("the first place in the log is 1")
        timeout_s = _patience_s(timeout_s)
        last = await backend.read_index(timeout_s)
        while start_index <= last:
            batches, next_index = await backend.load_page(start_index, last, timeout_s)
            # The last batch may reach beyond the page: what lies there comes with the next one.
            for entry in entries_of(self._codec, batches, start_index, min(last, next_index - 1)):
                yield entry
            start_index = next_index

    async def read_index(self, *, timeout_s: float | None = None) -> LogIndex:
        """An index that is committed and known here, no older than this call (ReadIndex, thesis 6.4)."""
        return await self._backend().read_index(_patience_s(timeout_s))

    # -- who leads

    def transfer(
        self, target: NodeId | None = None, *, timeout_s: float | None = None
    ) -> asyncio.Future[NodeId]:
        """Have the leader hand its office over to `target`, None: to the voter that holds most; returns who leads then.

        What is asked for meanwhile waits, for a few round trips (thesis 3.10). Raises TransferFailed, Unavailable, Overloaded,
        NodeStopped.
        """
        try:
            return self._backend().transfer(target, _patience_s(timeout_s))
        except RaftError as error:
            return failed(error)

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
                    self._read(
                        request,
                        timeout_s,
                        lambda read: respond(Err(read) if isinstance(read, RaftError) else Ok(read)),
                    )
        except RaftError as error:
            respond(Err(error))

    def _submit_append(
        self, request: AppendRequest[T], respond: Callable[[Response[T]], None], timeout_s: float | None
    ) -> None:
        backend = self._backend()
        values = values_of(request)
        payloads = self._codec.encode_all(values)
        self._check_size(payloads)

        def resolve(outcome: Appended | RaftError) -> None:
            if isinstance(outcome, Appended):
                term = outcome.term
                respond(
                    Ok([Entry(index, term, value) for index, value in enumerate(values, outcome.first_index)])
                )
            else:
                respond(Err(outcome))

        backend.submit(payloads, request.condition, _patience_s(timeout_s), resolve)

    def _read(
        self,
        request: IndexRange,
        timeout_s: float | None,
        answer: Callable[[list[Entry[T]] | RaftError], None],
    ) -> None:
        start, end = request.start_index, request.end_index
        readers = self._readers
        if timeout_s is not None or readers is None or not readers.lot.room:
            readers = Readers(self._codec)
            lot = readers.lot = self._backend().open_reads(_patience_s(timeout_s), readers.resolve)
            readers.places = lot.places
            former, self._readers = self._readers, readers
            if former is not None:
                del former.lot
        readers.lot.add(start, end, alone=timeout_s is not None)
        readers.answers.append(answer)

    def _check_size(self, payloads: Sequence[bytes]) -> None:
        settings = self._settings
        sizes = list(map(len, payloads))
        if (largest := max(sizes)) > settings.entry_max_bytes:
            raise EntryTooLarge(largest, settings.entry_max_bytes)
        total = HEADER_BYTES + LENGTH_BYTES * len(payloads) + sum(sizes)
        if total > settings.batch_limit_bytes:
            raise EntryTooLarge(total, settings.batch_limit_bytes, "a request")


def _patience_s(timeout_s: float | None) -> float | None:
    """However long a caller wants to wait, a message can say it."""
    return None if timeout_s is None else max(0.0, min(timeout_s, SECONDS_MAX))
