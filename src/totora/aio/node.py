"""The node for asyncio: the typed face over a `Runtime`, with its life."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from types import TracebackType
from typing import Self, TypeVar

from ..config import Settings, checked_member, require_safety
from ..errors import ConfigurationError, NodeStopped
from ..ports import Ports
from ..types import Address, NodeId, NodeStatus
from .face import Face
from .real import real_ports
from .runtime import Runtime

__all__ = ["Node"]

T = TypeVar("T")


class Node(Face[T]):
    """One member of a cluster, in this process. An async context manager; `start` and `stop` do the same by hand.

        async with Node(1, nodes, entry_type=str, data_dir="data/1") as node:
            receipt = await node.propose("hello")
            entries = await node.index_range(1, receipt.index)

    nodes: every member's address by id, or pairs of both. On the first start with a data directory this becomes the
        cluster's configuration; later the log alone says who is a member, and addresses here are hints.
    entry_type: `str`, `bytes` or any type that msgspec supports; every member must use the same.
    data_dir: where the log is kept. None: the node is volatile; started anew it is another store, which the cluster refuses.
    bind: the address to listen on, if it is not the one in `nodes`.
    tls: (server, client) contexts for mutual authentication; certificates must name `node-<id>`.
    insecure_plaintext: allow unencrypted traffic beyond loopback.
    ports: what the node needs from outside, for simulation; the real ones by default.

    Raises ConfigurationError, from the constructor or from `start`, which also raises StorageError.
    """

    def __init__(
        self,
        id: NodeId,
        nodes: Mapping[NodeId, Address] | Iterable[tuple[NodeId, Address]],
        *,
        entry_type: type[T],
        data_dir: str | PathLike[str] | None = None,
        bind: Address | None = None,
        tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
        insecure_plaintext: bool = False,
        settings: Settings | None = None,
        ports: Callable[[], Ports] | None = None,
    ) -> None:
        super().__init__(entry_type, settings)
        self._id = id
        self._nodes = checked_member(id, nodes)
        self._bind = bind or self._nodes[id]
        if ports is None:
            addresses = (self._bind, *self._nodes.values())
            require_safety(addresses, self._settings, encrypted=tls is not None, allowed=insecure_plaintext)
        self._ports = ports or (lambda: real_ports(data_dir, tls))
        self._runtime: Runtime | None = None

    # -- life

    async def start(self) -> None:
        """Open the log and listen; returns as soon as both are done, with or without a leader."""
        if self._runtime is not None:
            raise ConfigurationError("a node starts once: make a new Node")
        self._runtime = Runtime(
            self._id, self._nodes, self._codec.fingerprint, self._ports(), self._settings, self._bind
        )
        await self._runtime.start()

    async def stop(self) -> None:
        """Give every request an outcome, close the log, leave. Safe to call twice."""
        if self._runtime is not None:
            await self._runtime.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def stopped(self) -> BaseException | None:
        """Wait until the node has stopped; returns what stopped it, None if it was asked to."""
        return await self._backend().stopped()

    def status(self) -> NodeStatus:
        """What this node knows now, without asking anyone."""
        return self._backend().status()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._backend().address

    def _backend(self) -> Runtime:
        if self._runtime is None:
            raise NodeStopped(ConfigurationError("it was never started: use `async with`, or await start()"))
        return self._runtime
