"""Sends the lines to the cluster, one request each, as a client process would; remembers what was acknowledged, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Protocol

from ..errors import RaftError
from ..types import Entry, Term

__all__ = ["Feed", "Proposer"]

IN_FLIGHT: Final = 256
"""Lines under way at a time."""

TIMEOUT_S: Final = 30.0
"""A line waits so long for its acknowledgement: longer than any election."""


class Proposer(Protocol):
    async def propose(self, entry: str, *, timeout_s: float | None = None) -> Entry[str]: ...


class Feed:
    """All lines, in order.

    acknowledged: by the line's number, from 0. failed: likewise, what was answered instead.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.acknowledged: dict[int, Entry[str]] = {}
        self.failed: dict[int, RaftError] = {}
        self._next = 0
        self._goals: list[tuple[int, asyncio.Future[None]]] = []
        self._term: tuple[Term, asyncio.Future[tuple[float, Term]]] | None = None

    async def run(self, client: Proposer) -> None:
        """Ends when each line has its outcome."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(IN_FLIGHT):
                tasks.create_task(self._send(client))

    async def _send(self, client: Proposer) -> None:
        while self._next < len(self.lines):
            number = self._next
            self._next += 1
            try:
                entry = await client.propose(self.lines[number], timeout_s=TIMEOUT_S)
            except RaftError as error:
                self.failed[number] = error
            else:
                self.acknowledged[number] = entry
                if self._term is not None and entry.term > self._term[0]:
                    self._term[1].set_result((time.monotonic(), entry.term))
                    self._term = None
            if self._goals:
                self._check_goals()

    def _check_goals(self) -> None:
        done = len(self.acknowledged) + len(self.failed)
        for goal, reached in self._goals:
            if done >= goal and not reached.done():
                reached.set_result(None)
        self._goals = [pair for pair in self._goals if not pair[1].done()]

    async def reached(self, share: float) -> None:
        """Wait until so much of all lines has an outcome."""
        goal = asyncio.get_running_loop().create_future()
        self._goals.append((int(len(self.lines) * share), goal))
        self._check_goals()
        await goal

    def first_above(self, term: Term) -> asyncio.Future[tuple[float, Term]]:
        """When the first line was acknowledged in a term above `term`, and in which (monotonic seconds)."""
        future: asyncio.Future[tuple[float, Term]] = asyncio.get_running_loop().create_future()
        self._term = term, future
        return future
