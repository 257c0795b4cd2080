"""A replicated machine on Maelstrom's network: the node of production over other ports, with keys and values on top.

    datagrams <-> MaelstromNetwork <-> UdpLinks <-> Runtime (Engine) -> committed -> Machine -> answers

Links, handshake, retransmission, sessions and the write-ahead log are the product's own; what is here is a `ports.Network` whose
datagrams are Maelstrom's messages, and the lane in which committed commands are applied.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias, cast

from ..aio.runtime import Runtime
from ..config import Settings
from ..core.batch import HEADER_BYTES, Batch, Kind
from ..errors import EntryTooLarge, Overloaded, RaftError
from ..ports import Datagrams, Listener, Ports, StreamHandler
from ..session.units import Appended
from ..sim.key_value import Command, Get, KeyValue, Value
from ..types import Address, LogIndex, NodeId
from ..wire.entries import EntryCodec

__all__ = ["MaelstromNetwork", "MaelstromNode"]

RESULTS_MAX: Final = 65_536
"""Results of applied commands that are kept until it is known whose they are."""

WAITING_MAX: Final = 65_536
"""Who waits until as much is applied here as is committed elsewhere."""

Outcome: TypeAlias = "Value | RaftError | None"


class _Place:
    """`ports.Listener` where nobody can call, and `ports.Datagrams` of the node that is there."""

    def __init__(self, address: Address, send: Callable[[Address, bytes], None]) -> None:
        self.address = address
        self._send = send

    def send(self, to: Address, data: bytes) -> None:
        self._send(to, data)

    def close(self) -> None:
        self._send = _nowhere


def _nowhere(to: Address, data: bytes) -> None:
    pass


class MaelstromNetwork:
    """`ports.Network`: an address is a node's name; datagrams may be lost and reordered, and there are no streams.

    send: carries bytes to the node of this name, or not.
    """

    def __init__(self, send: Callable[[str, bytes], None]) -> None:
        self._send = send
        self._received: Callable[[Address, bytes], None] = _nowhere

    async def listen(self, address: Address, accept: Callable[[], StreamHandler]) -> Listener:
        return _Place(address, _nowhere)

    def connect(self, address: Address, handler: StreamHandler) -> None:
        raise AssertionError("over datagrams nobody dials")

    async def datagrams(self, address: Address, received: Callable[[Address, bytes], None]) -> Datagrams:
        self._received = received
        return _Place(address, lambda to, data: self._send(to[0], data))

    def deliver(self, name: str, data: bytes) -> None:
        self._received(_address(name), data)


def _address(name: str) -> Address:
    return name, 1


class _Machine:
    """Applies what is committed, in the order of the log, and calls back who waits for a place in it.

    load: batches from one index on up to another, as `Runtime.load_page` gives them.
    """

    def __init__(
        self,
        load: Callable[[LogIndex, LogIndex], Awaitable[tuple[list[Batch], LogIndex]]],
        codec: EntryCodec[Command],
    ) -> None:
        self.key_value = KeyValue()
        self._load = load
        self._codec = codec
        self._last_applied: LogIndex = 0
        self._commit_index: LogIndex = 0
        self._advanced = asyncio.Event()
        self._results: OrderedDict[LogIndex, Value | None] = OrderedDict()
        self._waiting: list[tuple[LogIndex, int, Callable[[], None]]] = []
        self._number = 0

    def advance(self, commit_index: LogIndex) -> None:
        self._commit_index = max(self._commit_index, commit_index)
        self._advanced.set()

    async def run(self) -> None:
        """Until cancelled. Raises RaftError where the log cannot be read; its node stops then."""
        while await self._advanced.wait():
            self._advanced.clear()
            while self._last_applied < self._commit_index:
                batches, _ = await self._load(self._last_applied + 1, self._commit_index)
                for batch in batches:
                    self._apply(batch)

    def _apply(self, batch: Batch) -> None:
        assert batch.first_index == self._last_applied + 1, (
            "each entry is applied once, in the order of the log"
        )
        if batch.kind == Kind.ENTRIES:
            for index, payload in enumerate(batch.payloads(), start=batch.first_index):
                self._results[index] = self.key_value.apply(self._codec.decode(payload))
        self._last_applied = batch.last_index
        while len(self._results) > RESULTS_MAX:
            self._results.popitem(last=False)
        while self._waiting and self._waiting[0][0] <= self._last_applied:
            heapq.heappop(self._waiting)[2]()

    def when_applied(self, index: LogIndex, then: Callable[[], None]) -> bool:
        """Call `then` once `index` is applied; False: too many wait already."""
        if index <= self._last_applied:
            then()
        elif len(self._waiting) >= WAITING_MAX:
            return False
        else:
            self._number += 1
            heapq.heappush(self._waiting, (index, self._number, then))
        return True

    def result(self, index: LogIndex, resolve: Callable[[Value | None], None]) -> None:
        """Resolve with what applying it returned, unless that was too long ago."""
        if index in self._results:
            resolve(self._results.pop(index))


class MaelstromNode(Runtime):
    """One node: the runtime of production, and a machine that it feeds.

    names: of all members, in an order on which all agree: a member's place in it, from 1, is its id.
    send: see MaelstromNetwork.
    """

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        ports: Callable[[MaelstromNetwork], Ports],
        settings: Settings,
        send: Callable[[str, bytes], None],
    ) -> None:
        self._codec: EntryCodec[Command] = EntryCodec(cast("type[Command]", Command))
        self.network = MaelstromNetwork(send)
        nodes: Mapping[NodeId, Address] = {id: _address(name) for id, name in enumerate(names, start=1)}
        id = names.index(name) + 1
        super().__init__(id, nodes, self._codec.fingerprint, ports(self.network), settings, nodes[id])
        self._limit_bytes = min(settings.entry_max_bytes, settings.batch_limit_bytes - HEADER_BYTES - 4)
        self._machine = _Machine(lambda start, end: self.load_page(start, end, None), self._codec)
        self._applying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await super().start()
        self._machine.advance(self.status().commit_index)
        self._applying = asyncio.create_task(self._apply())

    async def _apply(self) -> None:
        try:
            await self._machine.run()
        except Exception as error:
            self.fail(error)

    async def stop(self) -> None:
        if self._applying is not None:
            self._applying.cancel()
        await super().stop()

    def committed(self, commit_index: LogIndex) -> None:
        self._machine.advance(commit_index)

    def carry_out(self, command: Command, resolve: Callable[[Outcome], None]) -> None:
        """Replicate and apply a command; `resolve` gets what it returned, or why it has none. It may never be called: then
        the command is committed, and this node has not heard enough to know with which result. Raises RaftError."""

        def appended(outcome: Appended | RaftError) -> None:
            if isinstance(outcome, RaftError):
                resolve(outcome)
                return
            index = outcome.first_index
            self._machine.when_applied(index, lambda: self._machine.result(index, resolve))

        payload = self._codec.encode(command)
        if len(payload) > self._limit_bytes:
            raise EntryTooLarge(len(payload), self._limit_bytes)
        self.submit((payload,), None, None, appended)

    def ask(self, query: Get, resolve: Callable[[Outcome], None]) -> None:
        """Answer a query linearizably: the leader confirms an index, and as much is applied here first. Raises RaftError."""

        def confirmed(outcome: LogIndex | RaftError) -> None:
            if isinstance(outcome, RaftError):
                resolve(outcome)
            elif not self._machine.when_applied(
                outcome, lambda: resolve(self._machine.key_value.query(query))
            ):
                resolve(Overloaded(WAITING_MAX))

        self.confirm_read(None, confirmed)
