"""An authority, the certificates it signs, and nodes that show them."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import trustme

from tests.processes.waiting import HANG_S, QUICK, eventually
from totora import Address, Node, NodeId, PeerStatus
from totora.aio.loops import new_event_loop
from totora.aio.tls import tls_contexts

__all__ = ["Authority", "Contexts", "complaints", "peer", "refusal", "run_on", "with_tls"]

T = TypeVar("T")

Contexts: TypeAlias = tuple[ssl.SSLContext, ssl.SSLContext]


class Authority:
    """Signs certificates for whatever name; keeps its files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        folder.mkdir()
        self.file = folder / "authority.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def files(self, *names: str) -> tuple[Path, Path]:
        """A certificate that names all of these, and its key."""
        certificate, key = (self._folder / f"{'+'.join(names)}.{kind}.pem" for kind in ("certificate", "key"))
        signed = self._ca.issue_cert(*names)
        signed.cert_chain_pems[0].write_to_path(certificate)
        signed.private_key_pem.write_to_path(key)
        return certificate, key

    def contexts(self, *names: str) -> Contexts:
        return tls_contexts(*self.files(*names), self.file)

    def of_node(self, id: NodeId) -> Contexts:
        return self.contexts(f"node-{id}")

    def without_certificate(self) -> ssl.SSLContext:
        """A dialler's context that trusts this authority and shows nothing."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.file)
        return context


@asynccontextmanager
async def with_tls(
    nodes: dict[NodeId, Address], shown: Mapping[NodeId, Contexts | None]
) -> AsyncGenerator[dict[NodeId, Node[str]]]:
    """Volatile nodes, each with its contexts, or in plaintext; stopped at the end."""
    async with AsyncExitStack() as stack:
        started = {}
        for id, contexts in shown.items():
            node = Node(id, nodes, entry_type=str, tls=contexts, settings=QUICK)
            started[id] = await stack.enter_async_context(node)
        yield started


def peer(node: Node[Any], id: NodeId) -> PeerStatus:
    return next(peer for peer in node.status().peers if peer.id == id)


async def refusal(node: Node[str], id: NodeId) -> str:
    """Why the node has no link to that peer, once it knows."""
    return await eventually(f"node {node.status().id} says why", lambda: peer(node, id).refused)


def complaints(records: Iterable[logging.LogRecord]) -> list[tuple[str, str]]:
    """What nodes logged of their troubles with others: with whom, and why."""
    fields = [record.__dict__["fields"] for record in records if record.getMessage() == "peer_trouble"]
    return [(said["peer"], said["why"]) for said in fields]


def run_on(uvloop: bool, scenario: Coroutine[Any, Any, T]) -> T:
    """`run` on a loop of that kind: each has a TLS of its own."""

    async def bounded() -> T:
        async with asyncio.timeout(2 * HANG_S):
            return await scenario

    with asyncio.Runner(loop_factory=lambda: new_event_loop(use_uvloop=uvloop)) as runner:
        return runner.run(bounded())
