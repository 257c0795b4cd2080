"""The words of Maelstrom's node contract, workload `lin-kv`: one JSON object a line, on pipes.

    {"src": "c1", "dest": "n1", "body": {"type": "read", "msg_id": 1, "key": 7}}

Nodes and the harness both speak them. Values are any JSON; here they are JSON text in one spelling, so that equal values are
equal text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum
from typing import Final, TypeAlias

import msgspec

__all__ = [
    "DEFINITE",
    "LINE_BYTES_MAX",
    "Cas",
    "Code",
    "Datagram",
    "Ending",
    "Init",
    "Lines",
    "Packet",
    "Read",
    "Reply",
    "Request",
    "Write",
    "encode_packet",
    "one_spelling",
]

LINE_BYTES_MAX: Final = 1 << 20
"""A line that is longer is passed over."""


class Code(IntEnum):
    """Why a request failed."""

    TIMEOUT = 0
    NODE_NOT_FOUND = 1
    NOT_SUPPORTED = 10
    TEMPORARILY_UNAVAILABLE = 11
    MALFORMED_REQUEST = 12
    CRASH = 13
    ABORT = 14
    KEY_DOES_NOT_EXIST = 20
    KEY_ALREADY_EXISTS = 21
    PRECONDITION_FAILED = 22
    TXN_CONFLICT = 30


DEFINITE: Final = frozenset(Code) - {Code.TIMEOUT, Code.CRASH}
"""The request certainly had no effect, and will have none; after any other code it may have."""


class Packet(msgspec.Struct, frozen=True):
    """One line."""

    src: str
    dest: str
    body: msgspec.Raw


class Init(msgspec.Struct, frozen=True, tag="init"):
    """The first message to a node: who it is, and who belongs to its cluster."""

    msg_id: int
    node_id: str
    node_ids: tuple[str, ...]


class Read(msgspec.Struct, frozen=True, tag="read"):
    """Ask for a key's value."""

    msg_id: int
    key: msgspec.Raw


class Write(msgspec.Struct, frozen=True, tag="write"):
    """Set a key."""

    msg_id: int
    key: msgspec.Raw
    value: msgspec.Raw


class Cas(msgspec.Struct, frozen=True, tag="cas"):
    """Set a key if it has this value."""

    msg_id: int
    key: msgspec.Raw
    old: msgspec.Raw = msgspec.field(name="from")
    new: msgspec.Raw = msgspec.field(name="to")
    create_if_not_exists: bool = False


class Datagram(msgspec.Struct, frozen=True, tag="totora"):
    """Between nodes: a datagram of `wire.json_datagrams`, whose checksum is over its very characters."""

    datagram: str


Request: TypeAlias = Init | Read | Write | Cas | Datagram


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node answers: `type` is `error` or ends in `_ok`."""

    type: str
    in_reply_to: int | None = None
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    code: int | None = None
    text: str = ""


_ENCODER: Final = msgspec.json.Encoder()


def encode_packet(src: str, dest: str, body: object) -> bytes:
    """One line, with its end."""
    fields = {"src": src, "dest": dest, "body": body}
    return _ENCODER.encode(fields) + b"\n"


def one_spelling(value: msgspec.Raw) -> str:
    """JSON text that is equal where the values are. Raises MsgspecError, RecursionError."""
    return msgspec.json.encode(msgspec.json.decode(value), order="deterministic").decode()


class Lines(asyncio.Protocol):
    """A pipe's end that takes lines.

    received: gets each line, without its end. ended: called once, behind the last one. overlong: called instead of `received`.
    """

    def __init__(
        self,
        received: Callable[[bytes], None],
        ended: Callable[[], None],
        overlong: Callable[[], None],
    ) -> None:
        self._received = received
        self._ended = ended
        self._overlong = overlong
        self._rest = b""
        self._skipping = False

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
            elif len(line) > LINE_BYTES_MAX:
                self._overlong()
            elif line.strip():
                self._received(line)
        if self._skipping:
            self._rest = b""
        elif len(self._rest) > LINE_BYTES_MAX:
            self._rest, self._skipping = b"", True
            self._overlong()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()


class Ending(asyncio.BaseProtocol):
    """A pipe's end that is written to. lost: called when nobody reads it any more."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()
