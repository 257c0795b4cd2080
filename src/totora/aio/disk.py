"""The real disk: one data directory on a file system."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Final

from ..ports import LARGE_BYTES

__all__ = ["RealDisk"]

PARTS_MAX: Final = 1_024
"""What every system takes in one call."""

_DSYNC: Final[int] = getattr(os, "RWF_DSYNC", 0)
"""Writing and syncing in one call: where the interpreter is busy, a thread waits for its lock after each."""

_UNKNOWN_FLAG: Final = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""How systems say that they do not know it; nothing was written then."""


def _sync(descriptor: int) -> None:
    """Return once what was written is on stable storage, and no sooner."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync leaves it in the drive's cache there
    else:
        getattr(os, "fdatasync", os.fsync)(descriptor)


def _pwritev(descriptor: int, parts: Sequence[bytes | memoryview], offset: int, flags: int) -> int:
    if hasattr(os, "pwritev"):
        return os.pwritev(descriptor, parts, offset, flags)
    return os.pwrite(descriptor, parts[0], offset)


class RealFile:
    """`ports.File` on a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._syncs_while_writing = bool(_DSYNC)

    def pread(self, size_bytes: int, offset: int) -> bytes:
        pieces = []
        while size_bytes > 0 and (piece := os.pread(self._descriptor, size_bytes, offset)):
            pieces.append(piece)
            offset += len(piece)
            size_bytes -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def pwrite(self, parts: Sequence[bytes | memoryview], offset: int, *, sync: bool = False) -> None:
        if sync and not self._syncs_while_writing:
            self._write(parts, offset)
            self.sync()
            return
        try:
            self._write(parts, offset, _DSYNC if sync else 0)
        except OSError as error:
            if not sync or error.errno not in _UNKNOWN_FLAG:
                raise
            self._syncs_while_writing = False
            self.pwrite(parts, offset, sync=True)

    def _write(self, parts: Sequence[bytes | memoryview], offset: int, flags: int = 0) -> None:
        left_bytes = sum(map(len, parts))
        as_they_are = len(parts) == 1 or (
            1 < len(parts) <= PARTS_MAX and max(map(len, parts)) >= LARGE_BYTES and hasattr(os, "pwritev")
        )
        if not as_they_are:
            parts = [b"".join(parts)]
        while left_bytes:
            written = _pwritev(self._descriptor, parts, offset, flags)
            left_bytes -= written
            if left_bytes:
                parts = [memoryview(b"".join(parts))[written:]]
                offset += written

    def allocate(self, size_bytes: int) -> None:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._descriptor, 0, size_bytes)
        elif self.size() < size_bytes:
            os.ftruncate(self._descriptor, size_bytes)

    def sync(self) -> None:
        _sync(self._descriptor)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        os.close(self._descriptor)


class _FlockLock:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


class RealDisk:
    """`ports.Disk` on a directory of the file system."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)

    @property
    def path(self) -> str:
        return self._path

    def prepare(self) -> None:
        missing = []
        path = self._path
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for folder in reversed(missing):
            try:
                os.mkdir(folder, 0o700)
            except FileExistsError:
                if not os.path.isdir(folder):
                    raise
                # Another node that starts on this machine was quicker.
            _sync_dir(os.path.dirname(folder))
        # Whoever made what is there may have been killed before it was durable.
        with contextlib.suppress(PermissionError):
            _sync_dir(os.path.dirname(path))

    def list(self) -> list[str]:
        return sorted(os.listdir(self._path))

    def open(self, name: str, *, create: bool = False) -> RealFile:
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        return RealFile(os.open(os.path.join(self._path, name), flags, 0o600))

    def rename(self, old: str, new: str) -> None:
        os.replace(os.path.join(self._path, old), os.path.join(self._path, new))

    def remove(self, name: str) -> None:
        os.unlink(os.path.join(self._path, name))

    def sync_dir(self) -> None:
        _sync_dir(self._path)

    def lock(self, name: str) -> _FlockLock:
        import fcntl

        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(os.path.join(self._path, name), flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return _FlockLock(descriptor)


def _sync_dir(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
