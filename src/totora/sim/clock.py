"""A loop on which idle time costs nothing, and the `Clock` of a node on it.

Time is an integer of nanoseconds and moves only when nothing is ready: there are no files, no threads, no real seconds.
What would hang in the real world raises here: `Deadlock` if nothing will ever happen, `Endless` if it never ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, NoReturn, TypeVar

from .gate import ARRIVAL, TIMER, Gate

__all__ = ["Deadlock", "Endless", "VirtualClock", "VirtualLoop", "VirtualTimer"]

T = TypeVar("T")

TURNS_AT_ONE_TIME_MAX: Final = 1_000_000
"""So many turns without time moving are a loop that feeds itself."""

WIND_UP_NS: Final = 60_000_000_000
"""How long what is left of a run may take to end."""

EPOCH_NS: Final = 1_700_000_000_000_000_000


class Deadlock(AssertionError):
    """Someone waits, and nothing is scheduled that could wake them."""


class Endless(AssertionError):
    """The run passed its limit of virtual time, or time stood still for a million turns."""


class VirtualTimer:
    """`ports.Timer`."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self._callback = None

    @property
    def cancelled(self) -> bool:
        return self._callback is None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop in virtual time. `run` it once; the first exception that a callback leaks ends the run.

    limit_ns: the run fails with `Endless` once `now_ns` would pass it; None: no limit. events: callbacks that ran.
    """

    # BaseEventLoop keeps what is ready in `_ready` and wakes up in `_run_once`: the same from 3.11 to 3.14.
    _ready: Any
    _stopping: bool

    def __init__(self, *, limit_ns: int | None = None) -> None:
        super().__init__()
        self.now_ns = 0
        self.events = 0
        self.limit_ns = limit_ns
        self._heap: list[tuple[int, int, int, VirtualTimer]] = []
        self._order = 0
        self._turns = 0
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._task_number = 0
        self._failure: BaseException | None = None
        self.set_exception_handler(_fail)

    # -- time

    def time(self) -> float:
        return self.now_ns / 1e9

    def call_at_ns(
        self, when_ns: int, callback: Callable[[], object], priority: int = ARRIVAL
    ) -> VirtualTimer:
        """Call back at `when_ns`; of equal times and priorities, in the order of the calls."""
        timer = VirtualTimer(callback)
        self._order += 1
        heapq.heappush(self._heap, (max(when_ns, self.now_ns), priority, self._order, timer))
        return timer

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self._call_at_ns(self.now_ns + round(delay * 1e9), callback, args, context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self._call_at_ns(round(when * 1e9), callback, args, context)

    def _call_at_ns(
        self,
        when_ns: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when_ns / 1e9, callback, args, self, context)

        def due() -> None:
            if not handle.cancelled():
                handle._run()

        self.call_at_ns(when_ns, due, TIMER)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays in the heap until it is due, and does nothing then."""

    # -- one turn

    def abort(self, error: BaseException) -> None:
        """End the run with this error, before anything else happens; the first one counts."""
        if self._failure is None:
            self._failure = error

    def _run_once(self) -> None:
        if self._failure is not None:
            self._ready.clear()
            failure, self._failure = self._failure, None
            raise failure
        if not self._ready and not self._stopping:
            self._advance()
        self._turns += 1
        if self._turns > TURNS_AT_ONE_TIME_MAX:
            raise Endless(f"time stands still at {self.now_ns:,} ns: something calls itself without end")
        while self._heap and self._heap[0][0] <= self.now_ns:
            timer = heapq.heappop(self._heap)[3]
            if not timer.cancelled:
                self.call_soon(timer.fire)
        self.events += len(self._ready)
        for _ in range(len(self._ready)):
            handle: asyncio.Handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()
                if self._failure is not None:
                    return

    def _advance(self) -> None:
        while self._heap and self._heap[0][3].cancelled:
            heapq.heappop(self._heap)
        if not self._heap:
            raise Deadlock(f"nothing is scheduled at {self.now_ns:,} ns, but these wait: {self._waiting()}")
        when_ns = self._heap[0][0]
        if self.limit_ns is not None and when_ns > self.limit_ns:
            raise Endless(f"not done after {self.limit_ns / 1e9:,.3f} virtual s; waiting: {self._waiting()}")
        if when_ns > self.now_ns:
            self.now_ns, self._turns = when_ns, 0

    def _waiting(self) -> str:
        waiting: list[str] = []
        for task in self._tasks:
            frames = task.get_stack(limit=1)
            where = f" at {frames[-1].f_code.co_qualname}:{frames[-1].f_lineno}" if frames else ""
            waiting.append(f"{task.get_name()}{where}")
        return ", ".join(waiting) or "no task of this loop"

    # -- tasks, in the order of their creation, with names that do not depend on other loops

    def create_task(self, coro: Any, *, name: object = None, **options: Any) -> asyncio.Task[Any]:
        self._task_number += 1
        label = (
            str(name)
            if name is not None
            else f"{self._task_number}-{getattr(coro, '__qualname__', type(coro).__name__)}"
        )
        task: asyncio.Task[Any] = super().create_task(coro, name=label, **options)
        self._tasks[task] = None
        if (gate := Gate.inside()) is not None:
            gate.adopt(task)
        task.add_done_callback(lambda ended: self._tasks.pop(ended, None))
        return task

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end, cancel what it left, and close the loop. Raises what leaked from a callback."""
        try:
            return self.play(main)
        finally:
            self.wind_up()

    def play(self, part: Coroutine[Any, Any, T]) -> T:
        """Run `part` to its end and stand still there: more can be played. Raises what leaked from a callback."""
        with _apart():
            result = self.run_until_complete(part)
        if self._failure is not None:
            raise self._failure
        return result

    def wind_up(self) -> None:
        """Cancel what is left, let it end, and close the loop."""
        self._failure, self._turns = None, 0
        self.limit_ns = self.now_ns + WIND_UP_NS
        # What is cut off here may complain of it: the run's own outcome is what counts.
        self.set_exception_handler(lambda loop, context: None)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        try:
            with _apart(), contextlib.suppress(Endless, Deadlock):
                if left:
                    self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
                self.run_until_complete(self.shutdown_asyncgens())
        finally:
            self.close()

    def close(self) -> None:
        self._heap.clear()
        super().close()

    # -- what does not exist here

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> NoReturn:
        raise RuntimeError("there are no threads in the virtual world: use the Worker port")

    def _process_events(self, event_list: object) -> None: ...

    def _write_to_self(self) -> None: ...


@contextlib.contextmanager
def _apart() -> Generator[None]:
    """Where a loop runs already, in a notebook say, it stands aside meanwhile, and so does its task."""
    outer = asyncio._get_running_loop()
    if outer is None:
        yield
        return
    task = asyncio.current_task(outer)
    if task is not None:
        asyncio._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if task is not None:
            asyncio._enter_task(outer, task)


def _fail(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualLoop)
    error = context.get("exception")
    loop.abort(error if error is not None else AssertionError(context.get("message")))


class VirtualClock:
    """`ports.Clock` of one incarnation of one node.

    offset_ns: what its monotonic clock shows more than the loop's. drift_ppm: how many microseconds a second it runs too fast.
    wall_offset_ns: what its wall clock shows more than that; may be changed, since wall clocks jump.
    """

    def __init__(
        self, loop: VirtualLoop, gate: Gate | None = None, *, offset_ns: int = 0, drift_ppm: int = 0
    ) -> None:
        self._loop = loop
        self._gate = gate or Gate()
        self._offset_ns = offset_ns
        self._drift_ppm = drift_ppm
        self._since_ns = loop.now_ns
        self.wall_offset_ns = EPOCH_NS

    def now_ns(self) -> int:
        elapsed_ns = self._loop.now_ns - self._since_ns
        return self._since_ns + self._offset_ns + elapsed_ns + elapsed_ns * self._drift_ppm // 1_000_000

    def wall_ns(self) -> int:
        return self.now_ns() + self.wall_offset_ns

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> VirtualTimer:
        own_ns = max(0, when_ns - self.now_ns())
        world_ns = own_ns * 1_000_000 // (1_000_000 + self._drift_ppm) + (self._drift_ppm != 0)
        if self._gate.fallen:
            return VirtualTimer(callback)
        timer = VirtualTimer(callback)
        self._loop.call_at_ns(
            self._loop.now_ns + world_ns, lambda: self._gate.enter(timer.fire, TIMER), TIMER
        )
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        if not self._gate.fallen:
            self._loop.call_soon(self._gate.enter, callback)
