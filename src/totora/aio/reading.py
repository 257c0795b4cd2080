"""Committed batches, from memory where they are, else from storage, in pieces and off the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
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

    def load(self, start: LogIndex, end: LogIndex, loaded: Loaded) -> None:
        """Load the committed batches that hold `start` to `end`; `loaded` is called once, at once if memory holds them.

        RangeTooLarge if they exceed 8 MiB.
        """
        batches = self._log.batches_from(start, RANGE_BYTES_MAX, end)
        if batches is not None and batches[-1].last_index >= end:
            loaded(batches)
            return
        self._begin(self._load(start, end, loaded))

    async def _load(self, start: LogIndex, end: LogIndex, loaded: Loaded) -> None:
        try:
            batches, next_index = await self.page(start, end)
        except RaftError as error:
            loaded(error)
        else:
            loaded(batches if next_index > end else RangeTooLarge(next_index))

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
