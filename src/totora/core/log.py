"""The log as the core sees it: runs of terms, a bounded tail of batches, and the fold of all of it (section 5.3).

It holds no old payloads: those come from storage when a slow follower needs them. The log may begin after a snapshot, at
`base_index`.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from ..types import LogIndex, Term
from .batch import Batch
from .effects import HardState
from .summary import LogSummary

__all__ = ["TAIL_BYTES_MAX", "RaftLog", "Recovered"]

TAIL_BYTES_MAX: Final = 16 << 20
"""Batches kept in memory for followers that are nearly up to date, beyond those not yet durable."""


@dataclass(slots=True, kw_only=True)
class Recovered:
    """What a store holds when it is opened.

    commit_index: was known to be committed when the last record was written: a lower bound.
    base_index, base_term: the entry before the first one that is kept, (0, 0) for a whole log.
    runs: first index and term of each run of entries of one term, ascending.
    summary: folded over the whole log; whatever lies above `commit_index` can be taken back.
    tail: the newest batches, ascending, the last one ends at `last_index`; how many, the store decides.
    largest_batch_bytes: so that a transport with a limit can refuse the log.
    """

    hard_state: HardState
    commit_index: LogIndex
    base_index: LogIndex
    base_term: Term
    runs: list[tuple[LogIndex, Term]]
    last_index: LogIndex
    summary: LogSummary
    tail: list[Batch]
    largest_batch_bytes: int


class RaftLog:
    """Figure 2's `log[]`.

    durable_index: everything up to here is on this node's stable storage.
    """

    def __init__(self, recovered: Recovered) -> None:
        self.base_index = recovered.base_index
        self.base_term = recovered.base_term
        self.last_index: LogIndex = recovered.last_index
        self.durable_index: LogIndex = recovered.last_index
        self.summary = recovered.summary
        self._starts = [first_index for first_index, _ in recovered.runs]
        self._terms = [term for _, term in recovered.runs]
        self.last_term: Term = self._terms[-1] if self._terms else self.base_term
        self._tail = list(recovered.tail)
        self._tail_starts = [batch.first_index for batch in self._tail]
        self._tail_bytes = sum(len(batch.data) for batch in self._tail)

    @property
    def first_index(self) -> LogIndex:
        """The first entry that is kept, or would be: `base_index + 1`."""
        return self.base_index + 1

    @property
    def tail_bytes(self) -> int:
        return self._tail_bytes

    def term_at(self, index: LogIndex) -> Term | None:
        """The term of the entry at `index`; None if the log does not hold it (yet, or any more)."""
        if index == self.last_index:
            return self.last_term
        if index == self.base_index:
            return self.base_term
        if not self.base_index < index < self.last_index:
            return None
        return self._terms[bisect_right(self._starts, index) - 1]

    def last_at_or_before(self, index: LogIndex, term: Term) -> tuple[LogIndex, Term]:
        """The last entry at or before `index` whose term is at most `term`: where two logs may agree (section 5.3)."""
        index = min(index, self.last_index)
        run = bisect_right(self._starts, index) - 1
        while run >= 0 and self._terms[run] > term:
            index = self._starts[run] - 1
            run -= 1
        if run < 0 or index <= self.base_index:
            return self.base_index, self.base_term
        return index, self._terms[run]

    def append(self, batch: Batch) -> None:
        """Take a batch that follows the last entry."""
        assert batch.first_index == self.last_index + 1, "the log has no holes (Figure 2)"
        assert batch.term >= self.last_term, "terms never fall along the log (section 5.3)"
        if not self._terms or batch.term > self._terms[-1]:
            self._starts.append(batch.first_index)
            self._terms.append(batch.term)
            self.last_term = batch.term
        self.last_index = batch.last_index
        self._tail.append(batch)
        self._tail_starts.append(batch.first_index)
        self._tail_bytes += len(batch.data)
        self.summary.append(batch)

    def truncate_after(self, index: LogIndex) -> None:
        """Drop every entry after `index`, which is the end of a batch (section 5.3)."""
        assert self.base_index <= index < self.last_index, "a truncation removes something that is there"
        keep = bisect_right(self._tail_starts, index)
        self._tail_bytes -= sum(len(batch.data) for batch in self._tail[keep:])
        del self._tail[keep:], self._tail_starts[keep:]
        assert not self._tail or self._tail[-1].last_index == index, "batches are atomic: never cut"
        keep = bisect_right(self._starts, index)
        del self._starts[keep:], self._terms[keep:]
        self.last_term = self._terms[-1] if self._terms else self.base_term
        self.last_index = index
        self.durable_index = min(self.durable_index, index)
        self.summary.truncate_after(index)

    def batches_from(
        self, index: LogIndex, max_bytes: int, last_index: LogIndex | None = None
    ) -> list[Batch] | None:
        """Batches from the one that holds `index` on, at most `max_bytes` but at least one, and none behind `last_index`.

        None if memory no longer holds that one: it must be read from storage.
        """
        at = bisect_right(self._tail_starts, index) - 1
        if at < 0:
            return None
        batches = [self._tail[at]]
        size_bytes = len(batches[0].data)
        stop = len(self._tail) if last_index is None else bisect_right(self._tail_starts, last_index)
        for following in range(at + 1, stop):
            size_bytes += len(self._tail[following].data)
            if size_bytes > max_bytes:
                break
            batches.append(self._tail[following])
        return batches

    def trim(self) -> None:
        """Let go of the oldest durable batches once the tail is well over its bound (in bulk: it costs once)."""
        if self._tail_bytes <= 2 * TAIL_BYTES_MAX:
            return
        drop = 0
        while self._tail_bytes > TAIL_BYTES_MAX and self._tail[drop].last_index <= self.durable_index:
            self._tail_bytes -= len(self._tail[drop].data)
            drop += 1
        del self._tail[:drop], self._tail_starts[:drop]
