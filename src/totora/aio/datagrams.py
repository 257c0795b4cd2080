"""Datagrams over UDP, for `network`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import Final

from ..types import Address

__all__ = ["UdpSocket", "is_name"]

LOOK_UP_EVERY_S: Final = 5.0

_LOGGER: Final = logging.getLogger("totora")


@functools.lru_cache(maxsize=1_024)
def is_name(host: str) -> bool:
    """It is to be looked up; False: it is an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


class UdpSocket:
    """A socket that is drained whenever it is ready: a burst must not overflow it.

    Names are looked up beside the loop, and anew every now and then; what is sent before is lost. What arrives from where a
    name leads is said to come from that name.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        address: Address,
        received: Callable[[Address, bytes], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._received = received
        self.address = address
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
        if is_name(to[0]):
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
        except (OSError, UnicodeError, RuntimeError):  # the last one at the end of the process
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
