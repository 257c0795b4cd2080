"""What `Cluster` does to machines and their disks at a moment that a script cannot name by the clock."""

from __future__ import annotations

import pytest

from totora.errors import OutcomeUnknown
from totora.sim import Cluster, ScriptError


@pytest.mark.parametrize(
    ("after", "answered", "kept"),
    [(0, False, ["before"]), (1, False, ["before", "x"]), (2, True, ["before", "x"])],
)
def test_power_is_lost_at_an_operation_of_the_disk(after: int, answered: bool, kept: list[str]) -> None:
    """An entry costs a write and a sync here: before them, between them, after them. What was written survives this time."""
    with Cluster(1, seed=2) as cluster:
        cluster.start().propose("before")
        cluster.advance(1).lose_power(1, fate="kept", after=after)
        asked = cluster.spawn(lambda node: node.propose("x"), at=1)
        cluster.expect(lambda: asked.done, "it has an outcome")
        assert isinstance(asked.error, OutcomeUnknown) is not answered
        assert cluster.role(1) == ("leader" if answered else "down")
        assert cluster.restart(1).settle().values(1) == kept


def test_a_restart_and_peace_call_it_off() -> None:
    with Cluster(3, seed=2) as cluster:
        cluster.start().leader()
        cluster.lose_power(1, after=5).restart(1)
        cluster.lose_power(2, after=50).settle()
        for number in range(40):
            cluster.propose(f"{number}")
        assert cluster.running == {1, 2, 3}


@pytest.mark.parametrize("running", [True, False])
def test_a_wiped_node_is_a_stranger(running: bool) -> None:
    """It comes back with nothing, is told so, and nobody waits for it."""
    with Cluster(3, seed=2) as cluster:
        leader = cluster.start().leader()
        cluster.propose("x", at=leader)
        wiped, other = sorted(cluster.others(leader))
        cluster.settle()
        if not running:
            cluster.kill(wiped)
        cluster.wipe(wiped)
        assert cluster.role(wiped) == "down"
        assert cluster.host(wiped).disk.names == {}
        cluster.start(wiped).advance(5)
        assert cluster.values(wiped) == []
        assert cluster.status(wiped).leader is None
        assert cluster.leader() == leader
        cluster.propose("y")
        cluster.settle()
        assert cluster.values(other) == ["x", "y"]


def test_of_a_wiped_machine_that_is_down_nothing_is_started() -> None:
    with Cluster(3, seed=2) as cluster:
        cluster.start().leader()
        cluster.wipe(3).settle()
        assert cluster.running == {1, 2}
        with pytest.raises(ScriptError, match="which node"):
            cluster.wipe()


def test_power_is_lost_during_a_clean_stop() -> None:
    """At each operation of the disk in turn: the stop is over, and the node starts again."""
    for after in range(6):
        with Cluster(1, seed=after) as cluster:
            cluster.start().propose("kept")
            host = cluster.host(1)
            host.lose_power_after(after)
            cluster._play(host.stop())
            assert cluster.role(1) == "down"
            host.spare()
            assert cluster.start().settle().values(1) == ["kept"]
