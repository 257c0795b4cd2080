"""Nodes over UDP on this loop, a network that loses, doubles and reorders datagrams, and a socket that speaks for anybody."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.processes.waiting import eventually
from totora.aio import Node
from totora.aio.links import Counters
from totora.aio.network import AsyncioNetwork
from totora.aio.real import real_ports
from totora.config import Settings
from totora.ports import Datagrams, Listener, Ports, StreamHandler
from totora.types import Address, NodeId, PeerStatus

__all__ = [
    "UDP",
    "Faults",
    "Raw",
    "counters",
    "leader_of",
    "peer",
    "raw_socket",
    "running",
]

UDP: Final = Settings(
    heartbeat_s=0.1, election_min_s=1.0, election_max_s=2.0, segment_bytes=1 << 20, transport="udp"
)
"""Small files; timeouts that a busy machine does not reach."""


@dataclasses.dataclass
class Faults:
    """What happens to the datagrams of a cluster; the seed decides which ones it happens to.

    loss, doubled, late: shares of the datagrams. cut: (from, to), nothing passes.
    passed: what left, kept while `recording`.
    """

    seed: int = 0
    loss: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    cut: set[tuple[Address, Address]] = dataclasses.field(default_factory=set)
    recording: bool = False
    passed: list[bytes] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def send(self, datagrams: Datagrams, to: Address, data: bytes) -> None:
        if self.recording:
            self.passed.append(data)
        chance = self._random.random
        if (datagrams.address, to) in self.cut:
            return
        for _ in range(2 if chance() < self.doubled else 1):
            if chance() < self.loss:
                continue
            if chance() < self.late:
                # Others overtake it.
                asyncio.get_running_loop().call_later(0.01 * chance(), datagrams.send, to, data)
            else:
                datagrams.send(to, data)


class _FaultyDatagrams:
    def __init__(self, inner: Datagrams, faults: Faults) -> None:
        self._inner, self._faults = inner, faults
        self.address = inner.address

    def send(self, to: Address, data: bytes) -> None:
        self._faults.send(self._inner, to, data)

    def close(self) -> None:
        self._inner.close()


class _FaultyNetwork:
    """`ports.Network`: real, but for its datagrams."""

    def __init__(self, faults: Faults) -> None:
        self._inner, self._faults = AsyncioNetwork(), faults

    def listen(self, address: Address, accept: Callable[[], StreamHandler]) -> Awaitable[Listener]:
        return self._inner.listen(address, accept)

    def connect(self, address: Address, handler: StreamHandler) -> None:
        self._inner.connect(address, handler)

    async def datagrams(self, address: Address, received: Callable[[Address, bytes], None]) -> Datagrams:
        return _FaultyDatagrams(await self._inner.datagrams(address, received), self._faults)


def _ports(folder: Path | None, faults: Faults) -> Ports:
    real = real_ports(folder, None)
    return dataclasses.replace(real, network=_FaultyNetwork(faults))


@asynccontextmanager
async def running(
    nodes: dict[NodeId, Address],
    folder: Path | None = None,
    *,
    ids: Iterable[NodeId] = (),
    settings: Settings = UDP,
    entry_type: type[Any] = str,
    faults: Faults | None = None,
) -> AsyncGenerator[dict[NodeId, Node[Any]]]:
    """Nodes (all of them, or `ids`) on this loop; volatile without a folder. Stopped at the end."""
    chosen = faults or Faults()
    async with AsyncExitStack() as stack:
        started = {}
        for id in ids or nodes:
            data_dir = None if folder is None else folder / f"node-{id}"

            def ports(data_dir: Path | None = data_dir) -> Ports:
                return _ports(data_dir, chosen)

            node: Node[Any] = Node(id, nodes, entry_type=entry_type, settings=settings, ports=ports)
            started[id] = await stack.enter_async_context(node)
        yield started


async def leader_of(nodes: Iterable[Node[Any]]) -> Node[Any]:
    """The one that leads, once it does."""
    watched = list(nodes)

    def leading() -> Node[Any] | None:
        found = [node for node in watched if node.status().role == "leader"]
        return max(found, key=lambda node: node.status().term, default=None)

    return await eventually("one leads", leading)


def peer(node: Node[Any], id: NodeId) -> PeerStatus:
    return next(peer for peer in node.status().peers if peer.id == id)


def counters(node: Node[Any]) -> Counters:
    links = node._backend()._links
    assert links is not None, "the node runs"
    return links.counters


class Raw:
    """A socket that sends what it is told to, and keeps what arrives."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.arrived: list[bytes] = []
        asyncio.get_running_loop().add_reader(sock, self._readable)

    def _readable(self) -> None:
        self.arrived.append(self._sock.recv(65_536))

    def send(self, to: Address, data: bytes) -> None:
        self._sock.sendto(data, to)


@asynccontextmanager
async def raw_socket(address: Address = ("127.0.0.1", 0)) -> AsyncGenerator[Raw]:
    """A socket at an address, of a member that does not run or of nobody."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(address)
        try:
            yield Raw(sock)
        finally:
            asyncio.get_running_loop().remove_reader(sock)
