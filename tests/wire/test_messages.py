"""Messages to bytes and back: every kind, at every boundary, and what is no message."""

from __future__ import annotations

import struct
import sys
import threading
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.levels import by_level
from tests.wire.samples import HANDSHAKES, KINDS, SAMPLES, any_message, framed, receive, sample_of
from totora.core.batch import HEADER_BYTES, Batch, Kind, join_payloads
from totora.core.messages import AppendEntries, Propose, ProposeRejected, RequestRead, RequestVote
from totora.errors import (
    Compacted,
    InvalidRequest,
    NodeStopped,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    ProtocolError,
    RaftError,
    RangeTooLarge,
    SessionExpired,
    Unavailable,
)
from totora.wire import codec
from totora.wire.client import RangesRead, RequestFailed, error_of, failure
from totora.wire.frames import frame
from totora.wire.handshake import encode_handshake

EXAMPLES: Final = by_level(quick=25, ci=1_000)
CARRIERS: Final = (AppendEntries, RangesRead)


def named(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else type(value).__name__


def header_of(*fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


def decoded(header: bytes, blob: bytes = b"") -> codec.WireMessage:
    return codec.decode(memoryview(header), memoryview(blob))


def appending(*sizes: object) -> bytes:
    """The header of an AppendEntries that names batches of these sizes."""
    return header_of(3, 4, 1, 7, 3, 6, 12, sizes)


def fields_of(sample: Any) -> list[Any]:
    """What the header of a sample holds, its tag first."""
    header = codec.encode(sample)[0][12:]
    fields: list[Any] = msgspec.msgpack.decode(header)
    return fields


# -- there and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_every_message_comes_back(kind: type[Any]) -> None:
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(any_message(kind))
    def check(message: Any) -> None:
        (arrived,) = receive(framed(message))
        assert arrived == message
        assert type(arrived) is kind

    check()


@pytest.mark.parametrize("sample", SAMPLES, ids=named)
def test_a_message_may_be_cut_anywhere(sample: Any) -> None:
    """At every byte boundary, and into single bytes."""
    data = framed(sample)
    for cut in range(len(data) + 1):
        assert receive(data[:cut], data[cut:]) == [sample]
    assert receive(*(data[at : at + 1] for at in range(len(data)))) == [sample]


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_stream_may_be_cut_anywhere(data: st.DataObject) -> None:
    """All samples behind one another, cut at random: the same messages in the same order."""
    stream = b"".join(map(framed, SAMPLES))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert receive(*pieces) == list(SAMPLES)


def test_a_batch_is_not_encoded_again() -> None:
    """The very bytes that the log holds are handed to the stream."""
    message = sample_of(AppendEntries)
    header, *blob = codec.encode(message)
    assert all(part is batch.data for part, batch in zip(blob, message.batches, strict=True))
    assert len(header) < 64


def test_a_message_outlives_the_bytes_that_it_came_in() -> None:
    """The network reads the next bytes into the same buffer."""
    message = sample_of(AppendEntries)
    buffer = bytearray(b"".join(codec.encode(message)))
    split = 12 + struct.unpack_from("<I", buffer, 4)[0]
    view = memoryview(buffer)
    arrived = codec.decode(view[12:split], view[split:])
    buffer[:] = bytes(len(buffer))
    assert arrived == message


@contextmanager
def eager_threads() -> Generator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def test_nodes_in_threads_of_their_own_decode_at_the_same_time() -> None:
    """Each thread gets its own message's batches, never another's (`totora.threads` runs a node per thread)."""

    def message(number: int) -> AppendEntries:
        body = join_payloads([b"%d" % number * 50])
        batches = (Batch.build(Kind.ENTRIES, 1, 1 + at, 1, body, session=number) for at in range(8))
        return AppendEntries(1, 1, 0, 0, 0, number, tuple(batches))

    wrong: list[object] = []

    def decode_often(number: int) -> None:
        expected = message(number)
        header, *batches = codec.encode(expected)
        blob = b"".join(batches)
        for _ in range(by_level(quick=3_000, ci=30_000)):
            try:
                arrived = decoded(header[12:], blob)
            except Exception as error:
                wrong.append(error)
            else:
                if arrived != expected:
                    wrong.append(arrived)

    threads = [threading.Thread(target=decode_often, args=(number,)) for number in (10, 100, 1_000)]
    with eager_threads():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


# -- what is no message ----------------------------------------------------------------------------


def refused(header: bytes, blob: bytes = b"") -> str:
    with pytest.raises(ProtocolError) as raised:
        decoded(header, blob)
    return str(raised.value)


@pytest.mark.parametrize("tag", [0, 8, 15, 27, 31, 40, 63, 64, 65, 66, 255, -1, 1 << 63, "1", None, 1.0, [1]])
def test_an_unknown_tag_is_refused(tag: object) -> None:
    """Also those of the handshake: its frames are no messages."""
    refused(header_of(tag, 1, 2, 3, 4))


@pytest.mark.parametrize("greeting", HANDSHAKES, ids=named)
def test_a_greeting_is_no_message(greeting: Any) -> None:
    with pytest.raises(ProtocolError):
        receive(b"".join(encode_handshake(greeting)))


@pytest.mark.parametrize("sample", SAMPLES, ids=named)
def test_a_field_of_a_wrong_type_is_refused(sample: Any) -> None:
    """Every field, in turn, is what it never may be."""
    fields = fields_of(sample)
    blob = b"".join(codec.encode(sample)[1:])
    assert decoded(header_of(*fields), blob) == sample
    impossible: tuple[object, ...] = 1.5, {"a": 1}, [[]], msgspec.msgpack.Ext(1, b"1234"), float("nan")
    for at in range(1, len(fields)):
        for wrong in impossible:
            refused(header_of(*fields[:at], wrong, *fields[at + 1 :]), blob)


@pytest.mark.parametrize("sample", SAMPLES, ids=named)
def test_a_message_that_ends_early_is_refused(sample: Any) -> None:
    """Cut anywhere, behind a sound checksum."""
    header, *batches = codec.encode(sample)
    header, blob = header[12:], b"".join(batches)
    for end in range(len(header)):
        refused(header[:end], blob)
    for end in range(len(blob)):
        refused(header, blob[:end])


@pytest.mark.parametrize("sample", SAMPLES, ids=named)
def test_what_follows_a_message_is_refused(sample: Any) -> None:
    """Behind the header, and behind the last batch: nothing is passed over in silence."""
    header, *batches = codec.encode(sample)
    header, blob = header[12:], b"".join(batches)
    refused(header + b"\x00", blob)
    assert "1 bytes follow" in refused(header, blob + b"\x00")


@pytest.mark.parametrize("header", [b"", b"\xc1", b"\xc0", b"\x00", b"\x80", b"\x90", b"\xa1x", b"\x91\x01"])
def test_what_is_no_header_is_refused(header: bytes) -> None:
    refused(header)


@pytest.mark.parametrize(
    "size",
    [None, -1, 1.0, "64", b"64", [64], {"a": 1}, msgspec.msgpack.Ext(1, b"1234"), True, 0, 63, 1 << 63],
)
def test_a_batch_is_named_by_its_size(size: object) -> None:
    batch = sample_of(AppendEntries).batches[0]
    assert isinstance(decoded(appending(len(batch.data)), batch.data), AppendEntries)
    refused(appending(size), batch.data)


def test_batches_that_the_frame_does_not_hold_are_refused() -> None:
    batch = sample_of(AppendEntries).batches[0].data
    assert "exceed" in refused(appending(len(batch) + 1), batch)
    assert "exceed" in refused(appending(len(batch), len(batch)), batch)
    assert "exceed" in refused(appending((1 << 64) - 1), batch)
    assert "follow" in refused(appending(), batch)
    assert "follow" in refused(appending(len(batch)), batch * 2)


@pytest.mark.parametrize("kind", CARRIERS, ids=named)
def test_a_batch_with_a_flipped_bit_is_refused(kind: type[Any]) -> None:
    """Every single bit of every batch, its checksum included."""
    header, *batches = codec.encode(sample_of(kind))
    blob = bytearray(b"".join(batches))
    for bit in range(8 * len(blob)):
        blob[bit // 8] ^= 1 << bit % 8
        refused(header[12:], bytes(blob))
        blob[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [(4, "<B", 0), (4, "<B", 2), (8, "<I", 1 << 31), (12, "<I", 0), (16, "<Q", 0), (24, "<Q", 0)],
    ids=["version 0", "version 2", "body_bytes", "count 0", "term 0", "first_index 0"],
)
def test_a_batch_with_a_sound_checksum_and_a_wrong_field_is_refused(
    offset: int, form: str, value: int
) -> None:
    data = bytearray(sample_of(AppendEntries).batches[1].data)
    struct.pack_into(form, data, offset, value)
    struct.pack_into("<I", data, 0, zlib.crc32(data[4:]))
    assert refused(appending(len(data)), bytes(data)).startswith("batch")


def test_a_batch_of_an_unknown_kind_arrives() -> None:
    """What it means is for the core to say: a newer version wrote it."""
    batch = Batch.build(200, 1, 1, 1, join_payloads([b"from the future"]))
    message = AppendEntries(1, 1, 0, 0, 0, 0, (batch,))
    assert receive(framed(message)) == [message]


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\x01", b"\xdd\x00\x00\x00\x01", b"\xdc\xff\xff"])
@pytest.mark.parametrize("place", ["message", "batch", "beyond the last field"])
def test_nesting_without_end_is_refused(opening: bytes, place: str) -> None:
    """It ends the stream, not the stack."""
    deep = opening * 100_000
    header = {
        "message": deep,
        "batch": appending()[:-1] + b"\x91" + deep,
        "beyond the last field": b"\x93" + header_of(5, 98)[1:] + deep,
    }[place]
    refused(header)


@pytest.mark.parametrize(
    "opening", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
)
def test_a_length_that_lies_costs_no_memory(opening: bytes) -> None:
    """Four thousand million batches, members or bytes, in a frame of some bytes."""
    refused(appending()[:-1] + opening)
    refused(appending()[:-1] + b"\x91" + opening)
    refused(b"\x92\x05" + opening)


@pytest.mark.parametrize("number", [0, 127, 128, 1 << 16, 1 << 32, (1 << 63) - 1])
def test_numbers_arrive_however_large(number: int) -> None:
    message = RequestVote(number, number, number, number)
    assert receive(framed(message)) == [message]


@pytest.mark.parametrize("number", [1 << 64, -(1 << 63) - 1])
def test_what_64_bits_do_not_hold_is_not_sent(number: int) -> None:
    with pytest.raises(OverflowError):
        codec.encode(RequestRead(number))


def test_a_newer_sender_may_add_a_field() -> None:
    """Within a protocol version fields are only added, at the end; who does not know them passes over them."""
    assert decoded(header_of(5, 98, "new")) == RequestRead(98)


def test_an_older_sender_may_lack_a_field_that_has_a_default() -> None:
    assert decoded(header_of(23, 4, 1, 99, "gap")) == ProposeRejected(4, 1, 99, "gap")
    assert decoded(header_of(4, 1, 2, 3, 1, 5, 6, b"")) == Propose(1, 2, 3, 1, 5, 6, b"")
    refused(header_of(4, 1, 2, 3, 1, 5, 6))


@pytest.mark.parametrize("reason", ["", "NOT_LEADER", "not_leader ", "unheard of", 0, None])
def test_a_reason_that_is_not_known_is_refused(reason: object) -> None:
    refused(header_of(23, 4, 1, 99, reason))
    refused(header_of(25, 4, 1, 99, reason))
    refused(header_of(37, 99, reason, "text"))


def test_text_that_is_no_text_is_refused() -> None:
    header = bytearray(header_of(37, 99, "invalid", "xy"))
    header[-2:] = b"\xff\xfe"
    refused(bytes(header))


def test_only_batches_are_encoded_as_batches() -> None:
    message = AppendEntries(1, 1, 0, 0, 0, 0, (object(),))  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError):
        frame(msgspec.msgpack.Encoder(enc_hook=codec._batch_size).encode(message))


def test_a_batch_shorter_than_its_header_is_refused() -> None:
    for size in range(HEADER_BYTES):
        refused(appending(size), bytes(size))


# -- errors as messages ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "member"),
    [
        (OutOfRange(3, 9), lambda e: (e.first_index, e.commit_index)),
        (RangeTooLarge(7), lambda e: e.next_index),
        (Compacted(5), lambda e: e.first_index),
        (Overloaded(1_024), lambda e: e.limit),
        (Unavailable("no leader"), lambda e: e.why),
        (InvalidRequest("an empty range"), str),
        (OutcomeUnknown("no answer"), str),
    ],
    ids=named,
)
def test_an_error_crosses_the_wire(error: RaftError, member: Callable[[Any], object]) -> None:
    """A client raises what the node raised, with what the caller needs to go on."""
    (arrived,) = receive(framed(failure(1, error)))
    assert isinstance(arrived, RequestFailed)
    again = error_of(arrived)
    assert type(again) is type(error)
    assert member(again) == member(error)


@pytest.mark.parametrize(
    ("error", "becomes"), [(NodeStopped(), Unavailable), (SessionExpired("gone"), OutcomeUnknown)], ids=named
)
def test_an_error_that_a_client_cannot_have_becomes_one_with_the_same_remedy(
    error: RaftError, becomes: type[RaftError]
) -> None:
    assert type(error_of(failure(1, error))) is becomes
