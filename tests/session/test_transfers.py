"""Transfers of leadership, asked for at any node: one outcome each, which says who leads or why nothing changed."""

from __future__ import annotations

import pytest

from tests.session.cluster import MS, Cluster
from totora.core.messages import RequestTransfer, TimeoutNow, TransferRejected
from totora.errors import NodeStopped, Overloaded, RaftError, TransferFailed, Unavailable
from totora.session.transfers import PENDING_TRANSFERS_MAX
from totora.types import NodeId


@pytest.fixture
def cluster() -> Cluster:
    """Three nodes, node 1 leads."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.advance(150)
    return cluster


class Told:
    """The outcome of one transfer."""

    def __init__(self) -> None:
        self.outcomes: list[NodeId | RaftError] = []

    def __call__(self, outcome: NodeId | RaftError) -> None:
        self.outcomes.append(outcome)

    @property
    def outcome(self) -> NodeId | RaftError:
        (outcome,) = self.outcomes
        return outcome


def ask(cluster: Cluster, by: NodeId, target: NodeId | None, timeout_ms: int = 5_000) -> Told:
    told = Told()
    cluster.engine(by).transfer(target, cluster.clock.now + timeout_ms * MS, told)
    return told


@pytest.mark.parametrize("by", [1, 2, 3])
@pytest.mark.parametrize("target", [2, 3, None])
def test_any_node_has_the_leader_hand_over(cluster: Cluster, by: NodeId, target: NodeId | None) -> None:
    told = ask(cluster, by, target)
    cluster.settle()
    leader = told.outcome
    assert leader in (2, 3)
    assert leader == target or target is None
    append = cluster.append(by, b"after")
    cluster.settle()
    assert append.appended.term == 2


def test_what_is_under_way_is_carried_out_once(cluster: Cluster) -> None:
    """Appends at every node, before and while the office changes hands."""
    before = [cluster.append(id, b"before %d" % id) for id in (1, 2, 3)]
    told = ask(cluster, 3, 2)
    during = [cluster.append(id, b"during %d" % id) for id in (1, 2, 3)]
    cluster.settle()
    cluster.advance(200)
    assert told.outcome == 2
    assert all(asked.acknowledged for asked in (*before, *during))
    assert sorted(cluster.log_of_all().values()) == sorted(
        value for asked in (*before, *during) for value in asked.values
    )
    cluster.check_outcomes()


def test_who_leads_already_is_the_answer(cluster: Cluster) -> None:
    assert ask(cluster, 2, 1).outcome == 1
    assert ask(cluster, 1, 1).outcome == 1


def test_the_leaders_reason_reaches_whoever_asked(cluster: Cluster) -> None:
    told = [ask(cluster, by, 9) for by in (1, 2)]
    cluster.settle()
    for each in told:
        assert isinstance(each.outcome, TransferFailed)
        assert each.outcome.why == "node 9 is no voter"


def test_where_nobody_leads_it_says_so() -> None:
    cluster = Cluster()
    outcome = ask(cluster, 1, 2).outcome
    assert isinstance(outcome, Unavailable)
    assert "no leader is known" in outcome.why


def test_one_that_is_not_answered_ends_with_its_time(cluster: Cluster) -> None:
    """The question is lost."""
    told = ask(cluster, 2, 3, timeout_ms=300)
    cluster.messages = [e for e in cluster.messages if not isinstance(e.message, RequestTransfer)]
    cluster.advance(310)
    assert isinstance(told.outcome, TransferFailed)
    assert told.outcome.why == "node 1 still leads, as far as this node knows"


def test_that_somebody_else_took_over_is_no_success(cluster: Cluster) -> None:
    """Two ask for different nodes; the first one wins."""
    first = ask(cluster, 1, 2)
    second = ask(cluster, 3, 3)
    cluster.settle()
    assert first.outcome == 2
    assert isinstance(second.outcome, TransferFailed)
    assert second.outcome.why == "node 2 is taking over"


def test_a_leader_that_is_elected_again_did_not_hand_over(cluster: Cluster) -> None:
    told = ask(cluster, 2, 3)
    cluster.messages = [e for e in cluster.messages if not isinstance(e.message, RequestTransfer)]
    ask(cluster, 1, 3)
    cluster.messages = [e for e in cluster.messages if not isinstance(e.message, TimeoutNow)]
    cluster.engine(2)._transfers.led(1, 2)
    assert isinstance(told.outcome, TransferFailed)
    assert told.outcome.why == "node 1 leads again, in term 2"


def test_a_node_that_stops_says_so(cluster: Cluster) -> None:
    told = ask(cluster, 2, 3)
    cluster.engine(2).stop(None)
    assert isinstance(told.outcome, NodeStopped)


def test_a_late_refusal_is_nobodys(cluster: Cluster) -> None:
    told = ask(cluster, 2, 3)
    cluster.settle()
    assert told.outcome == 3
    cluster.engine(2).message(1, TransferRejected(2, 3, 4711, "late"))
    assert told.outcome == 3


def test_they_are_bounded(cluster: Cluster) -> None:
    told = [ask(cluster, 2, 3) for _ in range(PENDING_TRANSFERS_MAX + 1)]
    assert isinstance(told[-1].outcome, Overloaded)
    assert not any(each.outcomes for each in told[:-1])


def test_who_may_hand_over_leads_and_is_not_needed(cluster: Cluster) -> None:
    assert [cluster.engine(id).may_hand_over for id in (1, 2, 3)] == [True, False, False]
    cluster.engine(1).link_lost(3)
    assert not cluster.engine(1).may_hand_over, "two of three are needed"
    alone = Cluster(1)
    alone.elect(1)
    assert not alone.engine(1).may_hand_over


def test_it_is_explained_while_it_lasts(cluster: Cluster) -> None:
    ask(cluster, 1, 2)
    assert cluster.engine(1)._why_waiting() == "node 1 is handing over to node 2"
