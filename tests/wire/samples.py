"""One message of every kind with every field filled, strategies that make any other, and a receiver for their bytes."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from totora.core import messages as m
from totora.core.batch import Batch, Kind, join_payloads
from totora.types import NodeStatus, PeerStatus
from totora.wire import client as c
from totora.wire import codec
from totora.wire.codec import WireMessage
from totora.wire.frames import FRAME_BYTES_MAX, FrameReader
from totora.wire.handshake import Hello, Refusal, Welcome

__all__ = [
    "HANDSHAKES",
    "KINDS",
    "SAMPLES",
    "any_message",
    "any_value",
    "bits_flipped",
    "framed",
    "receive",
    "sample_of",
]

KINDS: Final[tuple[type[Any], ...]] = get_args(WireMessage)

_BATCHES: Final = (
    Batch.build(Kind.CONFIGURATION, 3, 8, 1, join_payloads([b"members"])),
    Batch.build(
        Kind.ENTRIES,
        4,
        9,
        2,
        join_payloads([b"one", b""]),
        session=0x1234,
        sequence=5,
        leader_time_ns=10**18,
        machine_version=7,
    ),
)

_STATUS: Final = NodeStatus(
    id=1,
    role="leader",
    term=4,
    leader=1,
    last_index=10,
    commit_index=9,
    applied_index=9,
    durable_index=10,
    cluster_id="c1",
    store_id="a1",
    incarnation=2,
    volatile=False,
    peers=(
        PeerStatus(id=2, address="127.0.0.1:2", linked=True, match_index=9, silent_s=0.5, refused=None),
        PeerStatus(id=3, address="[::1]:3", linked=False, refused="no"),
    ),
    why="node 3 is away",
)

SAMPLES: Final[tuple[WireMessage, ...]] = (
    m.RequestVote(4, 2, 10, 3, True),
    m.RequestPreVote(5, 2, 10, 3),
    m.AppendEntries(4, 1, 7, 3, 6, 12, _BATCHES),
    m.Propose(99, 0x1234, 5, 2, 6, 5_000_000_000, join_payloads([b"one", b""]), 8, 3),
    m.RequestRead(98),
    m.TimeoutNow(4, 1),
    m.RequestTransfer(94, 2),
    m.VoteAccepted(4, None),
    m.VoteRejected(4, 1),
    m.PreVoteAccepted(5, None),
    m.PreVoteRejected(4, 1, 5),
    m.AppendAccepted(4, 1, 10, 12),
    m.AppendRejected(4, 1, 7, 6, 2, 12),
    m.ProposeAccepted(4, 1, 99, 9, 4),
    m.ProposeRejected(4, None, 99, "mismatch", True, 8, 3),
    m.ReadAccepted(4, 1, 98, 9),
    m.ReadRejected(4, None, 98, "overloaded"),
    m.TransferRejected(4, 1, 94, "node 2 is no voter"),
    c.ReadRanges(97, 5_000_000_000, (1, 10, 12, 12)),
    c.RangesRead(97, 9, 1, _BATCHES),
    c.RequestStatus(96),
    c.StatusReport(96, _STATUS),
    c.HandOver(93, 5_000_000_000, 2),
    c.HandedOver(93, 2),
    c.RequestFailed(95, "out_of_range", "ask within them", 1, 9, 3),
)

HANDSHAKES: Final[tuple[Hello | Welcome | Refusal, ...]] = (
    Hello(
        "totora",
        1,
        1,
        "control",
        b"c" * 16,
        b"l" * 16,
        2,
        b"s" * 16,
        3,
        b"f" * 16,
        "127.0.0.1",
        7000,
        1,
    ),
    Welcome(1, None, 1, b"t" * 16, 4, 9),
    Refusal("member", "node 2 is not a member"),
)


def sample_of(kind: type[Any]) -> Any:
    return next(sample for sample in SAMPLES if type(sample) is kind)


# -- any message -----------------------------------------------------------------------------------

_NUMBERS: Final = st.integers(0, (1 << 63) - 1)
_TEXT: Final = st.text(st.characters(codec="utf-8"), max_size=40)


@st.composite
def _batches(draw: st.DrawFn) -> Batch:
    payloads = draw(st.lists(st.binary(max_size=40), min_size=1, max_size=4))
    word = st.integers(0, (1 << 64) - 1)
    return Batch.build(
        draw(st.integers(0, 255)),
        draw(st.integers(1, (1 << 64) - 1)),
        draw(st.integers(1, (1 << 64) - 1)),
        len(payloads),
        join_payloads(payloads),
        session=draw(word),
        sequence=draw(word),
        leader_time_ns=draw(word),
        machine_version=draw(st.integers(0, (1 << 32) - 1)),
    )


def _field(kind: Any) -> st.SearchStrategy[Any]:
    if kind is Batch:
        return _batches()
    if kind is int:
        return _NUMBERS
    if kind is float:
        return st.floats(allow_nan=False)
    if kind is str:
        return _TEXT
    if kind is bytes:
        return st.binary(max_size=64)
    if kind is bool:
        return st.booleans()
    if kind is type(None):
        return st.none()
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is tuple:
        return st.lists(_field(get_args(kind)[0]), max_size=3).map(tuple)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return any_message(kind)
    return st.one_of(*map(_field, get_args(kind)))


def any_message(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any message of one kind whose fields have their types, numbers as every format here holds them."""
    fields = {name: _field(hint) for name, hint in get_type_hints(kind).items()}
    return st.builds(kind, **{name: fields[name] for name in kind.__struct_fields__})


# -- bytes -----------------------------------------------------------------------------------------


def framed(message: WireMessage) -> bytes:
    return b"".join(codec.encode(message))


def receive(*pieces: bytes, limit: int = FRAME_BYTES_MAX) -> list[WireMessage]:
    """What arrives of a stream that comes in these pieces. Raises ProtocolError."""
    reader = FrameReader(limit)
    return [codec.decode(header, blob) for piece in pieces for header, blob in reader.feed(piece)]


def bits_flipped(data: bytes, bits: Iterable[int]) -> bytes:
    flipped = bytearray(data)
    for bit in bits:
        flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def any_value(chance: random.Random, depth: int = 3) -> object:
    """Anything that MessagePack can say, to put where something else belongs."""
    shape = chance.randrange(12 if depth else 9)
    match shape:
        case 0:
            return None
        case 1:
            return chance.random() < 0.5
        case 2:
            return chance.getrandbits(chance.randrange(1, 65))
        case 3:
            return -chance.getrandbits(chance.randrange(1, 64))
        case 4:
            return chance.choice([0.0, -1.5, float("nan"), float("inf")])
        case 5:
            return "x" * chance.randrange(40)
        case 6:
            return chance.randbytes(chance.randrange(40))
        case 7:
            return msgspec.msgpack.Ext(
                chance.randrange(-128, 128), chance.randbytes(chance.choice([4, 8, 12]))
            )
        case 8:
            return chance.randrange(64)
        case 9 | 10:
            return [any_value(chance, depth - 1) for _ in range(chance.randrange(6))]
        case _:
            return {chance.randrange(9): any_value(chance, depth - 1) for _ in range(chance.randrange(4))}
