"""The store of a volatile node: memory. What it 'persists' is gone with the process, and so is the node (see `Node`)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from ..core.batch import Batch
from ..core.effects import HardState, Persist
from ..core.log import Recovered
from ..core.quorum import Configuration
from ..core.summary import LogSummary
from ..types import LogIndex

__all__ = ["MemoryStore"]


class MemoryStore:
    """`LogStore` in memory, for nodes without a data directory. It grows with the log."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._batches: list[Batch] = []
        self._starts: list[LogIndex] = []

    def recover(self) -> Recovered:
        return Recovered(
            hard_state=HardState(),
            commit_index=0,
            base_index=0,
            base_term=0,
            runs=[],
            last_index=0,
            summary=LogSummary(self._configuration),
            tail=[],
            largest_batch_bytes=0,
        )

    def write(self, group: Sequence[Persist]) -> None:
        for write in group:
            if write.truncate_after is not None:
                keep = bisect_right(self._starts, write.truncate_after)
                del self._batches[keep:], self._starts[keep:]
            self._batches.extend(write.batches)
            self._starts.extend(batch.first_index for batch in write.batches)

    def read(self, first_index: LogIndex, last_index: LogIndex, max_bytes: int) -> list[Batch]:
        at = bisect_right(self._starts, first_index) - 1
        end = bisect_right(self._starts, last_index)
        batches: list[Batch] = []
        size_bytes = 0
        for batch in self._batches[at:end]:
            size_bytes += len(batch.data)
            if batches and size_bytes > max_bytes:
                break
            batches.append(batch)
        return batches

    @property
    def reserve_due(self) -> bool:
        return False

    def reserve(self) -> None:
        """Memory needs no preparation."""

    def close(self) -> None:
        self._batches.clear()
        self._starts.clear()
