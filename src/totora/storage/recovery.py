"""Opening a log: which segments it consists of, what they hold, and where a torn tail begins.

Sealed segments are known by their footers; only the newest segment is read, and those before it that reach beyond what is
known to be committed. Damage below an offset that was known to be synced is corruption: it is reported and nothing is cut.
Damage above is the torn tail of a write that nobody was told of: it is cut.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, TypeAlias

from ..core.batch import Batch
from ..core.effects import HardState
from ..core.log import Recovered
from ..core.quorum import Configuration
from ..core.summary import LogSummary
from ..errors import ProtocolError, StorageError
from ..ports import Disk
from ..types import LogIndex, Term
from .record import Record, RecordType, find_record
from .segment import (
    FIRST_RECORD,
    REPLACE_NODE,
    RESTORE_FILE,
    SPARSE_BYTES,
    Footer,
    SegmentHeader,
    name_of,
    named,
    number_of,
    opened,
    read_footer,
    read_header,
    records_of,
)

__all__ = ["Extent", "Found", "Tail", "recover", "sound_records"]

_ZEROS: Final = bytes(64 << 10)
_SALT_BYTES: Final = 4

TAIL_BYTES_MAX: Final = 4 << 20
SETTLE_BATCHES: Final = 1_024
"""Of so many batches the summary remembers no more how to take them back, if they are committed."""

Scan: TypeAlias = list[tuple[Record, Batch | None]]


@dataclass(slots=True, eq=False)
class Extent:
    """A segment and the part of the log that it holds: `first_index` to `last_index`, none if that is smaller.

    end: where its records end. sealed: it has a footer, which is kept in memory only while the log is opened.
    sparse: (first index, offset) of some batches, ascending; None: in the footer, to be read when it is needed.
    cut: its end was truncated and nothing stands there yet; what comes next needs its place in `sparse`.
    """

    header: SegmentHeader
    last_index: LogIndex
    end: int = FIRST_RECORD
    footer: Footer | None = None
    sparse: list[tuple[LogIndex, int]] | None = field(default_factory=list)
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
        assert self.sparse is not None, "a sealed segment is not written"
        if self.cut or not self.sparse or offset - self.sparse[-1][1] >= SPARSE_BYTES:
            self.sparse.append((batch.first_index, offset))
        self.cut = False
        if not self.runs or self.runs[-1][1] != batch.term:
            self.runs.append((batch.first_index, batch.term))
        self.last_index = batch.last_index
        self.largest_batch_bytes = max(self.largest_batch_bytes, len(batch.data))

    def truncate_after(self, index: LogIndex) -> None:
        # New lists: a reader on another thread may hold the old ones. The end goes first: with the new list and
        # the old end, a reader would look for batches that are still to be written.
        self.last_index = index
        if self.sparse is not None:
            self.sparse = [entry for entry in self.sparse if entry[0] <= index]
        self.runs = self.runs[: bisect_right(self.runs, index, key=lambda run: run[0])]
        self.cut = True


@dataclass(slots=True)
class Tail:
    """The end of the newest segment, as it was read.

    start: up to here records vouch for each other. data: from there on. torn_bytes: how many to erase behind it.
    """

    start: int = FIRST_RECORD
    data: bytes = b""
    torn_bytes: int = 0


@dataclass(slots=True)
class Found:
    """A log as it was found. `extents` ascend; the last one is the segment to go on writing.

    marked: its last record says that the log was closed cleanly, or there is none.
    unsealed: the summary as of the end of the last segment but one, if a crash came before its footer.
    unused: names of segments that are on no way through the log.
    """

    extents: list[Extent]
    hard_state: HardState
    commit_index: LogIndex
    summary: LogSummary
    batches: list[Batch]
    tail: Tail
    marked: bool
    unsealed: bytes | None
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
            tail=self.batches,
            largest_batch_bytes=max(extent.largest_batch_bytes for extent in self.extents),
        )


def recover(disk: Disk, store_id: bytes, configuration: Configuration) -> Found | None:
    """Read the log in `disk` and change nothing; None if there is no segment at all.

    Raises StorageError, ConfigurationError.
    """
    with named(disk, ""):
        numbers = [number for name in disk.list() if (number := number_of(name)) is not None]
    if not numbers:
        return None
    extents = _chain(disk, store_id, max(numbers))
    used = {extent.header.number for extent in extents}
    unused = [name_of(number) for number in numbers if number not in used]
    for name in unused:
        _require_own(disk, store_id, name)
    newest, tail = _scan_newest(disk, extents[-1])
    scans = {len(extents) - 1: newest}
    known = [record.commit_index for record, _ in newest]
    known += [extent.footer.commit_index for extent in extents if extent.footer is not None]
    commit_index = max(known, default=0)
    start = _start_of_fold(extents, commit_index)
    for at in range(len(extents) - 1):
        if at >= start or extents[at].footer is None:
            scans[at] = _scan_older(disk, extents[at], extents[at + 1].header)
    found = _fold(extents, start, scans, commit_index, configuration)
    _check_chain(disk, extents)
    found.tail, found.unused = tail, unused
    return found


def _chain(disk: Disk, store_id: bytes, newest: int) -> list[Extent]:
    """Follow the predecessors from the newest segment to the first."""
    extents: list[Extent] = []
    number = newest
    while number:
        name = name_of(number)
        with named(disk, name):
            try:
                with opened(disk, name) as file:
                    remedy = RESTORE_FILE if extents else REPLACE_NODE
                    header = read_header(disk, name, file, store_id, remedy)
                    sealed = read_footer(file, header)
            except FileNotFoundError:
                raise StorageError(
                    f"{disk.path}/{name}", None, f"missing, {extents[-1].name} follows it: {RESTORE_FILE}"
                ) from None
        extent = Extent(header, header.first_index - 1)
        if sealed is not None:
            if not extents:
                raise StorageError(
                    f"{disk.path}/{name}",
                    None,
                    f"complete, but the segment that follows it is missing: find that file, or {REPLACE_NODE}",
                )
            footer, extent.end = sealed
            extent.footer, extent.sealed, extent.sparse = footer, True, None
            extent.last_index, extent.runs = footer.last_index, footer.runs
            extent.largest_batch_bytes = footer.largest_batch_bytes
        if extents and extent.last_index >= extents[-1].first_index:
            # What a later segment replaced is not part of the log.
            extent.truncate_after(extents[-1].first_index - 1)
        extents.append(extent)
        number = header.predecessor
    extents.reverse()
    first = extents[0].header
    if first.first_index != first.base_index + 1:
        raise StorageError(
            f"{disk.path}/{extents[0].name}", 0, f"does not begin where the log begins: {RESTORE_FILE}"
        )
    return extents


def _require_own(disk: Disk, store_id: bytes, name: str) -> None:
    """Only what this log has put aside itself may be used again."""
    with named(disk, name), opened(disk, name) as file:
        read_header(disk, name, file, store_id)


def _check_chain(disk: Disk, extents: list[Extent]) -> None:
    """Each segment goes on where the one before ends."""
    for extent, successor in pairwise(extents):
        if extent.last_index + 1 != successor.first_index or extent.end != successor.header.predecessor_end:
            raise StorageError(
                f"{disk.path}/{extent.name}",
                None,
                f"{successor.name} does not go on where it ends: one of them is of another copy, put the right one back",
            )


def _start_of_fold(extents: list[Extent], commit_index: LogIndex) -> int:
    """The first segment to read: after the newest footer of which nothing can be taken back."""
    for at in range(len(extents) - 2, -1, -1):
        footer = extents[at].footer
        if footer is not None and footer.last_index <= min(commit_index, extents[at].last_index):
            return at + 1
    return 0


# -- reading records


def sound_records(data: bytes, header: SegmentHeader) -> tuple[Scan, int]:
    """The sound records from the start, batches verified and decoded, and the offset where the next one should begin.

    data: of the segment from its first record on.
    """
    records: Scan = []
    end = FIRST_RECORD
    for record in records_of(data, header, FIRST_RECORD):
        batch = None
        if record.type == RecordType.BATCH:
            try:
                batch = record.batch()
            except ProtocolError:
                break
        records.append((record, batch))
        end = record.end
    return records, end


def _read_records(disk: Disk, extent: Extent) -> bytes:
    with named(disk, extent.name, FIRST_RECORD), opened(disk, extent.name) as file:
        return file.pread(file.size() - FIRST_RECORD, FIRST_RECORD)


def _scan_newest(disk: Disk, extent: Extent) -> tuple[Scan, Tail]:
    data = _read_records(disk, extent)
    header = extent.header
    records, end = sound_records(data, header)
    filled = _filled(data)
    behind = find_record(data, end - FIRST_RECORD, header.salt, header.number, FIRST_RECORD, filled)
    while behind is not None:
        if behind.synced > end:
            raise StorageError(
                f"{disk.path}/{extent.name}",
                end,
                f"damaged: what stood here was on stable storage, as a record at {behind.offset:,} says; nothing was "
                f"cut; {REPLACE_NODE}",
            )
        start = behind.offset + 1 - FIRST_RECORD
        behind = find_record(data, start, header.salt, header.number, FIRST_RECORD, filled)
    extent.end = end
    vouched = max((record.synced for record, _ in records), default=FIRST_RECORD)
    believed = data[vouched - FIRST_RECORD : end - FIRST_RECORD]
    torn_bytes = max(0, _last_trace(data, header, filled) + FIRST_RECORD - end)
    return records, Tail(vouched, believed, torn_bytes)


def _last_trace(data: bytes, header: SegmentHeader, filled: int) -> int:
    """Behind the last place where a record of this segment may begin, sound or not."""
    salt = header.salt.to_bytes(_SALT_BYTES, "little")
    at = data.rfind(salt, 0, filled)
    return at + len(salt) if at >= 0 else 0


def _filled(data: bytes) -> int:
    """Where no record begins any more, for only zeros follow: to look for one takes many times as long as this."""
    end = len(data)
    while data.endswith(_ZEROS, 0, end):
        end -= len(_ZEROS)
    return min(len(data), end + _SALT_BYTES)  # The salt itself may end with a zero.


def _scan_older(disk: Disk, extent: Extent, successor: SegmentHeader) -> Scan:
    records, end = sound_records(_read_records(disk, extent), extent.header)
    if end < successor.predecessor_end:
        raise StorageError(
            f"{disk.path}/{extent.name}",
            end,
            f"damaged: what stood here was on stable storage; nothing was cut: {RESTORE_FILE}",
        )
    extent.end = successor.predecessor_end
    return records


# -- folding


def _fold(
    extents: list[Extent],
    start: int,
    scans: dict[int, Scan],
    commit_index: LogIndex,
    configuration: Configuration,
) -> Found:
    footer = extents[start - 1].footer if start else None
    folded = LogSummary(configuration) if footer is None else LogSummary.decode(footer.summary)
    hard_state = HardState()
    batches: list[Batch] = []
    unsealed: bytes | None = None
    for at in sorted(scans):
        extent = extents[at]
        if at - 1 not in scans:
            batches = []
        # A segment before the start is read for its own sake: its footer is damaged.
        summary = folded if at >= start else LogSummary(configuration)
        extent.runs, extent.sparse, extent.last_index, extent.cut = [], [], extent.first_index - 1, False
        hard_state = extent.header.hard_state
        for record, batch in scans[at]:
            if batch is not None:
                extent.note(batch, record.offset)
                summary.append(batch)
                batches.append(batch)
                if len(batches) % SETTLE_BATCHES == 0:
                    # What was committed when this record was written: nothing behind it takes that back.
                    summary.settle(min(record.commit_index, batch.last_index))
            elif record.type == RecordType.HARD_STATE:
                hard_state = record.hard_state()
            elif record.type == RecordType.TRUNCATION:
                batches = _truncate(extent, summary, batches, record.truncate_after())
        if at + 1 < len(extents) and extent.last_index >= extents[at + 1].first_index:
            batches = _truncate(extent, summary, batches, extents[at + 1].first_index - 1)
        if at == len(extents) - 2 and not extent.sealed:
            unsealed = folded.encode()
    commit_index = min(commit_index, extents[-1].last_index)
    folded.settle(commit_index)
    for extent in extents:
        extent.footer = None
        if extent.sealed:
            extent.sparse = None
    newest = scans[len(extents) - 1]
    marked = not newest or newest[-1][0].type == RecordType.MARK
    return Found(extents, hard_state, commit_index, folded, _newest(batches), Tail(), marked, unsealed, [])


def _truncate(extent: Extent, summary: LogSummary, batches: list[Batch], index: LogIndex) -> list[Batch]:
    extent.truncate_after(index)
    summary.truncate_after(index)
    return [batch for batch in batches if batch.last_index <= index]


def _newest(batches: list[Batch]) -> list[Batch]:
    size_bytes = 0
    for at in range(len(batches) - 1, -1, -1):
        size_bytes += len(batches[at].data)
        if size_bytes > TAIL_BYTES_MAX:
            return batches[at + 1 :]
    return batches
