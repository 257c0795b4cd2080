"""What goes wrong is said in one line on stderr, with the reason, and ends with 1."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import Cluster, Ended, running_cluster, totora
from tests.processes.waiting import QUICK, run
from totora import Node
from totora.cli.demo_cluster import free_addresses

# -- no cluster there


@pytest.fixture
def nobody() -> str:
    return ",".join(f"{id}={host}:{port}" for id, (host, port) in free_addresses(2).items())


def test_append_where_no_node_is(nobody: str) -> None:
    ended = totora("append", "--nodes", nobody, "--timeout", "0.5", stdin="a\nb\nc")
    assert ended.out == ""
    assert ended.failed() == (
        "totora append: lines 1 to 2: no answer in time: no node answers (nodes 1, 2: connection refused); "
        "nothing is appended"
    )


def test_log_where_no_node_is(nobody: str) -> None:
    ended = totora("log", "--nodes", nobody, "--timeout", "0.5")
    assert ended.out == ""
    assert ended.failed() == (
        "totora log: no answer in time: no node answers (nodes 1, 2: connection refused)"
    )


def test_status_where_no_node_is(nobody: str) -> None:
    ended = totora("status", "--nodes", nobody)
    assert ended.failed() == "totora status: no node answers"
    assert [row.split()[2] for row in ended.lines[1:3]] == ["unreachable", "unreachable"]
    assert ended.lines[-1] == "nodes 1, 2: connection refused"
    ended = totora("status", "--json", "--nodes", nobody)
    assert ended.failed() == "totora status: no node answers"
    assert [(node["id"], node["error"]) for node in ended.objects] == [
        (1, "connection refused"),
        (2, "connection refused"),
    ]


# -- no leader there


@pytest.fixture(scope="module")
def leaderless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One of three nodes."""
    cluster = Cluster(tmp_path_factory.mktemp("leaderless"))
    try:
        cluster.start(1)
        cluster.wait_until(1, "started")
        yield cluster
        cluster.stop()
    finally:
        cluster.abandon()


QUORUM = "no quorum: 1 of 3 voters reachable from node 1, nodes 2, 3 are not"


def test_append_where_no_leader_is(leaderless: Cluster) -> None:
    ended = leaderless("append", "--timeout", "0.5", "--json", stdin="a\nb\n")
    (account,) = ended.objects
    assert account["appended"] == 0
    assert ended.failed() == (
        f"totora append: lines 1 to 2: no answer in time: there is no leader: {QUORUM}; nothing is appended"
        + (f", of {account['unknown']} more it is not known" if account["unknown"] else "")
    )


def test_log_where_no_leader_is(leaderless: Cluster) -> None:
    ended = leaderless("log", "--timeout", "0.5")
    assert ended.out == ""
    assert ended.failed() == f"totora log: no answer in time: there is no leader: {QUORUM}"


def test_status_says_why_there_is_no_leader(leaderless: Cluster) -> None:
    """Nodes answer, so that is no failure of the command."""
    ended = leaderless("status")
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines[-3:] == ["there is no leader", "nodes 2, 3: connection refused", f"node 1: {QUORUM}"]
    first, *others = leaderless("status", "--json").objects
    assert (first["leader"], first["why"]) == (None, QUORUM)
    assert {node["error"] for node in others} == {"connection refused"}


def test_append_goes_on_once_there_is_a_leader(tmp_path: Path) -> None:
    """The lines wait while one node of three runs; then another one starts."""
    cluster = Cluster(tmp_path)

    def late() -> Ended:
        return cluster("append", "--json", stdin="a\nb\n")

    async def scenario() -> Ended:
        appending = asyncio.ensure_future(asyncio.to_thread(late))
        cluster.start(1)
        await asyncio.to_thread(cluster.wait_until, 1, "became_pre_candidate")
        cluster.start(2)
        return await appending

    try:
        ended = run(scenario())
        assert (ended.code, ended.err) == (0, "")
        assert ended.objects[0]["appended"] == 2
        log = cluster("log", "--json")
        assert [entry["value"] for entry in log.objects] == ["a", "b"]
        cluster.stop()
    finally:
        cluster.abandon()


# -- another cluster there


def test_a_cluster_of_other_entries_is_refused() -> None:
    """Appending text to it would make entries that its own programs cannot read."""
    nodes = free_addresses(1)
    host, port = nodes[1]
    spelled = f"1={host}:{port}"

    async def scenario() -> tuple[Ended, Ended, Ended]:
        async with Node(1, nodes, entry_type=bytes, settings=QUICK) as node:
            await node.propose(b"\xff")
            append, log, status = await asyncio.gather(
                asyncio.to_thread(totora, "append", "--nodes", spelled, stdin="text"),
                asyncio.to_thread(totora, "log", "--nodes", spelled),
                asyncio.to_thread(totora, "status", "--json", "--nodes", spelled),
            )
            assert node.status().last_index == 2, "the no-op and the entry"
        return append, log, status

    append, log, status = run(scenario())
    assert append.failed().startswith("totora append: line 1: the entries of this cluster are not text (")
    assert append.failed().endswith("; nothing is appended")
    assert log.failed().startswith("totora log: the entries of this cluster are not text (")
    assert status.objects[0]["role"] == "leader", "its state is the same for all"


def test_a_log_of_other_entries_is_not_served_as_text(tmp_path: Path) -> None:
    nodes = free_addresses(1)
    host, port = nodes[1]

    async def scenario() -> None:
        async with Node(1, nodes, entry_type=bytes, data_dir=tmp_path, settings=QUICK):
            pass

    run(scenario())
    ended = totora("node", "--id", "1", "--nodes", f"1={host}:{port}", "--data", tmp_path)
    assert "type" in ended.failed()


def test_a_line_that_the_cluster_does_not_carry_ends_it_and_nothing_follows(tmp_path: Path) -> None:
    """44 KiB are the limit under UDP, which a client learns from the answer alone."""
    with running_cluster(tmp_path, 1, ["--transport", "udp"]) as cluster:
        ended = cluster("append", stdin=f"a\nb\n{'x' * 100_000}\nnever\n")
        failed = ended.failed()
        assert failed.startswith("totora append: line 3: a request of 100,004 bytes exceeds the limit of ")
        assert failed.endswith("; 2 lines are appended")
        assert cluster("append", stdin="marker").code == 0
        assert [entry["value"] for entry in cluster("log", "--json").objects] == ["a", "b", "marker"]


# -- nodes that cannot start


def test_an_address_or_a_directory_in_use(tmp_path: Path) -> None:
    with running_cluster(tmp_path, 1) as cluster:
        host, port = cluster.addresses[1]
        again = cluster("node", "--id", "1", "--data", tmp_path / "other")
        assert again.failed().startswith(f"totora node: cannot listen on {host}:{port}: ")
        elsewhere = free_addresses(1)[1]
        second = totora(
            "node",
            "--id",
            "1",
            "--nodes",
            cluster.spelled,
            "--bind",
            f"{elsewhere[0]}:{elsewhere[1]}",
            "--data",
            cluster.data_dir(1),
        )
        assert str(cluster.data_dir(1)) in second.failed()


def test_a_directory_that_cannot_be_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    ended = totora("node", "--id", "1", "--nodes", "1=127.0.0.1:1", "--data", file)
    assert str(file) in ended.failed()


def test_a_list_of_other_members(tmp_path: Path) -> None:
    """The log says who the members are."""
    with running_cluster(tmp_path, 1) as cluster:
        pass
    nodes = ",".join(f"{id}={host}:{port}" for id, (host, port) in free_addresses(3).items())
    ended = totora("node", "--id", "1", "--nodes", nodes, "--data", cluster.data_dir(1))
    assert "1, 2, 3" in ended.failed()


def test_a_node_whose_disk_fails_ends_and_says_so(tmp_path: Path) -> None:
    """A damaged log: the node does not serve it."""
    with running_cluster(tmp_path, 1) as cluster:
        assert cluster("append", stdin="x\n" * 1_000).code == 0
    segment = min(cluster.data_dir(1).glob("*.log"))
    with segment.open("r+b") as file:
        file.seek(4_200)  # within the first records: the header takes 4 KiB
        file.write(b"\xff" * 64)
    ended = totora("node", "--id", "1", "--nodes", cluster.spelled, "--data", cluster.data_dir(1))
    assert str(segment) in ended.failed()
