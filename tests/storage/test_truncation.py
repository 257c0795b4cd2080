"""What was truncated never comes back: within a segment, across several, again and again, and while somebody reads there."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import pytest

from tests.levels import by_level
from tests.storage.directory import (
    WatchedDisk,
    Writer,
    disk_of,
    files_of,
    header_of,
    open_node,
    places,
    segments_of,
)
from tests.storage.model import CONFIGURATION, Model, batch
from totora.core.batch import Batch, Kind, join_payloads
from totora.core.effects import HardState, Persist
from totora.core.quorum import Configuration
from totora.errors import StorageError
from totora.sim.disk import MemoryDisk
from totora.storage import recovery
from totora.storage.reading import batches_of
from totora.storage.record import RecordType
from totora.storage.recovery import Extent

LARGE = 64 << 10


def written(disk: MemoryDisk, count: int, size: int = 800) -> Writer:
    """A log of so many batches of one entry each."""
    writer = Writer(open_node(disk).log)
    for _ in range(count):
        writer.write(size)
        writer.log.reserve()
    return writer


def check(disk: MemoryDisk, writer: Writer) -> None:
    """The running log holds what it should, and so does what a start would find now, and after a clean end."""
    held = writer.model
    found = writer.log.read(1, held.last_index, 1 << 30) if held.batches else []
    assert found == held.batches
    assert list(writer.log.verify()) == []
    copy = disk_of(files_of(disk))
    opened = open_node(copy)
    assert opened.contents() == held
    opened.close()
    assert open_node(copy).contents() == held


# -- where a truncation may fall


def test_a_truncation_within_the_newest_segment_is_a_record() -> None:
    """Nothing is overwritten: what it removes stays in its place and means nothing."""
    disk = WatchedDisk()
    writer = written(disk, 3)
    before = places(files_of(disk)["000000000001.log"])
    writer.write(10, 20, truncate_after=1, term=2)
    after = places(files_of(disk)["000000000001.log"])
    assert after[: len(before)] == before
    assert [place.type for place in after[len(before) :]] == [
        RecordType.TRUNCATION,
        RecordType.BATCH,
        RecordType.BATCH,
    ]
    check(disk, writer)


@pytest.mark.parametrize("index", range(20))
def test_a_truncation_to_any_index(index: int) -> None:
    """In a log of several segments, nothing behind it, then something, then a start."""
    disk = WatchedDisk()
    writer = written(disk, 20)
    assert len(segments_of(disk)) == 5
    writer.write(truncate_after=index)
    check(disk, writer)
    writer.write(30, 40, term=2)
    check(disk, writer)
    for _ in range(6):
        writer.write(700, term=2)
    check(disk, writer)
    assert open_node(disk_of(files_of(disk))).contents() == writer.model


def test_truncations_follow_each_other() -> None:
    """Upwards and downwards, each within what the last one left, with and without something in between."""
    for seed in range(by_level(quick=15, ci=150)):
        chance = random.Random(seed)
        disk = WatchedDisk()
        writer = written(disk, 12)
        for term in range(2, 12):
            last = writer.model.last_index
            sizes = [chance.choice([10, 500, 1_500]) for _ in range(chance.randrange(4))]
            writer.write(*sizes, truncate_after=chance.randrange(max(1, last)), term=term)
            if chance.random() < 0.3:
                check(disk, writer)
            if chance.random() < 0.2:
                writer.log.close()
                disk.process_died()
                opened = open_node(disk, seed=term)
                assert opened.contents() == writer.model
                writer = Writer(opened.log, writer.model)
        check(disk, writer)


def test_a_truncation_of_nothing_is_nothing() -> None:
    """At the last entry, and above: no record, no sync."""
    disk = WatchedDisk()
    writer = written(disk, 3)
    before = files_of(disk)
    disk.operations.clear()
    for index in (3, 4, 99):
        writer.log.write([Persist(1, index, None, (), 0)])
    assert files_of(disk) == before
    assert disk.operations == []


def test_a_truncation_of_what_stands_in_the_same_group() -> None:
    """The group is not durable yet: its beginning is written first, so that the truncation finds it."""
    disk = WatchedDisk()
    writer = written(disk, 2)
    first = Persist(1, None, None, (batch(3), batch(4)), 0)
    second = Persist(2, 3, HardState(2, 1), (batch(4, 2), batch(5, 2)), 0)
    writer.log.write([first, second])
    writer.possible = [writer.model.stages(first)[-1].stages(second)[-1]]
    assert [one.term for one in writer.model.batches] == [1, 1, 1, 2, 2]
    check(disk, writer)


def test_a_truncation_that_finds_no_room_begins_a_segment() -> None:
    """In a full segment, to its very beginning too: what it replaces is dropped, what it goes on from is sealed."""
    for index, predecessor in ((3, 2), (2, 2), (1, 1), (0, 0)):
        disk = WatchedDisk()
        writer = written(disk, 0)
        writer.fill()
        writer.write(10, 20)
        writer.log.reserve()
        writer.fill()
        assert segments_of(disk) == ["000000000001.log", "000000000002.log"]
        writer.write(30, truncate_after=index, term=2)
        name = "000000000003.log"
        header = header_of(name, files_of(disk)[name])
        assert (header.predecessor, header.first_index) == (predecessor, index + 1)
        kept = [f"{kept:012d}.log" for kept in range(1, predecessor + 1)]
        assert segments_of(disk) == [*kept, name]
        for before in kept:
            assert places(files_of(disk)[before])[-1].type == RecordType.FOOTER
        check(disk, writer)


def test_everything_may_be_truncated() -> None:
    """Down to an empty log, which begins at 1 again, in a segment with no predecessor."""
    disk = WatchedDisk()
    writer = written(disk, 12)
    writer.write(truncate_after=0, hard_state=HardState(5, 2))
    assert len(segments_of(disk)) == 1
    check(disk, writer)
    assert open_node(disk_of(files_of(disk))).recovered.runs == []
    writer.write(10, term=5)
    check(disk, writer)


def test_the_space_of_dropped_segments_is_used_again_or_given_back() -> None:
    """A log that is cut again and again does not grow."""
    disk = WatchedDisk()
    writer = written(disk, 3)
    most = 0
    for term in range(2, 12):
        for _ in range(20):
            writer.write(800, term=term)
            writer.log.reserve()
        writer.write(truncate_after=3)
        most = max(most, disk.used_bytes)
        assert len(segments_of(disk)) <= 2
        assert len(disk.names) <= 5
    check(disk, writer)


# -- what rests on it


def test_the_hard_state_does_not_go_back_with_the_log() -> None:
    """It stood in a segment that is dropped."""
    disk = WatchedDisk()
    writer = written(disk, 12)
    writer.write(hard_state=HardState(7, 2))
    writer.write(truncate_after=2)
    check(disk, writer)
    assert open_node(disk_of(files_of(disk))).recovered.hard_state == HardState(7, 2)


def test_sessions_and_configurations_go_back_with_the_log() -> None:
    """Across segments, from what their footers said; what a start finds is what the running log has."""
    disk = WatchedDisk()
    opened = open_node(disk)
    other = Configuration(CONFIGURATION.members, frozenset((1,)), cluster_id=b"c" * 16)
    model = Model()

    def write(*batches: Batch, truncate_after: int | None = None) -> None:
        nonlocal model
        persist = Persist(1, truncate_after, None, batches, 0)
        model = model.stages(persist)[-1]
        opened.log.write([persist])

    for index in range(1, 13, 2):
        write(
            batch(index, size=900, session=5, sequence=index),
            batch(index + 1, size=900, session=index, sequence=1),
        )
    write(Batch.build(Kind.CONFIGURATION, 2, 13, 1, join_payloads([other.encode()])))
    write(batch(14, 2, size=900, session=5, sequence=13))
    assert open_node(disk_of(files_of(disk))).recovered.summary.configuration == other
    write(batch(8, 3, session=5, sequence=9), truncate_after=7)
    found = open_node(disk_of(files_of(disk)))
    assert found.contents() == model
    summary = found.recovered.summary
    assert summary.configuration == CONFIGURATION
    session = summary.sessions.get(5)
    assert session is not None
    assert session.next_sequence == 10
    assert summary.sessions.get(11) is None
    assert summary.sessions.get(3) is not None
    assert opened.log._summary.encode() == summary.encode()


def test_a_committed_configuration_is_the_only_one() -> None:
    """The one before it cannot come back, so nobody remembers it; the one behind it still can be taken back."""
    disk = WatchedDisk()
    opened = open_node(disk)
    batches = []
    for index in (1, 2):
        voted = Configuration(CONFIGURATION.members, frozenset((index,)))
        batches.append(Batch.build(Kind.CONFIGURATION, 1, index, 1, join_payloads([voted.encode()])))
    opened.log.write([Persist(1, None, None, tuple(batches), 1)])
    known = open_node(disk_of(files_of(disk))).recovered.summary.configurations
    assert [index for index, _ in known] == [1, 2]


def test_what_was_committed_is_remembered_across_a_truncation() -> None:
    """The lower bound to restart from never lies above what is left."""
    disk = WatchedDisk()
    writer = written(disk, 8)
    writer.write(10, commit_index=5)
    writer.write(10, truncate_after=6, term=2, commit_index=6)
    opened = open_node(disk_of(files_of(disk)))
    assert opened.contents() == writer.model
    assert opened.recovered.commit_index == 6


def test_a_lower_bound_above_the_end_is_brought_down_to_it() -> None:
    """A leader may know more committed than its own disk holds (thesis 10.2.1)."""
    disk = WatchedDisk()
    writer = written(disk, 3)
    writer.write(10, commit_index=9)
    opened = open_node(disk_of(files_of(disk)))
    assert opened.recovered.commit_index == 4


# -- while somebody reads there


def large_log(terms: int = 1) -> tuple[WatchedDisk, Writer]:
    """Batches of 60 KB in segments of 512 KiB: a read of one segment takes several calls."""
    disk = WatchedDisk()
    opened = open_node(disk, segment_bytes=512 << 10)
    writer = Writer(opened.log)
    for _ in range(14):
        writer.write(60_000, term=terms)
    return disk, writer


@pytest.mark.parametrize("keep", [1, 4, 7, 8, 9, 12, 13])
@pytest.mark.parametrize("step", range(6))
def test_a_reader_is_in_a_segment_while_it_is_cut(keep: int, step: int) -> None:
    """At any of its calls: it gets whole batches of the log as it was, perhaps fewer, and the log is not broken by it."""
    disk, writer = large_log()
    assert len(segments_of(disk)) == 2
    before = writer.model.batches
    calls = 0

    def cut(what: str, name: str) -> None:
        nonlocal calls
        if what not in ("open", "pread"):
            return
        calls += 1
        if calls == step + 1:
            disk.fault = None
            writer.write(60_000, truncate_after=keep, term=2)
            while writer.log.wants_reserve:
                writer.log.reserve()
            for _ in range(14):
                writer.write(60_000, term=2)

    disk.fault = cut
    found = writer.log.read(1, 14, 1 << 30)
    assert calls > step, "it was cut in the middle"
    assert found[:keep] == before[: len(found)][:keep]
    assert [one.first_index for one in found] == list(range(1, len(found) + 1))
    assert all(one in (*before, *writer.model.batches) for one in found)
    assert writer.log.read(1, writer.model.last_index, 1 << 30) == writer.model.batches
    check(disk, writer)


def test_a_reader_of_what_is_committed_is_not_disturbed_by_a_cut() -> None:
    """It gets all that it asks for, at any of its calls."""
    for step in range(3):
        disk, writer = large_log()
        calls = 0

        def cut(
            what: str, name: str, disk: WatchedDisk = disk, writer: Writer = writer, step: int = step
        ) -> None:
            nonlocal calls
            calls += 1
            if calls == step + 1:
                disk.fault = None
                writer.write(60_000, truncate_after=9, term=2)

        disk.fault = cut
        assert writer.log.read(1, 9, 1 << 30) == writer.model.batches[:9]
        assert disk.fault is None


def test_what_was_truncated_since_it_was_asked_for_is_not_there() -> None:
    """A reader comes late, to the newest segment or to one that was dropped: it gets nothing, and breaks nothing."""
    for keep in (0, 3, 9, 10):
        disk = WatchedDisk()
        writer = written(disk, 12, size=900)
        writer.write(truncate_after=keep)
        for first in (keep + 1, 12):
            assert writer.log.read(first, 12, 1 << 30) == []
        writer.write(20, term=2)
        check(disk, writer)


def test_a_cut_is_not_taken_for_damage() -> None:
    """A segment that goes away while `verify` is on its way to it."""
    disk, writer = large_log()
    dropped = segments_of(disk)[-1]

    def cut(what: str, name: str) -> None:
        if what == "open" and name == dropped:
            disk.fault = None
            writer.write(10, truncate_after=3, term=2)

    disk.fault = cut
    assert list(writer.log.verify()) == []
    assert disk.fault is None
    assert dropped not in segments_of(disk)


def test_damage_is_not_taken_for_a_cut() -> None:
    """A file that disappears without one ends the store."""
    disk, writer = large_log()
    disk.remove(segments_of(disk)[0])
    with pytest.raises(StorageError, match="No such file or directory: check the disk"):
        writer.log.read(1, 3, 1 << 30)
    assert not writer.log.wants_reserve


class LetsIn(list[tuple[int, int]]):
    """An index that lets somebody in between two looks of a reader: at the index, and at where the log ends."""

    def __init__(self, entries: list[tuple[int, int]], meanwhile: Callable[[], None]) -> None:
        super().__init__(entries)
        self._meanwhile = meanwhile

    def __len__(self) -> int:
        self._meanwhile()
        return super().__len__()


def test_a_reader_never_returns_an_index_twice() -> None:
    """It goes by an index from before a truncation and an end from after it, so that it comes past both."""
    disk = WatchedDisk()
    opened = open_node(disk, segment_bytes=LARGE)
    writer = Writer(opened.log)
    writer.write(*[100] * 8)
    before = writer.model.batches
    written: list[bool] = []

    def meanwhile() -> None:
        if not written:
            written.append(True)
            writer.write(*[100] * 7, truncate_after=5, term=2)

    assert opened.log._active.sparse is not None
    opened.log._active.sparse = LetsIn(opened.log._active.sparse, meanwhile)
    assert opened.log.read(1, 12, 1 << 20) == before
    assert written
    assert opened.log.read(1, 12, 1 << 20) == writer.model.batches


def test_readers_on_another_thread_see_one_log_or_the_other() -> None:
    """They read while entries are truncated and written anew: never one that is missing, or twice, in between."""
    disk = WatchedDisk()
    opened = open_node(disk, segment_bytes=LARGE)
    writer = Writer(opened.log)
    for _ in range(30):
        writer.write(100)
    ended = threading.Event()
    wrong: list[list[int]] = []
    interval = sys.getswitchinterval()

    def read() -> None:
        while not ended.is_set():
            found = [one.first_index for one in opened.log.read(1, 25, 1 << 20)]
            if found != list(range(1, len(found) + 1)) or len(found) < 20:
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(2)]
    sys.setswitchinterval(1e-5)
    try:
        for reader in readers:
            reader.start()
        for term in range(2, by_level(quick=150, ci=600)):
            writer.write(*[100] * 10, truncate_after=20, term=term)
    finally:
        ended.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(interval)
    assert wrong == []
    check(disk, writer)


@dataclass
class Overtaken:
    """A reader that begins after a step of a writer and goes on later. left: how many steps before it; begun: its batches."""

    disk: MemoryDisk
    extent: Extent
    left: int
    begun: Iterator[Batch] | None = None

    def setter(self) -> Callable[[Extent, str, object], None]:
        """Sets an attribute, which is a step."""

        def stepped(extent: Extent, name: str, value: object) -> None:
            object.__setattr__(extent, name, value)
            self.left -= 1
            if self.left == -1:
                assert self.extent.sparse, "the log began before"
                found = batches_of(self.disk, self.extent, self.extent.sparse, 1, 25)
                self.begun = chain([next(found)], found)

        return stepped


def test_reader_overtaken_by_a_truncation(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins after any step of a truncation and a write, and goes on when they have ended: it sees a log, no damage."""
    for step in range(100):
        disk = WatchedDisk()
        opened = open_node(disk, segment_bytes=LARGE)
        writer = Writer(opened.log)
        for _ in range(30):
            writer.write(100)
        reader = Overtaken(disk, opened.log._extents[0], step)
        with monkeypatch.context() as patch:
            patch.setattr(Extent, "__setattr__", reader.setter())
            writer.write(*[100] * 10, truncate_after=20, term=2)
        if reader.begun is None:
            assert step > 10
            return
        found = [one.first_index for one in reader.begun]
        assert found[:20] == list(range(1, 21)), step
        check(disk, writer)
    pytest.fail("a write takes ever more steps")


def test_what_a_truncation_takes_back_is_not_settled_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening folds a long segment in steps: only what was committed when a record was written is beyond recall behind it."""
    monkeypatch.setattr(recovery, "SETTLE_BATCHES", 1)
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    writer.write(10, 10, 10, session=1 << 40, sequence=1)
    writer.write(10, 10, session=1 << 40, sequence=4, commit_index=2)
    writer.write(10, 10, 10, term=2, truncate_after=2, session=2 << 40, sequence=1)
    writer.write(10, term=2, commit_index=5)
    opened.close()
    assert open_node(disk).contents() == writer.model
