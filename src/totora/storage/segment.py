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
from collections.abc import Generator, Iterator
from contextlib import contextmanager
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
    "REPLACE_NODE",
    "RESTORE_FILE",
    "SPARSE_BYTES",
    "TRAILER_BYTES",
    "Footer",
    "SegmentHeader",
    "is_of_the_disk",
    "name_of",
    "named",
    "number_of",
    "opened",
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
_HEADER: Final = struct.Struct("<8sII16sQQQQQQQQQ")
_CHECKSUM: Final = struct.Struct("<I")
_TRAILER: Final = struct.Struct("<IIII")
TRAILER_BYTES: Final = _TRAILER.size
_ZEROS: Final = bytes(1 << 20)


RESTORE_FILE: Final = "restore the file from a copy of this directory"
"""What helps a file that does not change any more."""

REPLACE_NODE: Final = "replace this node by a new one; an older copy would break what it promised"
"""What helps if the end of the log is damaged: a vote or an acknowledgement may have stood there."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def is_of_the_disk(error: OSError) -> bool:
    """The disk failed or is full: no setting is wrong."""
    return error.errno in (*_FULL, errno.EIO)


def storage_error(
    disk: Disk, name: str, offset: int | None, error: OSError, need_bytes: int = 0
) -> StorageError:
    """What a failed call means to whoever runs the node."""
    why = f"{error.strerror or error}: check the disk and start the node again"
    if error.errno in _FULL:
        why = f"no space left: free at least {need_bytes:,} bytes there and start the node again"
    return StorageError(f"{disk.path}/{name}" if name else disk.path, offset, why)


@contextmanager
def named(disk: Disk, name: str, offset: int | None = None, need_bytes: int = 0) -> Generator[None]:
    """A call that fails in here becomes a StorageError that names the file."""
    try:
        yield
    except OSError as error:
        raise storage_error(disk, name, offset, error, need_bytes) from error


@contextmanager
def opened(disk: Disk, name: str) -> Generator[File]:
    """Open a file for a while: a log of many segments must not need as many descriptors."""
    file = disk.open(name)
    try:
        yield file
    finally:
        file.close()


@dataclass(slots=True, frozen=True)
class SegmentHeader:
    """The header block.

    predecessor: number of the segment before; 0: none. first_index: where this one goes on.
    predecessor_end: offset up to which the predecessor's records were synced.
    base_index, base_term: the entry before the log's first one. hard_state: in force when the segment began.
    size_bytes: of the file when the segment began: a smaller one is cut off.
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
    size_bytes: int

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
            self.size_bytes,
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
    """The number in a segment's name, from 1; None if it is no such name."""
    stem, _, end = name.partition(".")
    if end != "log" or len(stem) != 12 or not (stem.isascii() and stem.isdigit()):
        return None
    return int(stem) or None


def read_header(
    disk: Disk, name: str, file: File, store_id: bytes, remedy: str = RESTORE_FILE
) -> SegmentHeader:
    """Raises StorageError for damage, which `remedy` helps, ConfigurationError for a newer version or another store."""
    path = f"{disk.path}/{name}"
    block = file.pread(FIRST_RECORD, 0)
    if len(block) < FIRST_RECORD:
        raise StorageError(path, len(block), f"the file is cut off here: {remedy}")
    magic, version, salt, owner, number, predecessor, end, first, base, base_term, term, vote, size = (
        _HEADER.unpack_from(block)
    )
    if magic != _MAGIC:
        raise StorageError(path, 0, f"not a segment of a totora log, or its header is damaged: {remedy}")
    if version > FORMAT_VERSION:
        raise ConfigurationError(
            f"{path} has format version {version}, this totora knows {FORMAT_VERSION}: upgrade it"
        )
    if _CHECKSUM.unpack_from(block, _HEADER.size)[0] != zlib.crc32(block[: _HEADER.size]):
        raise StorageError(path, 0, f"the header is damaged: {remedy}")
    if owner != store_id:
        raise ConfigurationError(f"{path} belongs to another data directory: put it back where it was")
    if number != number_of(name):
        raise ConfigurationError(
            f"{path} is segment {number} under another name: rename it to {name_of(number)}"
        )
    if file.size() < size:
        raise StorageError(path, file.size(), f"the file is cut off here, it had {size:,} bytes: {remedy}")
    hard_state = HardState(term, vote or None)
    return SegmentHeader(salt, owner, number, predecessor, end, first, base, base_term, hard_state, size)


def read_footer(file: File, header: SegmentHeader) -> tuple[Footer, int] | None:
    """The footer and its offset, where the records end.

    None if the segment is not sealed, or not wholly: a footer tells nothing that the records do not.
    """
    size = file.size()
    trailer = file.pread(TRAILER_BYTES, max(0, size - TRAILER_BYTES))
    if len(trailer) < TRAILER_BYTES:
        return None
    salt, offset, checksum, _ = _TRAILER.unpack(trailer)
    if salt != header.salt or zlib.crc32(_TRAILER.pack(salt, offset, 0, 0)) != checksum:
        return None
    data = memoryview(file.pread(size - TRAILER_BYTES - offset, offset))
    record = read_record(data, 0, header.salt, header.number, offset)
    if record is None or record.type != RecordType.FOOTER:
        return None
    return _FOOTER_DECODER.decode(record.payload), offset


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
