"""Messages as JSON in datagrams: what is said arrives, what is damaged does not."""

from __future__ import annotations

import contextlib
import json
import random
import zlib
from typing import Any, Final, TypeAlias, get_args

import msgspec
import pytest

from tests.levels import by_level
from totora.config import UDP_BATCH_BYTES_MAX
from totora.core.batch import HEADER_BYTES, Batch, Kind, join_payloads
from totora.core.messages import AppendEntries, Message, Propose, ProposeRejected, RequestVote
from totora.errors import ProtocolError
from totora.types import NUMBER_MAX, Number
from totora.wire.handshake import Hello, Refusal
from totora.wire.json_datagrams import DATAGRAM_BYTES_MAX, Datagram, decode_datagram, encode_datagram

HELLO: Final = Hello("totora", 1, 1, "control", b"c" * 16, b"l" * 16, 2, b"s" * 16, 3, b"f" * 16, "h", 1, 1)
_OrNone: TypeAlias = Number | None
KINDS: Final[tuple[type[Any], ...]] = get_args(Message)


def batch(size_bytes: int = 100, first_index: int = 1) -> Batch:
    """A batch of one entry, `size_bytes` in all."""
    entry = bytes(size_bytes - HEADER_BYTES - 4)
    return Batch.build(Kind.ENTRIES, 7, first_index, 1, join_payloads([entry]), session=5, sequence=1)


def example(kind: type[Any], number: int) -> Any:
    """A message of this kind; every number in it is `number`."""
    values: dict[str, Any] = {
        field.name: number for field in msgspec.structs.fields(kind) if field.type in (int, Number, _OrNone)
    }
    others = {
        "body": b"\x00\xffbody",
        "batches": (batch(), batch(first_index=2)),
        "reason": "overloaded",
        "appended": True,
        "transfer": True,
        "why": "so",
    }
    return kind(**values, **{name: others[name] for name in others if name in kind.__struct_fields__})


def sent(content: Any, hears: bool = True) -> bytes:
    return encode_datagram(HELLO, hears, content)


def with_checksum(text: str) -> bytes:
    """The datagram for `text`, a JSON object that lacks its first member."""
    rest = text.encode()[1:]
    return b'{"checksum":"%08x",' % zlib.crc32(rest) + rest


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("number", [0, 1, NUMBER_MAX])
def test_every_kind_of_message_arrives_as_it_was_sent(kind: type[Any], number: int) -> None:
    message = example(kind, number)
    assert decode_datagram(sent(message)).message() == message


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_optional_members_may_be_missing(kind: type[Any]) -> None:
    message = example(kind, 1)
    for field in msgspec.structs.fields(kind):
        if field.type == _OrNone:
            message = msgspec.structs.replace(message, **{field.name: None})
    assert decode_datagram(sent(message)).message() == message


def test_a_datagram_is_one_json_text_with_the_papers_names() -> None:
    said = json.loads(sent(RequestVote(5, 2, 7, 4)))
    assert said["from"] == 2
    assert said["to"] == 1
    assert said["message"] == {
        "type": "RequestVote",
        "term": 5,
        "candidate_id": 2,
        "last_log_index": 7,
        "last_log_term": 4,
        "transfer": False,
    }


def test_the_introduction_is_the_handshakes() -> None:
    datagram = decode_datagram(sent(None, hears=False))
    expected = msgspec.structs.replace(HELLO, host="192.0.2.1", port=7)
    assert datagram.hello(("192.0.2.1", 7)) == expected
    assert datagram.hears is False
    assert datagram.message() is None
    assert datagram.refusal() is None


def test_a_refusal_arrives_as_it_was_sent() -> None:
    refusal = Refusal("cluster", "belongs to another cluster")
    datagram = decode_datagram(sent(refusal))
    assert datagram.refusal() == refusal
    assert datagram.message() is None


def test_control_characters_in_a_refusal_are_not_shown() -> None:
    datagram = decode_datagram(sent(Refusal("cluster", "\x1b[2J")))
    with pytest.raises(ProtocolError, match="control characters"):
        datagram.refusal()


@pytest.mark.parametrize("entry_bytes", [0, 1, 2, 3])
def test_as_much_as_a_leader_sends_fits_in_one_datagram(entry_bytes: int) -> None:
    """One batch of the largest size, or as many small ones: base64 rounds each up. With the longest numbers."""
    size_bytes = HEADER_BYTES + 4 + entry_bytes
    for batches in (
        (batch(UDP_BATCH_BYTES_MAX),),
        (batch(size_bytes),) * (UDP_BATCH_BYTES_MAX // size_bytes),
    ):
        message = AppendEntries(
            NUMBER_MAX, NUMBER_MAX, NUMBER_MAX, NUMBER_MAX, NUMBER_MAX, NUMBER_MAX, batches
        )
        hello = msgspec.structs.replace(HELLO, node_id=NUMBER_MAX, to=NUMBER_MAX, incarnation=NUMBER_MAX)
        assert len(encode_datagram(hello, False, message)) <= DATAGRAM_BYTES_MAX
    call = Propose(
        NUMBER_MAX,
        NUMBER_MAX,
        NUMBER_MAX,
        1,
        NUMBER_MAX,
        NUMBER_MAX,
        bytes(UDP_BATCH_BYTES_MAX - HEADER_BYTES),
        NUMBER_MAX,
        NUMBER_MAX,
    )
    assert len(sent(call)) <= DATAGRAM_BYTES_MAX


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("number", [-1, NUMBER_MAX + 1, 10**40])
def test_numbers_that_no_disk_format_holds_are_refused(kind: type[Any], number: int) -> None:
    said = json.loads(sent(example(kind, 1)))
    del said["checksum"]
    for name, value in said["message"].items():
        if type(value) is int:
            message = {**said["message"], name: number}
            datagram = decode_datagram(with_checksum(json.dumps({**said, "message": message})))
            with pytest.raises(ProtocolError):
                datagram.message()


def test_a_damaged_batch_is_refused_even_under_a_right_checksum() -> None:
    said = json.loads(sent(AppendEntries(7, 2, 0, 0, 0, 1, (batch(),))))
    del said["checksum"]
    text = said["message"]["batches"][0]
    said["message"]["batches"][0] = "AAAA" + text[4:]
    with pytest.raises(ProtocolError, match="checksum"):
        decode_datagram(with_checksum(json.dumps(said))).message()


def test_what_a_later_version_adds_is_passed_over() -> None:
    """Its envelope is understood, so that its version can be judged; its message is decoded only then."""
    said = json.loads(sent(RequestVote(5, 2, 7, 4)))
    del said["checksum"]
    said["message"]["priority"] = said["zone"] = 3
    assert decode_datagram(with_checksum(json.dumps(said))).message() == RequestVote(5, 2, 7, 4)
    said["message"] = {"type": "Unheard", "of": 1}
    datagram = decode_datagram(with_checksum(json.dumps(said)))
    assert datagram.sender == 2
    with pytest.raises(ProtocolError):
        datagram.message()


def test_every_flipped_bit_is_noticed() -> None:
    data = sent(ProposeRejected(5, 2, 7, "mismatch", False, 3, 4))
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(ProtocolError):
            decode_datagram(bytes(flipped))


def all_of(datagram: Datagram) -> None:
    datagram.hello(("h", 1))
    datagram.refusal()
    datagram.message()


def test_whatever_stands_under_a_right_checksum_is_decoded_or_a_protocol_error() -> None:
    chance = random.Random(1)
    junk: list[Any] = [
        None,
        -1,
        1.5,
        "",
        "x" * 600,
        [],
        {},
        [[1]],
        True,
        {"type": "RequestVote"},
        2**64,
        "/w==",
    ]
    for _ in range(by_level(quick=2_000, ci=50_000)):
        said = json.loads(sent(example(chance.choice(KINDS), 1)))
        del said["checksum"]
        target = chance.choice([said, said["message"]])
        target[chance.choice(list(target))] = chance.choice(junk)
        with contextlib.suppress(ProtocolError):
            all_of(decode_datagram(with_checksum(json.dumps(said))))
    for text in (
        "{}",
        '{"totora":1}',
        "{" + "[" * 60_000,
        "x",
        '{"from":"\ud800"}'.encode("utf-16", "ignore").hex(),
    ):
        with pytest.raises(ProtocolError):
            all_of(decode_datagram(with_checksum(text)))
