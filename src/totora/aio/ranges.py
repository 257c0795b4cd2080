"""Reads of ranges: those of one turn of the loop are confirmed, loaded and carried together, as a lot.

index_range -> Readers -> Ranges -> confirmed at one moment -> batches -> entries, for each range its own
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

from ..core.batch import Batch, Kind
from ..core.raft import Raft
from ..errors import Compacted, DecodeFailed, OutOfRange, Overloaded, RaftError
from ..session.reads import PENDING_READS_MAX
from ..types import Entry, LogIndex
from ..wire.entries import EntryCodec
from .reading import LogReader

__all__ = ["RANGES_MAX", "Answered", "RangeReads", "Ranges", "Readers", "ResolveRanges", "entries_of"]

T = TypeVar("T")

RANGES_MAX: Final = 1_024
"""Ranges of one lot."""

WAKE_MIN: Final = 32
"""Of more readers than this half wake in one turn of the loop: what they ask for next is under way while the others wake."""

ResolveRanges: TypeAlias = Callable[[int, int, Sequence[Batch] | RaftError], None]
"""The outcome of the ranges of a lot from one place up to, without, another: batches that hold them all."""

Answered: TypeAlias = Callable[[int, Sequence[Batch] | RaftError], None]
"""The outcome of so many of the ranges that were asked for, from the first on."""

Confirm: TypeAlias = Callable[[int, Callable[[LogIndex | RaftError], None]], None]


class Ranges:
    """A lot of ranges that have one deadline.

    places: the first and the last index of each, one after the other. room: how many more it takes; 0 once it is closed.
    resolved: how many have their outcome.
    """

    __slots__ = ("deadline_ns", "places", "resolve", "resolved", "room")

    def __init__(self, deadline_ns: int, room: int, resolve: ResolveRanges) -> None:
        self.places: list[LogIndex] = []
        self.deadline_ns = deadline_ns
        self.room = room
        self.resolve = resolve
        self.resolved = 0

    def add(self, start: LogIndex, end: LogIndex, *, alone: bool) -> None:
        """One more range; `alone`: and no other."""
        self.places += (start, end)
        self.room = 0 if alone else self.room - 1

    @property
    def count(self) -> int:
        """Those without an outcome."""
        return len(self.places) // 2 - self.resolved

    @property
    def unresolved(self) -> Sequence[LogIndex]:
        return self.places[2 * self.resolved :] if self.resolved else self.places

    def answered(self, count: int, outcome: Sequence[Batch] | RaftError) -> None:
        """The next `count` of them have this outcome."""
        start = self.resolved
        self.resolved += count
        self.resolve(start, self.resolved, outcome)


def entries_of(
    codec: EntryCodec[T], batches: Iterable[Batch], start: LogIndex, end: LogIndex
) -> list[Entry[T]]:
    """The users' entries of `batches` with indexes from `start` to `end`. Raises DecodeFailed."""
    entries: list[Entry[T]] = []
    decode = codec.decode
    for batch in batches:
        if batch.kind != Kind.ENTRIES:
            continue
        term = batch.term
        index = max(start, batch.first_index)
        for payload in batch.payloads_between(index, end):
            try:
                entries.append(Entry(index, term, decode(payload)))
            except ValueError as error:
                raise DecodeFailed(index, str(error)) from error
            index += 1
    return entries


class Readers(Generic[T]):
    """Who waits for the ranges of a lot."""

    __slots__ = ("_codec", "answers", "lot", "places")

    lot: Ranges
    places: list[LogIndex]

    def __init__(self, codec: EntryCodec[T]) -> None:
        self._codec = codec
        self.answers: list[Callable[[list[Entry[T]] | RaftError], None]] = []

    def resolve(self, start: int, stop: int, outcome: Sequence[Batch] | RaftError) -> None:
        """Each gets the entries of its own range; of many the second half in the next turn of the loop."""
        if stop - start > WAKE_MIN:
            half = start + max(WAKE_MIN, (stop - start) // 2)
            asyncio.get_running_loop().call_soon(self.resolve, half, stop, outcome)
            stop = half
        answers = self.answers[start:stop]
        if isinstance(outcome, RaftError):
            for answer in answers:
                answer(outcome)
            return
        starts = [batch.first_index for batch in outcome]
        places = self.places
        for at, answer in enumerate(answers, start):
            first, last = places[2 * at], places[2 * at + 1]
            holding = outcome[max(0, bisect_right(starts, first) - 1) : bisect_right(starts, last)]
            try:
                entries = entries_of(self._codec, holding, first, last)
            except DecodeFailed as error:
                answer(error)
            else:
                answer(entries)


class RangeReads:
    """The reads of one node: each is confirmed with the leader, then loaded.

    confirm: has a read index confirmed until a deadline; raises what is known at once.
    """

    def __init__(self, raft: Raft, reader: LogReader, confirm: Confirm) -> None:
        self._raft = raft
        self._reader = reader
        self._confirm = confirm
        self._opened: list[Ranges] = []
        self._pending = 0

    def open(self, deadline_ns: int, resolve: ResolveRanges) -> Ranges:
        """A lot for this turn of the loop. Raises Overloaded."""
        room = PENDING_READS_MAX - self._pending - sum(lot.count for lot in self._opened)
        if room <= 0:
            raise Overloaded(PENDING_READS_MAX, "reads")
        lot = Ranges(deadline_ns, min(room, RANGES_MAX), resolve)
        self._opened.append(lot)
        return lot

    def hand_over(self) -> None:
        """The turn is over: confirm what came in it. A lot that grew any more could see a log that is older than its read."""
        lots, self._opened = self._opened, []
        for lot in lots:
            lot.room = 0
            self._pending += lot.count
            self._read(lot)

    def _read(self, lot: Ranges) -> None:
        def answered(count: int, outcome: Sequence[Batch] | RaftError) -> None:
            self._pending -= count
            lot.answered(count, outcome)
            if lot.count:
                self._read(lot)

        self.read(lot.unresolved, lot.deadline_ns, answered)

    def read(self, places: Sequence[LogIndex], deadline_ns: int, answered: Answered) -> None:
        """Load the batches that hold these ranges, linearizably; `answered` is called once, for one of them at least."""

        def confirmed(outcome: LogIndex | RaftError) -> None:
            if isinstance(outcome, RaftError):
                answered(len(places) // 2, outcome)
            else:
                self._load(places, answered)

        try:
            self._confirm(deadline_ns, confirmed)
        except RaftError as error:
            answered(len(places) // 2, error)

    def _load(self, places: Sequence[LogIndex], answered: Answered) -> None:
        """As many of them, from the first on, as may be read, or are refused for the same reason."""
        error = self._refusal(places[0], places[1])
        count = 1
        while 2 * count < len(places) and self._refusal(*places[2 * count : 2 * count + 2]) is error:
            count += 1
        if error is None:
            self._reader.load(places[: 2 * count], answered)
        elif error is OutOfRange:
            answered(count, OutOfRange(self._raft.log.first_index, self._raft.commit_index))
        else:
            answered(count, Compacted(self._raft.log.first_index))

    def _refusal(self, start: LogIndex, end: LogIndex) -> type[RaftError] | None:
        if end > self._raft.commit_index:
            return OutOfRange
        return Compacted if start < self._raft.log.first_index else None
