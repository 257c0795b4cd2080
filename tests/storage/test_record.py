"""The record's bytes: their layout is fixed, and only what was written here, at this very place, reads as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.model import batch
from totora.core.effects import HardState
from totora.errors import ProtocolError
from totora.storage.record import (
    RECORD_HEADER_BYTES,
    RecordType,
    encode_hard_state,
    encode_index,
    encode_record,
    find_record,
    read_record,
)
from totora.storage.recovery import _ZEROS, _filled, _last_trace
from totora.storage.segment import SegmentHeader
from totora.types import NUMBER_MAX

SALT, SEGMENT, OFFSET = 0x11223345, 7, 5_000

GOLDEN = bytes.fromhex(
    "45332211"  # salt
    "22ee7aba"  # checksum of segment, offset and all that follows
    "10000000"  # length of the payload
    "88130000"  # synced
    "2a00000000000000"  # commit_index
    "02"  # type: hard state
    "00000000000000"
    "0900000000000000"  # current_term
    "0300000000000000"  # voted_for
)


def encoded(
    kind: RecordType = RecordType.HARD_STATE,
    payload: bytes = encode_hard_state(HardState(9, 3)),
    *,
    offset: int = OFFSET,
    synced: int = OFFSET,
    commit_index: int = 42,
) -> bytes:
    return encode_record(SALT, SEGMENT, offset, kind, payload, synced, commit_index) + payload


def test_the_layout_is_fixed() -> None:
    """Golden bytes of version 1: a log written by any release of it reads the same."""
    assert encoded().hex() == GOLDEN.hex()
    assert RECORD_HEADER_BYTES == 32


def test_a_record_is_read_as_it_was_written() -> None:
    """In the middle of other bytes, and from the start."""
    for before in (b"", b"abc"):
        data = memoryview(before + GOLDEN + b"behind")
        record = read_record(data, len(before), SALT, SEGMENT, OFFSET)
        assert record is not None
        assert (record.type, record.offset, record.end) == (RecordType.HARD_STATE, OFFSET, OFFSET + 48)
        assert (record.synced, record.commit_index) == (OFFSET, 42)
        assert record.hard_state() == HardState(9, 3)


@given(
    term=st.integers(0, NUMBER_MAX),
    voted_for=st.none() | st.integers(1, NUMBER_MAX),
    index=st.integers(0, NUMBER_MAX),
    synced=st.integers(0, 2**32 - 1),
    commit_index=st.integers(0, NUMBER_MAX),
)
def test_any_numbers_are_read_as_they_were_written(
    term: int, voted_for: int | None, index: int, synced: int, commit_index: int
) -> None:
    """Hard states and truncations, up to the largest numbers that there are."""
    hard_state = HardState(term, voted_for)
    for kind, payload in (
        (RecordType.HARD_STATE, encode_hard_state(hard_state)),
        (RecordType.TRUNCATION, encode_index(index)),
    ):
        data = encoded(kind, payload, synced=synced, commit_index=commit_index)
        record = read_record(memoryview(data), 0, SALT, SEGMENT, OFFSET)
        assert record is not None
        assert (record.synced, record.commit_index) == (synced, commit_index)
        if kind == RecordType.HARD_STATE:
            assert record.hard_state() == hard_state
        else:
            assert record.truncate_after() == index


def test_no_flipped_record_reads_as_one() -> None:
    """Every single bit, of the header and of the payload."""
    for bit in range(8 * len(GOLDEN)):
        data = bytearray(GOLDEN)
        data[bit // 8] ^= 1 << bit % 8
        assert read_record(memoryview(data), 0, SALT, SEGMENT, OFFSET) is None, f"bit {bit}"


def test_a_flipped_batch_is_found_by_one_of_both_checksums() -> None:
    """The record's covers its header and the batch's; the batch's own covers its body. Each byte is summed once."""
    whole = encoded(RecordType.BATCH, batch(5, 3, count=2).data)
    summed_by_record = RECORD_HEADER_BYTES + 64
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        record = read_record(memoryview(data), 0, SALT, SEGMENT, OFFSET)
        assert (record is None) == (bit // 8 < summed_by_record), f"bit {bit}"
        if record is not None:
            with pytest.raises(ProtocolError, match="checksum"):
                record.batch()


def test_a_record_reads_only_where_it_was_written() -> None:
    """Not at another offset, not in another segment, not after the file was used again: the checksum is seeded."""
    data = memoryview(GOLDEN)
    assert read_record(data, 0, SALT, SEGMENT, OFFSET) is not None
    assert read_record(data, 0, SALT, SEGMENT, OFFSET + 1) is None
    assert read_record(data, 0, SALT, SEGMENT + 1, OFFSET) is None
    assert read_record(data, 0, SALT + 2, SEGMENT, OFFSET) is None


def test_a_record_that_is_not_all_there_is_none() -> None:
    """Cut off anywhere."""
    for size in range(len(GOLDEN)):
        assert read_record(memoryview(GOLDEN)[:size], 0, SALT, SEGMENT, OFFSET) is None


def test_a_record_of_an_unknown_type_is_none() -> None:
    """Sound, but of a version that is not ours."""
    data = encode_record(SALT, SEGMENT, OFFSET, 99, b"x", OFFSET, 0) + b"x"  # type: ignore[arg-type]
    assert read_record(memoryview(data), 0, SALT, SEGMENT, OFFSET) is None


def test_what_stands_behind_damage_is_found() -> None:
    """Wherever it begins, past bytes that only look like the beginning of a record."""
    salt = SALT.to_bytes(4, "little")
    garbage = b"\x01" * 100 + salt + b"\x02" * 50 + salt
    at = len(garbage)
    data = garbage + encoded(offset=OFFSET + at) + bytes(20)
    for start in (0, 5, 100, at):
        record = find_record(data, start, SALT, SEGMENT, OFFSET)
        assert record is not None
        assert record.offset == OFFSET + at
    assert find_record(data, at + 1, SALT, SEGMENT, OFFSET) is None
    assert find_record(bytes(500), 0, SALT, SEGMENT, OFFSET) is None


def test_a_torn_batch_counts_as_what_stands_behind_damage() -> None:
    """Its header is whole, and what that states was true when it was written."""
    torn = bytearray(encoded(RecordType.BATCH, batch(5, size=600).data, synced=4_900))
    torn[-1] ^= 1
    record = find_record(bytes(torn), 0, SALT, SEGMENT, OFFSET)
    assert record is not None
    assert record.synced == 4_900


@pytest.mark.parametrize("zeros", [0, 1, len(_ZEROS) - 1, len(_ZEROS), 3 * len(_ZEROS) + 7])
@pytest.mark.parametrize("salt", [0x01020304, 0x00020304, 0x00000001])
def test_a_trace_before_nothing_but_zeros_is_found_whole(zeros: int, salt: int) -> None:
    """A salt may end with zeros itself: where it ends and where the zeros begin that follow is one place then."""
    header = SegmentHeader(salt, bytes(16), 1, 0, 0, 1, 0, 0, HardState(), 1 << 20)
    data = b"\7" * 100 + salt.to_bytes(4, "little") + bytes(zeros)
    assert _last_trace(data, header, _filled(data)) == 104
