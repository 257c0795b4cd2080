"""The ceiling: the path of a commit and nothing else. What no check, no election, no retry and no session is paid for.

Node 1 leads for good. Batches size themselves, are encoded once, and are synced by all; what is damaged or lost is lost.
"""

from __future__ import annotations

import asyncio
import os
import queue
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self, cast

from totora import Address, NodeId

__all__ = ["Ceiling"]

HEADER: Final = struct.Struct("<IIQ")
"""Bytes of the body, its checksum, the last index."""

FILE_BYTES: Final = 64 << 20


class _Disk:
    """A file full of zeros and a thread: what arrives during a sync rides in the next one."""

    def __init__(self, path: Path, synced: Callable[[int], None]) -> None:
        path.parent.mkdir(parents=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        for offset in range(0, FILE_BYTES, 1 << 20):
            os.pwrite(self._file, bytes(1 << 20), offset)
        os.fsync(self._file)
        self._loop = asyncio.get_running_loop()
        self._synced = synced
        self._busy = False
        self._waiting: list[bytes] = []
        self._last_index = 0
        self._jobs: queue.SimpleQueue[tuple[list[bytes], int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def append(self, record: bytes, last_index: int) -> None:
        self._waiting.append(record)
        self._last_index = last_index
        if not self._busy:
            self._submit()

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()
        os.close(self._file)

    def _submit(self) -> None:
        self._busy = True
        records, self._waiting = self._waiting, []
        self._jobs.put((records, self._last_index))

    def _run(self) -> None:
        offset = 0
        while (job := self._jobs.get()) is not None:
            group = b"".join(job[0])
            if offset + len(group) > FILE_BYTES:
                offset = 0
            os.pwrite(self._file, group, offset)
            offset += len(group)
            os.fdatasync(self._file)
            self._loop.call_soon_threadsafe(self._finished, job[1])

    def _finished(self, last_index: int) -> None:
        self._busy = False
        if self._waiting:
            self._submit()
        self._synced(last_index)


class _Link(asyncio.Protocol):
    """Records in, records out."""

    transport: asyncio.Transport

    def __init__(self, received: Callable[[_Link, int, bytes], None]) -> None:
        self._received = received
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        offset = 0
        while len(buffer) - offset >= HEADER.size:
            size_bytes, checksum, last_index = HEADER.unpack_from(buffer, offset)
            end = offset + HEADER.size + size_bytes
            if len(buffer) < end:
                break
            record = buffer[offset:end]
            assert zlib.crc32(record[HEADER.size :]) == checksum, "loopback carries what it was given"
            self._received(self, last_index, record)
            offset = end
        self._buffer = buffer[offset:]


def _record(body: bytes, last_index: int) -> bytes:
    return HEADER.pack(len(body), zlib.crc32(body), last_index) + body


class Ceiling:
    """A node. An async context manager; node 1 takes entries of bytes."""

    def __init__(self, id: NodeId, nodes: dict[NodeId, Address], folder: Path) -> None:
        self._id = id
        self._nodes = nodes
        self._folder = folder
        self._links: list[_Link] = []
        self._entries: list[bytes] = []
        self._futures: list[asyncio.Future[int]] = []
        self._uncommitted: deque[tuple[int, list[asyncio.Future[int]]]] = deque()
        self._match_index = dict.fromkeys(nodes, 0)
        self._last_index = 0
        self._disk: _Disk

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        path = self._folder / f"ceiling{self._id}" / "log"
        if self._id == 1:
            self._disk = _Disk(path, lambda last_index: self._matched(1, last_index))
            for id in self._nodes:
                if id != 1:
                    await self._connect(id)
        else:
            self._disk = _Disk(path, self._answer)
            host, port = self._nodes[self._id]
            self._server = await self._loop.create_server(self._accept, host, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._disk.close()

    async def _connect(self, id: NodeId) -> None:
        """The others start meanwhile."""
        host, port = self._nodes[id]
        while True:
            try:
                _, link = await self._loop.create_connection(
                    lambda: _Link(lambda _, last_index, __: self._matched(id, last_index)), host, port
                )
            except OSError:
                await asyncio.sleep(0.05)
            else:
                self._links.append(link)
                return

    # -- a follower

    def _accept(self) -> _Link:
        self._links = [_Link(lambda _, last_index, record: self._disk.append(record, last_index))]
        return self._links[0]

    def _answer(self, last_index: int) -> None:
        self._links[0].transport.write(_record(b"", last_index))

    # -- the leader

    def status(self) -> dict[str, object]:
        role = "leader" if self._id == 1 else "follower"
        return {
            "leader": 1,
            "role": role,
            "commit_index": self._last_index,
            "last_index": self._last_index,
            "term": 1,
        }

    def propose(self, entry: bytes) -> asyncio.Future[int]:
        if not self._futures:
            self._loop.call_soon(self._flush)
        future: asyncio.Future[int] = self._loop.create_future()
        self._entries.append(entry)
        self._futures.append(future)
        return future

    def _flush(self) -> None:
        entries, self._entries = self._entries, []
        futures, self._futures = self._futures, []
        self._last_index += len(entries)
        body = b"".join([struct.pack(f"<{len(entries)}I", *map(len, entries)), *entries])
        record = _record(body, self._last_index)
        for link in self._links:
            link.transport.write(record)
        self._uncommitted.append((self._last_index, futures))
        self._disk.append(record, self._last_index)

    def _matched(self, id: NodeId, last_index: int) -> None:
        self._match_index[id] = last_index
        commit_index = sorted(self._match_index.values())[len(self._match_index) // 2]
        while self._uncommitted and self._uncommitted[0][0] <= commit_index:
            for future in self._uncommitted.popleft()[1]:
                future.set_result(commit_index)
