"""Whose directory, whose address, whose id: what must not start, and what must not count (DESIGN 6)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.processes.waiting import QUICK, eventually, run, running
from totora import ConfigurationError, Node, OutcomeUnknown, RaftError, Unavailable
from totora.cli.demo_cluster import free_addresses
from totora.types import Address, NodeId, PeerStatus


def peer(node: Node[Any], id: NodeId) -> PeerStatus:
    return next(peer for peer in node.status().peers if peer.id == id)


async def refused_start(node: Node[Any]) -> str:
    with pytest.raises(ConfigurationError) as raised:
        await node.start()
    return str(raised.value)


def test_an_address_in_use_is_said_so(tmp_path: Path) -> None:
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with running(nodes, tmp_path):
            second = Node(1, nodes, entry_type=str, data_dir=tmp_path / "second", settings=QUICK)
            why = await refused_start(second)
            assert f"{nodes[1][0]}:{nodes[1][1]}" in why

    run(scenario())


def test_two_nodes_do_not_share_a_directory(tmp_path: Path) -> None:
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with running(nodes, tmp_path) as started:
            second = Node(1, free_addresses(1), entry_type=str, data_dir=tmp_path / "node-1", settings=QUICK)
            assert str(tmp_path / "node-1") in await refused_start(second)
            await started[1].propose("the first one goes on")

    run(scenario())


def test_a_directory_of_another_node_is_refused(tmp_path: Path) -> None:
    nodes = free_addresses(2)

    async def scenario() -> None:
        async with running(nodes, tmp_path):
            pass
        why = await refused_start(
            Node(1, nodes, entry_type=str, data_dir=tmp_path / "node-2", settings=QUICK)
        )
        assert "node 2" in why

    run(scenario())


def test_a_directory_of_another_entry_type_is_refused(tmp_path: Path) -> None:
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with running(nodes, tmp_path):
            pass
        why = await refused_start(
            Node[bytes](1, nodes, entry_type=bytes, data_dir=tmp_path / "node-1", settings=QUICK)
        )
        assert "type" in why

    run(scenario())


def test_membership_comes_from_the_log_and_another_list_is_refused(tmp_path: Path) -> None:
    """Three nodes once, then a list of one: not a cluster of one."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with running(nodes, tmp_path) as started:
            await started[1].propose("committed")
        alone = Node(1, {1: nodes[1]}, entry_type=str, data_dir=tmp_path / "node-1", settings=QUICK)
        assert "1, 2, 3" in await refused_start(alone)

    run(scenario())


def test_addresses_may_change(tmp_path: Path) -> None:
    """The whole cluster moves; ids and directories stay."""

    async def scenario() -> None:
        async with running(free_addresses(3), tmp_path) as started:
            entry = await started[1].propose("before")
        async with running(free_addresses(3), tmp_path) as started:
            await started[2].propose("after")
            read = await started[3].index_range(entry.index, entry.index)
            assert [each.value for each in read] == ["before"]

    run(scenario())


def known(node: Node[str], count: int) -> bool:
    """The log records the store of `count` members, and all of it is committed."""
    runtime = node._backend()
    raft = runtime._engine.raft
    stores = [member.store_id for member in raft.configuration.members if member.store_id]
    return len(stores) == count and raft.commit_index == raft.log.last_index


def test_a_second_node_with_the_same_id_is_refused_and_not_counted(tmp_path: Path) -> None:
    """An impostor of node 3 with a directory and an address of its own: the cluster refuses it, and goes on."""
    nodes = free_addresses(4)
    elsewhere: Address = nodes.pop(4)

    async def scenario() -> None:
        async with running(nodes, tmp_path) as started:
            await started[1].propose("one")
            await eventually("the log names all stores", lambda: known(started[1], 3))
            impostor = Node(
                3, nodes, entry_type=str, data_dir=tmp_path / "impostor", bind=elsewhere, settings=QUICK
            )
            async with impostor:
                await eventually("it is refused", lambda: peer(impostor, 1).refused)
                await started[2].propose("two")
                assert impostor.status().last_index == 0
            await started[3].propose("three")

    run(scenario())


def test_a_wiped_node_that_returns_is_refused_and_not_counted(tmp_path: Path) -> None:
    """Node 3 loses its directory. Its vote may have been counted once; as an empty node it must not vote again, so with
    node 2 stopped there is no quorum. With node 2 back, there is."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with running(nodes, tmp_path) as started:
            await started[1].propose("one")
            await eventually("the log names all stores", lambda: known(started[1], 3))
        shutil.rmtree(tmp_path / "node-3")
        async with running(nodes, tmp_path, ids=[1, 3]) as started:
            why = await eventually("it is refused", lambda: peer(started[3], 1).refused)
            assert "store" in why
            with pytest.raises((Unavailable, OutcomeUnknown)) as raised:
                await started[1].propose("no quorum", timeout_s=1.0)
            assert isinstance(raised.value, RaftError)
            assert started[3].status().last_index == 0
            async with running(nodes, tmp_path, ids=[2]):
                await started[1].propose("a quorum of 1 and 2")
            assert started[3].status().last_index == 0

    run(scenario())


def test_a_node_of_another_cluster_at_a_known_address_is_refused(tmp_path: Path) -> None:
    """Two clusters of three; node 3 of the second is moved to where the first one's was."""
    first, second = free_addresses(6), {}
    for id in (4, 5, 6):
        second[id - 3] = first.pop(id)

    async def scenario() -> None:
        async with running(first, tmp_path / "first") as started:
            await started[1].propose("in the first")
            await eventually("the log names all stores", lambda: known(started[1], 3))
        async with running(second, tmp_path / "second") as started:
            await started[1].propose("in the second")
            await eventually("the log names all stores", lambda: known(started[3], 3))
        async with (
            running(first, tmp_path / "first", ids=[1, 2]) as started,
            running(first, tmp_path / "second", ids=[3]) as strangers,
        ):
            await eventually("it is refused", lambda: peer(strangers[3], 1).refused)
            await started[1].propose("the first goes on")
            entries = [entry.value async for entry in started[2].entries()]
            assert entries == ["in the first", "the first goes on"]

    run(scenario())
