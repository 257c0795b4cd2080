"""Text becomes lines: LF ends one, a CR before it belongs to the end, and the last line may lack it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Final

from ..config import ENTRY_BYTES_MAX
from .ending import Failed

__all__ = ["Source", "Splitter", "all_lines"]

CHUNK_BYTES: Final = 128 << 10


class Splitter:
    """Lines of a stream of bytes, as soon as they are whole.

    number: lines so far. limit_bytes: of a line, and so of what is kept while its end is awaited.
    """

    def __init__(self, limit_bytes: int = ENTRY_BYTES_MAX) -> None:
        self.number = 0
        self._limit_bytes = limit_bytes
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Raises Failed behind the last good line."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            yield self._line(line.removesuffix(b"\r"))
        if len(self._rest) > self._limit_bytes + 1:
            self._line(self._rest)

    def end(self) -> Iterator[str]:
        """The line that has no end. Raises Failed."""
        rest, self._rest = self._rest, b""
        if rest:
            yield self._line(rest.removesuffix(b"\r"))

    def _line(self, line: bytes) -> str:
        if len(line) > self._limit_bytes:
            raise Failed(f"line {self.number + 1:,} is longer than {self._limit_bytes:,} bytes")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            at = f"byte {error.start + 1:,} of it is 0x{line[error.start]:02x}"
            raise Failed(f"line {self.number + 1:,} is not UTF-8: {at}") from error
        self.number += 1
        return text


def all_lines(data: bytes) -> list[str]:
    """Raises Failed."""
    splitter = Splitter()
    return [*splitter.feed(data), *splitter.end()]


class Source:
    """Reads a descriptor, be it a file, a pipe, a socket or a terminal; its flags, which others share,
    stay as they are."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._may_block = True

    async def chunks(self) -> AsyncIterator[bytes]:
        """All that comes, as soon as it is there. Raises OSError."""
        while True:
            if self._may_block:
                await self._readable()
            try:
                chunk = os.read(self._descriptor, CHUNK_BYTES)
            except BlockingIOError:
                continue  # whoever shares it was faster
            except OSError as error:
                raise OSError(error.errno, error.strerror, self._name) from error
            if not chunk:
                return
            yield chunk

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        try:
            loop.add_reader(self._descriptor, _set, ready)
        except PermissionError:
            self._may_block = False  # a file or the like, which a loop cannot wait for, and need not
            return
        try:
            await ready
        finally:
            loop.remove_reader(self._descriptor)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
