"""The write-ahead log: segments, written in groups, one sync for each group.

    write(group) -> records -> one pwrite, one sync -> durable
    a full segment -> its successor is made durable -> the old one gets its footer

Nothing is acknowledged before the sync that it rests on, and a failed write or sync ends the log: it is never retried, since
a second sync may succeed without having written anything.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Final

from ..core.batch import Batch
from ..core.effects import HardState, Persist
from ..core.log import Recovered
from ..core.quorum import Configuration
from ..core.summary import LogSummary
from ..errors import StorageError
from ..ports import Disk, File
from ..types import LogIndex, Random, Term
from .reading import batches_of, damage, find_damage
from .record import RECORD_HEADER_BYTES, RecordType, encode_hard_state, encode_index, encode_record
from .recovery import Extent, Found, Tail, recover
from .reserve import RESERVE, Reserve
from .segment import (
    FIRST_RECORD,
    REPLACE_NODE,
    TRAILER_BYTES,
    Footer,
    SegmentHeader,
    encode_footer,
    encode_trailer,
    name_of,
    named,
    opened,
    read_footer,
    storage_error,
)

__all__ = ["WriteAheadLog"]

INDEXES_MAX: Final = 8
"""Sealed segments whose sparse index is kept in memory."""

_SLACK_BYTES: Final = RECORD_HEADER_BYTES + TRAILER_BYTES
SMALL_BYTES: Final = 32 << 10
"""A group of records of at most this size takes longer to sync than to write."""
"""Left free at a segment's end: for the mark of a clean end, and for the trailer."""


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
        self._reserve = Reserve(disk, segment_bytes)
        self._extents: tuple[Extent, ...] = ()
        self._active: Extent
        self._file: File | None = None
        self._limit = 0
        self._hard_state = HardState()
        self._commit_index: LogIndex = 0
        self._summary = LogSummary(configuration)
        self._offset = self._small_bytes = 0
        self._parts: list[bytes] = []
        self._noted: list[tuple[Batch, int]] = []
        self._marked = True
        self._base: tuple[LogIndex, Term] = (0, 0)
        self._loaded: deque[Extent] = deque()
        self._broken: StorageError | None = None

    # -- opening

    def recover(self) -> Recovered:
        try:
            with self._last_failure():
                found = recover(self._disk, self._store_id, self._configuration)
                return self._create() if found is None else self._go_on(found)
        except BaseException:
            self._release()
            raise

    def _create(self) -> Recovered:
        if not self._may_create:
            raise StorageError(
                self._disk.path,
                None,
                f"all segments of the log are missing: find them, or {REPLACE_NODE}",
            )
        self._tidy([])
        self._begin_segment(None, 1)
        return Recovered(
            hard_state=self._hard_state,
            commit_index=0,
            base_index=0,
            base_term=0,
            runs=[],
            last_index=0,
            summary=self._summary.copy(),
            tail=[],
            largest_batch_bytes=0,
        )

    def _go_on(self, found: Found) -> Recovered:
        recovered = found.recovered()
        self._extents = tuple(found.extents)
        self._hard_state, self._commit_index = found.hard_state, found.commit_index
        self._summary = found.summary
        self._base = recovered.base_index, recovered.base_term
        newest = found.extents[-1]
        with self._named(newest.name, found.tail.start):
            self._activate(newest, self._disk.open(newest.name))
            self._settle(found.tail)
        self._marked = found.marked
        for full in found.extents[-2:-1]:
            with self._named(full.name), opened(self._disk, full.name) as file:
                if found.unsealed is None:
                    file.sync()  # The footer may be known to the kernel alone.
                else:
                    self._seal(full, file, found.unsealed)
        self._tidy(found.unused)
        return recovered

    def _settle(self, tail: Tail) -> None:
        """Make durable what is believed, and erase the torn tail behind it.

        What no later record vouches for may stand in the kernel's memory alone: its process was killed, or its sync failed,
        after which the kernel may take it for clean. So it is written again. A record in a torn tail may be sound, and must
        not come back behind what is written next. The segment's name may be known to the kernel alone, too.
        """
        self._writable.pwrite([tail.data, bytes(tail.torn_bytes)], tail.start)
        self._writable.sync()
        self._disk.sync_dir()

    def _activate(self, extent: Extent, file: File) -> None:
        self._active, self._file = extent, file
        self._offset = self._small_bytes = extent.end
        self._limit = file.size() - _SLACK_BYTES
        self._marked = True

    def _tidy(self, unused: Sequence[str]) -> None:
        """Remove what a crash left behind; keep one file to use again, or take the room for one: filling it can wait."""
        self._reserve.find()
        for name in unused:
            self._reserve.recycle(name)
        if not self._reserve.ready:
            self._reserve.extend()

    # -- failing

    @contextmanager
    def _last_failure(self) -> Generator[None]:
        """Whatever fails in here is the end of this log."""
        try:
            yield
        except StorageError as error:
            self._broken = error
            raise

    def _named(self, name: str, offset: int | None = None) -> AbstractContextManager[None]:
        return named(self._disk, name, offset, self._reserve.need_bytes(self._segment_bytes))

    @property
    def _writable(self) -> File:
        assert self._file is not None, "a log that is written is open"
        return self._file

    # -- writing

    def write(self, group: Sequence[Persist]) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            for write in group:
                self._write(write)
            self._flush()
            self._summary.settle(self._commit_index)
        except StorageError as error:
            self._broken = error
            raise

    def _write(self, write: Persist) -> None:
        self._commit_index = max(self._commit_index, write.commit_index)
        if write.truncate_after is not None:
            self._truncate_after(write.truncate_after)
        if write.hard_state is not None:
            self._hard_state = write.hard_state
            self._put(RecordType.HARD_STATE, encode_hard_state(write.hard_state))
        for batch in write.batches:
            offset = self._put(RecordType.BATCH, batch.data)
            self._noted.append((batch, offset))
            self._summary.append(batch)

    def _put(self, kind: RecordType, payload: bytes) -> int:
        """Add a record to the group; returns its offset."""
        need_bytes = RECORD_HEADER_BYTES + len(payload)
        if self._offset + need_bytes > self._limit:
            self._rotate(need_bytes)
        self._add(kind, payload)
        self._marked = False
        return self._offset - need_bytes

    def _add(self, kind: RecordType, payload: bytes) -> None:
        header = self._active.header
        self._parts += (
            encode_record(
                header.salt, header.number, self._offset, kind, payload, self._active.end, self._commit_index
            ),
            payload,
        )
        self._offset += RECORD_HEADER_BYTES + len(payload)

    def _flush(self) -> None:
        """Make the group durable, as far as it lies in this segment."""
        active = self._active
        if self._parts:
            file = self._writable
            try:
                file.pwrite(self._parts, active.end, sync=True)
            except OSError as error:
                need_bytes = self._reserve.need_bytes(self._segment_bytes)
                raise storage_error(self._disk, active.name, active.end, error, need_bytes) from error
            if self._offset - active.end <= SMALL_BYTES:
                self._small_bytes += self._offset - active.end
            active.end = self._offset
            self._parts = []
        for batch, offset in self._noted:
            active.note(batch, offset)
        self._noted.clear()

    def _last_index(self) -> LogIndex:
        return self._noted[-1][0].last_index if self._noted else self._active.last_index

    def _truncate_after(self, index: LogIndex) -> None:
        if index >= self._last_index():
            return
        self._flush()
        self._summary.truncate_after(index)
        has_room = self._offset + RECORD_HEADER_BYTES + 8 <= self._limit
        if has_room and index >= self._active.first_index - 1:
            self._put(RecordType.TRUNCATION, encode_index(index))
            self._flush()
            self._active.truncate_after(index)
        else:
            self._cut_to(index)

    def _cut_to(self, index: LogIndex) -> None:
        """Go on from an earlier segment: the new one names it as its predecessor, and where it goes on."""
        full, file = self._active, self._writable
        kept = [extent for extent in self._extents if extent.first_index <= index]
        dropped = self._extents[len(kept) :]
        if kept:
            kept[-1].truncate_after(index)
        self._extents = tuple(kept)
        self._begin_segment(kept[-1] if kept else None, index + 1)
        try:
            if full not in dropped:
                self._seal(full, file, self._summary.encode())
        finally:
            file.close()
        for extent in dropped:
            # A reader may be in it: what it reads from now on is not believed.
            self._reserve.recycle(extent.name)

    # -- segments

    def _rotate(self, need_bytes: int) -> None:
        """The segment is full: begin its successor, then seal it. A sealed segment always has a successor."""
        self._flush()
        full, file, summary = self._active, self._writable, self._summary.encode()
        self._begin_segment(full, full.last_index + 1, need_bytes)
        try:
            self._seal(full, file, summary)
        finally:
            file.close()

    def _seal(self, extent: Extent, file: File, summary: bytes) -> None:
        """Write the footer: before anything stands in the successor, so that it is missed if it goes missing."""
        footer = Footer(
            extent.first_index,
            extent.last_index,
            self._commit_index,
            extent.runs,
            extent.sparse or [],
            extent.largest_batch_bytes,
            summary,
        )
        payload = encode_footer(footer)
        header, end = extent.header, extent.end
        record = encode_record(
            header.salt, header.number, end, RecordType.FOOTER, payload, end, self._commit_index
        )
        with self._named(extent.name, end):
            size = max(file.size(), end + len(record) + len(payload) + TRAILER_BYTES)
            file.pwrite([record, payload], end)
            file.pwrite([encode_trailer(header.salt, end)], size - TRAILER_BYTES)
            file.sync()
        extent.sealed, extent.sparse = True, None

    def _begin_segment(self, predecessor: Extent | None, first_index: LogIndex, need_bytes: int = 0) -> None:
        number = self._active.header.number + 1 if self._file else 1
        size = max(self._segment_bytes, FIRST_RECORD + need_bytes + _SLACK_BYTES)
        file = self._reserve.take(size)
        try:
            with self._named(name_of(number), 0):
                header = SegmentHeader(
                    self._random.getrandbits(32) | 1,
                    self._store_id,
                    number,
                    predecessor.header.number if predecessor else 0,
                    predecessor.end if predecessor else 0,
                    first_index,
                    *self._base,
                    self._hard_state,
                    file.size(),
                )
                file.pwrite([header.encode()], 0)
                file.sync()
                self._disk.rename(RESERVE, name_of(number))
                self._disk.sync_dir()
                extent = Extent(header, first_index - 1)
                self._activate(extent, file)
        except BaseException:
            file.close()
            raise
        self._extents = (*self._extents, extent)

    @property
    def wants_reserve(self) -> bool:
        """The next segment is not ready: `reserve` has something to do."""
        return not self._reserve.ready and self._broken is None

    @property
    def reserve_due(self) -> bool:
        """A slice of it is due: it is done when this segment is half full, and slows no burst before that.

        Large groups of records ask for none: filling would cost them as much as they write, and spare them little.
        """
        return (
            not self._reserve.ready
            and self._reserve.filled_bytes < 2 * self._small_bytes
            and self._broken is None
        )

    def reserve(self) -> None:
        """Do a slice of making the next segment ready, so that a full disk is known before an append meets it."""
        if self.wants_reserve:
            with self._last_failure():
                self._reserve.extend()

    # -- reading

    def read(self, first_index: LogIndex, last_index: LogIndex, max_bytes: int) -> list[Batch]:
        extents = self._extents
        if not extents:
            raise self._closed()
        at = bisect_right(extents, first_index, key=lambda extent: extent.first_index) - 1
        batches: list[Batch] = []
        size_bytes = 0
        try:
            for extent in extents[max(at, 0) :]:
                if extent.first_index > last_index:
                    break
                sparse, first = self._sparse(extent), max(first_index, extent.first_index)
                with closing(batches_of(self._disk, extent, sparse, first, last_index)) as found:
                    for batch in found:
                        size_bytes += len(batch.data)
                        follows = not batches or batch.first_index == batches[-1].last_index + 1
                        if not follows or (batches and size_bytes > max_bytes):
                            return batches
                        batches.append(batch)
        except StorageError as error:
            if any(extent not in self._extents for extent in extents):
                return batches  # A truncation took away what was being read: nobody may use it any more.
            self._broken = error
            raise
        return batches

    def _sparse(self, extent: Extent) -> list[tuple[LogIndex, int]]:
        sparse = extent.sparse
        if sparse is None:
            with self._named(extent.name), opened(self._disk, extent.name) as file:
                sealed = read_footer(file, extent.header)
            if sealed is None:
                raise damage(self._disk, extent, extent.end)
            extent.sparse = sparse = sealed[0].sparse
            self._loaded.append(extent)
            if len(self._loaded) > INDEXES_MAX:
                self._loaded.popleft().sparse = None
        return sparse

    def verify(self) -> Iterator[StorageError]:
        """Read everything and report the first damage of each segment."""
        extents = self._extents
        for extent in extents:
            found = find_damage(self._disk, extent, sealed=extent is not extents[-1])
            if found is not None and extent in self._extents:
                yield found

    # -- the end

    def close(self) -> None:
        """Write the mark of a clean end, unless the log is broken, and release all files."""
        try:
            if self._file is not None and self._broken is None and not self._marked:
                with self._last_failure():
                    self._add(RecordType.MARK, b"")
                    self._flush()
        finally:
            self._release()

    def _closed(self) -> StorageError:
        return StorageError(self._disk.path, None, "the log is closed: open it again")

    def _release(self) -> None:
        self._extents = ()
        self._broken = self._broken or self._closed()
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        finally:
            self._reserve.close()
