"""A node that stops while others are connected: nothing of them stays behind, whatever they do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import pytest

from tests.aio.answering import answering, says
from tests.aio.certificates import run_on
from tests.aio.strangers import Stranger, hello, streams_in_memory
from tests.processes.waiting import QUICK, eventually
from tests.wire.samples import framed
from totora import Client, Node, Settings
from totora.cli.demo_cluster import free_addresses
from totora.core.batch import join_payloads
from totora.core.messages import Propose, ProposeRejected
from totora.ports import Stream
from totora.wire.client import ReadRanges
from totora.wire.handshake import Welcome

LOOPS: Final = pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
SECOND_NS: Final = 1_000_000_000


async def nothing_is_left() -> None:
    """On a loop that goes on without the node."""
    await eventually("no stream is kept in memory", lambda: not streams_in_memory())


@LOOPS
def test_a_client_that_reads_nothing_does_not_keep_its_stream(uvloop: bool) -> None:
    """Megabytes wait for it when the node stops; they are dropped then."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with Node(
            1,
            nodes,
            entry_type=bytes,
            settings=Settings(heartbeat_s=0.005, election_min_s=0.01, election_max_s=0.02),
        ) as node:
            first = await node.propose(bytes(1 << 20))
            for _ in range(7):
                await node.propose(bytes(1 << 20))
            stranger = await Stranger.connect(nodes[1])
            assert isinstance(await stranger.greet(hello()), Welcome)
            accepted = streams(node)
            await stranger.send(framed(ReadRanges(1, SECOND_NS, (first.index, first.index + 6))))
            await eventually("it waits", lambda: accepted[0].buffered_bytes > 1 << 20)
        assert not [stream for stream in accepted if stream.buffered_bytes]
        stranger.close()

    run_on(uvloop, scenario())
    gc.collect()  # A stream that is open yet would complain when it is collected.


def streams(node: Node[Any]) -> list[Stream]:
    links: Any = node._backend()._links
    return [end.stream for end in links._accepted]


@LOOPS
def test_a_client_that_waits_for_an_answer_gets_it_before_the_stream_ends(uvloop: bool) -> None:
    """The node cannot know whether its entry will be committed, and says so: the client asks another one."""
    nodes = free_addresses(3)
    call = Propose(7, 77, 1, 1, 0, 60 * SECOND_NS, join_payloads([b"entry"]))

    async def scenario() -> None:
        async with (
            Node(1, nodes, entry_type=str, settings=QUICK) as one,
            Node(2, nodes, entry_type=str, settings=QUICK) as two,
        ):
            await one.propose("first")
            leader, other = (one, two) if one.status().role == "leader" else (two, one)
            stranger = await Stranger.connect(leader.address)
            assert isinstance(await stranger.greet(hello()), Welcome)
            await other.stop()
            before = leader.status().last_index
            await stranger.send(framed(call))
            await eventually("it is taken", lambda: leader.status().last_index > before)
            await leader.stop()
            answer = await stranger.message()
            assert isinstance(answer, ProposeRejected)
            assert (answer.request_id, answer.appended) == (call.request_id, True)
            assert await stranger.rest() == b""
            stranger.close()
        await nothing_is_left()

    run_on(uvloop, scenario())


@LOOPS
@pytest.mark.parametrize("kind", ["silent", "greeted", "half a hello"])
def test_connections_of_every_kind_end_with_the_node(kind: str, uvloop: bool) -> None:
    """Each sees the end of its stream."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with Node(1, nodes, entry_type=str, settings=QUICK) as node:
            strangers = [await Stranger.connect(node.address) for _ in range(20)]
            for stranger in strangers:
                if kind == "greeted":
                    assert isinstance(await stranger.greet(hello()), Welcome)
                elif kind == "half a hello":
                    await stranger.send(b"\x30\x00\x00\x00\x30\x00")
        for stranger in strangers:
            assert await stranger.rest() == b""
            stranger.close()
        await nothing_is_left()

    run_on(uvloop, scenario())


async def of_a_node(address: Any) -> None:
    nodes = free_addresses(1) | {2: address}
    async with Node(1, nodes, entry_type=str, settings=QUICK) as node:
        links: Any = node._backend()._links
        await eventually("it dials", lambda: links.counters.dialled)


async def of_a_client(address: Any) -> None:
    async with Client({2: address}, entry_type=str) as client:
        asking = client.propose("entry")
        await asyncio.sleep(0)
    await asyncio.wait([asking])
    assert asking.exception() is not None


@LOOPS
@pytest.mark.parametrize("use", [of_a_node, of_a_client])
@pytest.mark.parametrize("answers", [False, True], ids=["nobody there", "somebody who says nothing"])
def test_what_was_dialled_ends_too(
    use: Callable[[Any], Awaitable[None]], answers: bool, uvloop: bool
) -> None:
    """Whether the connection was open, or was being opened, or was about to be tried again."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with answering(nodes[1], says(b"")) if answers else contextlib.nullcontext():
            for _ in range(3):
                await use(nodes[1])
            await nothing_is_left()

    run_on(uvloop, scenario())


@LOOPS
def test_a_stopped_node_is_not_kept_by_its_loop(uvloop: bool) -> None:
    """No timer, reader or callback holds it: a service may start and stop nodes as often as it likes."""
    nodes = free_addresses(2)

    async def scenario() -> None:
        kept: list[weakref.ref[Any]] = []
        for settings in (
            QUICK,
            Settings(heartbeat_s=0.05, election_min_s=0.3, election_max_s=0.6, transport="udp"),
        ):
            node = Node(1, nodes, entry_type=str, settings=settings)
            async with node:
                await eventually("it asks for votes", partial(asks, node))
            kept.append(weakref.ref(node._backend()))
            del node
        await eventually("they are gone", lambda: not any(collected(one) for one in kept))

    run_on(uvloop, scenario())


def asks(node: Node[str]) -> bool:
    return node.status().role != "follower"


def collected(one: weakref.ref[Any]) -> bool:
    gc.collect()
    return one() is not None
