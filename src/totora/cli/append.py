"""`totora append`: lines of text become entries, in their order, many under way at once.

source -> lines -> groups -> under way -> acknowledged
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from ..aio.client import Client
from ..errors import ConfigurationError, InvalidRequest, NotAppended, RaftError
from ..types import Address, Entry, NodeId
from .append_view import Display, display_for
from .ending import Failed
from .health import reason
from .lines import Source, Splitter
from .options import Security
from .running import open_client, run
from .text import count, to_json, why

__all__ = ["append_lines"]

GROUP_LINES: Final = 256
GROUP_CHARACTERS: Final = 8_192
"""32 KiB of UTF-8 at most: every transport carries such a group as one request."""

UNDER_WAY_MAX: Final = 16
"""Groups without an outcome."""

LAST_ANSWERS_S: Final = 1.0
"""After Ctrl-C, what is under way has so long to be answered."""

_CERTAINLY_NOT: Final = (InvalidRequest, NotAppended, ConfigurationError)

Asking: TypeAlias = asyncio.Future[Sequence[Entry[str]]]


def append_lines(
    file: str, nodes: dict[NodeId, Address], security: Security, *, timeout_s: float, as_json: bool
) -> None:
    """The command. file: a path, or `-`. Raises Failed, Interrupted, OSError, RaftError."""
    source = sys.stdin.fileno() if file == "-" else os.open(file, os.O_RDONLY)
    try:
        with display_for(source, quiet=as_json) as display:
            opens = partial(open_client, nodes, security)
            appending = _Appending(Source(source, file), opens, timeout_s, display)
            try:
                # Not on uvloop: it makes the source's descriptor non-blocking, and so the terminal, for all who share it.
                run(appending.run, "in order", appending.account, use_uvloop=False)
            finally:
                if as_json:
                    print(appending.told_as_json())
        if not as_json:
            print(appending.told())
    finally:
        if file != "-":
            os.close(source)


@dataclass(slots=True, frozen=True)
class _Group:
    """Lines that are appended together, all or none."""

    first_number: int
    lines: list[str]

    @property
    def is_large(self) -> bool:
        return len(self.lines[0]) > GROUP_CHARACTERS

    def __str__(self) -> str:
        first, last = self.first_number, self.first_number + len(self.lines) - 1
        return f"line {first:,}" if first == last else f"lines {first:,} to {last:,}"


class _Appending:
    """One run of the command.

    acknowledged: lines that are committed. unknown: lines that were sent and whose outcome is not known, or not yet.
    """

    def __init__(
        self, source: Source, opens: Callable[[], Client[str]], timeout_s: float, display: Display
    ) -> None:
        self.acknowledged = 0
        self.unknown = 0
        self._source = source
        self._opens = opens
        self._client = opens()
        self._timeout_s = timeout_s
        self._display = display
        self._first: Entry[str] | None = None
        self._last: Entry[str] | None = None
        self._began_s = time.monotonic()
        self._seconds = 0.0
        self._under_way: set[Asking] = set()
        self._answered = asyncio.Event()
        self._failure: asyncio.Future[tuple[_Group, RaftError]] | None = None

    async def run(self) -> None:
        """Append all lines. Raises Failed, with the account."""
        self._failure = asyncio.get_running_loop().create_future()
        await self._client.start()
        sending = asyncio.ensure_future(self._send(self._failure))
        watching = asyncio.ensure_future(self._display.watch(self._client))
        try:
            first: list[asyncio.Future[Any]] = [sending, self._failure]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            sending.cancel()
            await asyncio.wait([asyncio.ensure_future(self._at_most(0))], timeout=LAST_ANSWERS_S)
            raise
        finally:
            sending.cancel()
            watching.cancel()
            await self._client.stop()  # nothing that waits is sent any more, and all get their outcomes
            await self._at_most(0)
            self._seconds = time.monotonic() - self._began_s
            await asyncio.wait([sending, watching])
        if self._failure.done():
            group, error = self._failure.result()
            raise Failed(f"{group}: {await reason(self._opens, error)}; {self.account()}") from error
        try:
            await sending
        except (Failed, OSError) as error:
            raise Failed(f"{why(error)}; {self.account()}") from error

    # -- sending

    async def _send(self, failure: asyncio.Future[tuple[_Group, RaftError]]) -> None:
        """Ends when all lines have an outcome; so it does before it raises what went wrong at the source."""
        try:
            async for group in self._groups():
                await self._at_most(0 if group.is_large else UNDER_WAY_MAX - 1)
                if failure.done():
                    return
                self._hand_over(group, failure)
                if group.is_large:
                    # A cluster may refuse it for its size: nothing is sent behind it until that is known.
                    await self._at_most(0)
        except (Failed, OSError):
            await self._at_most(0)
            raise
        await self._at_most(0)

    async def _groups(self) -> AsyncIterator[_Group]:
        splitter = Splitter()
        async for chunk in self._source.chunks():
            for group in _grouped(splitter.number + 1, splitter.feed(chunk)):
                yield group
        for group in _grouped(splitter.number + 1, splitter.end()):
            yield group

    async def _at_most(self, groups: int) -> None:
        """Wait until no more than this are under way."""
        while len(self._under_way) > groups:
            self._answered.clear()
            await self._answered.wait()

    def _hand_over(self, group: _Group, failure: asyncio.Future[tuple[_Group, RaftError]]) -> None:
        self.unknown += len(group.lines)
        self._display.sending(len(group.lines))
        asking = self._client.append(group.lines, timeout_s=self._timeout_s)
        self._under_way.add(asking)
        asking.add_done_callback(partial(self._settle, group, failure))

    # -- outcomes

    def _settle(
        self, group: _Group, failure: asyncio.Future[tuple[_Group, RaftError]], asking: Asking
    ) -> None:
        self._under_way.discard(asking)
        self._answered.set()
        if asking.cancelled():
            return
        match asking.exception():
            case None:
                self._acknowledged(asking.result())
            case RaftError() as error:
                if isinstance(error, _CERTAINLY_NOT):
                    self.unknown -= len(group.lines)
                if not failure.done():
                    failure.set_result((group, error))
            case error:
                if not failure.done():
                    failure.set_exception(error)

    def _acknowledged(self, entries: Sequence[Entry[str]]) -> None:
        self.unknown -= len(entries)
        self.acknowledged += len(entries)
        # Answers may overtake each other.
        if self._first is None or entries[0].index < self._first.index:
            self._first = entries[0]
        if self._last is None or entries[-1].index > self._last.index:
            self._last = entries[-1]
        self._display.acknowledged(entries)

    # -- the account

    def account(self) -> str:
        """What became of the lines of a run that did not go well."""
        verb = "is" if self.acknowledged == 1 else "are"
        done = (
            f"{count(self.acknowledged, 'line')} {verb} appended"
            if self.acknowledged
            else "nothing is appended"
        )
        return f"{done}, of {self.unknown:,} more it is not known" if self.unknown else done

    def told(self) -> str:
        """What became of the lines of a run that went well."""
        if self._first is None or self._last is None:
            return "no line, nothing appended"
        first, last = self._first.index, self._last.index
        where = f"index {first:,}" if first == last else f"indexes {first:,} to {last:,}"
        rate = self.acknowledged / max(self._seconds, 1e-6)
        return (
            f"{count(self.acknowledged, 'line')} appended, {where}, in {self._seconds:.1f} s ({rate:,.0f}/s)"
        )

    def told_as_json(self) -> str:
        """The account for programs."""
        fields: dict[str, Any] = {
            "appended": self.acknowledged,
            "unknown": self.unknown,
            "first_index": self._first.index if self._first else None,
            "last_index": self._last.index if self._last else None,
            "seconds": round(self._seconds, 3),
        }
        return to_json(fields)


def _grouped(first_number: int, lines: Iterator[str]) -> Iterator[_Group]:
    """Raises Failed, as `lines` does, behind the last group."""
    group: list[str] = []
    characters = 0
    failed: Failed | None = None
    try:
        for line in lines:
            if group and (len(group) == GROUP_LINES or characters + len(line) > GROUP_CHARACTERS):
                yield _Group(first_number, group)
                first_number += len(group)
                group, characters = [], 0
            group.append(line)
            characters += len(line)
    except Failed as error:
        failed = error
    if group:
        yield _Group(first_number, group)
    if failed is not None:
        raise failed
