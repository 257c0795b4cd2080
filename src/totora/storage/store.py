"""What the node asks of its storage, and the volatile form of it.

Calls block; the node makes them on a Worker: writes on one, reads on another, at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..core.batch import Batch
from ..core.effects import Persist
from ..core.log import Recovered
from ..types import LogIndex

__all__ = ["LogStore"]


class LogStore(Protocol):
    """A log and a hard state on stable storage."""

    def recover(self) -> Recovered:
        """Read what is there, repair a torn tail. Called once, first. Raises StorageError."""
        ...

    def write(self, group: Sequence[Persist]) -> None:
        """Carry out these writes, in order, and return once all are on stable storage. Raises StorageError.

        After a failure the store is finished: the node stops (a failed sync is never retried).
        """
        ...

    def read(self, first_index: LogIndex, last_index: LogIndex, max_bytes: int) -> list[Batch]:
        """Whole batches, verified, from the one that holds `first_index` up to the one that holds `last_index`.

        Stops before `max_bytes` is exceeded, but returns at least one. Both indexes are within the log. Raises
        StorageError for damage. May run while `write` does; asks only for what was written before.
        """
        ...

    @property
    def reserve_due(self) -> bool:
        """`reserve` should be called, between writes, until this is False."""
        ...

    def reserve(self) -> None:
        """Do a little of what makes room ahead of need. Raises StorageError: so a full disk is known in time."""
        ...

    def close(self) -> None:
        """Write the mark of a clean end and release all files."""
        ...
