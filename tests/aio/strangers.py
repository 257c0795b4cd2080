"""Whoever can reach a node's address: raw connections to it, and a node to be reached."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import struct
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from tests.processes.waiting import HANG_S, eventually
from totora import Address, Node, Settings
from totora.aio.links import Links
from totora.aio.seldom import CAUSES_MAX
from totora.aio.streams import StreamEnd
from totora.cli.demo_cluster import free_addresses
from totora.wire import codec
from totora.wire.codec import WireMessage
from totora.wire.frames import FRAME_BYTES_MAX, FrameReader
from totora.wire.handshake import Hello, Refusal, Welcome, decode_answer, encode_handshake

__all__ = ["HANDSHAKE_S", "Host", "Stranger", "hello", "node_alone"]

HANDSHAKE_S: Final = 0.6

_SETTINGS: Final = Settings(
    heartbeat_s=0.005, election_min_s=0.01, election_max_s=0.02, handshake_timeout_s=HANDSHAKE_S
)
_PATIENT: Final = Settings(heartbeat_s=0.005, election_min_s=0.01, election_max_s=0.02)
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)


class Stranger:
    """One raw TCP connection to a node."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = FrameReader(FRAME_BYTES_MAX)

    @classmethod
    async def connect(cls, address: Address) -> Stranger:
        sock = socket.socket()
        sock.setblocking(False)
        # No port waits for late packets afterwards: there are tens of thousands of connections here, and as many ports.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def send(self, data: bytes) -> bool:
        """False: the node has closed already."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._sock, data)
        except ConnectionError:
            return False
        return True

    def finish(self) -> None:
        """Say that nothing more will come."""
        with contextlib.suppress(OSError):  # The node has closed already.
            self._sock.shutdown(socket.SHUT_WR)

    async def receive(self) -> bytes:
        """What comes next; b"": nothing will."""
        try:
            async with asyncio.timeout(HANG_S):
                return await asyncio.get_running_loop().sock_recv(self._sock, 1 << 16)
        except ConnectionError:
            return b""

    async def rest(self) -> bytes:
        """All that comes until the node closes."""
        data = bytearray()
        while piece := await self.receive():
            data += piece
        return bytes(data)

    async def answer(self) -> Welcome | Refusal | None:
        """What a Hello gets; None: the connection is closed without a word."""
        while piece := await self.receive():
            for header, _ in self._reader.feed(piece):
                return decode_answer(header)
        return None

    async def message(self) -> WireMessage | None:
        while piece := await self.receive():
            for header, blob in self._reader.feed(piece):
                return codec.decode(header, blob)
        return None

    async def greet(self, greeting: Hello) -> Welcome | Refusal | None:
        await self.send(b"".join(encode_handshake(greeting)))
        return await self.answer()

    def close(self) -> None:
        self._sock.close()


def hello(**fields: Any) -> Hello:
    """A client's, unless said otherwise."""
    usual = Hello("totora", 1, 1, "client", None, b"", 0, b"", 0, b"", "127.0.0.1", 1, None)
    return msgspec.structs.replace(usual, **fields)


class Host:
    """A node among strangers, and what may be asked of it at any time."""

    def __init__(self, node: Node[str]) -> None:
        self.node = node
        self.address = node.address
        self._appended = 0
        self._term = node.status().term

    @property
    def links(self) -> Links:
        links = self.node._backend()._links
        assert isinstance(links, Links), "it listens on TCP"
        return links

    @property
    def unidentified(self) -> int:
        return len(self.links._unidentified)

    @property
    def clients(self) -> int:
        return len(self.links._accepted)

    async def append(self) -> None:
        """It still does what it is for, and says so."""
        self._appended += 1
        entry = await self.node.propose(f"entry {self._appended}", timeout_s=HANG_S)
        assert (await self.node.index_range(entry.index, entry.index)) == [entry]
        status = self.node.status()
        assert status.role == "leader"
        assert status.term == self._term, "nobody made it stand again"
        assert status.why is None
        assert entry.index <= status.commit_index <= status.last_index

    async def alone_again(self) -> None:
        """Every stranger is gone, and nothing of them is kept."""
        await eventually("no stream is left", lambda: not self.unidentified and not self.clients)
        engine = self.node._backend()._engine
        assert not engine._relays
        assert not self.links._dirty
        assert len(self.links._logged) <= CAUSES_MAX
        await eventually("no stream is kept in memory", lambda: not streams_in_memory())

    async def stranger(self, greeting: Hello | None = None) -> Stranger:
        """A connection; with a Hello, one that is welcome."""
        stranger = await Stranger.connect(self.address)
        if greeting is not None:
            assert isinstance(await stranger.greet(greeting), Welcome)
        return stranger

    async def strangers(self, count: int) -> list[Stranger]:
        return list(await asyncio.gather(*(self.stranger() for _ in range(count))))


def streams_in_memory() -> int:
    gc.collect()
    return sum(isinstance(thing, StreamEnd) for thing in gc.get_objects())


@asynccontextmanager
async def node_alone(
    complaints: Iterable[logging.LogRecord], *, patient: bool = False
) -> AsyncGenerator[Host]:
    """A cluster of one, which leads; in the end it is asked whether all is well.

    complaints: where the log is collected: nothing in it may be worse than a warning. patient: with the usual deadlines.
    """
    nodes = free_addresses(1)
    settings = _PATIENT if patient else _SETTINGS
    async with Node(1, nodes, entry_type=str, settings=settings) as node:
        await eventually("it leads", lambda: node.status().role == "leader")
        host = Host(node)
        await host.append()
        yield host
        await host.append()
        await host.alone_again()
    worse = [record for record in complaints if record.levelno > logging.WARNING or record.exc_info]
    assert worse == []
