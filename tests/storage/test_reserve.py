"""The file in reserve, and files that are used again: ready ahead of need, and never read as what they were."""

from __future__ import annotations

import errno
import random

import pytest

from tests.storage.directory import (
    SEGMENT_BYTES,
    WatchedDisk,
    Writer,
    closed_directory,
    disk_of,
    files_of,
    header_of,
    open_node,
    places,
    segments_of,
    tell,
)
from tests.storage.model import Model, batch
from totora.core.effects import Persist
from totora.errors import StorageError
from totora.sim.disk import MemoryDisk
from totora.storage.reserve import SLICE_BYTES
from totora.storage.segment import name_of, zero_fill
from totora.storage.wal import SMALL_BYTES

# -- the reserve


def test_the_next_segment_is_made_ready_ahead_in_slices() -> None:
    """Each synced, so that writes go in between; nothing is left to do for the append that needs it."""
    disk = WatchedDisk()
    opened = open_node(disk, segment_bytes=3 << 20)
    writer = Writer(opened.log)
    opened.log._reserve.take(0).close()
    disk.rename("reserve", "elsewhere")
    slices = 0
    while opened.log.wants_reserve:
        disk.operations.clear()
        opened.log.reserve()
        assert sum(size for what, _, size in disk.operations if what == "pwrite") == SLICE_BYTES
        assert [what for what, _, _ in disk.operations].count("sync") == 1
        writer.write(10)
        slices += 1
    assert slices == (3 << 20) // SLICE_BYTES
    assert files_of(disk)["reserve"] == bytes(3 << 20)
    opened.log.reserve()
    assert "reserve.tmp" not in files_of(disk)


def test_a_file_whose_size_was_never_synced_is_not_kept_in_reserve() -> None:
    """Its first sync fails, and the kernel takes for clean what the disk does not have: its size, too, once the power is lost."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    opened.log._reserve.take(0).close()
    disk.remove("reserve")
    begun = False

    def fault(what: str, name: str) -> None:
        nonlocal begun
        begun = begun or (what, name) == ("rename", "reserve")
        if begun and what == "sync":
            raise OSError(errno.EIO, "it says no")

    disk.fault = fault
    with pytest.raises(StorageError, match="it says no"):
        writer.write(*[SEGMENT_BYTES // 10] * 20)
    disk.fault = None
    opened.close()
    again = open_node(disk)
    writer = Writer(again.log, again.contents())
    first = again.log._active.header.number
    while again.log._active.header.number == first:
        writer.write(SEGMENT_BYTES // 10)
    disk.crash(random.Random(1), "lost")
    assert open_node(disk).contents() == writer.model


def test_large_groups_take_the_room_of_the_next_segment_and_fill_nothing() -> None:
    """The disk has enough to do; small ones, that wait for its syncs, have it filled as far as they need it."""
    disk = WatchedDisk()
    opened = open_node(disk, segment_bytes=3 << 20)
    writer = Writer(opened.log)
    opened.log._reserve.take(0).close()
    disk.remove("reserve")
    assert opened.log.reserve_due
    opened.log.reserve()
    assert files_of(disk)["reserve.tmp"] == bytes(3 << 20)
    for _ in range(20):
        writer.write(SMALL_BYTES)
        assert not opened.log.reserve_due
    while not opened.log.reserve_due:
        writer.write(SMALL_BYTES // 2)
    assert opened.log._small_bytes > SLICE_BYTES // 2
    disk.operations.clear()
    while opened.log.wants_reserve:
        writer.write(SMALL_BYTES)
        if opened.log._active.header.number > 1:
            break
    assert not [name for what, name, size in disk.operations if what == "pwrite" and size >= SLICE_BYTES]
    opened.close()
    assert open_node(disk, segment_bytes=3 << 20).contents() == writer.model


def test_a_segment_is_made_at_once_if_none_is_ready() -> None:
    """Half of one, too: it may be of the wrong size."""
    disk = WatchedDisk()
    opened = open_node(disk, segment_bytes=2 << 20)
    writer = Writer(opened.log)
    writer.write(1_500_000)
    opened.log.reserve()
    assert "reserve.tmp" in files_of(disk)
    writer.write(1_600_000, 1_700_000)
    opened.close()
    assert disk.open_files == []
    assert open_node(disk, segment_bytes=2 << 20).contents() == writer.model


@pytest.mark.parametrize("size", [0, 100, SEGMENT_BYTES - 1])
def test_a_reserve_that_is_too_small_is_made_anew(size: int) -> None:
    """Of another setting, or cut off: a segment never begins in it."""
    disk = WatchedDisk()
    for _ in range(2):
        open_node(disk).close()
    disk.truncate("reserve", size)
    opened = open_node(disk)
    writer = Writer(opened.log)
    writer.write(900, 900, 900, 900, 900)
    name = name_of(2)
    assert header_of(name, files_of(disk)[name]).size_bytes == SEGMENT_BYTES
    assert len(disk.open_files) == 1, "the newest segment"
    opened.close()
    assert open_node(disk).contents() == writer.model


def test_segments_may_change_their_size_between_starts() -> None:
    """Larger, and smaller."""
    disk = WatchedDisk()
    model = Model()
    for segment_bytes in (8 << 10, 16 << 10, 64 << 10, 12 << 10):
        opened = open_node(disk, segment_bytes=segment_bytes)
        assert opened.contents() == model
        writer = Writer(opened.log, model)
        for _ in range(8):
            writer.write(2_000, 6_000, 10)
            opened.log.reserve()
        opened.close()
        model = writer.model
    assert open_node(disk).contents() == model


def test_what_a_crash_left_half_made_is_removed() -> None:
    """The reserve that was not finished, whatever is in it, beside one that was and without."""
    files, model = closed_directory()
    for reserve in ({}, {"reserve": bytes(SEGMENT_BYTES)}):
        disk = disk_of(files | reserve | {"reserve.tmp": b"half"})
        assert open_node(disk).contents() == model
        assert "reserve.tmp" not in files_of(disk)
        assert files_of(disk)["reserve"] == bytes(SEGMENT_BYTES)


def test_a_reserve_that_is_ready_is_kept() -> None:
    """From one start to the next: it is not made again."""
    files, _ = closed_directory()
    disk = disk_of(files)
    open_node(disk).close()
    reserve = disk.names["reserve"]
    disk.operations.clear()
    open_node(disk).close()
    assert disk.names["reserve"] is reserve
    assert not [name for _, name, _ in disk.operations if name == "reserve.tmp"]


def test_a_dropped_segment_does_not_end_what_is_being_made() -> None:
    """There is one file in reserve, not one and a half."""
    disk = WatchedDisk()
    opened = open_node(disk, segment_bytes=2 << 20)
    writer = Writer(opened.log)
    for _ in range(2):
        writer.write(1_000_000, 900_000)
        while opened.log.wants_reserve:
            opened.log.reserve()
    opened.log._reserve.take(0).close()
    disk.rename("reserve", "elsewhere")
    opened.log.reserve()
    half = disk.names["reserve.tmp"]
    opened.log._reserve.recycle(segments_of(disk)[-1])
    assert "reserve" not in files_of(disk)
    while opened.log.wants_reserve:
        opened.log.reserve()
    assert disk.names["reserve"] is half


def test_zeros_are_written_up_to_the_end_and_no_further() -> None:
    """Also where the slice is no multiple of anything."""
    disk = MemoryDisk()
    file = disk.open("zeros", create=True)
    zero_fill(file, 0, (1 << 20) + 5)
    zero_fill(file, (1 << 20) + 5, (1 << 20) + 12)
    assert files_of(disk)["zeros"] == bytes((1 << 20) + 12)


# -- files that are used again


def test_each_use_of_a_file_has_a_salt_of_its_own() -> None:
    """Nobody can tell it beforehand and write an entry whose bytes read as a record."""
    salts: set[int] = set()
    for seed in (1, 2, 3):
        disk = WatchedDisk()
        opened = open_node(disk, seed=seed)
        tell(opened)
        files = files_of(disk)
        salts |= {header_of(name, files[name]).salt for name in segments_of(files)}
        assert len(salts) == seed * len(segments_of(files))
    assert 0 not in salts, "zeros never read as a record"


def recycled() -> tuple[WatchedDisk, Model]:
    """A log whose newest segment stands on a file that was another one, with records of it behind its end."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    writer.write(10)
    for _ in range(3):
        writer.write(900, 900, 900)
    while opened.log.wants_reserve:
        opened.log.reserve()
    dropped = [disk.names[name] for name in segments_of(disk)[1:]]
    assert len(dropped) > 1
    writer.write(20, truncate_after=1, term=2)
    writer.write(950, 950, 950, 950, term=2)
    writer.write(30, term=2)
    newest = disk.names[segments_of(disk)[-1]]
    assert any(newest is inode for inode in dropped)
    return disk, writer.model


def test_records_of_an_earlier_use_are_never_read_as_new() -> None:
    """They stand where the next record will begin, sound in themselves: salt, number and offset tell them apart."""
    disk, model = recycled()
    newest = segments_of(disk)[-1]
    end = places(files_of(disk)[newest])[-1].end
    assert any(files_of(disk)[newest][end:]), "something of the earlier use is left"
    for _ in range(3):
        disk.crash(random.Random(1), "lost")
        opened = open_node(disk)
        assert opened.contents() == model
        assert list(opened.log.verify()) == []
        writer = Writer(opened.log, model)
        writer.write(10, 20)
        model = writer.model


def test_an_earlier_record_of_the_same_file_never_comes_back_behind_a_torn_tail() -> None:
    """Two writes are lost in a torn tail, the second one whole: what is written then ends just before it."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    writer.write(100)
    kept = writer.model
    first = batch(2, size=50)
    opened.log.write([Persist(9, None, None, (first, batch(3, size=60)), 0)])
    torn = places(files_of(disk)[name_of(1)])[1]
    disk.flip(name_of(1), torn.offset + 40)
    disk.crash(random.Random(1), "lost")
    for _ in range(2):
        opened = open_node(disk)
        assert opened.contents() == kept
        disk.crash(random.Random(1), "lost")
    opened = open_node(disk)
    opened.log.write([Persist(9, None, None, (first,), 0)])
    disk.crash(random.Random(1), "lost")
    opened = open_node(disk)
    assert opened.contents().batches == [*kept.batches, first]


def test_a_file_gets_a_new_header_only_once_its_old_name_is_gone_for_good() -> None:
    """Else it could come back under the old name, as a segment that it is not."""
    disk, _ = recycled()
    changed = [
        (what, name)
        for what, name, _ in disk.operations
        if what in ("rename", "sync_dir", "pwrite", "allocate")
    ]
    for at, (what, name) in enumerate(changed):
        if (what, name) == ("rename", "reserve") and changed[at - 1][1] != "reserve.tmp":
            following = changed[at + 1 :]
            assert ("sync_dir", "") in following
            synced = following.index(("sync_dir", ""))
            assert ("pwrite", "reserve") not in following[:synced]
