"""Opening a log: which segments it consists of, what they hold, and where a torn tail begins.

Sealed segments are known by their footers; only the newest segment is read, and those before it that reach beyond what is
known to be committed. Damage below an offset that was known to be synced is corruption: it is reported and nothing is cut.
Damage above is the torn tail of a write that nobody was told of: it is cut.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

from ..core.batch import Batch
from ..core.effects import HardState
from ..core.log import Recovered
from ..core.quorum import Configuration
from ..core.summary import LogSummary
from ..errors import ProtocolError, StorageError
from ..ports import Disk, File
from ..types import LogIndex, Term
from .record import Record, RecordType, find_record
from .segment import (
    FIRST_RECORD,
    SPARSE_BYTES,
    TRAILER_BYTES,
    Footer,
    SegmentHeader,
    name_of,
    number_of,
    read_footer,
    read_header,
    records_of,
)

__all__ = ["Extent", "Found", "recover"]

TAIL_BYTES_MAX: Final = 4 << 20


@dataclass(slots=True)
class Extent:
    """A segment and the part of the log that it holds: `first_index` to `last_index`, none if that is smaller.

    sparse: (first index, offset) of some batches, ascending; None: in the footer, to be read when it is needed.
    end: where its records end. sealed: it has a footer, which is kept in memory only while the log is opened.
    cut: its end was truncated and nothing stands there yet; what comes next needs its place in `sparse`.
    """

    header: SegmentHeader
    file: File
    last_index: LogIndex
    end: int
    footer: Footer | None = None
    sparse: list[tuple[LogIndex, int]] | None = None
    runs: list[tuple[LogIndex, Term]] = field(default_factory=list)
    largest_batch_bytes: int = 0
    sealed: bool = False
    cut: bool = False

    @property
    def name(self) -> str:
        return name_of(self.header.number)

    @property
    def first_index(self) -> LogIndex:
        return self.header.first_index

    def note(self, batch: Batch, offset: int) -> None:
        """A batch stands at `offset`."""
        if self.sparse is None:
            self.sparse = []
        if self.cut or not self.sparse or offset - self.sparse[-1][1] >= SPARSE_BYTES:
            self.sparse.append((batch.first_index, offset))
        self.cut = False
        if not self.runs or self.runs[-1][1] != batch.term:
            self.runs.append((batch.first_index, batch.term))
        self.last_index = batch.last_index
        self.largest_batch_bytes = max(self.largest_batch_bytes, len(batch.data))

    def truncate_after(self, index: LogIndex) -> None:
        # New lists: a reader on another thread may hold the old ones.
        self.sparse = [entry for entry in self.sparse or [] if entry[0] <= index]
        self.runs = self.runs[: bisect_right(self.runs, index, key=lambda run: run[0])]
        self.last_index = index
        self.cut = True


@dataclass(slots=True)
class Found:
    """A log as it was found. `extents` ascend; the last one is the segment to go on writing."""

    extents: list[Extent]
    hard_state: HardState
    commit_index: LogIndex
    summary: LogSummary
    tail: list[Batch]
    unused: list[str]

    def recovered(self) -> Recovered:
        first = self.extents[0].header
        runs: list[tuple[LogIndex, Term]] = []
        for extent in self.extents:
            runs += [run for run in extent.runs if not runs or run[1] != runs[-1][1]]
        return Recovered(
            hard_state=self.hard_state,
            commit_index=self.commit_index,
            base_index=first.base_index,
            base_term=first.base_term,
            runs=runs,
            last_index=self.extents[-1].last_index,
            summary=self.summary.copy(),
            tail=self.tail,
            largest_batch_bytes=max(extent.largest_batch_bytes for extent in self.extents),
        )


def recover(disk: Disk, store_id: bytes, configuration: Configuration) -> Found | None:
    """Read the log in `disk`; None if there is no segment at all. Raises StorageError, ConfigurationError, OSError."""
    numbers = [number for name in disk.list() if (number := number_of(name)) is not None]
    if not numbers:
        return None
    extents = _chain(disk, store_id, max(numbers))
    used = {extent.header.number for extent in extents}
    newest = extents[-1]
    scans = {len(extents) - 1: _scan_newest(disk, newest)}
    known = [record.commit_index for record, _ in scans[len(extents) - 1]]
    known += [extent.footer.commit_index for extent in extents if extent.footer is not None]
    commit_index = max(known, default=0)
    start = _start_of_fold(extents, commit_index)
    for at in range(len(extents) - 1):
        if at >= start or extents[at].footer is None:
            scans[at] = _scan_older(disk, extents[at], extents[at + 1].header)
    return _fold(extents, start, scans, commit_index, configuration, numbers, used)


def _chain(disk: Disk, store_id: bytes, newest: int) -> list[Extent]:
    """Follow the predecessors from the newest segment to the first."""
    extents: list[Extent] = []
    number = newest
    while number:
        name = name_of(number)
        try:
            file = disk.open(name)
        except FileNotFoundError:
            raise StorageError(
                f"{disk.path}/{name}", None, f"missing, {extents[-1].name} follows it: restore it from a copy"
            ) from None
        header = read_header(disk, name, file, store_id)
        footer = read_footer(file, header)
        if footer is not None and not extents:
            raise StorageError(
                f"{disk.path}/{name_of(number + 1)}",
                None,
                f"missing, {name} is complete: restore it from a copy",
            )
        extent = Extent(header, file, header.first_index - 1, FIRST_RECORD, footer, sealed=footer is not None)
        if footer is not None:
            extent.last_index, extent.runs = footer.last_index, footer.runs
            extent.largest_batch_bytes = footer.largest_batch_bytes
        if extents and extent.last_index >= extents[-1].first_index:
            _cut(extent, extents[-1].first_index - 1)
        extents.append(extent)
        number = header.predecessor
    extents.reverse()
    first = extents[0].header
    if first.first_index != first.base_index + 1:
        raise StorageError(f"{disk.path}/{extents[0].name}", 0, "does not begin where the log begins")
    return extents


def _cut(extent: Extent, index: LogIndex) -> None:
    """What a later segment replaced is not part of the log."""
    extent.runs = extent.runs[: bisect_right(extent.runs, index, key=lambda run: run[0])]
    extent.last_index = index


def _start_of_fold(extents: list[Extent], commit_index: LogIndex) -> int:
    """The first segment to read: after the newest footer of which nothing can be taken back."""
    for at in range(len(extents) - 2, -1, -1):
        footer = extents[at].footer
        if footer is not None and footer.last_index <= min(commit_index, extents[at].last_index):
            return at + 1
    return 0


# -- reading records


def _sound(
    disk: Disk, extent: Extent, data: bytes, base: int
) -> tuple[list[tuple[Record, Batch | None]], int]:
    """The sound records from the start, batches verified and decoded, and the offset where the next one should begin."""
    records: list[tuple[Record, Batch | None]] = []
    end = base
    for record in records_of(data, extent.header, base):
        batch = None
        if record.type == RecordType.BATCH:
            try:
                batch = record.batch()
            except ProtocolError:
                break
        records.append((record, batch))
        end = record.end
    return records, end


def _scan_newest(disk: Disk, extent: Extent) -> list[tuple[Record, Batch | None]]:
    size = extent.file.size()
    data = extent.file.pread(size - FIRST_RECORD, FIRST_RECORD)
    records, end = _sound(disk, extent, data, FIRST_RECORD)
    header = extent.header
    behind = find_record(data, end - FIRST_RECORD, header.salt, header.number, FIRST_RECORD)
    last = end
    while behind is not None:
        if behind.synced > end:
            raise StorageError(
                f"{disk.path}/{extent.name}",
                end,
                f"damaged: what stood here was on stable storage, and sound records follow at {behind.offset:,}; "
                "nothing was cut; remove this node's directory and let it join anew, or restore a copy",
            )
        last = behind.end
        behind = find_record(data, last - FIRST_RECORD, header.salt, header.number, FIRST_RECORD)
    _erase(extent, end, max(last, _last_trace(data, header) + FIRST_RECORD))
    extent.end = end
    return records


def _last_trace(data: bytes, header: SegmentHeader) -> int:
    """Behind the last place where a record of this segment may begin, sound or not."""
    return data.rfind(header.salt.to_bytes(4, "little")) + 4


def _erase(extent: Extent, start: int, end: int) -> None:
    """Overwrite a torn tail: a record in it may be sound, and must not come back behind what is written next."""
    if end > start:
        extent.file.pwrite([bytes(end - start)], start)
        extent.file.sync()


def _scan_older(disk: Disk, extent: Extent, successor: SegmentHeader) -> list[tuple[Record, Batch | None]]:
    data = extent.file.pread(extent.file.size() - TRAILER_BYTES - FIRST_RECORD, FIRST_RECORD)
    records, end = _sound(disk, extent, data, FIRST_RECORD)
    stated = successor.predecessor_end
    if (
        extent.footer is not None and records[-1:] and records[-1][0].type != RecordType.FOOTER
    ) or end < stated:
        raise StorageError(
            f"{disk.path}/{extent.name}",
            end,
            "damaged: what stood here was on stable storage; restore a copy",
        )
    extent.end = stated or end
    return records


# -- folding


def _fold(
    extents: list[Extent],
    start: int,
    scans: dict[int, list[tuple[Record, Batch | None]]],
    commit_index: LogIndex,
    configuration: Configuration,
    numbers: list[int],
    used: set[int],
) -> Found:
    footer = extents[start - 1].footer if start else None
    folded = LogSummary(configuration) if footer is None else LogSummary.decode(footer.summary)
    hard_state = HardState()
    tail: list[Batch] = []
    for at in sorted(scans):
        extent = extents[at]
        if at - 1 not in scans:
            tail = []
        # A segment before the start is read for its own sake: it has no footer, because a crash came before that.
        summary = folded if at >= start else LogSummary(configuration)
        extent.runs, extent.sparse, extent.last_index, extent.cut = [], [], extent.first_index - 1, False
        hard_state = extent.header.hard_state
        for record, batch in scans[at]:
            if batch is not None:
                extent.note(batch, record.offset)
                summary.append(batch)
                tail.append(batch)
            elif record.type == RecordType.HARD_STATE:
                hard_state = record.hard_state()
            elif record.type == RecordType.TRUNCATION:
                tail = _truncate(extent, summary, tail, record.truncate_after())
        if at + 1 < len(extents) and extent.last_index >= extents[at + 1].first_index:
            tail = _truncate(extent, summary, tail, extents[at + 1].first_index - 1)
    commit_index = min(commit_index, extents[-1].last_index)
    folded.settle(commit_index)
    for extent in extents:
        extent.footer = None
    unused = [name_of(number) for number in numbers if number not in used]
    return Found(extents, hard_state, commit_index, folded, _newest(tail), unused)


def _truncate(extent: Extent, summary: LogSummary, tail: list[Batch], index: LogIndex) -> list[Batch]:
    extent.truncate_after(index)
    summary.truncate_after(index)
    return [batch for batch in tail if batch.last_index <= index]


def _newest(batches: list[Batch]) -> list[Batch]:
    size_bytes = 0
    for at in range(len(batches) - 1, -1, -1):
        size_bytes += len(batches[at].data)
        if size_bytes > TAIL_BYTES_MAX:
            return batches[at + 1 :]
    return batches
