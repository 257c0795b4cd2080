"""Nodes of one cluster that were given different transports: they do not talk, and both say what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.aio.certificates import complaints
from tests.processes.waiting import eventually, run
from tests.udp.cluster import UDP, peer
from totora import Client, Node, NodeStatus, OutcomeUnknown, Unavailable
from totora.cli.demo_cluster import free_addresses

TCP = dataclasses.replace(UDP, transport="tcp")


def test_a_node_with_another_transport_is_refused_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each side shows the reason; a client reaches all three, for clients come over TCP to either."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with (
            Node(1, nodes, entry_type=str, settings=UDP) as one,
            Node(2, nodes, entry_type=str, settings=UDP),
            Node(3, nodes, entry_type=str, settings=TCP) as other,
            Client(nodes, entry_type=str) as client,
        ):
            await client.propose("one")
            at_the_other = await eventually("it is told", lambda: peer(other, 1).refused)
            assert (
                at_the_other == "uses transport 'tcp', node 1 uses 'udp': give all nodes the same transport"
            )
            here = await eventually("it says so", lambda: peer(one, 3).refused)
            assert "uses transport 'tcp', node 1 uses 'udp': give all nodes the same transport" in here
            assert other.status().last_index == 0
            statuses = await client.statuses()
            assert all(isinstance(status, NodeStatus) for status in statuses.values())

    run(scenario())
    assert any("give all nodes the same transport" in why for _, why in complaints(caplog.records))


def test_without_a_majority_of_one_transport_there_is_no_quorum() -> None:
    """One of each: neither leads."""
    nodes = free_addresses(2)

    async def scenario() -> None:
        async with (
            Node(1, nodes, entry_type=str, settings=UDP) as one,
            Node(2, nodes, entry_type=str, settings=TCP) as two,
        ):
            await eventually("both know", lambda: peer(one, 2).refused and peer(two, 1).refused)
            for node in (one, two):
                with pytest.raises((Unavailable, OutcomeUnknown), match="no quorum"):
                    await node.propose("entry", timeout_s=0.1)

    run(scenario())


def test_a_cluster_may_change_its_transport(tmp_path: Path) -> None:
    """All nodes stopped and started again with the other one; what fits into datagrams is kept."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        for number, settings in enumerate((TCP, UDP, TCP), 1):
            started = [
                Node(id, nodes, entry_type=str, data_dir=tmp_path / f"node-{id}", settings=settings)
                for id in nodes
            ]
            for node in started:
                await node.start()
            try:
                await started[number % 3].propose(f"entry {number}")
                for node in started:
                    assert len([entry async for entry in node.entries()]) == number
            finally:
                for node in started:
                    await node.stop()

    run(scenario())
