"""Segments follow each other and are sealed; opening a log costs little, however long it is."""

from __future__ import annotations

import random
from pathlib import Path

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
)
from tests.storage.model import STORE_ID, Model
from totora.aio.disk import RealDisk
from totora.core.effects import HardState
from totora.storage.record import RecordType
from totora.storage.segment import (
    FIRST_RECORD,
    TRAILER_BYTES,
    SegmentHeader,
    name_of,
    number_of,
)

HEADER = bytes.fromhex(
    "544f544f5241574c"  # TOTORAWL
    "01000000"  # format version
    "45332211"  # salt
    "73737373737373737373737373737373"  # store_id
    "0700000000000000"  # number
    "0500000000000000"  # predecessor
    "a00f000000000000"  # predecessor_end
    "2a00000000000000"  # first_index
    "0100000000000000"  # base_index
    "0200000000000000"  # base_term
    "0900000000000000"  # current_term
    "0300000000000000"  # voted_for
    "0020000000000000"  # size_bytes
    "de45182c"  # checksum
)


def log_of(segments: int, segment_bytes: int = SEGMENT_BYTES) -> tuple[dict[str, bytes], Model]:
    """The files of a log of so many full segments and a little more, all of it committed but the end."""
    disk = WatchedDisk()
    opened = open_node(disk, segment_bytes=segment_bytes)
    writer = Writer(opened.log)
    while len(segments_of(disk)) <= segments:
        writer.write(900, 30, commit_index=max(0, writer.model.last_index - 2))
        opened.log.reserve()
    writer.write(20, commit_index=writer.model.last_index)
    opened.close()
    return files_of(disk), writer.model


# -- names and headers


def test_the_header_is_fixed() -> None:
    """Golden bytes of version 1, and zeros up to the first record."""
    header = SegmentHeader(0x11223345, STORE_ID, 7, 5, 4_000, 42, 1, 2, HardState(9, 3), 8_192)
    assert header.encode() == HEADER.ljust(FIRST_RECORD, b"\0")
    assert header_of(name_of(7), header.encode().ljust(8_192, b"\0")) == header


def test_a_segment_is_known_by_its_name() -> None:
    """Numbers from 1, of 12 digits; everything else in the directory is something else."""
    for number in (1, 42, 10**12 - 1):
        assert number_of(name_of(number)) == number
    for name in (
        "",
        "LOCK",
        "IDENTITY",
        "reserve",
        "reserve.tmp",
        "1.log",
        "000000000001",
        "000000000001.",
        "000000000001.txt",
        "000000000001.log.bak",
        "-00000000001.log",
        "00000000000\N{SUPERSCRIPT TWO}.log",
        "00000000000\N{ARABIC-INDIC DIGIT TWO}.log",
        "000000000000.log",
    ):
        assert number_of(name) is None, name


def test_other_files_in_the_directory_are_left_alone() -> None:
    """Among them one whose name is nearly that of a segment."""
    files, model = closed_directory()
    strangers = {"notes.txt": b"mine", "00000000000\N{SUPERSCRIPT TWO}.log": b"x", "000000000000.log": b"y"}
    disk = disk_of(files | strangers)
    assert open_node(disk).contents() == model
    assert files_of(disk).items() >= strangers.items()


# -- full segments


def test_a_full_segment_is_sealed_and_has_a_successor() -> None:
    """It names where it goes on; only the newest one has no footer."""
    files, model = log_of(5)
    names = segments_of(files)
    assert names == [name_of(number) for number in range(1, 7)]
    next_index = 1
    for name, before in zip(names, [None, *names[:-1]], strict=True):
        header, records = header_of(name, files[name]), places(files[name])
        assert header.first_index == next_index
        assert header.predecessor == (number_of(before) if before else 0)
        assert header.predecessor_end == (places(files[before])[-1].offset if before else 0)
        next_index += sum(place.type == RecordType.BATCH for place in records)
        assert records[-1].type == (RecordType.MARK if name == names[-1] else RecordType.FOOTER)
    assert next_index == model.last_index + 1
    assert open_node(disk_of(files)).contents() == model


@pytest.mark.parametrize("segment_bytes", [SEGMENT_BYTES, 32 << 10])
def test_opening_reads_headers_and_footers_and_the_newest_segment(segment_bytes: int) -> None:
    """Whatever the log's length: of each sealed segment the same few bytes, and not one record."""
    for segments in (4, 16):
        files, model = log_of(segments, segment_bytes)
        disk = disk_of(files)
        opened = open_node(disk, segment_bytes=segment_bytes)
        *sealed, newest = segments_of(files)
        for name in sealed:
            reads = [size for what, file, size in disk.operations if (what, file) == ("pread", name)]
            assert reads[:2] == [FIRST_RECORD, TRAILER_BYTES]
            assert len(reads) == 3
            assert reads[2] <= len(files[name]) - TRAILER_BYTES - places(files[name])[-1].offset
            assert not any(what == "pwrite" and file == name for what, file, _ in disk.operations)
        assert sum(size for what, file, size in disk.operations if (what, file) == ("pread", newest)) <= (
            FIRST_RECORD + TRAILER_BYTES + len(files[newest])
        )
        assert opened.recovered.commit_index == model.last_index - 1
        assert opened.contents() == model


def test_a_long_log_needs_few_descriptors(tmp_path: Path) -> None:
    """Neither opening it, nor writing, cutting and reading it holds more than one segment open."""
    files, model = log_of(12)
    disk = disk_of(files)
    opened = open_node(disk)
    assert disk.open_files == [segments_of(files)[-1]]
    opened.contents()
    list(opened.log.verify())
    assert len(disk.open_files) == 1
    writer = Writer(opened.log, model)
    for _ in range(4):
        writer.write(900, 900, 900)
        opened.log.reserve()
    assert len(disk.open_files) == 1
    writer.write(10, truncate_after=model.last_index - 3, term=2)
    writer.write(10, truncate_after=model.last_index - 20, term=3)
    assert len(disk.open_files) == 1
    opened.close()
    assert disk.open_files == []
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    before = len(list(Path("/proc/self/fd").iterdir()))
    real = open_node(RealDisk(str(tmp_path)))  # type: ignore[arg-type]
    assert real.contents() == model
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2, "the lock and the newest segment"
    real.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_batch_larger_than_a_segment_gets_one_of_its_own_size() -> None:
    """As the very first one, one behind the other, and among small ones."""
    for sizes in ((30_000,), (100, 30_000, 40_000, 20), (10, 9_000, 10)):
        disk = WatchedDisk()
        opened = open_node(disk)
        writer = Writer(opened.log)
        writer.write(*sizes)
        opened.close()
        assert open_node(disk).contents() == writer.model
        assert max(map(len, files_of(disk).values())) > max(sizes)


def test_a_hard_state_survives_its_segment() -> None:
    """Each segment begins with the one in force, so the newest alone is enough."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    writer.write(10, hard_state=HardState(3, 2), term=3)
    while len(segments_of(disk)) < 4:
        writer.write(900, term=3)
    opened.close()
    assert header_of(name_of(4), files_of(disk)[name_of(4)]).hard_state == HardState(3, 2)
    assert open_node(disk).contents() == writer.model


def test_what_is_known_to_be_committed_outlives_its_segment() -> None:
    """Power fails when the next segment has just begun: only the footer says how far it was."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    writer.write(10, 20)
    writer.write(30, commit_index=2)
    writer.fill()
    name = name_of(2)

    left = len(["the footer", "its trailer"])

    def fail(what: str, file: str) -> None:
        nonlocal left
        if what == "pwrite" and name in disk.names:
            left -= 1
            if left < 0:
                raise RuntimeError("power")

    disk.fault = fail
    with pytest.raises(RuntimeError):
        writer.write(40)
    disk.fault = None
    disk.crash(random.Random(1), "lost")
    assert places(files_of(disk)[name]) == []
    opened = open_node(disk)
    assert opened.recovered.commit_index == 2
    assert opened.recovered.last_index == 4


def test_a_footer_sums_up_the_whole_log() -> None:
    """What was there before the start that wrote it, too: sessions, and the last user's entry."""
    disk = WatchedDisk()
    model = Model()
    for session in (1, 2, 3):
        opened = open_node(disk)
        assert opened.contents() == model
        writer = Writer(opened.log, model)
        for n in range(8):
            writer.write(900, session=session, sequence=1 + n, commit_index=writer.model.last_index)
        opened.close()
        model = writer.model
    opened = open_node(disk)
    assert opened.contents() == model
    sessions = opened.recovered.summary.sessions
    for session in (1, 2, 3):
        known = sessions.get(session)
        assert known is not None
        assert known.next_sequence == 9


def test_a_hard_state_that_fills_a_segment_is_in_the_next_one() -> None:
    """It is in the header already, and stands there as a record as well."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    writer.write(10)
    writer.fill()
    writer.write(hard_state=HardState(5, 1))
    assert len(segments_of(disk)) == 2
    opened.close()
    opened = open_node(disk)
    assert opened.contents() == writer.model
    assert opened.recovered.hard_state == HardState(5, 1)


# -- the mark of a clean end


def test_a_clean_end_is_marked_once() -> None:
    """Opening and closing a log again and again does not fill it."""
    disk = WatchedDisk()
    opened = open_node(disk)
    opened.close()
    assert places(files_of(disk)[name_of(1)]) == [], "an empty segment has nothing to vouch for"
    opened = open_node(disk)
    Writer(opened.log).write(10)
    opened.close()
    once = places(files_of(disk)[name_of(1)])
    assert [place.type for place in once] == [RecordType.BATCH, RecordType.MARK]
    for _ in range(3):
        open_node(disk).close()
    assert places(files_of(disk)[name_of(1)]) == once


def test_there_is_always_room_for_the_mark() -> None:
    """In a segment that is full to the brim, too; what is written next begins another one."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    writer.fill()
    opened.close()
    records = places(files_of(disk)[name_of(1)])
    assert records[-1].type == RecordType.MARK
    assert records[-1].end == SEGMENT_BYTES - TRAILER_BYTES
    for size in (10, 20):
        opened = open_node(disk)
        assert opened.contents() == writer.model
        writer = Writer(opened.log, writer.model)
        writer.write(size)
        opened.close()
    assert segments_of(disk) == [name_of(1), name_of(2)]
