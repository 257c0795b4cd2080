"""`totora transfer`, and a leader that is stopped: another one leads without an election timeout, and nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import Cluster, running_cluster, totora
from totora.cli.demo_cluster import free_addresses


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def test_the_leadership_goes_where_it_is_wanted(cluster: Cluster) -> None:
    """For people and for programs; also to who leads already."""
    for target in (1, 2, 3, 3):
        assert cluster("append", stdin=f"before {target}").code == 0
        ended = cluster("transfer", "--to", str(target), "--json")
        assert (ended.code, ended.err) == (0, "")
        assert ended.objects == [{"leader": target}]
        assert cluster.leader()[0] == target
    ended = cluster("transfer")
    assert (ended.code, ended.err) == (0, "")
    (leader, _) = cluster.leader()
    assert leader in (1, 2)
    assert ended.lines == [f"node {leader} leads"]


def test_what_cannot_be_is_said(cluster: Cluster) -> None:
    ended = cluster("transfer", "--to", "9")
    assert ended.failed() == "totora transfer: the leadership was not handed over: node 9 is no voter"
    assert ended.out == ""


def test_where_nobody_answers_it_says_so() -> None:
    spelled = ",".join(f"{id}={host}:{port}" for id, (host, port) in free_addresses(2).items())
    ended = totora("transfer", "--nodes", spelled, "--timeout", "1")
    assert ended.failed().startswith("totora transfer: ")
    assert "connection refused" in ended.err


def test_a_leader_that_is_stopped_hands_over_first(tmp_path: Path) -> None:
    """The successor stands with its consent: no pre-candidate appears, and the leader follows before it stops."""
    with running_cluster(tmp_path) as cluster:
        assert cluster("append", stdin="kept").code == 0
        leader, term = cluster.leader()
        others = [id for id in cluster.addresses if id != leader]
        known = {id: len(cluster.events(id)) for id in others}
        assert cluster.signal(leader, signal.SIGTERM) == 0
        said = [told["event"] for told in cluster.events(leader)]
        assert said[-2:] == ["became_follower", "stopped"] or said[-3:-1] == ["became_follower", "link_lost"]
        successor, its_term = cluster.leader(not_in_term=term)
        assert its_term == term + 1
        since = [told["event"] for id in others for told in cluster.events(id)[known[id] :]]
        assert "became_pre_candidate" not in since
        assert successor in others
        assert [entry["value"] for entry in cluster("log", "--json").objects] == ["kept"]
        cluster.start(leader)
        cluster.wait_until(leader, "became_follower")
