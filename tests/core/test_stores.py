"""The founding entry, and the members' data directories in the log (DESIGN, section 6)."""

from __future__ import annotations

from totora.core import effects as fx
from totora.core import events as ev
from totora.core.batch import Batch, Kind
from totora.core.quorum import Configuration

from .cluster import CLUSTER_ID, Cluster, chosen, founding, store_id


def configurations(log: list[Batch]) -> list[Configuration]:
    return [Configuration.decode(b.payloads()[0]) for b in log if b.kind == Kind.CONFIGURATION]


def test_the_first_leaders_first_entry_founds_the_cluster() -> None:
    """It mints the cluster id and records every data directory it has met; it is the no-op of its term as well."""
    c = Cluster()
    c.elect(1)
    (configuration,) = configurations(c.log(1))
    assert configuration.cluster_id is not None
    assert len(configuration.cluster_id) == 16
    assert [member.store_id for member in configuration.members] == [store_id(id) for id in (1, 2, 3)]
    assert [batch.kind for batch in c.log(1)] == [Kind.CONFIGURATION]
    assert c.found(1, fx.Reconfigured) == [fx.Reconfigured(configuration)]
    assert c.nodes[2].configuration == configuration


def test_clusters_are_told_apart() -> None:
    """The id is random."""
    ids = set()
    for seed in range(20):
        c = Cluster(seed=seed)
        c.elect(1)
        ids.add(c.nodes[1].configuration.cluster_id)
    assert len(ids) == 20


def test_a_cluster_is_founded_once() -> None:
    """Later leaders append a no-op."""
    c = Cluster()
    c.elect(1)
    c.elect(2)
    c.elect(3)
    assert [batch.kind for batch in c.log(1)] == [Kind.CONFIGURATION, Kind.NOOP, Kind.NOOP]


def test_a_founding_that_is_lost_is_done_again() -> None:
    """The first leader dies before anyone holds its entry: the next one founds the cluster, under another id."""
    c = Cluster()
    c.elect(1, quietly=True)
    lost = c.nodes[1].configuration.cluster_id
    assert lost is not None
    assert c.nodes[1].cluster_id is None, "nobody is judged by what may be lost"
    c.crash(1)
    c.drop()
    leader = c.until_leader(within_ms=5_000)
    c.deliver()
    c.restart(1)
    assert (c.nodes[1].configuration.cluster_id, c.nodes[1].cluster_id) == (lost, None)
    c.advance(500)
    (configuration,) = configurations(c.log(1))
    assert configuration == c.nodes[leader].configuration
    assert configuration.cluster_id != lost
    assert c.nodes[1].cluster_id == c.nodes[leader].cluster_id == configuration.cluster_id


def test_a_directory_met_later_is_recorded_once_an_entry_of_the_term_is_committed() -> None:
    """Server 3 was not there at the founding; when its link comes up a configuration follows, exactly one."""
    c = Cluster(absent={3})
    c.elect(1)
    assert c.nodes[1].configuration.member(3) == founding(3).member(3)
    c.restart(3)
    c.deliver()
    _, latest = configurations(c.log(1))
    member = latest.member(3)
    assert member is not None
    assert member.store_id == store_id(3)
    c.disconnect(1, 3)
    c.connect(1, 3)
    c.advance(300)
    assert len(configurations(c.log(1))) == len(configurations(c.log(3))) == 2


def test_a_configuration_waits_until_the_one_before_is_committed() -> None:
    """Two directories are met one after the other while nothing commits: one configuration at a time."""
    c = Cluster(5, absent={4, 5})
    c.elect(1)
    c.partition([1], [2, 3], [4, 5])
    c.restart(4)
    assert len(configurations(c.log(1))) == 2
    c.restart(5)
    assert len(configurations(c.log(1))) == 2
    c.drop()
    c.heal()
    for peer in (2, 3):
        c.disconnect(1, peer)
        c.connect(1, peer)
    c.deliver()
    assert len(configurations(c.log(1))) == 3
    assert [m.store_id for m in c.nodes[1].configuration.members] == [store_id(id) for id in range(1, 6)]


def test_a_new_leader_records_nothing_before_its_first_entry_is_committed() -> None:
    """A new leader that has met a new directory records it after its no-op is committed, not before (raft-dev, 2015)."""
    c = Cluster(5, absent={5})
    c.elect(1)
    c.elect(2, quietly=True)
    c.restart(5)
    assert [batch.kind for batch in c.log(2)] == [Kind.CONFIGURATION, Kind.NOOP]
    c.deliver()
    assert [batch.kind for batch in c.log(2)] == [Kind.CONFIGURATION, Kind.NOOP, Kind.CONFIGURATION]


def test_nothing_is_recorded_when_nothing_is_new() -> None:
    """All directories are in the log: links come and go without an entry."""
    c = Cluster(is_founded=True)
    c.elect(1)
    c.disconnect(1, 2)
    c.connect(1, 2)
    c.advance(500)
    assert [batch.kind for batch in c.log(1)] == [Kind.NOOP]
    assert c.nodes[1].configuration.cluster_id == CLUSTER_ID


def test_another_directory_under_a_known_id_is_not_written_over_the_recorded_one() -> None:
    """A wiped server's new store is met: the log keeps the old one, by which the new one is refused elsewhere."""
    c = Cluster(is_founded=True)
    c.elect(1)
    effects = c.step(1, ev.LinkUp(3, b"another directory"[:16]))
    assert chosen(effects, fx.Persist) == []
    member = c.nodes[1].configuration.member(3)
    assert member is not None
    assert member.store_id == store_id(3)


def test_followers_record_nothing() -> None:
    """Only a leader appends."""
    c = Cluster()
    c.disconnect(2, 3)
    c.connect(2, 3)
    assert c.log(2) == c.log(3) == []
