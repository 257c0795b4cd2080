"""A worker without a thread: jobs take virtual time, and the loop goes on meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..ports import Random
from .clock import VirtualLoop
from .gate import Gate

__all__ = ["WORK_NS", "VirtualWorker"]

T = TypeVar("T")

WORK_NS: Final = (50_000, 500_000)
"""What a job usually takes, at least and at most."""


class VirtualWorker:
    """`ports.Worker`: one job at a time, in order.

    delay_ns: the shortest and longest time of a job; may be changed at any time.
    stalled: while True no job begins; `stall` and `resume` set it.

    A job does its work at some instant of its time: a crash meanwhile finds it done or not begun, and `done` unheard.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        random: Random,
        gate: Gate | None = None,
        *,
        delay_ns: tuple[int, int] = WORK_NS,
    ) -> None:
        self._loop = loop
        self._random = random
        self._gate = gate or Gate()
        self._jobs: deque[tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]] = deque()
        self._busy = False
        self._closed = False
        self.delay_ns = delay_ns
        self.stalled = False
        self.jobs_done = 0

    def submit(self, job: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        if self._gate.fallen:
            return
        if self._closed:
            self._loop.call_at_ns(self._loop.now_ns, lambda: done(None, RuntimeError("the worker is closed")))
            return
        self._jobs.append((job, done))
        self._next()

    def close(self) -> None:
        """Finish what was submitted; its `done` is still called."""
        self._closed = True

    def stall(self) -> None:
        """The disk hangs: the job under way ends, none begins."""
        self.stalled = True

    def resume(self) -> None:
        self.stalled = False
        self._next()

    @property
    def is_idle(self) -> bool:
        """Nothing is under way, nothing waits, and whoever asked was told."""
        return not self._busy and not self._jobs

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return len(self._jobs)

    def _next(self) -> None:
        if self._busy or self.stalled or not self._jobs:
            return
        self._busy = True
        job, done = self._jobs.popleft()
        shortest, longest = self.delay_ns
        takes_ns = shortest + int((longest - shortest) * self._random.random())
        works_at = self._loop.now_ns + int(takes_ns * self._random.random())
        ends_at = self._loop.now_ns + takes_ns
        self._loop.call_at_ns(works_at, lambda: self._gate.enter(lambda: self._work(job, done, ends_at)))

    def _work(
        self, job: Callable[[], Any], done: Callable[[Any, BaseException | None], None], ends_at: int
    ) -> None:
        result, error = None, None
        try:
            result = job()
        except BaseException as raised:
            error = raised
        self._loop.call_at_ns(ends_at, lambda: self._gate.enter(lambda: self._end(done, result, error)))

    def _end(
        self, done: Callable[[Any, BaseException | None], None], result: object, error: BaseException | None
    ) -> None:
        self._busy = False
        self.jobs_done += 1
        try:
            done(result, error)
        finally:
            self._next()
