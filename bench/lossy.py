"""A network that loses datagrams, for a node under measurement."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Awaitable, Callable

from totora import Address
from totora.aio.real import real_ports
from totora.ports import Datagrams, Listener, Network, Ports, StreamHandler

__all__ = ["lossy_ports"]


class _Datagrams:
    def __init__(self, inner: Datagrams, loss: float, chance: random.Random) -> None:
        self._inner = inner
        self._loss = loss
        self._chance = chance

    @property
    def address(self) -> Address:
        return self._inner.address

    def send(self, to: Address, data: bytes) -> None:
        if self._chance.random() >= self._loss:
            self._inner.send(to, data)

    def close(self) -> None:
        self._inner.close()


class _Network:
    def __init__(self, inner: Network, loss: float, seed: int) -> None:
        self._inner = inner
        self._loss = loss
        self._chance = random.Random(seed)

    def listen(self, address: Address, accept: Callable[[], StreamHandler]) -> Awaitable[Listener]:
        return self._inner.listen(address, accept)

    def connect(self, address: Address, handler: StreamHandler) -> None:
        self._inner.connect(address, handler)

    async def datagrams(self, address: Address, received: Callable[[Address, bytes], None]) -> Datagrams:
        inner = await self._inner.datagrams(address, received)
        return _Datagrams(inner, self._loss, self._chance)


def lossy_ports(data_dir: str | None, loss: float, seed: int) -> Ports:
    """The real ports, but each datagram that leaves is dropped with the probability `loss` (0 to 1)."""
    ports = real_ports(data_dir, None)
    return dataclasses.replace(ports, network=_Network(ports.network, loss, seed))
