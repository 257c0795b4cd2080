"""A node's life: where it listens, when it may be used, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.aio.answering import answering
from tests.processes.waiting import QUICK, eventually, run, running
from totora import (
    Address,
    Client,
    ConfigurationError,
    Node,
    NodeStopped,
    OutcomeUnknown,
    RaftNode,
    Unavailable,
)
from totora.cli.demo_cluster import free_addresses
from totora.cli.demo_logs import read_log


def alone(nodes: dict[int, Address] | None = None, **others: Any) -> Node[str]:
    return Node(1, nodes or free_addresses(1), entry_type=str, settings=QUICK, **others)


async def refused_start(node: Node[str]) -> str:
    with pytest.raises(ConfigurationError) as raised:
        await node.start()
    return str(raised.value)


# -- where it listens ------------------------------------------------------------------------------


def test_an_address_in_use_is_said_so_and_everything_is_released(tmp_path: Path) -> None:
    """By another program; with a free address the same directory opens, and the node starts."""
    nodes = free_addresses(1)
    host, port = nodes[1]

    async def scenario() -> None:
        with socket.create_server(nodes[1]):
            why = await refused_start(alone(nodes, data_dir=tmp_path))
            assert why.startswith(f"cannot listen on {host}:{port}: ")
            assert why.endswith("; does another node run there?")
        async with alone(nodes, data_dir=tmp_path) as node:
            await node.propose("entry")

    run(scenario())


@pytest.mark.parametrize(
    "bind",
    [
        ("192.0.2.1", 7001),
        ("127.0.0.1", 99_999),
        ("127.0.0.1", -1),
        ("a..b", 7001),
    ],
    ids=["not here", "no port", "negative port", "no name"],
)
def test_what_cannot_be_bound_is_named(bind: Address, tmp_path: Path) -> None:
    async def scenario() -> None:
        node = alone(bind=bind, insecure_plaintext=True, data_dir=tmp_path)
        assert f"cannot listen on {bind[0]}:{bind[1]}: " in await refused_start(node)
        async with alone(data_dir=tmp_path) as again:
            await again.propose("the directory was released")

    run(scenario())


@pytest.mark.parametrize("bind", ["127.0.0.1:7001", ("127.0.0.1",), 7001, ("127.0.0.1", 1, 2)])
def test_what_is_no_address_is_not_bound(bind: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"an address is \(host, port\), not "):
        alone(bind=bind)


def test_the_bound_address_may_differ_from_the_advertised_one(tmp_path: Path) -> None:
    """Behind a forwarded port: peers dial what stands in nodes, the node listens on another one."""
    nodes = free_addresses(4)
    inside = nodes.pop(4)

    async def forwarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        away_reader, away_writer = await asyncio.open_connection(*inside)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(pipe(reader, away_writer))
                ways.create_task(pipe(away_reader, writer))
        finally:
            for one in (writer, away_writer):
                one.close()
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def scenario() -> None:
        third = Node(3, nodes, entry_type=str, data_dir=tmp_path / "node-3", bind=inside, settings=QUICK)
        async with running(nodes, tmp_path, ids=[1, 2]) as started, answering(nodes[3], forwarded), third:
            assert third.address == inside
            entry = await third.propose("through the port that is forwarded")
            assert await third.index_range(entry.index, entry.index) == [entry]
            linked = [peer for node in started.values() for peer in node.status().peers if peer.id == 3]
            assert [peer.address for peer in linked] == [f"{nodes[3][0]}:{nodes[3][1]}"] * 2
            assert all(peer.linked for peer in linked)

    run(scenario())


def test_port_0_is_any_that_is_free() -> None:
    """For a node that nobody has to find: its address says which one it was."""

    async def scenario() -> None:
        async with alone(bind=("127.0.0.1", 0)) as node:
            assert node.address[1] > 0
            async with Client({1: node.address}, entry_type=str) as client:
                await client.propose("entry")

    run(scenario())


def is_here(host: str) -> bool:
    """This machine has that address: not every one has IPv6."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True


def test_names_serve_as_addresses(tmp_path: Path) -> None:
    """A node with a name listens on every address that the name stands for here."""
    nodes = {id: ("localhost", port) for id, (_, port) in free_addresses(3).items()}
    stands_for = {found[4][0] for found in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)}
    hosts = [str(host) for host in stands_for if is_here(str(host))]
    assert hosts

    async def scenario() -> None:
        async with running(nodes, tmp_path) as started, Client(nodes, entry_type=str) as client:
            await client.propose("entry")
            await eventually(
                "all are linked",
                lambda: all(peer.linked for node in started.values() for peer in node.status().peers),
            )
            for host in hosts:
                _, writer = await asyncio.open_connection(host, nodes[1][1])
                writer.close()
                await writer.wait_closed()

    run(scenario())


# -- when it may be used ---------------------------------------------------------------------------


async def every_request(node: Node[str]) -> list[BaseException]:
    """What each way to use a node raises."""

    async def status() -> object:
        return node.status()

    calls: list[Any] = [
        node.propose("entry"),
        node.append(["entry"]),
        node.index_range(1, 1),
        node.read_index(),
        anext(node.entries()),
        status(),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(errors) == len(calls)
    return errors


def test_before_its_start_a_node_says_how_to_start_it() -> None:
    async def scenario() -> None:
        node = alone()
        for error in await every_request(node):
            assert isinstance(error, NodeStopped)
            assert "it was never started: use `async with`, or await start()" in str(error)
        with pytest.raises(NodeStopped):
            _ = node.address
        await node.stop()

    run(scenario())


def test_after_its_end_a_node_says_that_it_has_stopped() -> None:
    """Not why: it was asked to. Stopping again does nothing, and neither does a second start."""

    async def scenario() -> None:
        async with alone() as node:
            await node.propose("entry")
        assert await node.stopped() is None
        for error in await every_request(node):
            assert isinstance(error, NodeStopped)
            assert error.cause is None
            assert str(error) == "the node has stopped"
        await node.stop()
        await node.stop()
        assert "a node starts once: make a new Node" in await refused_start(node)

    run(scenario())


def test_a_node_starts_once() -> None:
    """The first start is not harmed by the second."""

    async def scenario() -> None:
        async with alone() as node:
            assert "a node starts once: make a new Node" in await refused_start(node)
            await node.propose("entry")

    run(scenario())


def test_a_client_has_the_same_life() -> None:
    nodes = free_addresses(1)

    async def scenario() -> None:
        client = Client(nodes, entry_type=str)
        with pytest.raises(NodeStopped, match="never started: use `async with`, or await start"):
            await client.propose("entry")
        with pytest.raises(NodeStopped):
            await client.statuses()
        await client.stop()
        async with alone(nodes):
            await client.start()
            with pytest.raises(ConfigurationError, match="a client starts once: make a new Client"):
                await client.start()
            await client.propose("entry")
            await client.stop()
            await client.stop()
            with pytest.raises(NodeStopped):
                await client.propose("entry")
            with pytest.raises(NodeStopped):
                await client.index_range(1, 1)
            with pytest.raises(NodeStopped):
                await client.statuses()

    run(scenario())


# -- how it ends -----------------------------------------------------------------------------------


class Trouble(Exception):
    """Of the program that uses a node."""


def test_an_exception_within_the_block_stops_the_node_and_goes_on(tmp_path: Path) -> None:
    """It is not hidden, and the log is closed."""

    async def scenario() -> None:
        node = alone(data_dir=tmp_path)

        async def use() -> None:
            async with node:
                await node.propose("entry")
                raise Trouble

        with pytest.raises(Trouble):
            await use()
        assert await node.stopped() is None
        async with alone(data_dir=tmp_path) as again:
            assert [entry.value async for entry in again.entries()] == ["entry"]

    run(scenario())


def test_what_was_asked_gets_an_outcome_when_the_node_stops() -> None:
    """Without a quorum nothing has one before; nobody waits for ever, and nobody is told that it failed who cannot know."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        node = alone(nodes)
        await node.start()
        asked: list[asyncio.Future[Any]] = [node.propose(f"entry {n}") for n in range(10)]
        asked += [asyncio.ensure_future(node.read_index()) for _ in range(10)]
        asked += [node.index_range(1, 1) for _ in range(10)]
        await asyncio.sleep(0)
        await asyncio.gather(node.stop(), node.stop())
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(outcome, NodeStopped | OutcomeUnknown)

    run(scenario())


def test_a_caller_that_gives_up_leaves_nothing_behind() -> None:
    """Its request goes on without it; the node takes the next one."""

    async def scenario() -> None:
        async with alone() as node:
            await node.propose("first")
            for call in (node.propose("given up"), node.index_range(1, 1), node.read_index()):
                task = asyncio.ensure_future(call)
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            await node.propose("last")
            values = [entry.value async for entry in node.entries()]
            assert values in (["first", "given up", "last"], ["first", "last"])

    run(scenario())


def test_a_caller_that_cannot_wait_at_all_is_told_at_once() -> None:
    """A time that is over, or no number: the request waits for nothing, and the node is not harmed."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with alone(nodes) as node:
            for timeout_s in (0, -1, float("-inf"), float("nan")):
                with pytest.raises(Unavailable):
                    await node.propose("entry", timeout_s=timeout_s)
                with pytest.raises(Unavailable):
                    await node.read_index(timeout_s=timeout_s)

    run(scenario())


def test_the_log_of_a_stopped_node_can_be_read_at_once(tmp_path: Path) -> None:
    """`stop` returns when its files are closed and its lock is free; so it is with the channels."""

    async def scenario() -> None:
        async with alone(data_dir=tmp_path) as node:
            await node.propose("entry")
        assert [entry.value for entry in read_log(tmp_path)] == ["entry"]

    run(scenario())
    requests, responses = RaftNode.start(
        1, free_addresses(1), entry_type=str, data_dir=tmp_path, settings=QUICK
    )
    requests.close()
    assert list(responses) == []
    assert [entry.value for entry in read_log(tmp_path)] == ["entry"]


@pytest.mark.parametrize("turns", range(8))
def test_a_start_that_nobody_waits_for_any_more_leaves_nothing_open(turns: int, tmp_path: Path) -> None:
    """Cancelled at any turn of the loop: the directory's lock and the address are free again."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        given_up = alone(nodes, data_dir=tmp_path)
        starting = asyncio.ensure_future(given_up.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        await given_up.stop()
        async with alone(nodes, data_dir=tmp_path) as node:
            await node.propose("entry")

    run(scenario())
