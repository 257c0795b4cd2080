"""Reading: whole batches, as many as were asked for, from few bytes."""

from __future__ import annotations

import pytest

from tests.storage.directory import (
    WatchedDisk,
    Writer,
    closed_directory,
    disk_of,
    files_of,
    open_node,
    places,
    segments_of,
)
from tests.storage.model import Model, batch
from totora.core.effects import Persist
from totora.storage.reading import READ_BYTES
from totora.storage.recovery import TAIL_BYTES_MAX
from totora.storage.segment import SPARSE_BYTES
from totora.storage.wal import INDEXES_MAX

FILES, MODEL = closed_directory()


def preads(disk: WatchedDisk) -> list[tuple[str, int]]:
    return [(name, size) for what, name, size in disk.operations if what == "pread"]


def test_any_range_is_read() -> None:
    """From each index to each, across sealed, cut and oversized segments and what was truncated within them."""
    opened = open_node(disk_of(FILES))
    for first in range(1, MODEL.last_index + 1):
        for last in range(first, MODEL.last_index + 1):
            found = opened.log.read(first, last, 1 << 30)
            assert found == MODEL.batches[first - 1 : last]


def test_any_range_is_read_while_it_is_written() -> None:
    """The log that wrote it all, and never read a footer before."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    for n in range(40):
        writer.write(900, 20)
        last = writer.model.last_index
        for first in {1, last // 2, last - 1, last} - {0}:
            assert opened.log.read(first, last, 1 << 30) == writer.model.batches[first - 1 :]
        if n % 7 == 5:
            writer.write(truncate_after=last - 3)


def test_a_batch_is_read_whole() -> None:
    """From an index in its middle, and to one."""
    disk = WatchedDisk()
    opened = open_node(disk)
    batches = [batch(first, count=10) for first in (1, 11, 21)]
    opened.log.write([Persist(1, None, None, tuple(batches), 0)])
    for first, last in ((1, 1), (5, 5), (10, 10)):
        assert opened.log.read(first, last, 1 << 20) == batches[:1]
    assert opened.log.read(10, 11, 1 << 20) == batches[:2]
    assert opened.log.read(15, 25, 1 << 20) == batches[1:]
    assert opened.log.read(30, 30, 1 << 20) == batches[2:]


def test_a_read_stops_before_its_limit() -> None:
    """But returns one batch at least: else nobody would get past a large one."""
    opened = open_node(disk_of(FILES))
    sizes = [len(one.data) for one in MODEL.batches]
    for count in range(1, MODEL.last_index + 1):
        limit = sum(sizes[:count])
        assert opened.log.read(1, MODEL.last_index, limit) == MODEL.batches[:count]
        assert len(opened.log.read(1, MODEL.last_index, limit - 1)) == max(1, count - 1)
    assert opened.log.read(5, MODEL.last_index, 0) == MODEL.batches[4:5]
    assert opened.log.read(5, 5, 1 << 20) == MODEL.batches[4:5]


def test_nothing_behind_the_last_index_is_touched() -> None:
    """Damage there, in the same segment and in the next one, is somebody else's."""
    disk = disk_of(FILES)
    opened = open_node(disk)
    batches = [place for place in places(FILES[segments_of(FILES)[0]]) if place.type == 1]
    disk.flip(segments_of(FILES)[0], batches[4].offset)
    disk.flip(segments_of(FILES)[1], batches[0].offset)
    disk.operations.clear()
    assert opened.log.read(2, 4, 1 << 30) == MODEL.batches[1:4]
    assert {name for name, _ in preads(disk)} == {segments_of(FILES)[0]}


def test_a_read_finds_its_place_by_the_sparse_index() -> None:
    """In a segment of 4 MiB, sealed or not: it reads near the place, not from the beginning."""
    disk = WatchedDisk()
    opened = open_node(disk, segment_bytes=4 << 20)
    writer = Writer(opened.log)
    while len(segments_of(disk)) < 2:
        writer.write(*[1_000] * 50)
    for _ in range(40):
        writer.write(*[1_000] * 50)
    opened.close()
    opened = open_node(disk, segment_bytes=4 << 20)
    last = writer.model.last_index
    for first in (1, 500, 2_000, 3_000, last - 500, last):
        opened.log.read(first, first, 1)
        disk.operations.clear()
        assert opened.log.read(first, first, 1) == [writer.model.batches[first - 1]]
        assert len(preads(disk)) == 1, "one call brings the place and what lies before it"
    assert SPARSE_BYTES < READ_BYTES


def test_batches_larger_than_a_call_are_read() -> None:
    """Among small ones, at the end of what one call brings, and alone."""
    disk = WatchedDisk()
    opened = open_node(disk, segment_bytes=2 << 20)
    writer = Writer(opened.log)
    writer.write(*[1_000] * 200, 300_000, 10, 600_000, 20, 262_000, 30)
    assert opened.log.read(1, writer.model.last_index, 1 << 30) == writer.model.batches
    opened.close()
    opened = open_node(disk, segment_bytes=2 << 20)
    assert opened.contents() == writer.model


@pytest.mark.parametrize("size", range(950, 1_082, 11))
def test_a_record_may_begin_anywhere_near_the_end_of_a_call(size: int) -> None:
    """Its header half in what one call brought and half behind it, or its payload."""
    disk = WatchedDisk()
    opened = open_node(disk, segment_bytes=1 << 20)
    writer = Writer(opened.log)
    writer.write(*[size] * 700)
    assert opened.log.read(1, 700, 1 << 30) == writer.model.batches


def test_few_indexes_are_kept_in_memory() -> None:
    """Of a long log, read from end to end, cut, and opened while all of it may still be taken back."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)

    def known() -> int:
        return sum(extent.sparse is not None for extent in opened.log._extents)

    while len(segments_of(disk)) <= 3 * INDEXES_MAX:
        writer.write(900, 900)
        writer.log.reserve()
    assert known() == 1, "that of the newest segment"
    for _ in range(2):
        assert opened.log.read(1, writer.model.last_index, 1 << 30) == writer.model.batches
        assert known() == INDEXES_MAX + 1
    for _ in range(INDEXES_MAX):
        last = writer.model.last_index
        opened.log.read(last - 6, last, 1 << 30)
        writer.write(10, truncate_after=last - 5, term=2)
        assert known() <= INDEXES_MAX + 1
    opened.close()
    opened = open_node(disk)
    assert known() == 1
    assert opened.contents() == writer.model


def test_the_newest_batches_are_handed_over_at_the_start() -> None:
    """So that followers that are nearly up to date need no disk; no more than a bound, and none if the last one exceeds it."""
    for sizes, expected in (
        ((1_000_000,) * 6, 4),
        ((3_000_000, 2_000_000), 1),
        ((10, 4_500_000), 0),
        ((10, 20, 30), 3),
    ):
        disk = WatchedDisk()
        opened = open_node(disk, segment_bytes=1 << 20)
        writer = Writer(opened.log)
        writer.write(*sizes)
        opened.close()
        opened = open_node(disk, segment_bytes=1 << 20)
        tail = opened.recovered.tail
        assert tail == writer.model.batches[len(sizes) - expected :]
        assert sum(len(one.data) for one in tail) <= TAIL_BYTES_MAX
        assert opened.recovered.largest_batch_bytes == max(len(one.data) for one in writer.model.batches)


def test_what_is_handed_over_has_no_hole() -> None:
    """A segment with a damaged footer is read for its own sake: it is not what comes before the newest one."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    while len(segments_of(disk)) < 5:
        last = writer.model.last_index
        writer.write(900, commit_index=max(0, last - 1), session=1 + last % 3, sequence=1 + last // 3)
    opened.close()
    files = files_of(disk)
    damaged = segments_of(files)[1]
    disk.flip(damaged, places(files[damaged])[-1].offset)
    opened = open_node(disk)
    assert opened.contents() == writer.model
    tail = opened.recovered.tail
    assert 0 < len(tail) < 8
    assert tail == writer.model.batches[-len(tail) :]


def test_an_empty_log_is_opened() -> None:
    """There is nothing to read, and nothing of it is damaged."""
    disk = WatchedDisk()
    open_node(disk).close()
    opened = open_node(disk)
    assert opened.contents() == Model()
    assert opened.recovered.last_index == 0
    assert opened.log.read(1, 1, 1) == []
    assert list(opened.log.verify()) == []
