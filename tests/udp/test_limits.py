"""What one datagram cannot carry is refused before it is sent, and a log that holds such a batch is not opened."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from tests.processes.waiting import run
from tests.udp.cluster import UDP, running
from totora import Client, ConfigurationError, EntryTooLarge, Node
from totora.cli.demo_cluster import free_addresses
from totora.config import UDP_BATCH_BYTES_MAX
from totora.core.batch import HEADER_BYTES

LARGEST = UDP_BATCH_BYTES_MAX - HEADER_BYTES - 4
"""The largest entry: alone in a batch of 44 KiB."""


def test_the_largest_batch_reaches_every_node_and_a_byte_more_is_refused() -> None:
    """Through the leader and through those that pass it on."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with running(nodes) as started:
            for node in started.values():
                entry = await node.propose("x" * LARGEST)
                for other in started.values():
                    assert await other.index_range(entry.index, entry.index) == [entry]
                last = node.status().last_index
                with pytest.raises(EntryTooLarge, match="45,056") as raised:
                    await node.propose("x" * (LARGEST + 1))
                assert raised.value.limit == UDP_BATCH_BYTES_MAX
                with pytest.raises(EntryTooLarge, match="a request of"):
                    await node.append(["x" * 1_000] * 50)
                assert (await node.propose("a later one")).index == last + 1, "nothing was appended"

    run(scenario())


def test_requests_that_fit_alone_are_not_refused_together() -> None:
    """They are joined only as far as one datagram goes."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with running(nodes) as started:
            asked = [started[1 + n % 3].propose(f"{n} " + "x" * (LARGEST // 3)) for n in range(60)]
            entries = await asyncio.gather(*asked)
            assert len({entry.index for entry in entries}) == 60

    run(scenario())


@pytest.mark.parametrize("leading", [True, False])
def test_a_client_is_told_of_the_limit(leading: bool) -> None:
    """It cannot know what the cluster's transport is; whichever node it talks to says so, and it goes on."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with running(nodes) as started:
            await started[1].propose("first")
            leader = started[1].status().leader
            place = next(node for id, node in started.items() if (id == leader) == leading)
            async with Client({1: place.address}, entry_type=str) as client:
                entry = await client.propose("x" * LARGEST)
                with pytest.raises(EntryTooLarge):
                    await client.propose("x" * (LARGEST + 1))
                with pytest.raises(EntryTooLarge):
                    await client.append(["x" * 1_000] * 50)
                assert (await client.propose("a later one")).index == entry.index + 1

    run(scenario())


def test_a_range_may_be_larger_than_a_datagram() -> None:
    """It is read from the node's own log, and streams carry it to a client."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with running(nodes) as started, Client(nodes, entry_type=str) as client:
            entries = [await started[1].propose(f"{n} " + "x" * 40_000) for n in range(20)]
            for face in (*started.values(), client):
                assert await face.index_range(entries[0].index, entries[-1].index) == entries

    run(scenario())


def test_a_log_with_a_larger_batch_cannot_be_opened(tmp_path: Path) -> None:
    """It could never be sent; over tcp it opens as before."""
    nodes = free_addresses(1)
    tcp = dataclasses.replace(UDP, transport="tcp")

    def node(transport: str) -> Node[str]:
        chosen = UDP if transport == "udp" else tcp
        return Node(1, nodes, entry_type=str, data_dir=tmp_path / "data", settings=chosen)

    async def scenario() -> None:
        async with node("tcp") as first:
            await first.propose("x" * LARGEST)
        async with node("udp") as second:
            assert len([entry async for entry in second.entries()]) == 1, "this one fits"
        async with node("tcp") as third:
            await third.propose("x" * (LARGEST + 1))
        with pytest.raises(ConfigurationError) as raised:
            await node("udp").start()
        assert str(raised.value) == (
            "the log holds a batch of 45,057 bytes, udp carries 45,056: start this node with transport 'tcp'"
        )
        async with node("tcp") as fourth:
            assert len([entry async for entry in fourth.entries()]) == 2

    run(scenario())
