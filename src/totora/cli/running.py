"""Runs a command's coroutine: signals end it as it likes to be ended; opens the client that most commands need."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, Literal, TypeAlias, TypeVar

from ..aio.client import Client
from ..aio.loops import new_event_loop
from ..types import Address, NodeId
from .ending import Interrupted, leave
from .options import Security

__all__ = ["Manner", "open_client", "run"]

T = TypeVar("T")

Manner: TypeAlias = Literal["at once", "in order", "at leisure"]
"""How a signal ends a command.

at once: wherever it is, be it in a write that nobody reads; it has nothing to put in order.
in order: it is cancelled, and so is what it then does to finish if another signal comes.
at leisure: it is cancelled and finishes, which takes a bounded time; further signals change nothing.
"""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _Signals:
    """Handles SIGINT and SIGTERM while a command runs. They are Python's and not the loop's: those wait for the loop."""

    def __init__(self, manner: Manner) -> None:
        self.heard: int | None = None
        self._manner = manner
        self._task: asyncio.Task[Any] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # What is left to do after a signal is to say so and end: another one comes too late.
            signal.signal(number, handler if self.heard is None else signal.SIG_IGN)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        task = self._task
        if task is None or self._manner == "at once":
            leave(number)
        if task.done() or (self.heard is not None and self._manner == "at leisure"):
            return
        self.heard = self.heard or number
        # The loop may be waiting for a socket: this wakes it.
        task.get_loop().call_soon_threadsafe(task.cancel)

    async def attend(self, what: Coroutine[Any, Any, T]) -> T:
        """Carry out `what`; from here on there is something to cancel."""
        self._task = asyncio.current_task()
        return await what


def run(
    what: Callable[[], Coroutine[Any, Any, T]],
    manner: Manner,
    account: Callable[[], str] = lambda: "",
    *,
    use_uvloop: bool = True,
) -> T:
    """Run a command to its end. Raises Interrupted, with what `account` says then, and whatever it raises."""
    with (
        _Signals(manner) as signals,
        asyncio.Runner(loop_factory=lambda: new_event_loop(use_uvloop=use_uvloop)) as runner,
    ):
        try:
            return runner.run(signals.attend(what()))
        except asyncio.CancelledError:
            if signals.heard is None:
                raise
            raise Interrupted(signals.heard, account()) from None


def open_client(nodes: dict[NodeId, Address], security: Security) -> Client[str]:
    """A client of a cluster whose entries are text. Raises OSError, ConfigurationError."""
    contexts = security.contexts()
    return Client(
        nodes,
        entry_type=str,
        tls=None if contexts is None else contexts[1],
        insecure_plaintext=security.insecure_plaintext,
    )
