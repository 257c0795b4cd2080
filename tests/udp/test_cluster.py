"""A cluster whose nodes talk JSON over UDP: it does what every cluster does, and a person can read along."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.aio.certificates import complaints
from tests.processes.waiting import eventually, run
from tests.udp.cluster import UDP, Faults, counters, leader_of, peer, running
from totora import Client, ConfigurationError, Entry, Node, NodeStatus, RaftNode, append_request
from totora.cli.demo_cluster import free_addresses
from totora.cli.demo_logs import read_log
from totora.config import SECONDS_MAX


async def all_entries(node: Node[str]) -> list[Entry[str]]:
    return [entry async for entry in node.entries()]


def test_any_node_takes_any_request(tmp_path: Path) -> None:
    """Appends, conditional appends and ranges through each; all logs are equal, on disk too."""
    nodes = free_addresses(3)

    async def scenario() -> list[Entry[str]]:
        async with running(nodes, tmp_path) as started:
            last = (0, 0)
            for id, node in started.items():
                (entry,) = await node.append([f"from {id}"], prev_log_index=last[0], prev_log_term=last[1])
                last = entry.index, entry.term
            logs = [await all_entries(node) for node in started.values()]
            assert [entry.value for entry in logs[0]] == ["from 1", "from 2", "from 3"]
            assert logs[0] == logs[1] == logs[2]
            await eventually(
                "all are linked, and have all on disk",
                lambda: all(
                    status.durable_index >= last[0] and all(other.linked for other in status.peers)
                    for status in (node.status() for node in started.values())
                ),
            )
            return logs[0]

    entries = run(scenario())
    for id in nodes:
        assert read_log(tmp_path / f"node-{id}") == entries


def test_many_requests_at_once() -> None:
    """More than one datagram holds, from all nodes together: each stands once, in its sender's order."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with running(nodes) as started:

            async def sender(id: int) -> list[Entry[str]]:
                asked = [started[id].propose(f"{id}.{n} {'x' * 500}") for n in range(500)]
                return list(await asyncio.gather(*asked))

            acknowledged = await asyncio.gather(*map(sender, nodes))
            logs = [await all_entries(node) for node in started.values()]
            assert logs[0] == logs[1] == logs[2]
            by_index = sorted((entry for entries in acknowledged for entry in entries), key=lambda e: e.index)
            assert by_index == logs[0]
            for entries in acknowledged:
                assert [entry.index for entry in entries] == sorted(entry.index for entry in entries)

    run(scenario())


def test_a_stopped_leader_is_followed_by_another_and_comes_back(tmp_path: Path) -> None:
    """It says goodbye; what it had not answered is neither lost nor doubled; started anew, it catches up."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with running(nodes, tmp_path) as started:
            leader = await leader_of(started.values())
            id = leader.status().id
            others = [node for other, node in started.items() if other != id]
            await others[0].propose("before")
            asked = [others[n % 2].propose(f"during {n}") for n in range(100)]
            await asyncio.sleep(0)
            await leader.stop()
            during = await asyncio.gather(*asked)
            assert (await leader_of(others)) is not leader
            after = await others[1].propose("after")
            async with running(nodes, tmp_path, ids=[id]) as again:
                await eventually("it catches up", lambda: again[id].status().commit_index >= after.index)
                log = await all_entries(again[id])
            assert [entry.value for entry in log[:1] + log[-1:]] == ["before", "after"]
            assert sorted(during, key=lambda entry: entry.index) == log[1:-1]

    run(scenario())


def test_a_leader_that_falls_silent_is_followed_by_another() -> None:
    """As if its host had lost power, or its cable: no word that it goes, neither to it nor from it."""
    nodes = free_addresses(3)
    faults = Faults()

    async def scenario() -> None:
        async with running(nodes, faults=faults) as started:
            leader = await leader_of(started.values())
            id = leader.status().id
            others = [node for other, node in started.items() if other != id]
            before = await leader.propose("before")
            for other in nodes:
                faults.cut |= {(nodes[id], nodes[other]), (nodes[other], nodes[id])}
            await eventually("they let go of it", lambda: not any(peer(node, id).linked for node in others))
            after = await others[0].propose("after")
            assert after.term > before.term
            await eventually("it gives its office up", lambda: leader.status().role != "leader")
            await eventually("it says why", lambda: "no quorum" in (leader.status().why or ""))
            faults.cut.clear()
            await eventually("it follows", lambda: leader.status().commit_index >= after.index)
            assert await all_entries(leader) == [before, after]

    run(scenario())


def test_a_link_that_is_cut_one_way_is_no_link() -> None:
    """Node 1 does not hear node 2, which hears node 1: both know that they cannot talk; node 3 is between them."""
    nodes = free_addresses(3)
    faults = Faults()

    async def scenario() -> None:
        async with running(nodes, faults=faults) as started:
            await eventually(
                "all are linked", lambda: peer(started[1], 2).linked and peer(started[2], 1).linked
            )
            faults.cut.add((nodes[2], nodes[1]))
            await eventually(
                "neither is", lambda: not (peer(started[1], 2).linked or peer(started[2], 1).linked)
            )
            await started[3].propose("through the one between them")
            faults.cut.clear()
            await eventually(
                "all are again", lambda: peer(started[1], 2).linked and peer(started[2], 1).linked
            )

    run(scenario())


def test_client_processes_come_over_tcp(tmp_path: Path) -> None:
    """At the same address; any node serves them, and another one when theirs has gone."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with (
            running(nodes, tmp_path) as started,
            AsyncExitStack() as stack,
            Client(nodes, entry_type=str) as client,
        ):
            entries = [await client.propose(f"entry {n}") for n in range(20)]
            statuses = await client.statuses()
            assert all(isinstance(status, NodeStatus) for status in statuses.values())
            for id in (1, 2):
                # Whichever of both the client talks to, it is gone now, or comes back.
                await started[id].stop()
                entries.append(await client.propose(f"without node {id}"))
                started[id] = Node(id, nodes, entry_type=str, data_dir=tmp_path / f"node-{id}", settings=UDP)
                await stack.enter_async_context(started[id])
                entries.append(await client.propose(f"with node {id}"))
            assert await client.index_range(1, entries[-1].index) == entries

    run(scenario())


def test_channels_work_over_udp() -> None:
    requests, responses = RaftNode.start(1, free_addresses(1), entry_type=str, settings=UDP)
    requests.send(append_request(["a", "b"]))
    requests.close()
    (answer,) = responses
    assert [entry.value for entry in answer.unwrap()] == ["a", "b"]


def test_names_serve_as_addresses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are looked up beside the loop; what is sent before that is lost, and sent again."""
    nodes = {id: ("localhost", port) for id, (_, port) in free_addresses(3).items()}

    async def scenario() -> None:
        async with running(nodes, tmp_path) as started:
            entry = await started[1].propose("entry")
            for node in started.values():
                await eventually("it has it", partial(has, node, entry))
            await eventually(
                "all are linked",
                lambda: all(other.linked for node in started.values() for other in node.status().peers),
            )
            assert not any(other.refused for node in started.values() for other in node.status().peers)

    run(scenario())
    assert complaints(caplog.records) == []


def test_a_member_whose_name_is_being_looked_up_is_not_suspected(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node 1 does not know yet where node 2 is when it hears from there: it neither listens nor complains."""
    nodes = {id: ("localhost", port) for id, (_, port) in free_addresses(2).items()}
    heard = asyncio.Event()
    look_up = asyncio.BaseEventLoop.getaddrinfo

    async def slow(loop: Any, host: Any, port: Any, **details: Any) -> Any:
        if port == nodes[2][1] and "family" in details:
            await heard.wait()
        return await look_up(loop, host, port, **details)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", slow)

    async def scenario() -> None:
        async with running(nodes) as started:
            await eventually("it is passed over", lambda: counters(started[1]).refused > 3)
            assert counters(started[1]).received == 0
            assert peer(started[2], 1).refused is None
            heard.set()
            await started[1].propose("entry")

    run(scenario())
    assert complaints(caplog.records) == []


def has(node: Node[str], entry: Entry[str]) -> bool:
    return node.status().commit_index >= entry.index


# -- what is on the wire ---------------------------------------------------------------------------


def test_a_person_can_read_what_nodes_say() -> None:
    """JSON, with the ancestor's calls and the names of Figure 2; an entry is within a batch, as base64."""
    nodes = free_addresses(3)
    faults = Faults(recording=True)

    async def scenario() -> None:
        async with running(nodes, faults=faults) as started:
            await started[1].propose("an entry to be found")
            await started[2].propose("another")
            await started[3].read_index()

    run(scenario())
    said = [json.loads(data) for data in faults.passed]
    for words in said:
        assert next(iter(words)) == "checksum"
        assert words["totora"] == [1, 1]
        assert {words["from"], words["to"]} < {1, 2, 3}
    by_type: dict[str, dict[str, Any]] = {}
    for words in said:
        message = words["message"]
        if message is not None and (message.get("batches") or message["type"] not in by_type):
            by_type[message["type"]] = message
    assert {"RequestPreVote", "RequestVote", "VoteAccepted", "AppendEntries", "AppendAccepted"} <= set(
        by_type
    )
    assert set(by_type["RequestVote"]) == {
        "type",
        "term",
        "candidate_id",
        "last_log_index",
        "last_log_term",
        "transfer",
    }
    assert set(by_type["AppendEntries"]) == {
        "type",
        "term",
        "leader_id",
        "prev_log_index",
        "prev_log_term",
        "leader_commit",
        "round",
        "batches",
    }
    assert all(isinstance(batch, str) for batch in by_type["AppendEntries"]["batches"])
    assert {"term", "current_leader", "match_index"} <= set(by_type["AppendAccepted"])
    assert any(words["message"] is None for words in said), "who has nothing to say greets"


# -- who may not take part -------------------------------------------------------------------------


def stores_known(node: Node[str]) -> bool:
    """The log records the store of every member, and all of it is committed."""
    raft = node._backend()._engine.raft
    known = all(member.store_id for member in raft.configuration.members)
    return known and raft.commit_index == raft.log.last_index


def test_a_wiped_node_is_refused_and_not_counted(tmp_path: Path) -> None:
    """It voted once; as an empty node it must not vote again: with it and node 1 alone there is no quorum."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with running(nodes, tmp_path) as started:
            await started[1].propose("one")
            await eventually("the log names all stores", lambda: stores_known(started[1]))
        shutil.rmtree(tmp_path / "node-3")
        async with running(nodes, tmp_path, ids=[1, 3]) as started:
            why = await eventually("it is told", lambda: peer(started[3], 1).refused)
            assert "another data directory" in why
            await eventually("it is counted", lambda: counters(started[1]).refused > 2)
            assert not peer(started[1], 3).linked
            assert started[1].status().leader is None
            async with running(nodes, tmp_path, ids=[2]):
                await started[1].propose("a quorum of 1 and 2")
            assert started[3].status().last_index == 0

    run(scenario())


def test_a_second_node_with_the_same_id_is_refused(tmp_path: Path) -> None:
    """At another address, with a directory of its own, while the first one runs and after the log knows that."""
    nodes = free_addresses(4)
    elsewhere = nodes.pop(4)

    async def scenario() -> None:
        async with running(nodes, tmp_path) as started:
            await started[1].propose("one")
            twin = Node(3, nodes, entry_type=str, data_dir=tmp_path / "twin", bind=elsewhere, settings=UDP)
            async with twin:
                why = await eventually("it is told", lambda: peer(twin, 1).refused)
                # Whether by its address or by its directory.
                assert "node 3" in why
                await started[2].propose("two")
                assert twin.status().last_index == 0
                assert not any(other.linked for other in twin.status().peers)
            await started[3].propose("three")

    run(scenario())


def test_an_address_in_use_is_said_so() -> None:
    """By a datagram socket alone; nothing stays open then, and the port can be used when it is free."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(nodes[1])
            node = Node(1, nodes, entry_type=str, settings=UDP)
            with pytest.raises(ConfigurationError, match="does another node run there"):
                await node.start()
        async with running(nodes) as started:
            await started[1].propose("entry")

    run(scenario())


def test_a_caller_may_wait_as_long_as_it_likes() -> None:
    """What a message says of the time that is left fits into it."""
    nodes = free_addresses(3)

    async def scenario() -> None:
        async with running(nodes) as started:
            for timeout_s in (1e9, 1e12, float("inf"), SECONDS_MAX):
                for node in started.values():
                    entry = await node.propose("entry", timeout_s=timeout_s)
                    assert await node.index_range(entry.index, entry.index, timeout_s=timeout_s) == [entry]

    run(scenario())
