"""One sentence for a person, for each thing that may be missing."""

from __future__ import annotations

import pytest

from tests.session.cluster import Cluster, S, is_kind
from totora.core.messages import AppendAccepted, AppendEntries
from totora.core.roles import Leader
from totora.session import explain as module
from totora.session.explain import explain


def why(cluster: Cluster, id: int) -> str | None:
    engine = cluster.engine(id)
    return explain(engine.raft, engine.linked, cluster.clock.now)


def test_nothing_is_missing() -> None:
    cluster = Cluster()
    cluster.elect(1)
    assert [why(cluster, id) for id in (1, 2, 3)] == [None, None, None]


@pytest.mark.parametrize(
    ("size", "lost", "sentence"),
    [
        (3, (2, 3), "no quorum: 1 of 3 voters reachable from node 1, nodes 2, 3 are not"),
        (4, (2, 4), "no quorum: 2 of 4 voters reachable from node 1, nodes 2, 4 are not"),
        (2, (2,), "no quorum: 1 of 2 voters reachable from node 1, node 2 is not"),
    ],
)
def test_no_quorum_names_who_is_missing(size: int, lost: tuple[int, ...], sentence: str) -> None:
    cluster = Cluster(size)
    cluster.elect(1)
    for peer in lost:
        cluster.unlink(1, peer)
    assert why(cluster, 1) == sentence


def test_no_leader_yet() -> None:
    cluster = Cluster()
    assert why(cluster, 2) == "no leader is known in term 0: an election is due"
    cluster.clock.now = cluster.engine(1).raft.deadline()
    cluster.engine(1).tick()
    assert why(cluster, 1) == "no leader: node 1 is asking for votes in term 0", "a pre-candidate"
    cluster.held.add(1)
    cluster.settle()
    assert cluster.engine(1).raft.role_name == "candidate"
    assert why(cluster, 1) == "no leader: node 1 is asking for votes in term 1"


def test_a_leader_that_was_just_elected() -> None:
    cluster = Cluster()
    cluster.clock.now = cluster.engine(1).raft.deadline()
    cluster.engine(1).tick()
    cluster.settle(lambda envelope: not isinstance(envelope.message, AppendEntries))
    assert why(cluster, 1) == "node 1 was just elected and has not committed an entry of term 1 yet"


def test_commit_that_waits_names_the_silent_node() -> None:
    cluster = Cluster()
    cluster.elect(1)
    start = cluster.clock.now
    cluster.take(lambda envelope: True)
    cluster.append(1, b"x")
    cluster.settle(lambda envelope: False)
    cluster.clock.now = start + S // 2
    assert why(cluster, 1) is None, "too early to complain"
    cluster.clock.now = start + 2 * S
    assert why(cluster, 1) == (
        "commit waits at 1: node 2 has not answered for 2.0 s, node 3 has not answered for 2.0 s"
    )
    cluster.take(is_kind(AppendEntries, AppendAccepted))


def test_commit_that_waits_names_each_that_holds_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEHIND", 1)
    cluster = Cluster()
    cluster.elect(1)
    start = cluster.clock.now
    cluster.held.add(1)
    for n in range(3):
        cluster.append(1, b"%d" % n)
    cluster.take(lambda envelope: True)
    cluster.clock.now = start + 2 * S
    leader = cluster.engine(1).raft.role
    assert isinstance(leader, Leader)
    leader.progress[3].contact_ns = cluster.clock.now
    assert why(cluster, 1) == (
        "commit waits at 1: the disk of node 1 has completed no write for 2.0 s, node 2 has not answered for 2.0 s, "
        "node 3 is 3 entries behind"
    )


def test_commit_that_waits_for_the_own_disk_alone() -> None:
    cluster = Cluster(1)
    cluster.elect(1)
    cluster.held.add(1)
    cluster.append(1, b"x")
    assert why(cluster, 1) is None, "too early to complain"
    cluster.clock.now += 2 * S
    assert why(cluster, 1) == "commit waits at 1: the disk of node 1 has completed no write for 2.0 s"


def test_a_leader_that_cannot_be_reached() -> None:
    cluster = Cluster(5)
    cluster.elect(1)
    cluster.engine(2).linked.discard(1)
    assert why(cluster, 2) == "node 1 leads but cannot be reached from node 2"
