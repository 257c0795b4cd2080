"""Sends the lines to the cluster, one request each, as a client process would; remembers what was acknowledged, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ..errors import RaftError
from ..types import Entry, Term
from .ending import Failed

__all__ = ["Feed", "Proposer", "TakeOver"]

IN_FLIGHT: Final = 256
"""Lines under way at a time."""

TIMEOUT_S: Final = 30.0
"""A line waits so long for its acknowledgement: longer than any election."""


class Proposer(Protocol):
    def propose(self, entry: str, *, timeout_s: float | None = None) -> Awaitable[Entry[str]]: ...


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The first line that was acknowledged in a later term. at_s: monotonic."""

    at_s: float
    term: Term


class Feed:
    """All lines, in order.

    acknowledged: by the line's number, from 0.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.acknowledged: dict[int, Entry[str]] = {}
        self._next = 0
        self._goals: list[tuple[int, asyncio.Future[None]]] = []
        self._awaited: tuple[Term, asyncio.Future[TakeOver]] | None = None
        # A quarter waits for the kill: however short the text, there is something left to do for the next leader.
        self._held_from = len(lines) - max(1, len(lines) // 4)
        self._released = asyncio.Event()

    async def run(self, client: Proposer) -> None:
        """Ends when each line is acknowledged. Raises Failed with the first one that is not."""
        workers = [asyncio.ensure_future(self._send(client)) for _ in range(IN_FLIGHT)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)

    async def _send(self, client: Proposer) -> None:
        while self._next < len(self.lines):
            number = self._next
            self._next += 1
            if number >= self._held_from:
                await self._released.wait()
            try:
                entry = await client.propose(self.lines[number], timeout_s=TIMEOUT_S)
            except RaftError as error:
                raise Failed(f"line {number + 1:,} is not acknowledged: {error}") from error
            self.acknowledged[number] = entry
            if self._awaited is not None and entry.term > self._awaited[0]:
                self._awaited[1].set_result(TakeOver(time.monotonic(), entry.term))
                self._awaited = None
            if self._goals:
                self._check_goals()

    def release(self) -> None:
        """Send the rest, too."""
        self._released.set()

    def _check_goals(self) -> None:
        for goal, reached in self._goals:
            if len(self.acknowledged) >= goal and not reached.done():
                reached.set_result(None)
        self._goals = [pair for pair in self._goals if not pair[1].done()]

    async def reached(self, share: float) -> None:
        """Wait until so much of all lines is acknowledged."""
        goal = asyncio.get_running_loop().create_future()
        self._goals.append((int(len(self.lines) * share), goal))
        self._check_goals()
        await goal

    def taken_over(self, term: Term) -> asyncio.Future[TakeOver]:
        """When a term above `term` acknowledges a line for the first time."""
        future: asyncio.Future[TakeOver] = asyncio.get_running_loop().create_future()
        self._awaited = term, future
        return future
