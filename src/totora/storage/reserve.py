"""The next segment's file, made before it is needed: with room on the disk, and zero-filled, a slice at a time.

reserve.tmp      its room is taken, it is being filled
reserve          filled

A pre-written file syncs in half the time of a growing one. A segment can begin in a file that is not filled to its end.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from ..ports import Disk, File
from .segment import named, zero_fill

__all__ = ["RESERVE", "Reserve"]

RESERVE: Final = "reserve"
SLICE_BYTES: Final = 256 << 10
SPARE_BYTES: Final = 64 << 10
"""For the identity, and for footers that reach beyond their segments."""

_UNFINISHED: Final = "reserve.tmp"


class Reserve:
    """At most one file in reserve. Raises StorageError, which names the file and the need."""

    def __init__(self, disk: Disk, segment_bytes: int) -> None:
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._filling: tuple[File, int] | None = None
        self.ready = False

    @property
    def filled_bytes(self) -> int:
        """How far the file that is being made is filled; -1: none is being made."""
        return -1 if self._filling is None else self._filling[1]

    def find(self) -> None:
        """See what an earlier start left here."""
        with self._named(RESERVE, self._segment_bytes):
            names = self._disk.list()
            if _UNFINISHED in names:
                self._disk.remove(_UNFINISHED)
            self.ready = RESERVE in names

    def extend(self) -> None:
        """Do a slice of the work. A slice is small, so that writes can go in between."""
        with self._named(RESERVE, self._segment_bytes):
            if self._filling is None:
                self._begin(self._segment_bytes)
            self._fill()

    def take(self, size_bytes: int) -> File:
        """Open the file in reserve, of at least `size_bytes`; it is the caller's, who gives it another name."""
        with self._named(RESERVE, size_bytes):
            if self._filling is not None:
                self._finish()
            file = self._open(size_bytes) if self.ready else None
            if file is None:
                # Its size is synced: a file that has the name is used as it is, also after a failed sync.
                self._begin(size_bytes).sync()
                self._finish()
                file = self._disk.open(RESERVE)
            self.ready = False
            return file

    def recycle(self, name: str) -> None:
        """A segment that is on no way through the log any more: use it again, or give its space back.

        Its old name is gone for good before it gets a new header.
        """
        with self._named(name, self._segment_bytes):
            if self.ready or self._filling is not None:
                self._disk.remove(name)
            else:
                self._disk.rename(name, RESERVE)
                self.ready = True
            self._disk.sync_dir()

    def close(self) -> None:
        filling, self._filling = self._filling, None
        if filling is not None:
            filling[0].close()

    def need_bytes(self, size_bytes: int) -> int:
        """What must be free for a segment of this size and the one in reserve behind it."""
        return max(size_bytes, self._segment_bytes) + self._segment_bytes + SPARE_BYTES

    def _named(self, name: str, size_bytes: int) -> AbstractContextManager[None]:
        return named(self._disk, name, need_bytes=self.need_bytes(size_bytes))

    def _open(self, size_bytes: int) -> File | None:
        """None if the file is smaller: of another setting, or cut off."""
        file = self._disk.open(RESERVE)
        fits = False
        try:
            fits = file.size() >= size_bytes
        finally:
            if not fits:
                file.close()
        return file if fits else None

    def _begin(self, size_bytes: int) -> File:
        self.ready = False
        names = self._disk.list()
        for leftover in (_UNFINISHED, RESERVE):
            if leftover in names:
                self._disk.remove(leftover)
        file = self._disk.open(_UNFINISHED, create=True)
        self._filling = file, 0
        file.allocate(size_bytes)
        return file

    def _fill(self) -> None:
        assert self._filling is not None, "a reserve is begun before it is filled"
        file, start = self._filling
        end = min(start + SLICE_BYTES, self._segment_bytes)
        zero_fill(file, start, end)
        file.sync()
        self._filling = file, end
        if end == self._segment_bytes:
            self._finish()

    def _finish(self) -> None:
        """Filled or not: what it lacks, its syncs will cost."""
        self.close()
        # Not durable until the file is put to use, and need not be: it is made anew if it is missing.
        self._disk.rename(_UNFINISHED, RESERVE)
        self.ready = True
