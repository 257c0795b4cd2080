"""Messages to bytes and back: a small MessagePack header, then the batches' bytes as they are.

    header: one message of the closed union `WireMessage`, array-like, tagged; a Batch in it is written as its size
    blob:   the batches, one behind the other, in the order in which the header names them

So a batch is encoded once in its life, and a message that carries megabytes decodes in constant time.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final, TypeAlias, cast

import msgspec

from ..core.batch import Batch
from ..core.messages import Message
from ..errors import ProtocolError
from .client import ClientMessage
from .frames import frame

__all__ = ["WireMessage", "decode", "encode"]

WireMessage: TypeAlias = Message | ClientMessage


def _batch_size(value: Any) -> int:
    if isinstance(value, Batch):
        return len(value.data)
    raise NotImplementedError(f"{type(value).__name__} is no part of a message")


class _Blob:
    """The bytes behind the header that is being decoded."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.offset = 0

    def take(self, kind: type, size_bytes: Any) -> Batch:
        if kind is not Batch or not isinstance(size_bytes, int) or size_bytes < 0:
            raise ProtocolError("message", "a batch is named by its size")
        end = self.offset + size_bytes
        if end > len(self.data):
            raise ProtocolError("message", "batches exceed the frame")
        batch = Batch.parse(bytes(self.data[self.offset : end]))
        self.offset = end
        return batch


_NO_BLOB: Final = _Blob(memoryview(b""))

# Not a plain global: nodes in threads of their own decode at the same time.
_BLOB: Final[ContextVar[_Blob]] = ContextVar("_BLOB")


def _take_batch(kind: type, size_bytes: Any) -> Batch:
    return _BLOB.get(_NO_BLOB).take(kind, size_bytes)


_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=_batch_size)
_DECODER: Final = msgspec.msgpack.Decoder(WireMessage, dec_hook=_take_batch)


def encode(message: WireMessage) -> list[bytes]:
    """The parts of one frame, to be written one behind the other; batches are not copied."""
    batches: tuple[Batch, ...] = getattr(message, "batches", ())
    return frame(_ENCODER.encode(message), [batch.data for batch in batches] if batches else ())


def decode(header: memoryview, blob: memoryview) -> WireMessage:
    """A message, its batches verified. Raises ProtocolError."""
    if not blob:
        return _decode(header)
    unread = _Blob(blob)
    token = _BLOB.set(unread)
    try:
        message = _decode(header)
    finally:
        _BLOB.reset(token)
    if unread.offset != len(blob):
        raise ProtocolError("message", f"{len(blob) - unread.offset} bytes follow the last batch")
    return message


def _decode(header: memoryview) -> WireMessage:
    try:
        return cast(WireMessage, _DECODER.decode(header))
    except ProtocolError:
        raise
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError("message", str(error)) from error
