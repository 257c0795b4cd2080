"""A file lost its end, is missing, or is another one: it is noticed and named, and nothing is cut or removed."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from tests.storage.directory import (
    WatchedDisk,
    Writer,
    closed_directory,
    disk_of,
    files_of,
    header_of,
    open_node,
    segments_of,
    tell,
    unchanged,
)
from tests.storage.model import Model, batch
from totora.core.batch import Batch, Kind, join_payloads
from totora.core.effects import HardState, Persist
from totora.errors import ConfigurationError, RaftError, StorageError
from totora.sim.disk import MemoryDisk
from totora.storage.segment import FIRST_RECORD, TRAILER_BYTES

FILES, MODEL = closed_directory()
SEGMENTS = segments_of(FILES)
NEWEST = SEGMENTS[-1]
REMEDY = "replace this node by a new one; an older copy would break what it promised"
SEALED = SEGMENTS[0]


def refused(disk: WatchedDisk, error: type[RaftError] = StorageError) -> str:
    """Opening fails, changes nothing, and leaves nothing open; returns what it says."""
    with unchanged(disk), pytest.raises(error) as raised:
        open_node(disk)
    return str(raised.value)


# -- cut off


@pytest.mark.parametrize("name", [SEALED, NEWEST])
@pytest.mark.parametrize("size", [0, 1, 100, FIRST_RECORD - 1])
def test_a_segment_that_ends_within_its_header_is_refused(name: str, size: int) -> None:
    """Not even what it is can be told."""
    disk = disk_of(FILES)
    disk.truncate(name, size)
    assert f"/disk/{name} at offset {size:,}: the file is cut off here" in refused(disk)


@pytest.mark.parametrize("name", [SEALED, SEGMENTS[3], NEWEST])
@pytest.mark.parametrize("back", [1, TRAILER_BYTES, 500])
def test_a_segment_that_ends_early_is_refused(name: str, back: int) -> None:
    """Within its records, even where only zeros are missing: a file that shrank is not the file that was written."""
    header = header_of(name, FILES[name])
    for size in (FIRST_RECORD, FIRST_RECORD + 100, header.size_bytes - back):
        disk = disk_of(FILES)
        disk.truncate(name, size)
        why = refused(disk)
        assert f"/disk/{name} at offset {size:,}: the file is cut off here" in why
        assert (REMEDY if name == NEWEST else "restore the file") in why


def test_a_segment_that_ends_within_a_footer_that_grew_it_costs_no_data() -> None:
    """The footer reached beyond the segment's size: what is cut off is the footer alone."""
    (name,) = (name for name in SEGMENTS[:-2] if len(FILES[name]) > header_of(name, FILES[name]).size_bytes)
    for missing in (1, TRAILER_BYTES, len(FILES[name]) - header_of(name, FILES[name]).size_bytes):
        disk = disk_of(FILES)
        disk.truncate(name, len(FILES[name]) - missing)
        opened = open_node(disk)
        assert opened.contents() == MODEL
        assert [error.path for error in opened.log.verify()] == [f"/disk/{name}"]


@pytest.mark.parametrize("size", [0, 10, FIRST_RECORD, FIRST_RECORD + 100])
def test_a_segment_that_shrinks_while_it_is_in_use_is_found_when_it_is_read(size: int) -> None:
    """Its footer, and its records, are no longer where they were."""
    disk = disk_of(FILES)
    opened = open_node(disk)
    disk.truncate(SEALED, size)
    assert [error.path for error in opened.log.verify()] == [f"/disk/{SEALED}"]
    with pytest.raises(StorageError, match=f"{SEALED} at offset .*: damaged"):
        opened.log.read(1, 3, 1 << 20)
    disk = disk_of(FILES)
    opened = open_node(disk)
    opened.log.read(1, 1, 1)
    disk.truncate(SEALED, size)
    with pytest.raises(StorageError, match=f"{SEALED} at offset .*: damaged"):
        opened.log.read(1, 3, 1 << 20)


# -- the wrong files


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_missing_segment_is_noticed(name: str) -> None:
    """The first, one in the middle, the newest."""
    disk = disk_of(FILES)
    disk.remove(name)
    why = refused(disk)
    at = SEGMENTS.index(name)
    if name == NEWEST:
        assert f"/disk/{SEGMENTS[-2]}: complete, but the segment that follows it is missing: find" in why
        assert REMEDY in why
    else:
        assert f"/disk/{name}: missing, {SEGMENTS[at + 1]} follows it: restore the file" in why


def test_a_log_that_lost_all_segments_is_noticed() -> None:
    """An empty log in a directory that was started before is not a new one: it would vote twice."""
    disk = disk_of({"IDENTITY": FILES["IDENTITY"]})
    why = refused(disk)
    assert f"/disk: all segments of the log are missing: find them, or {REMEDY}" in why


def test_a_newest_segment_that_goes_missing_after_a_crash_within_a_rotation_is_noticed() -> None:
    """The crash left its predecessor without a footer; the next start writes it."""
    disk = MemoryDisk()
    opened = open_node(disk)

    def crash(what: str, name: str) -> None:
        if what == "pwrite" and len(segments_of(disk)) == 2:
            raise RuntimeError("power")

    disk.fault = crash
    with pytest.raises(RuntimeError):
        tell(opened)
    disk.fault = None
    disk.crash(random.Random(1), "lost")
    opened = open_node(disk)
    held = opened.contents()
    opened.log.write([Persist(1, None, None, (batch(held.last_index + 1, 2),), 0)])
    opened.close()
    files = files_of(disk)
    assert len(segments_of(files)) == 2
    del files["000000000002.log"]
    assert f"/disk/{SEALED}: complete, but" in refused(disk_of(files))


def test_a_newest_segment_that_goes_missing_after_a_cut_of_a_full_one_is_noticed() -> None:
    """There was no room for the truncation in the segment itself: it is sealed, though it was not the last word."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    writer.write(10, 20)
    writer.fill()
    writer.write(16, truncate_after=1, term=2, hard_state=HardState(2, None))
    opened.close()
    files = files_of(disk)
    assert segments_of(files) == ["000000000001.log", "000000000002.log"]
    assert open_node(disk_of(files)).contents() == writer.model
    del files["000000000002.log"]
    assert f"/disk/{SEALED}: complete, but" in refused(disk_of(files))


@pytest.mark.parametrize("name", [SEALED, SEGMENTS[3], NEWEST])
def test_a_foreign_file_of_the_right_name_is_refused(name: str) -> None:
    """Zeros, text, or noise."""
    noise = random.Random(1).randbytes(8_192)
    for data in (bytes(8_192), b"to whom it may concern\n" * 400, noise):
        why = refused(disk_of(FILES | {name: data}))
        assert f"/disk/{name} at offset 0: not a segment of a totora log, or its header is damaged" in why


@pytest.mark.parametrize("name", [SEALED, SEGMENTS[3], NEWEST, "000000000003.log", "000000000099.log"])
def test_a_segment_of_another_directory_is_refused(name: str) -> None:
    """In place of one, behind the newest, and where a number is free: it is somebody's data, so it is not removed."""
    disk = WatchedDisk()
    opened = open_node(disk, seed=2)
    tell(opened)
    opened.close()
    source = name if name in disk.names else SEALED
    why = refused(disk_of(FILES | {name: files_of(disk)[source]}), ConfigurationError)
    assert f"/disk/{name} belongs to another data directory: put it back" in why


def test_a_segment_under_another_name_is_refused() -> None:
    """The newest renamed upwards, and two that changed places."""
    renamed = {name: data for name, data in FILES.items() if name != NEWEST}
    why = refused(disk_of(renamed | {"000000000077.log": FILES[NEWEST]}), ConfigurationError)
    assert f"/disk/000000000077.log is segment 10 under another name: rename it to {NEWEST}" in why
    swapped = FILES | {SEGMENTS[1]: FILES[SEGMENTS[2]], SEGMENTS[2]: FILES[SEGMENTS[1]]}
    assert "under another name" in refused(disk_of(swapped), ConfigurationError)


def test_a_segment_of_a_newer_format_is_refused() -> None:
    """Its header may look otherwise from there on: nothing else of it is looked at."""
    disk = disk_of(FILES)
    disk.names[NEWEST].data[8] = 2
    why = refused(disk, ConfigurationError)
    assert f"/disk/{NEWEST} has format version 2, this totora knows 1: upgrade it" in why


@pytest.mark.parametrize("counts", [(1, 1), (2, 1)], ids=["of other sizes", "of other counts"])
def test_a_segment_of_a_copy_that_went_another_way_is_refused(counts: tuple[int, int]) -> None:
    """The same store and number, another past: two nodes ran on copies of one directory, and their files were mixed."""
    start = WatchedDisk()
    open_node(start).close()
    ways: list[dict[str, bytes]] = []
    for way, count in enumerate(counts):
        disk = disk_of(files_of(start))
        opened = open_node(disk)
        model = Model()
        for n in range(15):
            # Of the same bytes, whether of one entry or of two; or of some more.
            size = 600 - 12 * (count - 1) if counts[0] > 1 else 600 + 40 * way
            data = join_payloads([b"x" * size] if count == 1 else [b"x" * (size - 300 + 4), b"x" * 304])
            one = Batch.build(Kind.ENTRIES, 1, model.last_index + 1, count, data)
            write = Persist(n, None, None, (one,), model.last_index)
            opened.log.write([write])
            model = model.stages(write)[-1]
        opened.close()
        assert open_node(disk_of(files_of(disk))).contents() == model
        ways.append(files_of(disk))
    one_way, other_way = ways
    for name, successor in list(pairwise(segments_of(one_way)))[:2]:
        why = refused(disk_of(one_way | {name: other_way[name]}))
        assert "does not go on where it ends: one of them is of another copy, put the right one back" in why
        assert f"/disk/{name}: {successor}" in why or f": {name}" in why


def test_a_log_that_begins_in_its_middle_is_refused() -> None:
    """A first segment that says it goes on where nothing was: nobody writes such a one."""
    disk = disk_of({})
    opened = open_node(disk)
    opened.log._begin_segment(None, 5)
    disk.remove(SEALED)
    opened.close()
    why = refused(disk)
    assert "/disk/000000000002.log at offset 0: does not begin where the log begins" in why
