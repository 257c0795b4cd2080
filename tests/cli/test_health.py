"""What `totora status` says of nodes that answer, and of those that do not; and how it fits."""

from __future__ import annotations

from typing import Any

import pytest

from totora import NodeStatus, PeerStatus, RaftError, Unavailable
from totora.cli.health import remarks, trouble
from totora.cli.status import report
from totora.types import RoleName

NODES = {1: ("127.0.0.1", 7001), 2: ("127.0.0.1", 7002), 3: ("node-three.example.org", 7003)}
REFUSED = Unavailable("connection refused")


def status(id: int, role: RoleName = "follower", **more: Any) -> NodeStatus:
    fields: dict[str, Any] = {
        "term": 7,
        "leader": None,
        "last_index": 12_345_678,
        "commit_index": 12_345_677,
        "applied_index": 12_345_676,
        "durable_index": 12_345_678,
        "cluster_id": "c1",
        "store_id": f"s{id}",
        "incarnation": 1,
        "volatile": False,
        "peers": (),
    }
    return NodeStatus(id=id, role=role, **fields | more)


HEALTHY: dict[int, NodeStatus | RaftError] = {1: status(1), 2: status(2, "leader"), 3: status(3)}
LEADERLESS: dict[int, NodeStatus | RaftError] = {
    1: status(1, "pre-candidate", why="no quorum: 1 of 3 voters reachable from node 1, nodes 2, 3 are not"),
    2: REFUSED,
    3: REFUSED,
}


def lines(found: dict[int, NodeStatus | RaftError], width: int | None = None) -> list[str]:
    return report(found, NODES, width=width, colorful=False)


# -- remarks


def test_nothing_is_said_where_nothing_is_amiss() -> None:
    assert remarks(HEALTHY, NODES) == []
    assert trouble(HEALTHY) is None


def test_why_there_is_no_leader() -> None:
    assert remarks(LEADERLESS, NODES) == [
        "there is no leader",
        "nodes 2, 3: connection refused",
        "node 1: no quorum: 1 of 3 voters reachable from node 1, nodes 2, 3 are not",
    ]
    assert trouble(LEADERLESS) == (
        "there is no leader: no quorum: 1 of 3 voters reachable from node 1, nodes 2, 3 are not"
    )


def test_no_leader_is_said_once() -> None:
    waiting: dict[int, NodeStatus | RaftError] = {
        1: status(1, why="no leader is known in term 7: an election is due")
    }
    assert trouble(waiting) == "no leader is known in term 7: an election is due"
    assert trouble({1: status(1)}) == "there is no leader"


def test_no_node_answers() -> None:
    found: dict[int, NodeStatus | RaftError] = {
        1: REFUSED,
        2: Unavailable("did not answer in time"),
        3: REFUSED,
    }
    assert (
        trouble(found) == "no node answers (nodes 1, 3: connection refused; node 2: did not answer in time)"
    )
    assert remarks(found, NODES) == ["nodes 1, 3: connection refused", "node 2: did not answer in time"]


def test_a_leader_that_cannot_commit_says_why() -> None:
    stuck = status(2, "leader", why="commit waits at 7: node 1 has not answered for 1.5 s")
    assert trouble({1: status(1, why="slow"), 2: stuck}) == stuck.why, "the leader knows best"
    assert "node 2: commit waits at 7: node 1 has not answered for 1.5 s" in remarks(
        {1: REFUSED, 2: stuck}, NODES
    )


def test_addresses_that_were_mixed_up() -> None:
    assert remarks({1: status(2, "leader"), 2: status(1)}, NODES) == [
        "node 2, not node 1, answers at 127.0.0.1:7001: --nodes is wrong",
        "node 1, not node 2, answers at 127.0.0.1:7002: --nodes is wrong",
    ]
    assert remarks({1: status(1, "leader"), 2: status(2, cluster_id="c2")}, NODES) == [
        "these nodes belong to 2 clusters: --nodes is wrong"
    ]


def test_a_follower_that_is_far_behind() -> None:
    """What the leader knows; a few entries are always under way."""
    near = PeerStatus(id=1, address="a:1", linked=True, match_index=12_345_000)
    far = PeerStatus(id=3, address="a:3", linked=True, match_index=12_000_000)
    assert remarks({2: status(2, "leader", peers=(near, far))}, NODES) == ["node 3 is 345,678 entries behind"]


def test_refused_peers_and_volatile_nodes() -> None:
    peer = PeerStatus(id=3, address="a:1", linked=False, refused="has another store")
    assert remarks({1: status(1, "leader", peers=(peer,), volatile=True)}, NODES) == [
        "node 1, of node 3: has another store",
        "node 1 keeps its log in memory only",
    ]


# -- the table


def test_in_a_pipe_everything_stands_in_one_table() -> None:
    assert lines(HEALTHY | {1: REFUSED}) == [
        "node  address                      role         term        last      commit     applied",
        "1     127.0.0.1:7001               unreachable",
        "2     127.0.0.1:7002               leader          7  12,345,678  12,345,677  12,345,676",
        "3     node-three.example.org:7003  follower        7  12,345,678  12,345,677  12,345,676",
        "",
        "node 1: connection refused",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("found", [HEALTHY, LEADERLESS])
def test_it_fits_the_terminal_and_cuts_no_number(
    found: dict[int, NodeStatus | RaftError], width: int
) -> None:
    shown = lines(found, width)
    assert max(map(len, shown)) <= width
    header = shown[0].split()
    assert header[0] == "node"
    assert {"role", "term", "commit"} <= set(header)
    for line in shown[1:4]:
        assert line.count("12,345,677") == ("unreachable" not in line)
    assert ("address" in header) == (width >= 100)


def test_a_remark_is_wrapped_between_words() -> None:
    wrapped = lines(LEADERLESS, 40)
    assert " ".join(line.strip() for line in wrapped[wrapped.index("") + 1 :]) == " ".join(
        remarks(LEADERLESS, NODES)
    )


def test_colours_are_for_those_who_want_them() -> None:
    colourful = report(LEADERLESS, NODES, width=80, colorful=True)
    assert any("\x1b[31m" in line for line in colourful), "unreachable"
    assert not any("\x1b" in line for line in lines(LEADERLESS, 80))


def test_what_a_node_says_is_not_obeyed() -> None:
    evil: dict[int, NodeStatus | RaftError] = {1: status(1, why="\x1b[2J"), 2: Unavailable("a\nb")}
    shown = lines(evil)
    assert "node 1: \\x1b[2J" in shown
    assert "node 2: a\\nb" in shown
