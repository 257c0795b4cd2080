"""The client for asyncio: the typed face over a `ClientLink`, for processes that are no members."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Final, Self, TypeVar

from ..config import Settings, checked_nodes, require_safety
from ..errors import ConfigurationError, NodeStopped, RaftError
from ..ports import Ports
from ..types import Address, NodeId, NodeStatus
from .client_link import ClientLink
from .face import Face
from .real import real_ports

__all__ = ["Client"]

T = TypeVar("T")

STATUS_TIMEOUT_S: Final = 2.0


class Client(Face[T]):
    """A process that uses a cluster without being part of it. An async context manager; `start` and `stop` do the same by hand.

        async with Client(nodes, entry_type=str) as client:
            receipt = await client.propose("hello")
            entries = await client.index_range(1, receipt.index)

    It talks to one node, any one, and goes on with another when that one is gone. Each request takes effect once, however
    often it is sent again: a client holds a session, as a node does (section 8).

    nodes: every member's address by id, or pairs of both; those that are unreachable are passed over.
    entry_type: as the members have it; another one is refused.
    tls: a client context; the members' certificates must name `node-<id>`, and it must trust them.
    insecure_plaintext: allow unencrypted traffic beyond loopback.
    ports: what the client needs from outside, for simulation; the real ones by default.

    Raises ConfigurationError; requests raise it too once every node has refused this client.
    """

    def __init__(
        self,
        nodes: Mapping[NodeId, Address] | Iterable[tuple[NodeId, Address]],
        *,
        entry_type: type[T],
        tls: ssl.SSLContext | None = None,
        insecure_plaintext: bool = False,
        settings: Settings | None = None,
        ports: Callable[[], Ports] | None = None,
    ) -> None:
        super().__init__(entry_type, settings)
        self._nodes = checked_nodes(nodes)
        if ports is None:
            require_safety(
                self._nodes.values(), self._settings, encrypted=tls is not None, allowed=insecure_plaintext
            )
        self._ports = ports or (lambda: _client_ports(tls))
        self._link: ClientLink | None = None

    async def start(self) -> None:
        """Make it ready; a node is looked for with the first request, which waits for it."""
        if self._link is not None:
            raise ConfigurationError("a client starts once: make a new Client")
        self._link = ClientLink(
            tuple(self._nodes.values()), self._codec.fingerprint, self._ports(), self._settings
        )
        self._link.start()

    async def stop(self) -> None:
        """Give every request an outcome and leave. Safe to call twice."""
        if self._link is not None:
            await self._link.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def statuses(self, *, timeout_s: float = STATUS_TIMEOUT_S) -> dict[NodeId, NodeStatus | RaftError]:
        """What each node says of itself, or why it says nothing; all are asked at once, each over a stream of its own."""
        link = self._backend()
        asked = {id: link.status(address, timeout_s) for id, address in self._nodes.items()}
        return dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))

    def _backend(self) -> ClientLink:
        if self._link is None:
            raise NodeStopped(
                ConfigurationError("the client was never started: use `async with`, or await start()")
            )
        return self._link


def _client_ports(tls: ssl.SSLContext | None) -> Ports:
    # A client listens nowhere, so the server's half of the pair is never used.
    return real_ports(None, None if tls is None else (tls, tls))
