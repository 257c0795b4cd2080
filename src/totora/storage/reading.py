"""Reading a segment: batches for those who ask, verified; and the search for damage."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator
from typing import Final

from ..core.batch import Batch
from ..errors import ProtocolError, StorageError
from ..ports import Disk, File
from ..types import LogIndex
from .record import RECORD_HEADER_BYTES, RecordType, read_record
from .recovery import Extent, sound_records
from .segment import FIRST_RECORD, REPLACE_NODE, RESTORE_FILE, named, opened, read_footer

__all__ = ["batches_of", "damage", "find_damage"]

READ_BYTES: Final = 256 << 10


def batches_of(
    disk: Disk,
    extent: Extent,
    sparse: list[tuple[LogIndex, int]],
    first_index: LogIndex,
    last_index: LogIndex,
) -> Generator[Batch]:
    """The segment's batches from the one that holds `first_index` to the one that holds `last_index`.

    What a truncation removed is stepped over. Raises StorageError.
    """
    if not sparse:
        return
    last_index = min(last_index, extent.last_index)
    offset = sparse[bisect_right(sparse, (first_index, 1 << 62)) - 1][1]
    with named(disk, extent.name), opened(disk, extent.name) as file:
        yield from _walk(disk, extent, file, sparse, offset, first_index, last_index)


def _walk(
    disk: Disk,
    extent: Extent,
    file: File,
    sparse: list[tuple[LogIndex, int]],
    offset: int,
    first_index: LogIndex,
    last_index: LogIndex,
) -> Generator[Batch]:
    header = extent.header
    data, base = memoryview(b""), offset
    while True:
        if offset - base + RECORD_HEADER_BYTES > len(data):
            data, base = memoryview(file.pread(READ_BYTES, offset)), offset
        length = int.from_bytes(data[offset - base + 8 : offset - base + 12], "little")
        end = offset + RECORD_HEADER_BYTES + length
        if end - base > len(data) and end <= file.size():
            data, base = memoryview(file.pread(max(READ_BYTES, end - offset), offset)), offset
        record = read_record(data, offset - base, header.salt, header.number, offset)
        if record is None:
            raise damage(disk, extent, offset)
        offset = record.end
        if record.type != RecordType.BATCH:
            continue
        try:
            batch = record.batch()
        except ProtocolError:
            raise damage(disk, extent, record.offset) from None
        alive = sparse[bisect_right(sparse, (batch.first_index, 1 << 62)) - 1][1]
        if alive > record.offset:
            offset = alive  # Truncated and written anew further on.
            continue
        if batch.last_index >= first_index:
            yield batch
        if batch.last_index >= last_index:
            return


def damage(disk: Disk, extent: Extent, offset: int) -> StorageError:
    remedy = RESTORE_FILE if extent.sealed else REPLACE_NODE
    return StorageError(f"{disk.path}/{extent.name}", offset, f"damaged: not served, not cut; {remedy}")


def find_damage(disk: Disk, extent: Extent, *, sealed: bool) -> StorageError | None:
    """The first damage of a segment; None: header, records and, if it is sealed, footer are sound."""
    end = extent.end
    try:
        with named(disk, extent.name), opened(disk, extent.name) as file:
            if file.pread(FIRST_RECORD, 0) != extent.header.encode():
                return damage(disk, extent, 0)
            data = file.pread(end - FIRST_RECORD, FIRST_RECORD)
            _, sound_end = sound_records(data, extent.header)
            if sound_end < end or (sealed and read_footer(file, extent.header) is None):
                return damage(disk, extent, sound_end)
    except StorageError as error:
        return error
    return None
