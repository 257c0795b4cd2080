"""Whoever answers at an address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from totora import Address

__all__ = ["Answer", "answering", "says"]

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def says(data: bytes, *, then: str = "waits") -> Answer:
    """Someone who answers whatever comes with the same bytes, and then waits, or closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(data)
        if then == "waits":
            while await reader.read(1 << 16):
                pass

    return answer


@asynccontextmanager
async def answering(address: Address, answer: Answer) -> AsyncGenerator[None]:
    """Somebody else at that address; its connections end with the block.

    No server of asyncio's: whom that accepts in the turn in which it is closed it forgets to close.
    """
    loop = asyncio.get_running_loop()
    open_now: set[asyncio.Task[None]] = set()

    async def taken(connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            with contextlib.suppress(ConnectionError):
                await answer(reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    def accept() -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        task = asyncio.ensure_future(taken(connection))
        open_now.add(task)
        task.add_done_callback(open_now.discard)
        task.add_done_callback(lambda _: connection.close())

    with socket.create_server(address, backlog=128) as listener:
        listener.setblocking(False)
        loop.add_reader(listener, accept)
        try:
            yield
        finally:
            loop.remove_reader(listener)
            for task in open_now:
                task.cancel()
            if open_now:
                await asyncio.wait(open_now)
