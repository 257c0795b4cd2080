"""A network in memory: hosts, links that delay and lose, streams and datagrams over them.

Streams behave as TCP does. While they last they lose nothing and keep order, so a lossy link shows as delay; a link that is cut
holds what is under way, and after some ten seconds both ends lose the stream. Datagrams are lost, doubled and overtaken. A link
that is held delivers nothing until it is released, and then all of it, however old.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

from ..ports import Datagrams, Listener, Random, Stream, StreamHandler
from ..types import Address
from .clock import VirtualLoop
from .gate import Gate

__all__ = ["Ether", "Link", "VirtualNetwork"]

CONNECT_TIMEOUT_NS: Final = 5_000_000_000
"""As `aio.network` has it."""

CONNECT_AGAIN_NS: Final = (1_000_000_000, 3_000_000_000)
"""When a kernel asks for a stream again if it got no answer, after the first time."""

PATIENCE_NS: Final = 9_000_000_000
"""How long a kernel sends again, or probes, before it gives a stream up: as `aio.network` tunes real ones."""

RETRANSMIT_NS: Final = 200_000_000
"""What a lost packet costs a stream."""

_END: Final = object()
_RESET: Final = object()

_Item: TypeAlias = "bytes | object"
"""What is under way on a stream: bytes, the end of them, or a reset."""


@dataclass(slots=True)
class Link:
    """The way from one host to another, in this direction.

    delay_ns: the shortest and longest time of a packet. loss, doubled: shares of the datagrams.
    bytes_per_s: what a slow link lets pass; None: no limit. cut: nothing passes. held: what comes waits in `waiting`.
    """

    delay_ns: tuple[int, int] = (50_000, 250_000)
    loss: float = 0.0
    doubled: float = 0.0
    bytes_per_s: int | None = None
    cut: bool = False
    cut_number: int = 0
    held: bool = False
    waiting: list[tuple[Address, Address, bytes]] = field(default_factory=list)


class _End:
    """One end of a stream: `ports.Stream` for the node, and what is under way from here to the other end."""

    def __init__(
        self, ether: Ether, network: VirtualNetwork, handler: StreamHandler | None, peer_host: str
    ) -> None:
        self._ether = ether
        self._network = network
        self._handler = handler
        self.host = network.host
        self.peer_host = peer_host
        self.peer = peer_host
        self.other: _End
        self.closed = False
        self.gone = False
        self.buffered_bytes = 0
        self._under_way: deque[_Item] = deque()
        self._arrives_ns = 0
        self._blocked = 0

    @property
    def peer_names(self) -> frozenset[str] | None:
        return None

    # -- ports.Stream, called by the node

    def write(self, parts: Sequence[bytes]) -> None:
        if self._network.gate.leaves() and not self.closed:
            data = b"".join(parts)
            if self._ether.tap is not None:
                self._ether.tap(self, data)
            self.buffered_bytes += len(data)
            self._push(data)

    def close(self) -> None:
        if self._network.gate.leaves() and not self.closed:
            self._push(_END)
            self._lose_soon(None)

    def abort(self) -> None:
        if self._network.gate.leaves() and not self.closed:
            self._push(_RESET)
            self._lose_soon(None)

    # -- the way to the other end

    def _push(self, item: _Item) -> None:
        self._under_way.append(item)
        self._schedule(len(item) if isinstance(item, bytes) else 0)

    def _schedule(self, size_bytes: int = 0) -> None:
        link = self._ether.link(self.host, self.peer_host)
        now = self._ether.loop.now_ns
        when_ns = max(self._arrives_ns, now + self._ether.delay_ns(link, reliable=True))
        if link.bytes_per_s is not None:
            when_ns += size_bytes * 1_000_000_000 // link.bytes_per_s
        self._arrives_ns = when_ns
        self._ether.loop.call_at_ns(when_ns, self._arrive)

    def _arrive(self) -> None:
        if not self._under_way:
            return
        link = self._ether.link(self.host, self.peer_host)
        if link.cut or link.held:
            self._blocked += 1
            return
        item = self._under_way.popleft()
        if isinstance(item, bytes):
            self.buffered_bytes -= len(item)
        self.other.take(item)

    def healed(self) -> None:
        """What the link did not let pass goes on its way again."""
        blocked, self._blocked = self._blocked, 0
        for _ in range(blocked):
            self._schedule()

    def take(self, item: _Item) -> None:
        """Something arrived here from the other end."""
        if self.gone:
            # The process that had this stream is no more: its kernel, if it is up, says so to whoever still sends.
            if item is not _RESET and self._ether.is_up(self.host):
                self._push(_RESET)
        elif isinstance(item, bytes):
            self._network.gate.enter(lambda: self._received(item))
        elif item is _END:
            self._network.gate.enter(lambda: self._ended(None))
        else:
            self._network.gate.enter(lambda: self._ended(ConnectionResetError(errno.ECONNRESET, "reset")))

    # -- into the node

    def connected(self) -> None:
        """The other end's kernel has taken the stream."""
        if self._network.gate.fallen:
            self.process_died(silently=False)
        else:
            self._network.gate.enter(self._connected)

    def accepted(self, handler: StreamHandler) -> None:
        """The process takes the stream from its kernel."""
        self._handler = handler
        self._connected()

    def _connected(self) -> None:
        if not self.gone:
            self.handler.connected(self)

    @property
    def handler(self) -> StreamHandler:
        assert self._handler is not None, "a process is told of a stream before anything comes over it"
        return self._handler

    def _received(self, data: bytes) -> None:
        if not self.closed:
            self.handler.received(data)

    def _ended(self, error: Exception | None) -> None:
        if not self.closed:
            self._lose(error)
            if error is None:
                self._push(_END)

    def _lose_soon(self, error: Exception | None) -> None:
        """The node closed it: it hears so later, never inside its own call."""
        self.closed = True
        self._ether.loop.call_soon(self._network.gate.enter, lambda: self.handler.lost(error))
        self._ether.forget(self)

    def _lose(self, error: Exception | None) -> None:
        self.closed = True
        self._ether.forget(self)
        self.handler.lost(error)

    def give_up(self) -> None:
        """The kernel sent again for long enough."""
        self._under_way.clear()
        self._blocked = 0
        if not self.gone:
            self._network.gate.enter(lambda: self._ended(TimeoutError(errno.ETIMEDOUT, "timed out")))

    def reset(self) -> None:
        """Someone between both ends breaks the stream."""
        self._under_way.clear()
        self._blocked = 0
        self._network.gate.enter(lambda: self._ended(ConnectionResetError(errno.ECONNRESET, "reset")))

    def process_died(self, *, silently: bool) -> None:
        """The kernel closes what its process had open; without power nobody does."""
        self.gone = self.closed = True
        if not silently:
            self._push(_END if self._ether.random.random() < 0.5 else _RESET)
        else:
            self._under_way.clear()
        self._ether.forget(self)


class _Listener:
    def __init__(
        self, network: VirtualNetwork, address: Address, accept: Callable[[], StreamHandler]
    ) -> None:
        self.network = network
        self.address = address
        self.accept = accept

    def close(self) -> None:
        if self.network.gate.leaves():
            self.network.ether.unbind(self)


class _Datagrams:
    def __init__(
        self, network: VirtualNetwork, address: Address, received: Callable[[Address, bytes], None]
    ) -> None:
        self.network = network
        self.address = address
        self._received = received
        self.closed = False

    def send(self, to: Address, data: bytes) -> None:
        if self.network.gate.leaves() and not self.closed:
            self.network.ether.send_datagram(self, to, data)

    def arrive(self, source: Address, data: bytes) -> None:
        if not self.closed:
            self.network.gate.enter(lambda: None if self.closed else self._received(source, data))

    def close(self) -> None:
        if self.network.gate.leaves():
            self.closed = True
            self.network.ether.unbind(self)


class VirtualNetwork:
    """`ports.Network` of one incarnation of a node on a host."""

    def __init__(self, ether: Ether, host: str, gate: Gate) -> None:
        self.ether = ether
        self.host = host
        self.gate = gate

    async def listen(self, address: Address, accept: Callable[[], StreamHandler]) -> Listener:
        listener = _Listener(self, address, accept)
        self.ether.bind(listener)
        return listener

    async def datagrams(self, address: Address, received: Callable[[Address, bytes], None]) -> Datagrams:
        datagrams = _Datagrams(self, address, received)
        self.ether.bind(datagrams)
        return datagrams

    def connect(self, address: Address, handler: StreamHandler) -> None:
        if self.gate.leaves():
            self.ether.connect(self, address, handler)


class Ether:
    """All hosts' network. Faults are set here: on links, between hosts, on streams.

    default: what a link is like that nobody described.
    tap: sees all bytes as a node writes them to a stream, with the end that it writes to; None: nobody listens.
    """

    def __init__(self, loop: VirtualLoop, random: Random, default: Link | None = None) -> None:
        self.loop = loop
        self.random = random
        self._default = default or Link()
        self._links: dict[tuple[str, str], Link] = {}
        self._listeners: dict[Address, _Listener] = {}
        self._sockets: dict[Address, _Datagrams] = {}
        self._ends: dict[_End, None] = {}
        self._down: set[str] = set()
        self.tap: Callable[[Stream, bytes], None] | None = None
        self._port = 50_000

    def port(self, host: str, gate: Gate) -> VirtualNetwork:
        """The network of a new incarnation on `host`."""
        self._down.discard(host)
        return VirtualNetwork(self, host, gate)

    # -- faults

    def link(self, source: str, target: str) -> Link:
        """The way from one host to another; change it as you like."""
        link = self._links.get((source, target))
        if link is None:
            default = self._default
            link = Link(default.delay_ns, default.loss, default.doubled, default.bytes_per_s)
            self._links[source, target] = link
        return link

    def restore(self, source: str, target: str) -> None:
        """Delays, losses and limits of this way are the default ones again; a cut stays."""
        link, default = self.link(source, target), self._default
        link.delay_ns, link.bytes_per_s = default.delay_ns, default.bytes_per_s
        link.loss, link.doubled = default.loss, default.doubled

    def cut(self, source: str, target: str) -> None:
        """Nothing passes from `source` to `target` any more."""
        link = self.link(source, target)
        if not link.cut:
            link.cut = True
            link.cut_number += 1
            number = link.cut_number
            self.loop.call_at_ns(
                self.loop.now_ns + PATIENCE_NS, lambda: self._give_up(source, target, number)
            )

    def heal(self, source: str, target: str) -> None:
        link = self.link(source, target)
        if link.cut:
            link.cut = False
            self._passes(source, target)

    def hold(self, source: str, target: str) -> None:
        """What is sent from `source` to `target` waits; streams last meanwhile, and none begins."""
        self.link(source, target).held = True

    def release(self, source: str, target: str) -> None:
        """What waited arrives, datagrams in the order in which they came."""
        link = self.link(source, target)
        if link.held:
            link.held = False
            waiting, link.waiting = link.waiting, []
            for datagram in waiting:
                self.loop.call_at_ns(self.loop.now_ns, partial(self._datagram_arrives, *datagram))
            self._passes(source, target)

    def _passes(self, source: str, target: str) -> None:
        for end in list(self._ends):
            if (end.host, end.peer_host) == (source, target):
                end.healed()

    def partition(self, *groups: Iterable[str]) -> None:
        """Cut all links between hosts of different groups, both ways, and heal those within each."""
        members = [list(group) for group in groups]
        for here, group in enumerate(members):
            for there, other in enumerate(members):
                for source in group:
                    for target in other:
                        if source != target:
                            (self.heal if here == there else self.cut)(source, target)

    def heal_all(self) -> None:
        for source, target in list(self._links):
            self.heal(source, target)
            self.release(source, target)

    def reset(self, one: str, other: str) -> None:
        """Break every stream between two hosts."""
        for end in list(self._ends):
            if {end.host, end.peer_host} == {one, other}:
                end.reset()

    def process_died(self, host: str, gate: Gate, *, silently: bool = False) -> None:
        """The process with this gate is gone; silently: the whole host is."""
        if silently:
            self._down.add(host)
        self._listeners = {a: bound for a, bound in self._listeners.items() if bound.network.gate is not gate}
        self._sockets = {a: bound for a, bound in self._sockets.items() if bound.network.gate is not gate}
        for end in list(self._ends):
            if end.host == host and not end.gone:
                end.process_died(silently=silently)
                if silently:
                    self.loop.call_at_ns(self.loop.now_ns + PATIENCE_NS, end.other.give_up)

    def is_up(self, host: str) -> bool:
        return host not in self._down

    def _give_up(self, source: str, target: str, number: int) -> None:
        link = self.link(source, target)
        if link.cut and link.cut_number == number:
            for end in list(self._ends):
                if {end.host, end.peer_host} == {source, target}:
                    end.give_up()

    # -- for the ports

    def delay_ns(self, link: Link, *, reliable: bool = False) -> int:
        shortest, longest = link.delay_ns
        delay_ns = shortest + int((longest - shortest) * self.random.random())
        if reliable and link.loss:
            while self.random.random() < link.loss:
                delay_ns += RETRANSMIT_NS
        return delay_ns

    def bind(self, bound: _Listener | _Datagrams) -> None:
        table: dict[Address, _Listener] | dict[Address, _Datagrams]
        table = self._listeners if isinstance(bound, _Listener) else self._sockets
        if bound.address in table:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        table[bound.address] = bound  # type: ignore[assignment]

    def unbind(self, bound: _Listener | _Datagrams) -> None:
        table: dict[Address, _Listener] | dict[Address, _Datagrams]
        table = self._listeners if isinstance(bound, _Listener) else self._sockets
        if table.get(bound.address) is bound:
            del table[bound.address]

    def forget(self, end: _End) -> None:
        """The node has no more to do with it; its other end may still be told what is under way."""
        if end.other.closed:
            self._ends.pop(end, None)
            self._ends.pop(end.other, None)

    def connect(self, network: VirtualNetwork, address: Address, handler: StreamHandler) -> None:
        source, target = network.host, address[0]
        out, back = self.link(source, target), self.link(target, source)
        began_ns, again = self.loop.now_ns, list(CONNECT_AGAIN_NS)

        def fail(when_ns: int, error: OSError) -> None:
            self.loop.call_at_ns(when_ns, lambda: network.gate.enter(lambda: handler.lost(error)))

        def asked() -> None:
            if network.gate.fallen:
                return
            listener = self._listeners.get(address)
            if out.cut or back.cut or out.held or back.held or not self.is_up(target):
                if again:
                    self.loop.call_at_ns(began_ns + again.pop(0), asked)
                else:
                    fail(began_ns + CONNECT_TIMEOUT_NS, TimeoutError(errno.ETIMEDOUT, "timed out"))
            elif listener is None:
                refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
                fail(self.loop.now_ns + self.delay_ns(back), refused)
            else:
                self._accepted(network, handler, listener)

        self.loop.call_at_ns(began_ns + self.delay_ns(out), asked)

    def _accepted(self, network: VirtualNetwork, handler: StreamHandler, listener: _Listener) -> None:
        """Both kernels have the stream; the processes learn of it in their own time."""
        there = listener.network
        mine = _End(self, network, handler, there.host)
        theirs = _End(self, there, None, network.host)
        mine.other, theirs.other = theirs, mine
        self._port += 1
        mine.peer, theirs.peer = f"{there.host}:{listener.address[1]}", f"{network.host}:{self._port}"
        self._ends[mine] = self._ends[theirs] = None
        there.gate.enter(lambda: theirs.accepted(listener.accept()))
        when_ns = self.loop.now_ns + self.delay_ns(self.link(there.host, network.host))
        # The dialler knows before anything that the other end sends it.
        theirs._arrives_ns = when_ns
        self.loop.call_at_ns(when_ns, mine.connected)

    def send_datagram(self, sender: _Datagrams, to: Address, data: bytes) -> None:
        link = self.link(sender.network.host, to[0])
        for _ in range(2 if link.doubled and self.random.random() < link.doubled else 1):
            if link.cut or (link.loss and self.random.random() < link.loss):
                continue
            when_ns = self.loop.now_ns + self.delay_ns(link)
            self.loop.call_at_ns(when_ns, lambda: self._datagram_arrives(sender.address, to, data))

    def _datagram_arrives(self, source: Address, to: Address, data: bytes) -> None:
        link = self.link(source[0], to[0])
        socket = self._sockets.get(to)
        if link.held:
            link.waiting.append((source, to, data))
        elif socket is not None and not link.cut:
            socket.arrive(source, data)
