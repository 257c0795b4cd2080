"""A client process: it finds a node, goes on with another one, and tells for each request what is certain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sized
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.aio.answering import answering, says
from tests.levels import by_level
from tests.processes.waiting import HANG_S, QUICK, eventually, run, running
from tests.udp import cluster as udp
from tests.wire.samples import framed
from totora import (
    Address,
    Client,
    Entry,
    Node,
    NodeId,
    NodeStatus,
    RaftError,
    Settings,
)
from totora.aio import client_link
from totora.aio.client_link import ClientLink
from totora.cli.demo_cluster import free_addresses
from totora.core.messages import RequestVote
from totora.wire.handshake import Welcome, encode_handshake


def at_least(things: Sized, count: int) -> bool:
    return len(things) >= count


def link(client: Client[Any]) -> ClientLink:
    return client._backend()


def begin_with(client: Client[Any], address: Address) -> None:
    """Otherwise it is chance which node it tries first."""
    link(client)._place = link(client)._addresses.index(address)


@asynccontextmanager
async def client_of(nodes: dict[NodeId, Address], first: NodeId | None = None) -> AsyncGenerator[Client[str]]:
    async with Client(nodes, entry_type=str) as client:
        if first is not None:
            begin_with(client, nodes[first])
        yield client


# -- finding a node --------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_it_finds_the_only_node_that_answers(first: NodeId) -> None:
    """Wherever it begins: nobody listens, somebody says nothing and takes no end, somebody is no node."""
    nodes = free_addresses(4)

    async def scenario() -> None:
        async with (
            answering(nodes[2], says(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
            answering(nodes[3], says(b"", then="closes")),
            Node(1, {1: nodes[4]}, entry_type=str, settings=QUICK),
            client_of(nodes, first) as client,
        ):
            entry = await client.propose("entry")
            assert await client.index_range(1, entry.index) == [entry]

    run(scenario())


def test_it_leaves_a_node_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes the connection, and one that welcomes the client and then answers nothing, not even a ping."""
    monkeypatch.setattr(client_link, "ATTEMPT_NS", 100_000_000)
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with (
            answering(nodes[1], says(b"")),
            answering(nodes[2], says(b"".join(encode_handshake(Welcome(1, None, 2, b"", 1, 0))))),
            Node(1, {1: nodes[3]}, entry_type=str, settings=QUICK) as node,
            client_of(nodes, 1) as client,
        ):
            entry = await client.propose("entry")
            assert [found async for found in node.entries()] == [entry], "handed over twice, it stands once"

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        framed(RequestVote(1, 2, 3, 4)),
        b"\xff" * 64,
        b"".join(encode_handshake(Welcome(1, None, 1, b"", 1, 0))),
    ],
    ids=["a vote", "garbage", "another welcome"],
)
def test_it_leaves_a_node_that_says_what_no_node_says(answer: bytes) -> None:
    nodes = free_addresses(2)
    welcome = b"".join(encode_handshake(Welcome(1, None, 1, b"", 1, 0)))

    async def scenario() -> None:
        async with (
            answering(nodes[1], says(welcome + answer)),
            Node(1, {1: nodes[2]}, entry_type=str, settings=QUICK),
            client_of(nodes, 1) as client,
        ):
            await client.propose("entry")

    run(scenario())


def test_it_leaves_a_node_that_is_cut_off_from_the_others() -> None:
    """That one still answers, but leads nobody and knows no leader."""
    nodes = free_addresses(3)
    faults = udp.Faults()

    async def scenario() -> None:
        async with udp.running(nodes, faults=faults) as started, client_of(nodes) as client:
            leader = (await udp.leader_of(started.values())).status().id
            lonely = next(id for id in nodes if id != leader)
            for other in nodes:
                faults.cut |= {(nodes[lonely], nodes[other]), (nodes[other], nodes[lonely])}
            await eventually("it is alone", lambda: started[lonely].status().leader is None)
            begin_with(client, nodes[lonely])
            entry = await client.propose("entry", timeout_s=HANG_S)
            assert await client.index_range(1, entry.index, timeout_s=HANG_S) == [entry]
            faults.cut.clear()

    run(scenario())


# -- going on --------------------------------------------------------------------------------------


def test_it_goes_on_when_its_node_dies_and_each_entry_stands_once(tmp_path: Path) -> None:
    """Node after node is stopped under load and comes back; what was acknowledged is compared with every log."""
    nodes = free_addresses(3)
    rounds = by_level(quick=6, ci=60)

    async def scenario() -> None:
        async with running(nodes, tmp_path) as started, AsyncExitStack() as later, client_of(nodes) as client:
            acknowledged: list[Entry[str]] = []
            ending = asyncio.Event()

            async def sender(name: int) -> None:
                number = 0
                while not ending.is_set():
                    acknowledged.extend(
                        await client.append([f"{name}.{number}", f"{name}.{number}'"], timeout_s=HANG_S)
                    )
                    number += 1

            senders = [asyncio.ensure_future(sender(name)) for name in range(8)]
            for n in range(rounds):
                id = 1 + n % 3
                goal = len(acknowledged) + 50
                await eventually("more are acknowledged", partial(at_least, acknowledged, goal))
                end = link(client)._end
                if n % 2 and end is not None and end.welcome is not None:
                    id = end.welcome.node_id
                await started[id].stop()
                goal = len(acknowledged) + 50
                await eventually("it goes on", partial(at_least, acknowledged, goal))
                started[id] = Node(
                    id, nodes, entry_type=str, data_dir=tmp_path / f"node-{id}", settings=QUICK
                )
                await later.enter_async_context(started[id])
            ending.set()
            await asyncio.gather(*senders)
            log = [entry async for entry in client.entries()]
            assert sorted(acknowledged, key=lambda entry: entry.index) == log
            for name in range(8):
                own = [entry.value for entry in log if entry.value.startswith(f"{name}.")]
                assert own == [f"{name}.{n}{tick}" for n in range(len(own) // 2) for tick in ("", "'")]

    run(scenario(), hang_s=4 * HANG_S)


def test_an_idle_client_comes_back_to_a_node_that_was_away(tmp_path: Path) -> None:
    """Nothing was asked meanwhile; the next request works at once or waits for the node."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with client_of(nodes) as client:
            for n in range(3):
                async with running(nodes, tmp_path):
                    entry = await client.propose(f"entry {n}")
                    assert (await client.index_range(entry.index, entry.index))[0].value == f"entry {n}"

    run(scenario())


def test_a_long_log_is_read_page_by_page() -> None:
    """More than one answer holds, of entries of different sizes; and while the log grows."""
    nodes = free_addresses(1)
    sizes = [*[100] * 6_000, *[1 << 20] * 20, *[10] * 6_000]

    async def scenario() -> None:
        settings = Settings(heartbeat_s=0.05, election_min_s=0.3, election_max_s=0.6)
        async with Node(1, nodes, entry_type=bytes, settings=settings) as node:
            for start in range(0, len(sizes), 500):
                await node.append(
                    [bytes(size) for size in sizes[start : start + 500] if size < 1 << 20] or [b""]
                )
                for size in sizes[start : start + 500]:
                    if size == 1 << 20:
                        await node.propose(bytes(size))
            async with Client(nodes, entry_type=bytes) as client:
                read: list[Entry[bytes]] = []
                async for entry in client.entries():
                    if not read:
                        await node.propose(b"later")
                    read.append(entry)
                assert [entry.index for entry in read] == list(
                    range(read[0].index, read[0].index + len(read))
                )
                assert sum(len(entry.value) for entry in read) == sum(sizes)
                assert (await anext(client.entries(read[-1].index + 1))).value == b"later"

    run(scenario())


# -- statuses --------------------------------------------------------------------------------------


def test_the_statuses_say_of_each_node_how_it_is_or_why_nobody_knows() -> None:
    """All at once: a node, nobody, somebody who says nothing, somebody else, and one with another entry type."""
    nodes = free_addresses(5)

    async def scenario() -> None:
        async with (
            Node(1, {1: nodes[1]}, entry_type=str, settings=QUICK) as node,
            answering(nodes[3], says(b"")),
            answering(nodes[4], says(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
            Node[bytes](5, {5: nodes[5]}, entry_type=bytes, settings=QUICK),
            client_of(nodes) as client,
        ):
            await node.propose("entry")
            found = await client.statuses(timeout_s=0.5)
            assert list(found) == [1, 2, 3, 4, 5]
            ours = found[1]
            assert isinstance(ours, NodeStatus)
            assert (ours.id, ours.role, ours.commit_index) == (1, "leader", node.status().commit_index)
            assert isinstance(found[5], NodeStatus), "whoever asks for the status needs no entry type"
            said = {id: str(status) for id, status in found.items() if isinstance(status, RaftError)}
            assert said == {
                2: "unavailable: connection refused",
                3: "unavailable: did not answer in time",
                4: said[4],
            }
            assert said[4].startswith("unavailable: sent what no node sends: ")

    run(scenario())
