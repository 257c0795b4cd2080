"""Reads a node's log from its closed data directory, through the write-ahead log itself, and changes nothing there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ..aio.disk import RealDisk
from ..aio.ranges import entries_of
from ..core.batch import Batch
from ..ports import File, Lock
from ..storage.identity import Identity
from ..storage.wal import WriteAheadLog
from ..types import Entry
from ..wire.entries import EntryCodec

__all__ = ["read_log"]

PAGE_BYTES: Final = 8 << 20


class _FrozenFile:
    """A file whose writes have no effect."""

    def __init__(self, file: File | None) -> None:
        self._file = file

    def pread(self, size_bytes: int, offset: int) -> bytes:
        return self._file.pread(size_bytes, offset) if self._file else b""

    def pwrite(self, parts: Sequence[bytes | memoryview], offset: int, *, sync: bool = False) -> None:
        pass

    def allocate(self, size_bytes: int) -> None:
        pass

    def sync(self) -> None:
        pass

    def size(self) -> int:
        return self._file.size() if self._file else 0

    def close(self) -> None:
        if self._file:
            self._file.close()


class _FrozenDisk:
    """A directory that stays as it is, whatever is done to it: opening a log prepares for writing."""

    def __init__(self, disk: RealDisk) -> None:
        self._disk = disk

    @property
    def path(self) -> str:
        return self._disk.path

    def prepare(self) -> None:
        pass

    def list(self) -> list[str]:
        return self._disk.list()

    def open(self, name: str, *, create: bool = False) -> File:
        return _FrozenFile(None if create else self._disk.open(name))

    def rename(self, old: str, new: str) -> None:
        pass

    def remove(self, name: str) -> None:
        pass

    def sync_dir(self) -> None:
        pass

    def lock(self, name: str) -> Lock:
        return self._disk.lock(name)


def read_log(data_dir: Path) -> list[Entry[str]]:
    """The users' entries that a restarted node would have. Nothing may be running there.

    Raises StorageError, OSError, DecodeFailed.
    """
    disk = _FrozenDisk(RealDisk(str(data_dir)))
    identity = msgspec.json.decode((data_dir / "IDENTITY").read_bytes().partition(b"\n")[0], type=Identity)
    log = WriteAheadLog(
        disk,
        random.SystemRandom(),
        store_id=bytes.fromhex(identity.store_id),
        configuration=identity.configuration,
        segment_bytes=PAGE_BYTES,
        may_create=False,
    )
    recovered = log.recover()
    codec = EntryCodec(str)
    entries: list[Entry[str]] = []
    try:
        index = recovered.base_index + 1
        while index <= recovered.last_index:
            batches: list[Batch] = log.read(index, recovered.last_index, PAGE_BYTES)
            entries += entries_of(codec, batches, index, recovered.last_index)
            index = batches[-1].last_index + 1
    finally:
        log.close()
    return entries
