"""`totora append`: lines of text become entries, in their order, many under way at once.

source -> lines -> propose -> queue, in order -> acknowledged
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from typing import Any, BinaryIO, Final, TypeAlias

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ..aio.client import Client
from ..errors import RaftError
from ..types import Entry
from .options import Failed

__all__ = ["Appending"]

IN_FLIGHT: Final = 1_024
CHUNK_BYTES: Final = 256 << 10
SHOW_S: Final = 0.1

Moved: TypeAlias = Callable[[int, str], None]
"""Told now and then how many bytes of the source are committed, and the rest in words."""


class Appending:
    """One run of the command.

    acknowledged: lines that are committed; sent: lines that were handed over. What lies between has no outcome yet.
    """

    def __init__(self, source: BinaryIO, client: Client[str], timeout_s: float) -> None:
        self.acknowledged = 0
        self.sent = 0
        self._source = source
        self._client = client
        self._timeout_s = timeout_s
        self._first: Entry[str] | None = None
        self._last: Entry[str] | None = None
        self._began_s = time.monotonic()
        self._under_way: asyncio.Queue[tuple[int, asyncio.Task[Entry[str]]] | None] = asyncio.Queue(IN_FLIGHT)

    async def run(self, *, as_json: bool) -> None:
        """Append all lines and tell what became of them. Raises Failed, OSError, RaftError."""
        console = Console(stderr=True)
        live = not as_json and console.is_terminal
        bar = Progress(BarColumn(), TextColumn("{task.description}"), console=console, transient=True)
        with bar if live else nullcontext():
            task = bar.add_task("", total=self._size_bytes)
            await self._append(lambda done, told: bar.update(task, completed=done, description=told))
        print(self._as_json() if as_json else self._told())

    @property
    def _size_bytes(self) -> int | None:
        status = os.fstat(self._source.fileno())
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    async def _append(self, moved: Moved) -> None:
        async with self._client:
            sending = asyncio.ensure_future(self._send())
            try:
                await self._settle(moved)
                await sending
            finally:
                sending.cancel()
                unsettled = []
                while not self._under_way.empty():
                    if (pair := self._under_way.get_nowait()) is not None:
                        pair[1].cancel()
                        unsettled.append(pair[1])
                await asyncio.gather(sending, *unsettled, return_exceptions=True)

    async def _send(self) -> None:
        try:
            async for line in self._lines():
                text = self._decoded(line)
                asking = asyncio.ensure_future(self._client.propose(text, timeout_s=self._timeout_s))
                self.sent += 1
                await self._under_way.put((len(line) + 1, asking))
        finally:
            if not self._under_way.full():
                self._under_way.put_nowait(None)

    async def _settle(self, moved: Moved) -> None:
        done_bytes, shown_s = 0, 0.0
        while (pair := await self._under_way.get()) is not None:
            size_bytes, asking = pair
            try:
                entry = await asking
            except RaftError as error:
                raise Failed(f"line {self.acknowledged + 1}: {error}; {self.account()}") from error
            self.acknowledged += 1
            done_bytes += size_bytes
            self._first = self._first or entry
            self._last = entry
            if time.monotonic() > shown_s + SHOW_S:
                shown_s = time.monotonic()
                moved(done_bytes, self._told())

    # -- the source

    async def _lines(self) -> AsyncIterator[bytes]:
        """Lines without their ends, as soon as they are there."""
        rest = b""
        async for chunk in self._chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.removesuffix(b"\r")
        if rest:
            yield rest

    async def _chunks(self) -> AsyncIterator[bytes]:
        if self._size_bytes is not None or os.name == "nt":
            while chunk := self._source.read(CHUNK_BYTES):
                yield chunk
                await asyncio.sleep(0)
            return
        reader = asyncio.StreamReader(CHUNK_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._source
        )
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                yield chunk
        finally:
            transport.close()

    def _decoded(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise Failed(f"line {self.sent + 1} is not UTF-8: {error}; {self.account()}") from error

    # -- the account

    def account(self) -> str:
        """What became of the lines so far."""
        unknown = self.sent - self.acknowledged
        return f"{self.acknowledged:,} lines are appended" + (
            f", {unknown:,} more were sent and may be" if unknown else ""
        )

    def _told(self) -> str:
        seconds = max(time.monotonic() - self._began_s, 1e-6)
        where = (
            f", indexes {self._first.index:,} to {self._last.index:,}" if self._first and self._last else ""
        )
        return f"{self.acknowledged:,} lines appended{where}, {self.acknowledged / seconds:,.0f}/s"

    def _as_json(self) -> str:
        fields: dict[str, Any] = {
            "appended": self.acknowledged,
            "first_index": self._first.index if self._first else None,
            "last_index": self._last.index if self._last else None,
            "seconds": round(time.monotonic() - self._began_s, 3),
        }
        return msgspec.json.encode(fields).decode()
