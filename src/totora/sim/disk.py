"""A disk in memory that loses what was not synced.

`crash` decides, by a seeded chance, what of the unsynced writes survives: nothing, everything, or some sectors of them in any
order; and how many of the unsynced renames, creations and removals. Files of an earlier life raise.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

SECTOR_BYTES = 512

Fate = Literal["lost", "kept", "torn"]


@dataclass
class Inode:
    durable: bytearray = field(default_factory=bytearray)
    data: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)

    def overwrite(self, offset: int, piece: bytes) -> None:
        """Bytes change that lie on stable storage."""
        _put(self.data, offset, piece)
        _put(self.durable, offset, piece)

    def settle(self) -> None:
        """What was written since the last sync is durable; what the kernel takes for clean stays as it is."""
        for offset, piece in self.unsynced:
            _put(self.durable, offset, piece)
        self.unsynced.clear()


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset + len(piece):
        data.extend(bytes(offset + len(piece) - len(data)))
    data[offset : offset + len(piece)] = piece


class MemoryFile:
    """`ports.File` on an inode, for one life of the disk."""

    def __init__(self, disk: MemoryDisk, name: str, inode: Inode) -> None:
        self._disk = disk
        self._name = name
        self._inode = inode
        self._life = disk.life
        self._closed = False

    def _check(self) -> None:
        if self._closed or self._life != self._disk.life:
            raise OSError(errno.EBADF, "the file is closed, or of an earlier life")

    def pread(self, size_bytes: int, offset: int) -> bytes:
        self._check()
        if offset < 0:
            raise OSError(errno.EINVAL, "Invalid argument")
        self._disk.record("pread", self._name, size_bytes)
        return bytes(self._inode.data[offset : offset + size_bytes])

    def pwrite(self, parts: Sequence[bytes | memoryview], offset: int, *, sync: bool = False) -> None:
        self._check()
        data = b"".join(parts)
        self._disk.record("pwrite", self._name, len(data))
        grows = max(0, offset + len(data) - len(self._inode.data))
        self._disk.take_space(grows)
        _put(self._inode.data, offset, data)
        self._inode.unsynced.append((offset, data))
        if sync:
            self.sync()

    def allocate(self, size_bytes: int) -> None:
        self._check()
        self._disk.record("allocate", self._name, size_bytes)
        grows = size_bytes - len(self._inode.data)
        if grows > 0:
            self._disk.take_space(grows)
            _put(self._inode.data, size_bytes - 1, b"\0")
            self._inode.unsynced.append((size_bytes - 1, b"\0"))

    def sync(self) -> None:
        self._check()
        try:
            self._disk.record("sync", self._name, 0)
        except OSError:
            # The kernel says so once, and takes for clean from then on what it could not write (fsyncgate).
            self._inode.unsynced.clear()
            raise
        self._inode.settle()

    def size(self) -> int:
        self._check()
        return len(self._inode.data)

    def close(self) -> None:
        self._closed = True


class MemoryLock:
    def __init__(self, disk: MemoryDisk, name: str) -> None:
        self._disk = disk
        self._name = name
        self._life = disk.life

    def release(self) -> None:
        if self._life == self._disk.life:
            self._disk.locks.discard(self._name)


class MemoryDisk:
    """`ports.Disk` in memory. `fault`, if set, is asked before each operation and may raise OSError.

    operations: (what, file, bytes) of everything that was asked, in order, unless `keeps_operations` is False.
    sector_bytes: of these each is written as a whole or not at all.
    count: how many they were. capacity_bytes: then ENOSPC; None: endless.
    """

    def __init__(self, path: str = "/disk", *, keeps_operations: bool = True) -> None:
        self.path = path
        self.keeps_operations = keeps_operations
        self.count = 0
        self.life = 1
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.unsynced_names: list[dict[str, Inode]] = []
        self.locks: set[str] = set()
        self.operations: list[tuple[str, str, int]] = []
        self.fault: Callable[[str, str], None] | None = None
        self.capacity_bytes: int | None = None
        self.used_bytes = 0
        self.sector_bytes = SECTOR_BYTES

    def record(self, what: str, name: str, size_bytes: int) -> None:
        self.count += 1
        if self.keeps_operations:
            self.operations.append((what, name, size_bytes))
        if self.fault is not None:
            self.fault(what, name)

    def take_space(self, size_bytes: int) -> None:
        self.used_bytes += size_bytes
        if self.capacity_bytes is not None and self.used_bytes > self.capacity_bytes:
            self.used_bytes -= size_bytes
            raise OSError(errno.ENOSPC, "No space left on device")

    @property
    def is_limited(self) -> bool:
        return self.capacity_bytes is not None

    # -- ports.Disk

    def prepare(self) -> None:
        self.record("prepare", "", 0)

    def list(self) -> list[str]:
        self.record("list", "", 0)
        return sorted({*self.names, *self.locks})

    def open(self, name: str, *, create: bool = False) -> MemoryFile:
        self.record("create" if create else "open", name, 0)
        if create:
            if name in self.names:
                raise FileExistsError(errno.EEXIST, "File exists", name)
            self.names[name] = Inode()
            self._changed()
        elif name not in self.names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        return MemoryFile(self, name, self.names[name])

    def rename(self, old: str, new: str) -> None:
        self.record("rename", new, 0)
        inode = self.names.pop(old)
        if new in self.names:
            self.take_space(-len(self.names[new].data))
        self.names[new] = inode
        self._changed()

    def remove(self, name: str) -> None:
        self.record("remove", name, 0)
        self.take_space(-len(self.names.pop(name).data))
        self._changed()

    def sync_dir(self) -> None:
        self.record("sync_dir", "", 0)
        self.durable_names = dict(self.names)
        self.unsynced_names.clear()

    def lock(self, name: str) -> MemoryLock:
        self.record("lock", name, 0)
        if name in self.locks:
            raise BlockingIOError(errno.EAGAIN, "held")
        self.locks.add(name)
        return MemoryLock(self, name)

    def _changed(self) -> None:
        self.unsynced_names.append(dict(self.names))

    # -- faults

    def crash(self, chance: random.Random, fate: Fate = "torn") -> None:
        """Lose power: what is not synced meets its fate, locks are gone, open files are dead."""
        self.life += 1
        self.locks.clear()
        if fate == "kept" and self.unsynced_names:
            self.durable_names = self.unsynced_names[-1]
        elif fate == "torn" and self.unsynced_names:
            survivors = [self.durable_names, *self.unsynced_names]
            self.durable_names = survivors[int(chance.random() * len(survivors))]
        self.unsynced_names.clear()
        self.names = dict(self.durable_names)
        for inode in self.names.values():
            for offset, piece in inode.unsynced:
                self._survive(inode, offset, piece, chance, fate)
            inode.unsynced.clear()
            inode.data = bytearray(inode.durable)
        self.used_bytes = sum(len(inode.data) for inode in self.names.values())

    def copy(self) -> MemoryDisk:
        """A disk of its own with the same files, all of it durable."""
        copy = MemoryDisk(self.path)
        for name, inode in self.names.items():
            copy.names[name] = Inode(bytearray(inode.data), bytearray(inode.data))
        copy.durable_names = dict(copy.names)
        return copy

    def durable_copy(self) -> MemoryDisk:
        """What a machine would find that lost power now, and with it everything that was not synced."""
        copy = MemoryDisk(self.path)
        for name, inode in self.durable_names.items():
            data = bytearray(inode.durable)
            copy.names[name] = Inode(bytearray(data), data)
        copy.durable_names = dict(copy.names)
        return copy

    def process_died(self) -> None:
        """The process that had files open is gone; the kernel keeps what it wrote, synced or not."""
        self.life += 1
        self.locks.clear()

    def _survive(self, inode: Inode, offset: int, piece: bytes, chance: random.Random, fate: Fate) -> None:
        """Of a torn write some sectors are there: any of them, or all up to one, or all but one."""
        sector = self.sector_bytes
        first, last = offset // sector, (offset + len(piece) - 1) // sector
        kind = int(chance.random() * 3) if fate == "torn" else None
        one = first + int(chance.random() * (last - first + 1)) if kind else first
        for number in range(first, last + 1):
            match kind:
                case 0:
                    survives = chance.random() < 0.5
                case 1:
                    survives = number < one
                case 2:
                    survives = number != one
                case _:
                    survives = fate == "kept"
            if survives:
                begin, end = max(offset, number * sector), min(offset + len(piece), (number + 1) * sector)
                _put(inode.durable, begin, piece[begin - offset : end - offset])

    def flip(self, name: str, offset: int, bit: int = 0) -> None:
        """A bit turns over while the file lies there."""
        inode = self.names[name]
        inode.data[offset] ^= 1 << bit
        inode.durable[offset] ^= 1 << bit

    def wipe(self) -> None:
        """The disk is replaced by an empty one."""
        self.life += 1
        self.names, self.durable_names = {}, {}
        self.unsynced_names.clear()
        self.locks.clear()
        self.used_bytes = 0

    def truncate(self, name: str, size_bytes: int) -> None:
        """The end of a file disappears."""
        inode = self.names[name]
        del inode.data[size_bytes:], inode.durable[size_bytes:]
