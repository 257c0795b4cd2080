"""Committed batches, from memory where they are, else from storage, in pieces and off the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from ..config import RANGE_BYTES_MAX
from ..core.batch import Batch
from ..core.log import RaftLog
from ..errors import RaftError, RangeTooLarge, StorageError
from ..ports import Worker
from ..storage.store import LogStore
from ..types import LogIndex

__all__ = ["LogReader", "on_worker"]

READ_CHUNK_BYTES: Final = 1 << 20
"""Storage is read in pieces of about this size."""

R = TypeVar("R")

Loaded: TypeAlias = Callable[[list[Batch] | RaftError], None]


async def on_worker(worker: Worker, job: Callable[[], R]) -> R:
    """Await a job on a worker."""
    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()

    def done(result: R | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # a job that returns None has R = None

    worker.submit(job, done)
    return await future


class _Found:
    """Batches of several ranges, each once."""

    def __init__(self) -> None:
        self.ranges = 0
        self._bytes = 0
        self._batches: dict[LogIndex, Batch] = {}

    def add(self, batches: list[Batch]) -> bool:
        """Those of one more range, unless they exceed what one answer may hold."""
        new = [batch for batch in batches if batch.first_index not in self._batches]
        size_bytes = self._bytes + sum(len(batch.data) for batch in new)
        if size_bytes > RANGE_BYTES_MAX and self.ranges:
            return False
        self._bytes = size_bytes
        self._batches.update((batch.first_index, batch) for batch in new)
        self.ranges += 1
        return True

    def batches(self) -> list[Batch]:
        return [self._batches[index] for index in sorted(self._batches)]


class LogReader:
    """Reads one node's log. Damage that it meets is told to `fail`, because the node must stop."""

    def __init__(
        self, log: RaftLog, store: LogStore, worker: Worker, fail: Callable[[BaseException], None]
    ) -> None:
        self._log = log
        self._store = store
        self._worker = worker
        self._fail = fail
        self._tasks: set[asyncio.Task[None]] = set()

    def load(
        self, places: Sequence[LogIndex], loaded: Callable[[int, list[Batch] | RaftError], None]
    ) -> None:
        """Load the committed batches that hold ranges, of each its first and last index; at once if memory holds them.

        `loaded` is called once: with how many of the ranges, at least one, and their batches, 8 MiB at most; or an error of
        the first. RangeTooLarge if that exceeds 8 MiB alone.
        """
        found = _Found()
        for at in range(0, len(places), 2):
            batches = self._log.batches_from(places[at], RANGE_BYTES_MAX, places[at + 1])
            if batches is None or batches[-1].last_index < places[at + 1] or not found.add(batches):
                break
        if found.ranges:
            loaded(found.ranges, found.batches())
        else:
            self._begin(self._load(places, loaded))

    async def _load(
        self, places: Sequence[LogIndex], loaded: Callable[[int, list[Batch] | RaftError], None]
    ) -> None:
        found = _Found()
        try:
            for at in range(0, len(places), 2):
                batches, next_index = await self.page(places[at], places[at + 1])
                if next_index <= places[at + 1]:
                    raise RangeTooLarge(next_index)
                if not found.add(batches):
                    break
        except RaftError as error:
            if not found.ranges:
                loaded(1, error)
                return
        loaded(found.ranges, found.batches())

    def recent(self, start: LogIndex, max_bytes: int) -> list[Batch] | None:
        """Batches from the one that holds `start` on, committed or not; None if memory no longer holds that one."""
        return self._log.batches_from(start, max_bytes)

    def load_stored(self, start: LogIndex, end: LogIndex, loaded: Loaded) -> None:
        """Load some batches from `start` on, at most up to `end`; `loaded` is called once, later."""

        async def load() -> None:
            try:
                batches = await self._chunk(start, end)
            except RaftError as error:
                loaded(error)
            else:
                loaded(batches)

        self._begin(load())

    def _begin(self, reading: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(reading)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def page(self, start: LogIndex, end: LogIndex) -> tuple[list[Batch], LogIndex]:
        """Committed batches that hold `start` and what follows, up to `end` or 8 MiB; and the index to go on at."""
        batches: list[Batch] = []
        size_bytes = 0
        next_index = start
        while next_index <= end:
            for batch in await self._chunk(next_index, end):
                if batch.first_index > end:
                    break
                size_bytes += len(batch.data)
                if batches and size_bytes > RANGE_BYTES_MAX:
                    return batches, next_index
                batches.append(batch)
                next_index = batch.last_index + 1
        return batches, next_index

    async def _chunk(self, start: LogIndex, end: LogIndex) -> list[Batch]:
        batches = self._log.batches_from(start, READ_CHUNK_BYTES, end)
        if batches is not None:
            return batches
        try:
            return await self.read_store(start, min(end, self._log.durable_index), READ_CHUNK_BYTES)
        except StorageError as error:
            self._fail(error)
            raise

    async def read_store(self, start: LogIndex, end: LogIndex, max_bytes: int) -> list[Batch]:
        """Batches from storage, which memory no longer holds. Raises StorageError."""
        return await on_worker(self._worker, lambda: self._store.read(start, end, max_bytes))

    async def finish(self) -> None:
        """Wait for what is being read: each gets its outcome."""
        await asyncio.gather(*self._tasks)
