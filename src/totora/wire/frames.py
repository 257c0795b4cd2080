"""Frames on a byte stream: a length, a header with its checksum, a blob.

offset  size  field
0       4     length         of header and blob together
4       4     header_length
8       4     checksum       zlib.crc32 of the header; the blob's batches have checksums of their own
12            header, blob
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from ..config import BATCH_BYTES_MAX
from ..errors import ProtocolError

__all__ = ["FRAME_BYTES_MAX", "HANDSHAKE_BYTES_MAX", "FrameReader", "frame"]

_PREFIX: Final = struct.Struct("<III")
PREFIX_BYTES: Final = _PREFIX.size
_TLS: Final = (b"\x15\x03", b"\x16\x03")
"""How a TLS alert and a ClientHello begin, and no length of a Hello. An alert is shorter than the prefix."""

FRAME_BYTES_MAX: Final = 2 * BATCH_BYTES_MAX + (64 << 10)
HANDSHAKE_BYTES_MAX: Final = 1 << 10
"""Who has not said who it is may not send more."""


def frame(header: bytes, blob: Sequence[bytes] = ()) -> list[bytes]:
    """The parts of a frame."""
    header_length = length = len(header)
    if blob:
        length += sum(map(len, blob))
    return [_PREFIX.pack(length, header_length, zlib.crc32(header)) + header, *blob]


class FrameReader:
    """Cuts a byte stream into frames. Holds at most one unfinished frame of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[memoryview, memoryview]]:
        """Header and blob of each frame that is complete; valid until the next one is asked for.

        Raises ProtocolError for what is no frame; the stream is lost then.
        """
        if self._buffer:
            self._buffer += data
            if not self._complete():
                return
            view = memoryview(self._buffer)
            self._buffer = bytearray()
        else:
            view = memoryview(data)
        offset, size = 0, len(view)
        while size - offset >= PREFIX_BYTES:
            length, header_length, checksum = _PREFIX.unpack_from(view, offset)
            if length > self.limit or header_length > length:
                raise self._wrong(view[offset:], length, header_length)
            start = offset + PREFIX_BYTES
            if length > size - start:
                break
            header = view[start : start + header_length]
            if zlib.crc32(header) != checksum:
                raise ProtocolError("frame", "checksum does not match")
            offset = start + length
            yield header, view[start + header_length : offset]
        if offset < size:
            if size - offset < PREFIX_BYTES:
                self._refuse_tls(view[offset:])
            self._buffer += view[offset:]

    def _complete(self) -> bool:
        """The buffer holds its first frame whole."""
        view = memoryview(self._buffer)
        if len(view) < PREFIX_BYTES:
            self._refuse_tls(view)
            return False
        length: int
        length, header_length, _ = _PREFIX.unpack_from(view)
        if length > self.limit or header_length > length:
            raise self._wrong(view, length, header_length)
        return length <= len(view) - PREFIX_BYTES

    def _wrong(self, view: memoryview, length: int, header_length: int) -> ProtocolError:
        if length > self.limit:
            self._refuse_tls(view)
            return ProtocolError("frame", f"a frame of {length:,} bytes exceeds the limit of {self.limit:,}")
        return ProtocolError("frame", f"a header of {header_length:,} bytes in a frame of {length:,}")

    def _refuse_tls(self, view: memoryview) -> None:
        """Say so in words, while the other end is unknown: a length that nobody sent on purpose tells a person nothing."""
        if self.limit == HANDSHAKE_BYTES_MAX and bytes(view[:2]) in _TLS and any(view[2:4]):
            raise ProtocolError("frame", "this is TLS: give all nodes tls=, or none")
