"""A bit turns over, in each region of a segment: it is found and named by its place, never cut away, never served."""

from __future__ import annotations

import random

import pytest

from tests.storage.directory import (
    Place,
    WatchedDisk,
    closed_directory,
    disk_of,
    files_of,
    open_node,
    places,
    segments_of,
    unchanged,
)
from tests.storage.model import batch
from totora.core.effects import HardState, Persist
from totora.errors import ConfigurationError, RaftError, StorageError
from totora.sim.disk import MemoryDisk
from totora.storage.record import RECORD_HEADER_BYTES, RecordType
from totora.storage.segment import FIRST_RECORD, TRAILER_BYTES

FILES, MODEL = closed_directory()
SEGMENTS = segments_of(FILES)
NEWEST = SEGMENTS[-1]
REMEDY = "replace this node by a new one; an older copy would break what it promised"
SEALED = SEGMENTS[0]


def flipped(files: dict[str, bytes], name: str, offset: int, bit: int = 0) -> WatchedDisk:
    disk = disk_of(files)
    disk.flip(name, offset, bit)
    return disk


def refused(disk: WatchedDisk, error: type[RaftError] = StorageError) -> str:
    """Opening fails, changes nothing, and leaves nothing open; returns what it says."""
    with unchanged(disk), pytest.raises(error) as raised:
        open_node(disk)
    return str(raised.value)


def first(name: str, kind: RecordType) -> Place:
    return next(place for place in places(FILES[name]) if place.type == kind)


# -- the scenarios of the lessons


def test_midlog_corruption() -> None:
    """A flipped bit in the middle of the log is no torn tail: detected, named, never truncated away, never served."""
    disk = MemoryDisk()
    opened = open_node(disk)
    for index in range(1, 6):
        opened.log.write([Persist(index, None, None, (batch(index),), 0)])
    damaged = places(files_of(disk)[SEALED])[2]
    disk.crash(random.Random(1), "lost")
    disk.flip(SEALED, damaged.offset + RECORD_HEADER_BYTES + 70)
    before = files_of(disk)
    with pytest.raises(StorageError) as raised:
        open_node(disk)
    assert raised.value.path == f"/disk/{SEALED}"
    assert raised.value.offset == damaged.offset
    assert "nothing was cut" in str(raised.value)
    assert files_of(disk) == before


# -- a flip in each region


@pytest.mark.parametrize("at", range(108))
def test_a_flip_in_a_header_is_found_when_the_log_is_opened(at: int) -> None:
    """Each byte of the header block that means something, in a sealed segment and in the newest."""
    for name in (SEALED, NEWEST):
        error = ConfigurationError if at in (9, 10, 11) else StorageError
        why = refused(flipped(FILES, name, at, bit=at % 8), error)
        assert f"/disk/{name}" in why
        assert ("restore the file" if name == SEALED else REMEDY) in why or "upgrade" in why


@pytest.mark.parametrize("region", ["salt", "checksum", "length", "synced", "commit", "type", "payload"])
@pytest.mark.parametrize("kind", [RecordType.BATCH, RecordType.HARD_STATE, RecordType.TRUNCATION])
def test_a_flip_in_a_record_of_the_newest_segment_is_found_when_the_log_is_opened(
    kind: RecordType, region: str
) -> None:
    """In each field of each kind of record, while a later one says that it was synced."""
    where = {"salt": 1, "checksum": 5, "length": 9, "synced": 13, "commit": 17, "type": 24, "payload": 32}
    place = first(NEWEST, kind)
    why = refused(flipped(FILES, NEWEST, place.offset + where[region], bit=2))
    assert f"/disk/{NEWEST} at offset {place.offset:,}: damaged" in why
    assert REMEDY in why


@pytest.mark.parametrize("bit", range(8))
def test_a_flip_in_the_body_of_a_batch_is_found_when_the_log_is_opened(bit: int) -> None:
    """The record's checksum does not cover the body: the batch's own does."""
    place = first(NEWEST, RecordType.BATCH)
    why = refused(flipped(FILES, NEWEST, place.end - 1, bit))
    assert f"/disk/{NEWEST} at offset {place.offset:,}: damaged" in why


def test_a_flip_in_the_first_record_leaves_nothing_to_hide_behind() -> None:
    """Not a single sound record stands before it."""
    why = refused(flipped(FILES, NEWEST, FIRST_RECORD + 40))
    assert f"/disk/{NEWEST} at offset {FIRST_RECORD:,}" in why


def test_a_flip_in_a_sealed_segment_is_found_when_it_is_read() -> None:
    """Opening reads its footer alone; neither a read nor `verify` takes what it holds on trust."""
    at = 3
    place = [place for place in places(FILES[SEALED]) if place.type == RecordType.BATCH][at]
    for offset in (place.offset + 4, place.offset + RECORD_HEADER_BYTES + 8, place.end - 1):
        disk = flipped(FILES, SEALED, offset)
        opened = open_node(disk)
        sound = opened.log.read(1, at, 1 << 20)
        assert sound == MODEL.batches[:at], "what stands before the damage is served"
        (found,) = opened.log.verify()
        assert (found.path, found.offset) == (f"/disk/{SEALED}", place.offset)
        assert str(found).endswith(
            "damaged: not served, not cut; restore the file from a copy of this directory"
        )
        with pytest.raises(StorageError, match=rf"{SEALED} at offset {place.offset:,}: damaged") as raised:
            opened.log.read(1, MODEL.last_index, 1 << 20)
        with pytest.raises(StorageError) as again:
            opened.log.write([Persist(1, None, HardState(9, None), (), 0)])
        assert again.value is raised.value, "a node that holds damage stops"
        opened.close()
        assert places(files_of(disk)[NEWEST]) == places(FILES[NEWEST]), "no mark of a clean end"


def test_a_flip_in_a_sealed_segment_that_may_still_change_is_found_when_the_log_is_opened() -> None:
    """What is not known to be committed is read at the start, in order to take it back if need be."""
    name = SEGMENTS[3]
    place = places(FILES[name])[1]
    why = refused(flipped(FILES, name, place.offset + 50))
    assert f"/disk/{name} at offset {place.offset:,}: damaged" in why
    assert "restore the file" in why


@pytest.mark.parametrize("name", SEGMENTS[:-1])
def test_a_damaged_footer_costs_time_not_data(name: str) -> None:
    """The records say all that it says: the segment is read in its place, and `verify` names it."""
    footer = places(FILES[name])[-1]
    size = len(FILES[name])
    assert footer.type == RecordType.FOOTER
    for offset in (footer.offset, footer.offset + 9, footer.end - 1, size - 16, size - 11, size - 7):
        opened = open_node(flipped(FILES, name, offset))
        assert opened.contents() == MODEL
        found = list(opened.log.verify())
        repaired = name == SEGMENTS[-2]
        assert [error.path for error in found] == ([] if repaired else [f"/disk/{name}"])
        assert all(error.offset == footer.offset for error in found)
        opened.close()


def test_a_footer_that_is_damaged_later_is_found_when_it_is_needed() -> None:
    """The index of a sealed segment is read from its footer, long after the log was opened."""
    disk = disk_of(FILES)
    opened = open_node(disk)
    footer = places(FILES[SEALED])[-1]
    disk.flip(SEALED, footer.end - 1)
    assert [(error.path, error.offset) for error in opened.log.verify()] == [
        (f"/disk/{SEALED}", footer.offset)
    ]
    with pytest.raises(StorageError, match=f"{SEALED} at offset {footer.offset:,}: damaged"):
        opened.log.read(1, 2, 1 << 20)


def test_what_stands_behind_the_end_means_nothing() -> None:
    """Neither the zeros behind the records, nor the rest of the header block, nor a file in reserve hold anything."""
    size = len(FILES[NEWEST])
    end = places(FILES[NEWEST])[-1].end
    for offset in (2_000, end, end + 5, size - TRAILER_BYTES - 1, size - TRAILER_BYTES, size - 1):
        opened = open_node(flipped(FILES, NEWEST, offset))
        assert opened.contents() == MODEL
        opened.log.write([Persist(1, None, None, (batch(MODEL.last_index + 1, 9, size=900),), 0)])
        opened.close()


def test_verify_looks_at_everything() -> None:
    """What no entry stands in, too: a hard state, a truncation, what was truncated, the rest of the header block."""
    kinds = (RecordType.HARD_STATE, RecordType.TRUNCATION)
    records = [place for place in places(FILES[NEWEST]) if place.type in kinds]
    truncated = places(FILES[NEWEST])[5]
    wanted = [(place.offset + 36, place.offset) for place in (*records, truncated)]
    for offset, named in [*wanted, (3_000, 0)]:
        disk = disk_of(FILES)
        opened = open_node(disk)
        disk.flip(NEWEST, offset)
        assert [error.offset for error in opened.log.verify()] == [named]


def test_verify_names_the_damage_of_every_segment() -> None:
    """One finding for each, in their order; none in a sound log."""
    disk = disk_of(FILES)
    opened = open_node(disk)
    assert list(opened.log.verify()) == []
    for name in SEGMENTS:
        disk.flip(name, FIRST_RECORD + 40)
    found = list(opened.log.verify())
    assert [error.path for error in found] == [f"/disk/{name}" for name in SEGMENTS]
    assert {error.offset for error in found} == {FIRST_RECORD}
    disk.remove(SEALED)
    assert "No such file" in str(next(opened.log.verify()))
