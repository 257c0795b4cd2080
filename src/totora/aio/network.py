"""The real network: streams over TCP, with TLS where it is set up, and datagrams over UDP."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, cast

from ..errors import ConfigurationError
from ..ports import Datagrams, Listener, StreamHandler
from ..types import Address

__all__ = ["AsyncioNetwork"]

CONNECT_TIMEOUT_S: Final = 5.0
RECEIVE_BYTES: Final = 256 << 10
BACKLOG: Final = 1024
LOOK_UP_EVERY_S: Final = 5.0

_LOGGER: Final = logging.getLogger("totora")


class _Stream(asyncio.BufferedProtocol):
    """`ports.Stream`, and the loop's protocol for it."""

    def __init__(self, handler: StreamHandler) -> None:
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.peer = "?"
        self.peer_names: frozenset[str] | None = None

    # -- asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        if name:
            self.peer = f"{name[0]}:{name[1]}"
        sock = transport.get_extra_info("socket")
        if sock is not None:
            _tune(sock)
        certificate = transport.get_extra_info("peercert")
        if certificate is not None:
            names = certificate.get("subjectAltName", ())
            self.peer_names = frozenset(value for kind, value in names if kind == "DNS")
        self._call(self._handler.connected, self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._call(self._handler.received, self._buffer[:nbytes])

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._handler.lost(exc)

    def _call(self, callback: Callable[..., None], argument: object) -> None:
        """A fault in a handler costs this stream, never the loop."""
        try:
            callback(argument)
        except Exception:
            _LOGGER.exception("stream_failed", extra={"fields": {"peer": self.peer}})
            self.abort()

    # -- the node's calls

    @property
    def buffered_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def write(self, parts: Sequence[bytes]) -> None:
        if self._transport is not None:
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 2),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 10_000),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class _Listener:
    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        host, port = server.sockets[0].getsockname()[:2]
        self.address: Address = (host, port)

    def close(self) -> None:
        self._server.close()


@functools.lru_cache(maxsize=1_024)
def _is_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


class _Datagrams:
    """A socket that is drained whenever it is ready: a burst must not overflow it.

    Names are looked up beside the loop, and anew every now and then; what is sent before is lost. What arrives from where a
    name leads is said to come from that name.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, received: Callable[[Address, bytes], None]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._received = received
        host, port = sock.getsockname()[:2]
        self.address: Address = (host, port)
        self._closed = False
        self._found: dict[Address, Address] = {}
        self._named: dict[Address, Address] = {}
        self._look_up_at: dict[Address, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        for _ in range(256):
            try:
                data, source = self._sock.recvfrom(65_536)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # An earlier send was refused at the other end: nothing to read, nothing lost.
            address = (source[0], source[1])
            try:
                self._received(self._named.get(address, address), data)
            except Exception:  # costs this datagram, never the loop
                _LOGGER.exception("datagram_failed", extra={"fields": {"peer": f"{address[0]}:{address[1]}"}})
            if self._closed:
                return

    def send(self, to: Address, data: bytes) -> None:
        if self._closed:
            return
        address: Address | None = to
        if _is_name(to[0]):
            self._look_up(to)
            address = self._found.get(to)
        if address is not None:
            with contextlib.suppress(OSError):  # A datagram may be lost: who sent it asks again.
                self._sock.sendto(data, address)

    def _look_up(self, name: Address) -> None:
        now = self._loop.time()
        if now >= self._look_up_at.get(name, now):
            self._look_up_at[name] = now + LOOK_UP_EVERY_S
            task = asyncio.ensure_future(self._find(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _find(self, name: Address) -> None:
        family = self._sock.family
        try:
            found = await self._loop.getaddrinfo(*name, family=family, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError):
            return  # Its host may be about to come up: the last answer counts until then.
        host, port = found[0][4][:2]
        self._found[name] = (str(host), int(port))
        self._named = {address: name for name, address in self._found.items()}

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            for task in self._tasks:
                task.cancel()
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()


class AsyncioNetwork:
    """`ports.Network` on the running event loop.

    tls: (server, client) contexts; both must demand a certificate of the other end. The node id in it is checked by the
        handshake, so the client context need not check host names.
    """

    def __init__(self, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None) -> None:
        for context in tls or ():
            if context.verify_mode != ssl.CERT_REQUIRED:
                raise ConfigurationError("both tls contexts must have verify_mode = ssl.CERT_REQUIRED")
        self._server_tls: ssl.SSLContext | None = tls[0] if tls else None
        self._client_tls: ssl.SSLContext | None = tls[1] if tls else None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, address: Address, accept: Callable[[], StreamHandler]) -> Listener:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Stream(accept()), *address, ssl=self._server_tls, backlog=BACKLOG, reuse_address=True
        )
        return _Listener(server)

    def connect(self, address: Address, handler: StreamHandler) -> None:
        task = asyncio.ensure_future(self._connect(address, handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, address: Address, handler: StreamHandler) -> None:
        loop = asyncio.get_running_loop()
        tls = self._client_tls
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.create_connection(
                    lambda: _Stream(handler),
                    *address,
                    ssl=tls,
                    server_hostname=address[0] if tls is not None else None,
                )
        except (OSError, TimeoutError, ssl.SSLError) as error:
            handler.lost(error)

    async def datagrams(self, address: Address, received: Callable[[Address, bytes], None]) -> Datagrams:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(*address, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, name = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            sock.bind(name)
        except OSError:
            sock.close()
            raise
        return _Datagrams(loop, sock, received)
