"""Frames on a byte stream: what is cut, what is refused at once, and that nothing is allocated on a stranger's word."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
import zlib
from typing import Final

import msgspec
import pytest

from tests.levels import by_level
from tests.wire.samples import HANDSHAKES, SAMPLES, any_value, bits_flipped, framed, receive
from totora.config import BATCH_BYTES_MAX
from totora.core.batch import Batch, Kind, join_payloads
from totora.core.messages import AppendEntries
from totora.errors import ProtocolError
from totora.wire import codec
from totora.wire.codec import WireMessage
from totora.wire.frames import FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX, FrameReader, frame
from totora.wire.handshake import decode_answer, decode_hello, encode_handshake

FRAMES: Final = by_level(quick=2_000, ci=10_000)
PREFIX: Final = struct.Struct("<III")


def frames_of(reader: FrameReader, data: bytes) -> list[tuple[bytes, bytes]]:
    return [(bytes(header), bytes(blob)) for header, blob in reader.feed(data)]


def refused(data: bytes, limit: int = FRAME_BYTES_MAX) -> str:
    with pytest.raises(ProtocolError) as raised:
        frames_of(FrameReader(limit), data)
    return str(raised.value)


# -- cutting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [b"", b"h", b"header" * 50])
@pytest.mark.parametrize("blob", [(), (b"",), (b"b",), (b"blob" * 50, b"", b"more")])
def test_a_frame_comes_back_wherever_it_is_cut(header: bytes, blob: tuple[bytes, ...]) -> None:
    data = b"".join(frame(header, blob))
    expected = [(header, b"".join(blob))]
    for cut in range(len(data) + 1):
        reader = FrameReader(FRAME_BYTES_MAX)
        assert frames_of(reader, data[:cut]) + frames_of(reader, data[cut:]) == expected


def test_frames_that_arrive_together_come_one_by_one() -> None:
    """Three and a half frames in one piece, then the other half with a whole one behind it."""
    data = [b"".join(frame(b"header %d" % n, [b"blob" * n])) for n in range(5)]
    stream = b"".join(data)
    reader = FrameReader(FRAME_BYTES_MAX)
    cut = len(b"".join(data[:3])) + len(data[3]) // 2
    first = frames_of(reader, stream[:cut])
    assert [header for header, _ in first] == [b"header 0", b"header 1", b"header 2"]
    assert [header for header, _ in frames_of(reader, stream[cut:])] == [b"header 3", b"header 4"]


def test_the_limit_may_rise_between_two_frames_of_one_piece() -> None:
    """A peer may send at once what it says behind its Hello: the handshake's limit does not hold for that."""
    small, large = b"".join(frame(b"hello")), b"".join(frame(b"message", [bytes(4_096)]))
    reader = FrameReader(HANDSHAKE_BYTES_MAX)
    arrived = []
    for header, blob in reader.feed(small + large):
        arrived.append((bytes(header), len(blob)))
        reader.limit = FRAME_BYTES_MAX
    assert arrived == [(b"hello", 0), (b"message", 4_096)]


def test_the_largest_message_fits_into_a_frame() -> None:
    """A batch at its limit, with room for another: what an answer to a range may hold."""
    body = join_payloads([bytes(BATCH_BYTES_MAX - 128)])
    batch = Batch.build(Kind.ENTRIES, 1, 1, 1, body)
    second = Batch.build(Kind.ENTRIES, 1, 2, 1, body)
    message = AppendEntries(1, 1, 0, 0, 0, 0, (batch, second))
    assert receive(framed(message)) == [message]


# -- lengths that lie ------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [HANDSHAKE_BYTES_MAX, FRAME_BYTES_MAX])
@pytest.mark.parametrize("length", [0xFFFF_FFFF, 0x8000_0000, FRAME_BYTES_MAX + 1])
@pytest.mark.parametrize("header_length", [0, 1, 0xFFFF_FFFF])
def test_an_oversize_frame_is_refused_at_its_length(length: int, header_length: int, limit: int) -> None:
    """Before another byte arrives, and with nothing allocated for it."""
    prefix = PREFIX.pack(length, header_length, 0)
    reader = FrameReader(limit)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="exceeds the limit"):
            frames_of(reader, prefix)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64 << 10


def test_an_oversize_frame_is_refused_when_its_length_comes_in_pieces() -> None:
    reader = FrameReader(FRAME_BYTES_MAX)
    prefix = PREFIX.pack(0xFFFF_FFFF, 1, 0)
    for at in range(len(prefix) - 1):
        assert frames_of(reader, prefix[at : at + 1]) == []
    with pytest.raises(ProtocolError, match="exceeds the limit"):
        frames_of(reader, prefix[-1:])


@pytest.mark.parametrize("limit", [0, 5, HANDSHAKE_BYTES_MAX])
def test_the_limit_itself_is_allowed(limit: int) -> None:
    assert frames_of(FrameReader(limit), b"".join(frame(bytes(limit)))) == [(bytes(limit), b"")]
    assert "exceeds the limit" in refused(b"".join(frame(bytes(limit + 1))), limit)
    assert "exceeds the limit" in refused(b"".join(frame(bytes(limit), [b"x"])), limit)


def test_a_header_longer_than_its_frame_is_refused() -> None:
    assert "header of 11 bytes in a frame of 10" in refused(PREFIX.pack(10, 11, 0))
    assert "header of 4,294,967,295 bytes" in refused(PREFIX.pack(0, 0xFFFF_FFFF, 0))


def test_an_unfinished_frame_costs_what_arrived_of_it() -> None:
    """A stranger announces all that is allowed and sends nearly nothing."""
    reader = FrameReader(FRAME_BYTES_MAX)
    tracemalloc.start()
    try:
        frames_of(reader, PREFIX.pack(FRAME_BYTES_MAX, FRAME_BYTES_MAX, 0) + b"x")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64 << 10


def test_a_wrong_checksum_is_refused() -> None:
    header = b"header"
    for checksum in (0, zlib.crc32(header) ^ 1, zlib.crc32(b"Header")):
        assert "checksum" in refused(PREFIX.pack(len(header), len(header), checksum) + header)


def test_a_frame_that_ends_early_is_no_frame() -> None:
    """A stream that breaks within a frame delivers nothing of it."""
    data = framed(SAMPLES[2])
    for end in range(len(data)):
        assert receive(data[:end]) == []


# -- chance ----------------------------------------------------------------------------------------


def decodes_or_is_refused(data: bytes) -> list[WireMessage]:
    """What arrives; and if anything does, it is a message that could be sent."""
    try:
        arrived = receive(data)
    except ProtocolError:
        return []
    for message in arrived:
        # Compared as bytes, for a number that is none differs from itself.
        again = framed(message)
        assert [framed(same) for same in receive(again)] == [again]
    return arrived


def greets_or_is_refused(header: bytes) -> None:
    for decode in (decode_hello, decode_answer):
        try:
            decode(memoryview(header))
        except ProtocolError:
            continue


def test_random_bytes_are_refused_and_nothing_else() -> None:
    chance = random.Random(1)
    for _ in range(FRAMES):
        assert decodes_or_is_refused(chance.randbytes(chance.randrange(200))) == []


def test_random_frames_decode_or_are_refused_and_nothing_else() -> None:
    """Sound lengths and checksums around random bytes: they get as far as the decoder."""
    chance = random.Random(2)
    for _ in range(FRAMES):
        header = chance.randbytes(chance.randrange(1, 40))
        decodes_or_is_refused(b"".join(frame(header, [chance.randbytes(chance.randrange(80))])))
        greets_or_is_refused(header)


def test_random_values_decode_or_are_refused_and_nothing_else() -> None:
    """Sound MessagePack with a tag that is known, in which anything may stand anywhere."""
    chance = random.Random(3)
    tags = [*range(1, 6), *range(16, 26), *range(32, 38), 64, 65, 66]
    arrived = 0
    for _ in range(FRAMES):
        fields = [any_value(chance) for _ in range(chance.randrange(14))]
        header = msgspec.msgpack.encode([chance.choice(tags), *fields])
        arrived += len(decodes_or_is_refused(b"".join(frame(header))))
        greets_or_is_refused(header)
    assert arrived > FRAMES // 1_000, "some of it is sound: else this test tries nothing"


def test_random_bits_behind_a_sound_checksum_decode_or_are_refused_and_nothing_else() -> None:
    """Valid messages with some bits flipped, but for the checksum of the header, which fits."""
    chance = random.Random(4)
    arrived = 0
    for _ in range(FRAMES):
        header, *batches = codec.encode(chance.choice(SAMPLES))
        header = header[PREFIX.size :]
        flipped = bits_flipped(
            header, (chance.randrange(8 * len(header)) for _ in range(chance.randrange(1, 4)))
        )
        arrived += len(decodes_or_is_refused(b"".join(frame(flipped, batches))))
        greeting = b"".join(encode_handshake(chance.choice(HANDSHAKES)))[PREFIX.size :]
        greets_or_is_refused(bits_flipped(greeting, [chance.randrange(8 * len(greeting))]))
    assert arrived > FRAMES // 10, "a flipped bit in a number is another number"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_a_frame_with_a_flipped_bit_is_never_delivered(sample: WireMessage) -> None:
    """Every single bit of a frame: it is refused, or the reader waits for more than will come."""
    data = framed(sample)
    for bit in range(8 * len(data)):
        assert decodes_or_is_refused(bits_flipped(data, [bit])) == []


def test_frames_with_flipped_bits_are_never_delivered() -> None:
    """Some bits anywhere, several frames: at most those before the first flipped bit arrive."""
    chance = random.Random(5)
    for _ in range(FRAMES // 2):
        messages = [chance.choice(SAMPLES) for _ in range(3)]
        data = b"".join(map(framed, messages))
        bits = sorted({chance.randrange(8 * len(data)) for _ in range(chance.randrange(1, 8))})
        damaged = bits_flipped(data, bits)
        sound, end = 0, 0
        for message in messages:
            end += len(framed(message))
            sound += end <= bits[0] // 8
        reader = FrameReader(FRAME_BYTES_MAX)
        arrived: list[WireMessage] = []
        with contextlib.suppress(ProtocolError):
            for header, blob in reader.feed(damaged):
                arrived.append(codec.decode(header, blob))
        assert arrived == messages[:sound]
