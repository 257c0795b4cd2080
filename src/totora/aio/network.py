"""The real network: streams over TCP, with TLS where it is set up, and datagrams over UDP."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from ..errors import ConfigurationError
from ..ports import LARGE_BYTES, Datagrams, Listener, StreamHandler
from ..types import Address
from .datagrams import UdpSocket, is_name
from .tls import tls_failure

__all__ = ["AsyncioNetwork"]

CONNECT_TIMEOUT_S: Final = 5.0
RECEIVE_BYTES: Final = 256 << 10
BACKLOG: Final = 1024

HANDSHAKES_MAX: Final = 128
"""Connections that have not finished their TLS handshake; beyond that the oldest is dropped."""

HANDSHAKE_TIMEOUT_S: Final = 5.0
ACCEPT_AGAIN_S: Final = 0.1
"""How long nothing is accepted after the system had no room for a connection."""

_LOGGER: Final = logging.getLogger("totora")


class _Stream(asyncio.BufferedProtocol):
    """`ports.Stream`, and the loop's protocol for it."""

    def __init__(self, open_handler: Callable[[], StreamHandler], *, dialled: bool = False) -> None:
        self._open_handler = open_handler
        self._handler: StreamHandler
        self._dialled = dialled
        self._heard = self._ended = False
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.peer = "?"
        self.peer_names: frozenset[str] | None = None

    # -- asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._handler = self._open_handler()
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
        self._heard = True
        self._call(self._handler.received, self._buffer[:nbytes])

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        # Who dials is done with TLS 1.3 before the other end has looked at its certificate.
        unheard = self._dialled and self.peer_names is not None and not (self._heard or self._ended)
        if unheard or isinstance(exc, ssl.SSLError):
            exc = tls_failure(self.peer, exc)
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
        if self._transport is None:
            return
        if len(parts) == 1:
            self._transport.write(parts[0])
        elif max(map(len, parts)) < LARGE_BYTES:
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(parts)

    def close(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self._ended = True
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
    """Accepts by hand. A loop's own server lets any number of strangers stay for a minute without a word of TLS,
    and whoever it accepted in the turn in which it is closed stays open until the garbage is collected.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sequence[socket.socket],
        tls: ssl.SSLContext | None,
        accept: Callable[[], StreamHandler],
    ) -> None:
        self._loop = loop
        self._sockets = sockets
        self._tls = tls
        self._accept = accept
        self.address = _name_of(sockets[0])
        self._closed = False
        # Each with its socket, until the loop's transport looks after that.
        self._opening: dict[asyncio.Task[None], socket.socket | None] = {}
        for sock in sockets:
            self._watch(sock)

    def _watch(self, sock: socket.socket) -> None:
        if not self._closed:
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    def _readable(self, sock: socket.socket) -> None:
        """One at a time: the loop comes back for the others after what else it has to do."""
        try:
            connection, _ = sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # The caller has gone again.
        except OSError:
            # The system has no room; it would say so again at once.
            self._loop.remove_reader(sock.fileno())
            self._loop.call_later(ACCEPT_AGAIN_S, self._watch, sock)
            return
        connection.setblocking(False)
        task = asyncio.ensure_future(self._open(connection))
        self._opening[task] = connection
        task.add_done_callback(self._opened)
        if len(self._opening) > HANDSHAKES_MAX:
            next(iter(self._opening)).cancel()

    async def _open(self, connection: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None, "it runs in a task"
        peer = "?"
        self._opening[task] = None
        try:
            peer = _spelled(connection.getpeername())
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: _Stream(self._accept),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if self._tls is not None else None,
            )
            if self._closed:
                transport.abort()
        except OSError as error:
            if peer == "?":
                connection.close()
            elif self._tls is not None and not self._closed:
                self._accept().lost(tls_failure(peer, error))

    def _opened(self, task: asyncio.Task[None]) -> None:
        connection = self._opening.pop(task)
        if connection is not None:
            connection.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOGGER.error("stream_failed", exc_info=error, extra={"fields": {"peer": "?"}})

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            for sock in self._sockets:
                self._loop.remove_reader(sock.fileno())
                sock.close()
            # Not every loop closes what it is told to cancel. What needs no TLS is open in a moment, and ends by itself.
            for task, connection in self._opening.items():
                if self._tls is not None or connection is not None:
                    task.cancel()


def _name_of(sock: socket.socket) -> Address:
    host, port = sock.getsockname()[:2]
    return host, port


def _spelled(name: Any) -> str:
    return f"{name[0]}:{name[1]}"


async def _resolved(loop: asyncio.AbstractEventLoop, address: Address, kind: socket.SocketKind) -> list[Any]:
    """Where `address` may be bound, as getaddrinfo says. Raises OSError."""
    host, port = address
    if not 0 <= port < 65_536:
        raise OSError("a port is a number from 0 to 65535")
    try:
        if is_name(host):
            return await loop.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)
        return socket.getaddrinfo(host, port, type=kind, flags=socket.AI_NUMERICHOST)
    except UnicodeError:
        raise OSError("this is no host name") from None


def _bound(found: Any) -> socket.socket:
    """A socket at this place, which listens if it can. Raises OSError."""
    family, kind, protocol, _, name = found
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind(name)
        if kind == socket.SOCK_STREAM:
            # Only now is it known that nobody else does: two may be bound.
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _all_bound(places: Sequence[Any]) -> list[socket.socket]:
    """Sockets at all of these places that this machine has: a name may stand for one of each family. Raises OSError."""
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for place in dict.fromkeys(places):
            try:
                sockets.append(_bound(place))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
        if not sockets:
            raise missing or OSError("no address is known for it")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


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
        sockets = _all_bound(await _resolved(loop, address, socket.SOCK_STREAM))
        return _Listener(loop, sockets, self._server_tls, accept)

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
                    lambda: _Stream(lambda: handler, dialled=True),
                    *address,
                    ssl=tls,
                    server_hostname=address[0] if tls is not None else None,
                )
        except Exception as error:  # whatever it is, the handler waits for an end
            of_tls = isinstance(error, ssl.SSLError | ConnectionResetError | ConnectionAbortedError)
            handler.lost(tls_failure(_spelled(address), error) if tls is not None and of_tls else error)

    async def datagrams(self, address: Address, received: Callable[[Address, bytes], None]) -> Datagrams:
        loop = asyncio.get_running_loop()
        places = await _resolved(loop, address, socket.SOCK_DGRAM)
        sock = _bound(places[0])
        return UdpSocket(loop, sock, _name_of(sock), received)
