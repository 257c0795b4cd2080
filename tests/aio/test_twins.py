"""Two directories that speak for one member: while one of them is linked the other is not, before any log knows of either."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tests.aio.strangers import Stranger, hello
from tests.processes.waiting import QUICK, eventually, run
from totora import Node
from totora.aio.links import Links
from totora.cli.demo_cluster import free_addresses
from totora.wire.entries import EntryCodec
from totora.wire.handshake import Hello, Refusal, StreamRole, Welcome, hash_of_list

ROLES: tuple[StreamRole, ...] = ("control", "bulk")


def member(store_id: bytes, role: StreamRole = "control") -> Hello:
    """What node 2 of two says of itself."""
    return hello(
        role=role,
        node_id=2,
        list_hash=hash_of_list([1, 2]),
        store_id=store_id,
        incarnation=1,
        fingerprint=EntryCodec(str).fingerprint,
        to=1,
    )


@asynccontextmanager
async def node_1() -> AsyncGenerator[tuple[Node[str], Links]]:
    """Its only peer does not run: nothing is ever committed."""
    async with Node(1, free_addresses(2), entry_type=str, settings=QUICK) as node:
        links = node._backend()._links
        assert isinstance(links, Links)
        yield node, links


@pytest.mark.parametrize("first", ROLES)
@pytest.mark.parametrize("second", ROLES)
def test_a_second_directory_is_refused_while_the_first_is_there(
    first: StreamRole, second: StreamRole
) -> None:
    """Whichever came first is let in, over both streams; when it has gone the other one is."""

    async def scenario() -> None:
        async with node_1() as (node, links):
            one, other = [await Stranger.connect(node.address) for _ in range(2)]
            assert isinstance(await one.greet(member(b"1" * 16, first)), Welcome)
            refusal = await other.greet(member(b"2" * 16, second))
            assert isinstance(refusal, Refusal)
            assert (refusal.code, refusal.text) == (
                "store",
                "a second node uses the id 2: give every node its own id",
            )
            assert await other.rest() == b""
            other.close()
            again = await Stranger.connect(node.address)
            assert isinstance(await again.greet(member(b"1" * 16, second)), Welcome), (
                "the same one is let in again"
            )
            again.close()
            one.close()
            await eventually("they have gone", lambda: not links._accepted)
            late = await Stranger.connect(node.address)
            assert isinstance(await late.greet(member(b"2" * 16, second)), Welcome)
            late.close()

    run(scenario())


def test_a_client_is_nobodys_twin() -> None:
    """It has no id and no directory, and there may be many."""

    async def scenario() -> None:
        async with node_1() as (node, _):
            strangers = [await Stranger.connect(node.address) for _ in range(3)]
            for number, stranger in enumerate(strangers):
                assert isinstance(await stranger.greet(hello(node_id=2, store_id=bytes([number]))), Welcome)
            peer = await Stranger.connect(node.address)
            assert isinstance(await peer.greet(member(b"2" * 16)), Welcome)
            for stranger in (*strangers, peer):
                stranger.close()

    run(scenario())
