"""The record: what a segment is a sequence of.

    offset  size  field
    0       4     magic         the segment's salt: random, new with each use of a file, so recycled blocks never look new
    4       4     checksum      zlib.crc32 of the rest of the header and of what it protects, seeded with segment and offset
    8       4     length        of the payload
    12      4     synced        offset in this segment up to which all was on stable storage when this was written
    16      8     commit_index  known to be committed then: a lower bound
    24      1     type          `RecordType`
    25      7     reserved      0
    32            payload

The checksum protects the whole payload, but of a batch only the header: the batch's own checksum protects the rest, so each
byte is summed once. Little-endian. Pure: knows bytes, no files.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import Final

import msgspec

from ..core.batch import HEADER_BYTES as BATCH_HEADER_BYTES
from ..core.batch import Batch
from ..core.effects import HardState
from ..types import LogIndex

__all__ = ["RECORD_HEADER_BYTES", "Record", "RecordType", "encode_record", "find_record", "read_record"]

_HEADER: Final = struct.Struct("<IIIIQB7x")
_PLACE: Final = struct.Struct("<QQ")
_PLACE_AND_REST: Final = struct.Struct("<QQIIQB7x")
_HARD_STATE: Final = struct.Struct("<QQ")
_INDEX: Final = struct.Struct("<Q")
RECORD_HEADER_BYTES: Final = _HEADER.size


class RecordType(IntEnum):
    BATCH = 1
    HARD_STATE = 2
    TRUNCATION = 3
    """Every entry after this index is removed; never below the segment's own first index."""
    FOOTER = 4
    MARK = 5
    """The log was closed cleanly: everything before it is on stable storage."""


_TYPES: Final = {int(known): known for known in RecordType}


class Record(msgspec.Struct, gc=False):
    """A sound record, as it was read at `offset`. A segment may hold very many: the collector skips them."""

    type: RecordType
    offset: int
    end: int
    synced: int
    commit_index: LogIndex
    payload: memoryview

    def batch(self) -> Batch:
        """Raises ProtocolError if the batch's own checksum does not match."""
        return Batch.parse(bytes(self.payload))

    def hard_state(self) -> HardState:
        term, voted_for = _HARD_STATE.unpack(self.payload)
        return HardState(term, voted_for or None)

    def truncate_after(self) -> LogIndex:
        index: LogIndex = _INDEX.unpack(self.payload)[0]
        return index


def encode_hard_state(hard_state: HardState) -> bytes:
    return _HARD_STATE.pack(hard_state.current_term, hard_state.voted_for or 0)


def encode_index(index: LogIndex) -> bytes:
    return _INDEX.pack(index)


def encode_record(
    salt: int,
    segment: int,
    offset: int,
    kind: RecordType,
    payload: bytes,
    synced: int,
    commit_index: LogIndex,
) -> bytes:
    """The header of a record whose payload follows as it is."""
    length = len(payload)
    protected = payload[:BATCH_HEADER_BYTES] if kind == RecordType.BATCH else payload
    seed = zlib.crc32(_PLACE_AND_REST.pack(segment, offset, length, synced, commit_index, kind))
    checksum = zlib.crc32(protected, seed)
    return _HEADER.pack(salt, checksum, length, synced, commit_index, kind)


def read_record(data: memoryview, at: int, salt: int, segment: int, offset: int) -> Record | None:
    """The record that begins at `data[at]`, which is `offset` in the segment; None if there is no sound one.

    A batch's body is not verified here: `Record.batch` does it.
    """
    if len(data) - at < RECORD_HEADER_BYTES:
        return None
    magic, checksum, length, synced, commit_index, kind = _HEADER.unpack_from(data, at)
    start = at + RECORD_HEADER_BYTES
    end = start + length
    if magic != salt or end > len(data):
        return None
    payload = data[start:end]
    protected = payload[:BATCH_HEADER_BYTES] if kind == RecordType.BATCH else payload
    # The header as it stands, reserved bytes and all.
    seed = zlib.crc32(data[at + 8 : start], zlib.crc32(_PLACE.pack(segment, offset)))
    if zlib.crc32(protected, seed) != checksum:
        return None
    known = _TYPES.get(kind)
    if known is None:
        return None
    return Record(known, offset, offset + end - at, synced, commit_index, payload)


def find_record(
    data: bytes, start: int, salt: int, segment: int, base: int, end: int | None = None
) -> Record | None:
    """The next record with a sound header at or after `data[start]`, wherever it begins: what stands behind damage.

    end: it begins before this. base: the offset of data[0] in the segment. The body of a batch may be torn: what its header
    states was true all the same.
    """
    magic = struct.pack("<I", salt)
    view = memoryview(data)
    at = data.find(magic, start, end)
    while at >= 0:
        record = read_record(view, at, salt, segment, base + at)
        if record is not None:
            return record
        at = data.find(magic, at + 1, end)
    return None
