"""A segment: one file of the log, pre-written, with a header block, records, and a footer once it is sealed.

    0                header block, 4 KiB (`SegmentHeader`)
    4096             records (see `record`)
    ...              the footer, a record of its own, when sealed
    size - 16        trailer when sealed: salt, offset of the footer, checksum

A segment names its predecessor and the index at which it goes on, so the newest one leads back through the whole log: what
its predecessor holds from that index on is cut, and a file that is on no such way is free to be used again.
"""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from ..core.effects import HardState
from ..errors import ConfigurationError, StorageError
from ..ports import Disk, File
from ..types import LogIndex, Term
from .record import Record, RecordType, read_record

__all__ = [
    "FIRST_RECORD",
    "SPARSE_BYTES",
    "TRAILER_BYTES",
    "Footer",
    "SegmentHeader",
    "name_of",
    "number_of",
    "read_footer",
    "read_header",
    "records_of",
    "storage_error",
    "zero_fill",
]

FIRST_RECORD: Final = 4096
SPARSE_BYTES: Final = 64 << 10
"""The sparse index has an entry about this often."""

FORMAT_VERSION: Final = 1
_MAGIC: Final = b"TOTORAWL"
_HEADER: Final = struct.Struct("<8sII16sQQQQQQQQ")
_CHECKSUM: Final = struct.Struct("<I")
_TRAILER: Final = struct.Struct("<IIII")
TRAILER_BYTES: Final = _TRAILER.size
_ZEROS: Final = bytes(1 << 20)


def storage_error(
    disk: Disk, name: str, offset: int | None, error: OSError, need_bytes: int = 0
) -> StorageError:
    """What a failed call means to whoever runs the node."""
    why = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        why = f"no space left: free at least {need_bytes:,} bytes there and start the node again"
    return StorageError(f"{disk.path}/{name}", offset, why)


@dataclass(slots=True, frozen=True)
class SegmentHeader:
    """The header block.

    predecessor: number of the segment before; 0: none. first_index: where this one goes on.
    predecessor_end: offset up to which the predecessor's records were synced; 0: not stated, some of them are cut.
    base_index, base_term: the entry before the log's first one. hard_state: in force when the segment began.
    """

    salt: int
    store_id: bytes
    number: int
    predecessor: int
    predecessor_end: int
    first_index: LogIndex
    base_index: LogIndex
    base_term: Term
    hard_state: HardState

    def encode(self) -> bytes:
        packed = _HEADER.pack(
            _MAGIC,
            FORMAT_VERSION,
            self.salt,
            self.store_id,
            self.number,
            self.predecessor,
            self.predecessor_end,
            self.first_index,
            self.base_index,
            self.base_term,
            self.hard_state.current_term,
            self.hard_state.voted_for or 0,
        )
        return (packed + _CHECKSUM.pack(zlib.crc32(packed))).ljust(FIRST_RECORD, b"\0")


class Footer(msgspec.Struct, array_like=True):
    """What a sealed segment holds, so that opening the log need not read it.

    sparse: (first index, offset) of a batch about every 64 KiB, and of each that follows a truncation.
    summary: `LogSummary.encode` of the whole log up to `last_index`.
    """

    first_index: LogIndex
    last_index: LogIndex
    commit_index: LogIndex
    hard_state: tuple[Term, int]
    runs: list[tuple[LogIndex, Term]]
    sparse: list[tuple[LogIndex, int]]
    largest_batch_bytes: int
    summary: bytes


_FOOTER_ENCODER: Final = msgspec.msgpack.Encoder()
_FOOTER_DECODER: Final = msgspec.msgpack.Decoder(Footer)


def encode_footer(footer: Footer) -> bytes:
    return _FOOTER_ENCODER.encode(footer)


def encode_trailer(salt: int, footer_offset: int) -> bytes:
    checksum = zlib.crc32(_TRAILER.pack(salt, footer_offset, 0, 0))
    return _TRAILER.pack(salt, footer_offset, checksum, 0)


def name_of(number: int) -> str:
    return f"{number:012d}.log"


def number_of(name: str) -> int | None:
    """The number in a segment's name; None if it is no such name."""
    stem, dot, end = name.partition(".")
    return int(stem) if dot and end == "log" and len(stem) == 12 and stem.isdigit() else None


def read_header(disk: Disk, name: str, file: File, store_id: bytes) -> SegmentHeader:
    """Raises StorageError for damage, ConfigurationError for a file of a newer version or another store."""
    path = f"{disk.path}/{name}"
    block = file.pread(FIRST_RECORD, 0)
    if len(block) < FIRST_RECORD:
        raise StorageError(path, len(block), "the file is cut off: restore it from a copy of this directory")
    magic, version, salt, owner, number, predecessor, end, first, base, base_term, term, vote = (
        _HEADER.unpack_from(block)
    )
    if magic != _MAGIC:
        raise StorageError(path, 0, "not a segment of a totora log, or its header is damaged")
    if version > FORMAT_VERSION:
        raise ConfigurationError(
            f"{path} has format version {version}, this totora knows {FORMAT_VERSION}: upgrade it"
        )
    if _CHECKSUM.unpack_from(block, _HEADER.size)[0] != zlib.crc32(block[: _HEADER.size]):
        raise StorageError(
            path, 0, "the header block is damaged: restore the file from a copy of this directory"
        )
    if owner != store_id:
        raise ConfigurationError(f"{path} belongs to another data directory: put it back where it was")
    if number != number_of(name):
        raise ConfigurationError(
            f"{path} is segment {number} under another name: rename it to {name_of(number)}"
        )
    hard_state = HardState(term, vote or None)
    return SegmentHeader(salt, owner, number, predecessor, end, first, base, base_term, hard_state)


def read_footer(file: File, header: SegmentHeader) -> Footer | None:
    """The footer; None if the segment is not sealed, or not wholly: a footer tells nothing that the records do not."""
    size = file.size()
    trailer = file.pread(TRAILER_BYTES, size - TRAILER_BYTES)
    salt, offset, checksum, _ = _TRAILER.unpack(trailer)
    if salt != header.salt or zlib.crc32(_TRAILER.pack(salt, offset, 0, 0)) != checksum:
        return None
    data = memoryview(file.pread(size - TRAILER_BYTES - offset, offset))
    record = read_record(data, 0, header.salt, header.number, offset)
    if record is None or record.type != RecordType.FOOTER:
        return None
    return _FOOTER_DECODER.decode(record.payload)


def records_of(data: bytes, header: SegmentHeader, base: int) -> Iterator[Record]:
    """The sound records of `data`, which stands at offset `base` of the segment, up to the first that is none."""
    view = memoryview(data)
    at = 0
    while (record := read_record(view, at, header.salt, header.number, base + at)) is not None:
        yield record
        at = record.end - base


def zero_fill(file: File, start: int, end: int) -> None:
    for offset in range(start, end, len(_ZEROS)):
        file.pwrite([_ZEROS[: min(len(_ZEROS), end - offset)]], offset)
