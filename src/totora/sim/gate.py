"""What stands between one incarnation of a node and its world: every call that enters it or leaves it passes here.

A gate is open, shut for a while (the process is paused: what enters waits), or fallen for good (it crashed: nothing has any
effect any more, clean-up code included).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

__all__ = ["ARRIVAL", "TIMER", "Gate"]

ARRIVAL: Final = 0
TIMER: Final = 1
"""Of what is due at the same nanosecond, what arrives goes before timers: `ports.Clock.call_at` promises it."""

_INSIDE: Final[ContextVar[Gate | None]] = ContextVar("_INSIDE", default=None)


class Gate:
    """Of one incarnation.

    armed: so many effects more (sends, writes, syncs) and `struck` is called in place of the next one; None: never.
    """

    def __init__(self, struck: Callable[[], None] | None = None) -> None:
        self.fallen = False
        self.paused = False
        self.armed: int | None = None
        self.effects = 0
        self._struck = struck
        self._waiting: tuple[list[Callable[[], object]], list[Callable[[], object]]] = [], []
        self._tasks: dict[asyncio.Task[Any], None] = {}

    @staticmethod
    def inside() -> Gate | None:
        """The gate of the node whose code runs now; None: nobody's."""
        return _INSIDE.get()

    def enter(self, callback: Callable[[], object], priority: int = ARRIVAL) -> None:
        """Run a callback of the node: now, once it is resumed, or never."""
        if self.fallen:
            return
        if self.paused:
            self._waiting[priority].append(callback)
            return
        token = _INSIDE.set(self)
        try:
            callback()
        finally:
            _INSIDE.reset(token)

    def leaves(self) -> bool:
        """Whether an effect of the node takes place; here a crash may strike between any two of them."""
        if self.fallen:
            return False
        self.effects += 1
        if self.armed is not None:
            self.armed -= 1
            if self.armed < 0:
                self.armed = None
                if self._struck is not None:
                    self._struck()
        return not self.fallen

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task that the node started: it ends with it."""
        self._tasks[task] = None
        task.add_done_callback(lambda ended: self._tasks.pop(ended, None))

    # -- the node's fate

    def pause(self) -> None:
        """The process gets no time: what arrives waits in its kernel's buffers."""
        self.paused = True

    def resume(self) -> None:
        """What waited goes in, in its order: arrivals before timers."""
        self.paused = False
        for priority in (ARRIVAL, TIMER):
            waiting, self._waiting[priority][:] = list(self._waiting[priority]), []
            for callback in waiting:
                self.enter(callback, priority)

    def fall(self) -> None:
        """The end: whatever the node still does has no effect."""
        self.fallen = True
        self._waiting[ARRIVAL].clear()
        self._waiting[TIMER].clear()
        for task in list(self._tasks):
            task.cancel()
