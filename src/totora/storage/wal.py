"""The write-ahead log: segments, written in groups, one sync for each group.

    write(group) -> records -> one pwrite, one sync -> durable
    a full segment -> its successor is made durable -> the old one gets its footer

Nothing is acknowledged before the sync that it rests on, and a failed write or sync ends the log: it is never retried, since
a second sync may succeed without having written anything.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from ..core.batch import Batch
from ..core.effects import HardState, Persist
from ..core.log import Recovered
from ..core.quorum import Configuration
from ..core.summary import LogSummary
from ..errors import ProtocolError, StorageError
from ..ports import Disk, File
from ..types import LogIndex, Random, Term
from .record import (
    RECORD_HEADER_BYTES,
    RecordType,
    encode_hard_state,
    encode_index,
    encode_record,
    read_record,
)
from .recovery import Extent, Found, recover
from .segment import (
    FIRST_RECORD,
    TRAILER_BYTES,
    Footer,
    SegmentHeader,
    encode_footer,
    encode_trailer,
    name_of,
    read_footer,
    storage_error,
    zero_fill,
)

__all__ = ["WriteAheadLog"]

RESERVE: Final = "reserve"
"""The next segment, zero-filled and synced before it is needed."""

_UNFINISHED: Final = "reserve.tmp"
RESERVE_SLICE_BYTES: Final = 1 << 20
READ_BYTES: Final = 256 << 10
INDEXES_MAX: Final = 8
"""Sealed segments whose sparse index is kept in memory."""


class WriteAheadLog:
    """`LogStore` on a disk.

    may_create: the directory is new. If it is not, a log without a single segment has lost them.
    configuration: the cluster's as it was when the directory was made, in force before the log says otherwise.
    """

    def __init__(
        self,
        disk: Disk,
        random: Random,
        *,
        store_id: bytes,
        configuration: Configuration,
        segment_bytes: int,
        may_create: bool,
    ) -> None:
        self._disk = disk
        self._random = random
        self._store_id = store_id
        self._configuration = configuration
        self._segment_bytes = segment_bytes
        self._may_create = may_create
        self._found: Found
        self._extents: tuple[Extent, ...] = ()
        self._active: Extent
        self._size = 0
        self._hard_state = HardState()
        self._commit_index: LogIndex = 0
        self._synced = 0
        self._offset = 0
        self._parts: list[bytes] = []
        self._noted: list[tuple[Batch, int]] = []
        self._reserved = False
        self._reserving: tuple[File, int] | None = None
        self._base: tuple[LogIndex, Term] = (0, 0)
        self._loaded: deque[Extent] = deque()
        self._retired: list[File] = []
        self._broken: StorageError | None = None

    # -- opening

    def recover(self) -> Recovered:
        try:
            found = recover(self._disk, self._store_id, self._configuration)
            if found is None:
                return self._create()
            self._found = found
            self._extents = tuple(found.extents)
            self._hard_state, self._commit_index = found.hard_state, found.commit_index
            first = found.extents[0].header
            self._base = first.base_index, first.base_term
            self._activate(found.extents[-1])
            recovered = found.recovered()
            self._summary = found.summary
            self._tidy(found.unused)
            return recovered
        except OSError as error:
            raise self._failed("", None, error) from error

    def _create(self) -> Recovered:
        if not self._may_create:
            raise StorageError(
                self._disk.path,
                None,
                "all segments of the log are missing: restore the directory from a copy",
            )
        self._summary = LogSummary(self._configuration)
        self._tidy([])
        self._begin_segment(0, 1, 0)
        self._found = Found([self._active], HardState(), 0, self._summary, [], [])
        return self._found.recovered()

    def _activate(self, extent: Extent) -> None:
        self._active = extent
        self._offset = self._synced = extent.end
        self._size = extent.file.size() - TRAILER_BYTES

    def _tidy(self, unused: Sequence[str]) -> None:
        """Remove what a crash left behind; keep one file to use again."""
        names = self._disk.list()
        if _UNFINISHED in names:
            self._disk.remove(_UNFINISHED)
        self._reserved = RESERVE in names
        for name in unused:
            self._recycle(name)
        while self.wants_reserve:
            self.reserve()

    # -- writing

    def write(self, group: Sequence[Persist]) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            for write in group:
                self._commit_index = max(self._commit_index, write.commit_index)
                if write.truncate_after is not None:
                    self._truncate_after(write.truncate_after)
                if write.hard_state is not None:
                    self._hard_state = write.hard_state
                    self._put(RecordType.HARD_STATE, encode_hard_state(write.hard_state))
                for batch in write.batches:
                    self._put_batch(batch)
            self._flush()
            self._summary.settle(self._commit_index)
        except OSError as error:
            raise self._failed(self._active.name, self._synced, error) from error

    def _failed(self, name: str, offset: int | None, error: OSError) -> StorageError:
        self._broken = storage_error(self._disk, name, offset, error, 2 * self._segment_bytes)
        return self._broken

    def _put_batch(self, batch: Batch) -> None:
        offset = self._put(RecordType.BATCH, batch.data)
        self._noted.append((batch, offset))
        self._summary.append(batch)

    def _put(self, kind: RecordType, payload: bytes) -> int:
        """Add a record to the group; returns its offset."""
        need_bytes = RECORD_HEADER_BYTES + len(payload)
        if self._offset + need_bytes > self._size:
            self._rotate(need_bytes)
        offset = self._offset
        header = self._active.header
        self._parts.append(
            encode_record(header.salt, header.number, offset, kind, payload, self._synced, self._commit_index)
        )
        self._parts.append(payload)
        self._offset += need_bytes
        return offset

    def _flush(self) -> None:
        """Make the group durable, as far as it lies in this segment."""
        if self._parts:
            self._active.file.pwrite(self._parts, self._synced)
            self._active.file.sync()
            self._synced = self._offset
            self._parts = []
        for batch, offset in self._noted:
            self._active.note(batch, offset)
        self._noted.clear()

    def _last_index(self) -> LogIndex:
        return self._noted[-1][0].last_index if self._noted else self._active.last_index

    def _truncate_after(self, index: LogIndex) -> None:
        if index >= self._last_index():
            return
        self._flush()
        self._summary.truncate_after(index)
        has_room = self._offset + RECORD_HEADER_BYTES + 8 <= self._size
        if has_room and index >= self._active.first_index - 1:
            self._put(RecordType.TRUNCATION, encode_index(index))
            self._flush()
            self._active.truncate_after(index)
        else:
            self._cut_to(index)

    def _cut_to(self, index: LogIndex) -> None:
        """Go on from an earlier segment: the new one names it as its predecessor, and where it goes on."""
        newest = self._active.header.number
        kept = [extent for extent in self._extents if extent.first_index <= index]
        dropped = self._extents[len(kept) :]
        if kept:
            cut = replace(kept[-1], sparse=self._sparse(kept[-1]))
            cut.truncate_after(index)
            kept[-1] = cut
        self._extents = tuple(kept)
        self._begin_segment(kept[-1].header.number if kept else 0, index + 1, 0, after=newest)
        for extent in dropped:
            # A reader may be in it: the file is closed at the end, and what is read from it is not believed.
            self._retired.append(extent.file)
            self._recycle(extent.name)

    # -- segments

    def _rotate(self, need_bytes: int) -> None:
        """The segment is full: begin its successor, then seal it. A sealed segment always has a successor."""
        self._flush()
        full = self._active
        summary = self._summary.encode()
        full.end = self._synced
        self._begin_segment(full.header.number, full.last_index + 1, self._synced, need_bytes=need_bytes)
        footer = Footer(
            full.first_index,
            full.last_index,
            self._commit_index,
            (self._hard_state.current_term, self._hard_state.voted_for or 0),
            full.runs,
            full.sparse or [],
            full.largest_batch_bytes,
            summary,
        )
        payload = encode_footer(footer)
        header = full.header
        record = encode_record(
            header.salt, header.number, full.end, RecordType.FOOTER, payload, full.end, self._commit_index
        )
        size = max(full.file.size(), full.end + len(record) + len(payload) + TRAILER_BYTES)
        full.file.pwrite([record, payload], full.end)
        full.file.pwrite([encode_trailer(header.salt, full.end)], size - TRAILER_BYTES)
        full.file.sync()
        full.sealed, full.sparse = True, None

    def _begin_segment(
        self,
        predecessor: int,
        first_index: LogIndex,
        predecessor_end: int,
        *,
        after: int = 0,
        need_bytes: int = 0,
    ) -> None:
        number = max(predecessor, after) + 1
        size = max(self._segment_bytes, FIRST_RECORD + need_bytes + TRAILER_BYTES)
        if size > self._segment_bytes or not self._reserved:
            self._begin_reserve()
            while not self._reserved:
                self._extend_reserve(size)
        header = SegmentHeader(
            self._random.getrandbits(32) | 1,
            self._store_id,
            number,
            predecessor,
            predecessor_end,
            first_index,
            *self._base,
            self._hard_state,
        )
        file = self._disk.open(RESERVE)
        self._reserved = False
        file.pwrite([header.encode()], 0)
        file.sync()
        self._disk.rename(RESERVE, name_of(number))
        self._disk.sync_dir()
        extent = Extent(header, file, first_index - 1, FIRST_RECORD, None, [])
        self._extents = (*self._extents, extent)
        self._activate(extent)

    @property
    def wants_reserve(self) -> bool:
        """The next segment is not ready: `reserve` should be called between writes until it is."""
        return not self._reserved and self._broken is None

    def reserve(self) -> None:
        """Do a slice of making the next segment ready, so that a full disk is known before an append meets it.

        A slice is small, so that writes can go in between.
        """
        if self.wants_reserve:
            try:
                if self._reserving is None:
                    self._begin_reserve()
                self._extend_reserve(self._segment_bytes)
            except OSError as error:
                raise self._failed(RESERVE, None, error) from error

    def _begin_reserve(self) -> None:
        if self._reserving is not None:
            self._reserving[0].close()
        names = self._disk.list()
        for leftover in (_UNFINISHED, RESERVE):
            if leftover in names:
                self._disk.remove(leftover)
        self._reserved = False
        self._reserving = self._disk.open(_UNFINISHED, create=True), 0

    def _extend_reserve(self, size: int) -> None:
        assert self._reserving is not None, "a reserve is begun before it is extended"
        file, start = self._reserving
        end = min(start + RESERVE_SLICE_BYTES, size)
        zero_fill(file, start, end)
        file.sync()
        self._reserving = file, end
        if end == size:
            self._reserving = None
            file.close()
            self._disk.rename(_UNFINISHED, RESERVE)
            self._disk.sync_dir()
            self._reserved = True

    def _recycle(self, name: str) -> None:
        """A segment that is on no way through the log any more: use it again, or give its space back."""
        if self._reserved or self._reserving is not None:
            self._disk.remove(name)
        else:
            self._disk.rename(name, RESERVE)
            self._reserved = True
        self._disk.sync_dir()

    # -- reading

    def read(self, first_index: LogIndex, last_index: LogIndex, max_bytes: int) -> list[Batch]:
        extents = self._extents
        at = bisect_right(extents, first_index, key=lambda extent: extent.first_index) - 1
        batches: list[Batch] = []
        size_bytes = 0
        try:
            for extent in extents[max(at, 0) :]:
                for batch in self._read_extent(extent, max(first_index, extent.first_index)):
                    size_bytes += len(batch.data)
                    if batch.first_index > last_index or (batches and size_bytes > max_bytes):
                        return batches
                    batches.append(batch)
        except (OSError, StorageError) as error:
            if extents[: len(self._extents)] != self._extents[: len(extents)]:
                return batches  # A truncation took away what was being read: nobody may use it any more.
            if isinstance(error, StorageError):
                self._broken = error
                raise
            raise self._failed(extents[at].name, None, error) from error
        return batches

    def _sparse(self, extent: Extent) -> list[tuple[LogIndex, int]]:
        sparse = extent.sparse
        if sparse is None:
            footer = read_footer(extent.file, extent.header)
            if footer is None:
                raise self._damage(extent, extent.file.size())
            extent.sparse = sparse = footer.sparse
            self._loaded.append(extent)
            if len(self._loaded) > INDEXES_MAX:
                self._loaded.popleft().sparse = None
        return sparse

    def _read_extent(self, extent: Extent, first_index: LogIndex) -> Iterator[Batch]:
        """The segment's batches from the one that holds `first_index`; what a truncation removed is stepped over."""
        last_index = extent.last_index
        sparse = self._sparse(extent)
        if not sparse or first_index > last_index:
            return
        offset = sparse[max(0, bisect_right(sparse, (first_index, 1 << 62)) - 1)][1]
        data, base = memoryview(b""), offset
        while True:
            if offset - base + RECORD_HEADER_BYTES > len(data):
                data, base = memoryview(extent.file.pread(READ_BYTES, offset)), offset
            length = int.from_bytes(data[offset - base + 8 : offset - base + 12], "little")
            end = offset + RECORD_HEADER_BYTES + length
            if end - base > len(data) and end <= extent.file.size():
                data, base = memoryview(extent.file.pread(max(READ_BYTES, end - offset), offset)), offset
            record = read_record(data, offset - base, extent.header.salt, extent.header.number, offset)
            if record is None:
                raise self._damage(extent, offset)
            offset = record.end
            if record.type != RecordType.BATCH:
                continue
            try:
                batch = record.batch()
            except ProtocolError:
                raise self._damage(extent, record.offset) from None
            index, alive = sparse[bisect_right(sparse, (batch.first_index, 1 << 62)) - 1]
            if alive > record.offset and index <= batch.first_index:
                offset = alive  # Truncated and written anew further on.
                continue
            if batch.last_index >= first_index:
                yield batch
            if batch.last_index >= last_index:
                return

    def _damage(self, extent: Extent, offset: int) -> StorageError:
        return StorageError(
            f"{self._disk.path}/{extent.name}",
            offset,
            "damaged: not served, not cut; restore the file from a copy",
        )

    def verify(self) -> Iterator[StorageError]:
        """Read everything and report all damage, segment by segment."""
        for extent in self._extents:
            try:
                for _ in self._read_extent(extent, extent.first_index):
                    pass
                if extent.sealed and read_footer(extent.file, extent.header) is None:
                    yield self._damage(extent, extent.file.size() - TRAILER_BYTES)
            except StorageError as error:
                yield error

    # -- the end

    def close(self) -> None:
        """Write the mark of a clean end, unless the log is broken, and release all files."""
        if not self._extents:
            return
        try:
            if self._broken is None and self._offset + RECORD_HEADER_BYTES <= self._size:
                self._put(RecordType.MARK, b"")
                self._flush()
        except OSError as error:
            raise self._failed(self._active.name, self._synced, error) from error
        finally:
            for file in [*(extent.file for extent in self._extents), *self._retired]:
                file.close()
            if self._reserving is not None:
                self._reserving[0].close()
            self._extents = ()
