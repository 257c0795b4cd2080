"""A closed data directory, read and left as it is: for people who look into one, and for copies that nobody may change.

frozen(disk) -> Frozen: the identity, what a start would recover, every batch, every damage
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from ..core.batch import Batch
from ..core.log import Recovered
from ..errors import ConfigurationError, StorageError
from ..ports import Disk, File, Lock
from ..types import LogIndex, Random
from .identity import IDENTITY, LOCK, Identity, read_identity
from .segment import named
from .wal import WriteAheadLog

__all__ = ["Frozen", "frozen"]

PAGE_BYTES: Final = 8 << 20

_NOT_LOCKABLE: Final = (errno.EROFS, errno.EACCES, errno.EPERM)


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

    def __init__(self, disk: Disk) -> None:
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


@dataclass(slots=True)
class Frozen:
    """What the directory holds. recovered: what a node that starts on it would have."""

    identity: Identity
    recovered: Recovered
    _log: WriteAheadLog

    def batches(self, first_index: LogIndex, last_index: LogIndex) -> Generator[Batch]:
        """From the one that holds `first_index`, or the log's first, to the one that holds `last_index`, or its last.

        Raises StorageError.
        """
        index = max(first_index, self.recovered.base_index + 1)
        last_index = min(last_index, self.recovered.last_index)
        while index <= last_index:
            batches = self._log.read(index, last_index, PAGE_BYTES)
            yield from batches
            index = batches[-1].last_index + 1

    def damages(self) -> Generator[StorageError]:
        """The first damage of each segment, everything being read."""
        yield from self._log.verify()


@contextmanager
def frozen(disk: Disk, random: Random) -> Generator[Frozen]:
    """Open it, while no node runs there. Raises ConfigurationError if it is none or in use, StorageError, OSError."""
    with _locked(disk):
        with named(disk, IDENTITY):
            if IDENTITY not in disk.list():
                raise ConfigurationError(f"{disk.path} is no data directory: it has no {IDENTITY}")
            identity = read_identity(disk)
        log = WriteAheadLog(
            _FrozenDisk(disk),
            random,
            store_id=bytes.fromhex(identity.store_id),
            configuration=identity.configuration,
            segment_bytes=PAGE_BYTES,
            may_create=False,
        )
        try:
            yield Frozen(identity, log.recover(), log)
        finally:
            log.close()


@contextmanager
def _locked(disk: Disk) -> Generator[None]:
    """Against a node that starts meanwhile; where nothing can be locked, nothing can run."""
    lock: Lock | None = None
    if LOCK in disk.list():
        try:
            lock = disk.lock(LOCK)
        except BlockingIOError:
            raise ConfigurationError(
                f"{disk.path} is in use: stop the node, or ask it (totora log --nodes)"
            ) from None
        except OSError as error:
            if error.errno not in _NOT_LOCKABLE:
                raise
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):
                lock.release()
