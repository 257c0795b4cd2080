"""The real clock: monotonic nanoseconds, and callbacks of one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ..ports import Timer

__all__ = ["LoopClock"]


class LoopClock:
    """`ports.Clock` on an event loop. A timer runs one turn after it is due, behind what had arrived by then."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns()

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        timer = _Timer(self._loop, callback)
        delay_s = max(0, when_ns - time.monotonic_ns()) / 1e9
        timer.handle = self._loop.call_later(delay_s, timer.due)
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)


class _Timer:
    __slots__ = ("_callback", "_loop", "handle")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self.handle: asyncio.Handle

    def due(self) -> None:
        # A loop may run timers before the sockets that became ready in the same turn: let those go first.
        self.handle = self._loop.call_soon(self._callback)

    def cancel(self) -> None:
        self.handle.cancel()
