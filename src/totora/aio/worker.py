"""Work off the loop: one thread, one wake-up to it and one back for each burst."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

__all__ = ["ThreadWorker"]

T = TypeVar("T")

_Done: TypeAlias = Callable[[Any, BaseException | None], None]
_Job: TypeAlias = tuple[Callable[[], Any], _Done]


class ThreadWorker:
    """`ports.Worker` with a thread of its own, started with the first job."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._results: deque[tuple[_Done, Any, BaseException | None]] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, job: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        if self._closed:
            raise RuntimeError("the worker is closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put((job, done))

    def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            result, error = None, None
            try:
                result = job()
            except BaseException as raised:
                error = raised
            self._results.append((done, result, error))
            del job, done, result, error, item
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                return  # The loop is closed: nobody waits any more.

    def _deliver(self) -> None:
        while self._results:
            done, result, error = self._results.popleft()
            done(result, error)
