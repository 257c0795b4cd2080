"""What every store promises: the write-ahead log, on a disk in memory and on a real one, and the store of a volatile node."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.storage.model import CONFIGURATION, STORE_ID, batch
from totora.aio.disk import RealDisk
from totora.core.batch import Batch
from totora.core.effects import HardState, Persist
from totora.core.log import Recovered
from totora.core.summary import LogSummary
from totora.ports import Disk
from totora.sim.disk import MemoryDisk
from totora.storage.memory import MemoryStore
from totora.storage.store import LogStore
from totora.storage.wal import WriteAheadLog

Make: TypeAlias = Callable[[], LogStore]
"""A store on what the last one left, if that outlives it."""

LIMIT = 1 << 30


def wal_on(disk: Disk) -> LogStore:
    return WriteAheadLog(
        disk,
        random.Random(1),
        store_id=STORE_ID,
        configuration=CONFIGURATION,
        segment_bytes=16 << 10,
        may_create=True,
    )


@pytest.fixture(params=["memory", "wal on memory", "wal on a real disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Stores that are opened are closed at the end."""
    made: list[LogStore] = []
    disk = MemoryDisk()
    makers: dict[str, Make] = {
        "memory": lambda: MemoryStore(CONFIGURATION),
        "wal on memory": lambda: wal_on(disk),
        "wal on a real disk": lambda: wal_on(RealDisk(str(tmp_path))),
    }

    def make() -> LogStore:
        made.append(makers[request.param]())
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make: Make) -> LogStore:
    """Opened, and empty."""
    store = make()
    store.recover()
    return store


def write(
    store: LogStore,
    *batches: Batch,
    truncate_after: int | None = None,
    hard_state: HardState | None = None,
) -> None:
    store.write([Persist(1, truncate_after, hard_state, batches, 0)])


def entries(count: int, size: int = 700, first: int = 1, term: int = 1) -> list[Batch]:
    return [batch(first + n, term, size=size + n) for n in range(count)]


def test_a_new_store_is_empty(make: Make) -> None:
    """No term, no vote, no entry; the configuration is the one that it was made with."""
    recovered = make().recover()
    expected = Recovered(
        hard_state=HardState(),
        commit_index=0,
        base_index=0,
        base_term=0,
        runs=[],
        last_index=0,
        summary=recovered.summary,
        tail=[],
        largest_batch_bytes=0,
    )
    assert recovered == expected
    assert recovered.summary.encode() == LogSummary(CONFIGURATION).encode()


def test_what_was_written_is_read(store: LogStore) -> None:
    """Any range of it, in order, over several groups."""
    log = entries(60)
    for at in range(0, 60, 3):
        write(store, *log[at : at + 3])
    for first, last in ((1, 60), (1, 1), (60, 60), (17, 44), (30, 31)):
        assert store.read(first, last, LIMIT) == log[first - 1 : last]


def test_batches_are_read_whole(store: LogStore) -> None:
    """From the one that holds the first index to the one that holds the last."""
    log = [batch(1, count=5), batch(6, count=5), batch(11, count=5)]
    write(store, *log)
    assert store.read(3, 3, LIMIT) == log[:1]
    assert store.read(5, 6, LIMIT) == log[:2]
    assert store.read(10, 15, LIMIT) == log[1:]
    assert store.read(15, 15, LIMIT) == log[2:]


def test_a_read_stops_before_its_limit_but_returns_one(store: LogStore) -> None:
    """Whatever the limit."""
    log = entries(20)
    write(store, *log)
    size = sum(len(one.data) for one in log[4:8])
    assert store.read(5, 20, size) == log[4:8]
    assert store.read(5, 20, size - 1) == log[4:7]
    assert store.read(5, 20, 1) == log[4:5]
    assert store.read(5, 20, 0) == log[4:5]


@pytest.mark.parametrize("index", [0, 1, 15, 29])
def test_what_was_truncated_is_gone(store: LogStore, index: int) -> None:
    """And what was written in its place is there."""
    log = entries(30)
    write(store, *log)
    anew = entries(12, first=index + 1, term=2)
    write(store, *anew, truncate_after=index)
    assert store.read(1, index + 12, LIMIT) == [*log[:index], *anew]


def test_a_truncation_alone_removes_too(store: LogStore) -> None:
    """What comes next may come in a write of its own."""
    log = entries(10)
    write(store, *log)
    write(store, truncate_after=4)
    assert store.read(1, 4, LIMIT) == log[:4]
    write(store, batch(5, 2))
    assert store.read(4, 5, LIMIT) == [log[3], batch(5, 2)]


def test_a_truncation_of_nothing_removes_nothing(store: LogStore) -> None:
    """At the last index, and above."""
    log = entries(5)
    write(store, *log)
    write(store, truncate_after=5)
    write(store, batch(6), truncate_after=9)
    assert store.read(1, 6, LIMIT) == [*log, batch(6)]


def test_a_group_is_carried_out_in_its_order(store: LogStore) -> None:
    """Truncations of what the same group wrote included."""
    store.write([])
    store.write(
        [
            Persist(1, None, HardState(1, 1), tuple(entries(4)), 0),
            Persist(2, 2, HardState(2, None), tuple(entries(3, first=3, term=2)), 0),
            Persist(3, 4, None, (batch(5, 3),), 2),
        ]
    )
    assert [(one.first_index, one.term) for one in store.read(1, 5, LIMIT)] == [
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 2),
        (5, 3),
    ]


def test_a_hard_state_alone_leaves_the_log_as_it_is(store: LogStore) -> None:
    """A vote is no entry."""
    log = entries(3)
    write(store, *log)
    write(store, hard_state=HardState(9, 2))
    assert store.read(1, 3, LIMIT) == log


def test_reserving_comes_to_an_end(store: LogStore) -> None:
    """However much was written, and it changes nothing that is read."""
    log = entries(60)
    for one in log:
        write(store, one)
        while store.reserve_due:
            store.reserve()
    store.reserve()
    assert not store.reserve_due
    assert store.read(1, 60, LIMIT) == log


def test_a_batch_of_any_size_is_kept(store: LogStore) -> None:
    """The largest that there may be, too."""
    log = [batch(1, size=0), batch(2, size=(8 << 20) - 200), batch(3, size=20_000), batch(4)]
    for one in log:
        write(store, one)
    assert store.read(1, 4, LIMIT) == log


@pytest.mark.parametrize("make", ["wal on memory", "wal on a real disk"], indirect=True)
def test_what_was_written_outlives_the_store(make: Make) -> None:
    """Entries, truncations, the hard state; start after start."""
    held: list[Batch] = []
    for term in range(1, 5):
        store = make()
        recovered = store.recover()
        assert recovered.last_index == len(held)
        assert recovered.hard_state == HardState(term - 1, (term - 1) or None)
        assert recovered.tail == held
        assert (store.read(1, len(held), LIMIT) if held else []) == held
        kept = held[:-5]
        anew = entries(25, first=len(kept) + 1, term=term)
        write(store, *anew, truncate_after=len(kept), hard_state=HardState(term, term))
        held = [*kept, *anew]
        store.close()


def test_a_volatile_store_lets_go_of_everything_at_its_end() -> None:
    """Memory is all that it had."""
    store = MemoryStore(CONFIGURATION)
    store.recover()
    write(store, *entries(3))
    store.close()
    assert store.read(1, 3, LIMIT) == []
