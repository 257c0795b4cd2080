"""The batch's bytes (core/batch.py): their layout is fixed, and nothing that was damaged is taken for sound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totora.core.batch import HEADER_BYTES, Batch, Kind, join_payloads, split_payloads
from totora.errors import ProtocolError

GOLDEN = bytes.fromhex(
    "751d1c47"  # checksum
    "01"  # version
    "02"  # kind: entries
    "0000"
    "0e000000"  # body_bytes
    "02000000"  # count
    "0700000000000000"  # term
    "2a00000000000000"  # first_index
    "efcdab8967452301"  # session
    "0500000000000000"  # sequence
    "15cd5b0700000000"  # leader_time_ns
    "03000000"  # machine_version
    "00000000"
    "0200000004000000"  # two lengths
    "616263646566"  # "ab", "cdef"
)

u64 = st.integers(0, 2**64 - 1)


def golden() -> Batch:
    return Batch.build(
        Kind.ENTRIES,
        7,
        42,
        2,
        join_payloads([b"ab", b"cdef"]),
        session=0x0123456789ABCDEF,
        sequence=5,
        leader_time_ns=123_456_789,
        machine_version=3,
    )


def test_the_layout_is_fixed() -> None:
    """Golden bytes of version 1: a log written by any release of it reads the same."""
    assert HEADER_BYTES == 64
    assert golden().data.hex() == GOLDEN.hex()


def test_a_batch_is_parsed_into_the_fields_it_was_built_from() -> None:
    """And is equal to it."""
    batch = Batch.parse(GOLDEN)
    assert (batch.kind, batch.term, batch.first_index, batch.last_index, batch.count) == (2, 7, 42, 43, 2)
    assert (batch.session, batch.sequence) == (0x0123456789ABCDEF, 5)
    assert (batch.leader_time_ns, batch.machine_version) == (123_456_789, 3)
    assert [bytes(payload) for payload in batch.payloads()] == [b"ab", b"cdef"]
    assert batch == golden()
    assert hash(batch) == hash(golden())
    assert batch != GOLDEN
    assert repr(batch) == "<Batch kind=2 term=7 42..43>"


def test_payloads_are_not_copied() -> None:
    """They are views of the batch's own bytes."""
    assert all(payload.obj is GOLDEN for payload in Batch.parse(GOLDEN).payloads())


@given(
    payloads=st.lists(st.binary(max_size=40), min_size=1, max_size=20),
    kind=st.integers(0, 255),
    term=st.integers(1, 2**63 - 1),
    first_index=st.integers(1, 2**63 - 1),
    session=u64,
    sequence=u64,
)
def test_any_batch_is_parsed_as_it_was_built(
    payloads: list[bytes], kind: int, term: int, first_index: int, session: int, sequence: int
) -> None:
    """Unknown kinds included: their numbering is open."""
    body = join_payloads(payloads)
    built = Batch.build(kind, term, first_index, len(payloads), body, session=session, sequence=sequence)
    parsed = Batch.parse(built.data)
    assert [getattr(parsed, name) for name in Batch.__slots__] == [
        getattr(built, name) for name in Batch.__slots__
    ]
    assert [bytes(payload) for payload in parsed.payloads()] == payloads
    assert list(parsed.each_payload()) == parsed.payloads()


def test_every_flipped_bit_is_noticed() -> None:
    """All bits of header and body, one at a time."""
    for bit in range(8 * len(GOLDEN)):
        damaged = bytearray(GOLDEN)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolError):
            Batch.parse(bytes(damaged))


def test_every_cut_and_every_addition_is_noticed() -> None:
    """Any number of bytes less, from either end, or more."""
    for size in range(len(GOLDEN)):
        with pytest.raises(ProtocolError):
            Batch.parse(GOLDEN[:size])
        with pytest.raises(ProtocolError):
            Batch.parse(GOLDEN[size + 1 :])
    with pytest.raises(ProtocolError, match="do not match a body"):
        Batch.parse(GOLDEN + b"\0")


@given(st.binary(max_size=200))
def test_noise_is_noticed(noise: bytes) -> None:
    """As it is, and in the place of any part of a sound batch."""
    with pytest.raises(ProtocolError):
        Batch.parse(noise)
    at = len(noise) % len(GOLDEN)
    damaged = GOLDEN[:at] + noise + GOLDEN[at + len(noise) :]
    if damaged != GOLDEN:
        with pytest.raises(ProtocolError):
            Batch.parse(damaged)


def test_another_version_is_named() -> None:
    """It may have another checksum, so that is not looked at."""
    with pytest.raises(ProtocolError, match="version 2"):
        Batch.parse(GOLDEN[:4] + b"\2" + GOLDEN[5:])


@pytest.mark.parametrize(("term", "first_index", "count"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_what_cannot_be_is_refused_though_its_checksum_is_right(
    term: int, first_index: int, count: int
) -> None:
    """Terms, indexes and counts begin at 1."""
    batch = Batch.build(Kind.ENTRIES, term, first_index, count, join_payloads([b"x"]))
    with pytest.raises(ProtocolError, match="must be positive"):
        Batch.parse(batch.data)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", 1),
        (b"\1\0\0\0", 1),
        (b"\1\0\0\0xy", 1),
        (b"\1\0\0\0x", 2),
        (b"\1\0\0\0x", 0),
        (b"\xff\xff\xff\xffx", 1),
    ],
)
def test_lengths_that_do_not_add_up_are_refused(body: bytes, count: int) -> None:
    """Too few bytes for the lengths, too few or too many for the entries, none at all."""
    with pytest.raises(ProtocolError, match="bytes"):
        split_payloads(memoryview(body), count)
    batch = Batch.build(Kind.ENTRIES, 1, 1, count, body)
    with pytest.raises(ProtocolError, match="bytes"):
        list(batch.each_payload())


@given(st.lists(st.binary(max_size=20), min_size=1))
def test_payloads_are_split_as_they_were_joined(payloads: list[bytes]) -> None:
    """Empty ones too."""
    assert [bytes(p) for p in split_payloads(memoryview(join_payloads(payloads)), len(payloads))] == payloads


@given(st.lists(st.binary(max_size=20), min_size=1), st.integers(0, 40), st.integers(0, 40))
def test_some_payloads_are_found_without_the_others(payloads: list[bytes], start: int, end: int) -> None:
    """Also where the range begins before the batch, ends behind it, or does not meet it."""
    first = 10
    made = Batch.build(Kind.ENTRIES, 1, first, len(payloads), join_payloads(payloads))
    wanted = [payload for index, payload in enumerate(payloads, first) if start <= index <= end]
    assert [bytes(payload) for payload in made.payloads_between(start, end)] == wanted


def test_a_batch_too_short_for_its_lengths_has_no_payloads() -> None:
    made = Batch.build(Kind.ENTRIES, 1, 1, 3, b"\1\0\0\0")
    with pytest.raises(ProtocolError, match="cannot hold 3 entries"):
        made.payloads_between(2, 2)
