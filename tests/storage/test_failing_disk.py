"""The disk fails, or is full, at any single operation: the error names the file, the store is finished, nothing is lost."""

from __future__ import annotations

import errno
import random
import re
from collections.abc import Callable
from typing import Final

import pytest

from tests.levels import by_level
from tests.storage.directory import (
    SEGMENT_BYTES,
    WatchedDisk,
    Writer,
    closed_directory,
    disk_of,
    files_of,
    live,
    open_node,
    segments_of,
)
from tests.storage.model import Model, batch
from totora.core.effects import HardState, Persist
from totora.errors import StorageError

KINDS: Final = (
    "prepare",
    "lock",
    "list",
    "create",
    "open",
    "pread",
    "pwrite",
    "allocate",
    "sync",
    "rename",
    "remove",
    "sync_dir",
)
ALLOCATING: Final = ("prepare", "lock", "create", "pwrite", "allocate", "sync", "rename", "sync_dir")
"""With delayed allocation, or where nothing is overwritten in its place, a disk may turn out to be full in any of them."""

FILES, MODEL = closed_directory()


class Life:
    """A node's life on a disk that fails once: it opens, writes all that there is to write, reads it, and closes."""

    def __init__(self, disk: WatchedDisk) -> None:
        self.disk = disk
        self.writer: Writer | None = None
        self.error: StorageError | None = None

    @property
    def possible(self) -> list[Model]:
        return self.writer.possible if self.writer is not None else [Model()]

    def live(self) -> None:
        """Up to the end, or the first StorageError; nothing else may come out, and then nothing is done any more."""
        try:
            opened = open_node(self.disk)
        except StorageError as error:
            self.error = error
            return
        self.writer = Writer(opened.log)
        try:
            live(self.writer)
            opened.log.read(1, self.writer.model.last_index, 1 << 20)
        except StorageError as error:
            self.error = error
            self.finished(opened.log.write)
            assert not opened.log.wants_reserve
            opened.log.reserve()
        try:
            opened.close()
        except StorageError as error:
            assert self.error is None, "a log that failed writes no mark"
            self.error = error

    def finished(self, write: Callable[[list[Persist]], None]) -> None:
        """Whatever is asked later gets the same answer, and changes nothing."""
        before = files_of(self.disk)
        with pytest.raises(StorageError) as raised:
            write([Persist(999, None, HardState(99, None), (batch(99, 99),), 0)])
        assert raised.value is self.error
        assert files_of(self.disk) == before

    def check_next(self) -> None:
        """The next start holds what was acknowledged; so does the one after it, though the power failed in between."""
        assert self.disk.open_files == []
        assert self.disk.locks == set()
        opened = open_node(self.disk, seed=2)
        found = opened.contents()
        assert found in self.possible, f"{found.last_index} of {self.possible[-1].last_index}"
        self.disk.crash(random.Random(1), "lost")
        opened = open_node(self.disk, seed=3)
        assert opened.contents() == found
        opened.log.write([Persist(1, None, None, (batch(found.last_index + 1, 99, size=700),), 0)])
        opened.close()


def fail_at(number: int, code: int, kinds: tuple[str, ...], *, for_good: bool) -> Life | None:
    """A life in which operation `number` of these kinds fails, and from then on all of them or none; None: there is none."""
    life = Life(WatchedDisk())
    left = number

    def fault(what: str, name: str) -> None:
        nonlocal left
        if what in kinds:
            left -= 1
            if left == -1 or (for_good and left < 0):
                raise OSError(code, "it says no")

    life.disk.fault = fault
    life.live()
    life.disk.fault = None
    return life if left < 0 else None


def each_failure(code: int, kinds: tuple[str, ...], *, for_good: bool) -> list[Life]:
    lives: list[Life] = []
    number = 0
    while (life := fail_at(number, code, kinds, for_good=for_good)) is not None:
        lives.append(life)
        number += 1
    return lives


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
def test_an_error_of_any_operation_ends_the_store(what: str, *, for_good: bool) -> None:
    """EIO in each call of each kind, from the first start to the mark of a clean end; what seems well again is not believed."""
    lives = each_failure(errno.EIO, (what,), for_good=for_good)
    assert lives, f"{what} is used"
    for life in lives:
        assert life.error is not None, "no failure is passed over"
        assert re.match(
            r"/disk(/\S+)?( at offset [\d,]+)?: it says no: check the disk and start", str(life.error)
        )
        if what in ("open", "pread", "pwrite", "rename"):
            assert life.error.path != "/disk", "the file is named"
        life.check_next()


def test_a_full_disk_is_said_so_at_any_operation() -> None:
    """Whatever finds the disk full names its path and the need; after space was freed nothing acknowledged is missing."""
    lives = each_failure(errno.ENOSPC, ALLOCATING, for_good=True)
    assert len(lives) > 100
    for life in lives:
        needs = re.fullmatch(
            r"/disk/\S+( at offset [\d,]+)?: no space left: free at least ([\d,]+) bytes there "
            "and start the node again",
            str(life.error),
        )
        assert needs is not None, str(life.error)
        assert int(needs[2].replace(",", "")) >= SEGMENT_BYTES
        life.check_next()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_quota_is_a_full_disk(code: int) -> None:
    """To whoever runs the node it is one."""
    life = fail_at(24, code, ALLOCATING, for_good=True)
    assert life is not None
    assert "free at least 81,920 bytes there" in str(life.error)


def need_of(error: StorageError) -> int:
    found = re.search(r"free at least ([\d,]+) bytes", str(error))
    assert found is not None, str(error)
    return int(found[1].replace(",", ""))


def test_the_space_that_is_asked_for_is_enough() -> None:
    """Disks of all sizes: freed by what the error names, each is good for a start and a write.

    The identity knows nothing of segments: what it asks for may be followed by what the log asks for.
    """
    met: set[str] = set()
    for capacity in range(0, 110_000, by_level(quick=900, ci=300)):
        life = Life(WatchedDisk())
        life.disk.capacity_bytes = capacity
        life.live()
        error = life.error
        if error is None:
            break
        met.add(error.path)
        life.disk.capacity_bytes = life.disk.used_bytes + need_of(error)
        if error.path == "/disk/IDENTITY":
            try:
                open_node(life.disk).close()
            except StorageError as another:
                life.disk.capacity_bytes += need_of(another)
        life.check_next()
    else:
        pytest.fail("no disk is large enough")
    assert {"/disk/IDENTITY", "/disk/reserve"} <= met


def test_a_full_disk_is_known_before_an_append_meets_it() -> None:
    """The space for the next segment is taken ahead: `reserve` fails while writes still have room."""
    disk = disk_of(FILES)
    opened = open_node(disk)
    disk.capacity_bytes = disk.used_bytes
    writer = Writer(opened.log, MODEL)
    while not opened.log.wants_reserve:
        writer.write(300)
    with pytest.raises(StorageError, match="/disk/reserve: no space left: free at least 81,920 bytes"):
        opened.log.reserve()
    opened.close()
    disk.capacity_bytes = None
    assert open_node(disk).contents() == writer.model


def test_a_batch_larger_than_a_segment_asks_for_its_size() -> None:
    """The need is that of the file which it takes."""
    disk = disk_of(FILES)
    opened = open_node(disk)
    disk.capacity_bytes = disk.used_bytes
    size = 100_000
    with pytest.raises(StorageError) as raised:
        opened.log.write([Persist(1, None, None, (batch(MODEL.last_index + 1, 9, size=size),), 0)])
    need = re.search(r"free at least ([\d,]+) bytes", str(raised.value))
    assert need is not None
    assert int(need[1].replace(",", "")) > size + SEGMENT_BYTES
    opened.close()


def test_fsync_eio() -> None:
    """A sync fails once, and a second one would succeed without having written anything: the log stops at the failure.

    The next start reads from the kernel's memory what never reached the disk; it writes it again before it believes it.
    """
    disk = disk_of(FILES)
    opened = open_node(disk)
    newest = segments_of(disk)[-1]

    def fail(what: str, name: str) -> None:
        if what == "sync":
            raise OSError(errno.EIO, "Input/output error")

    disk.fault = fail
    entry = batch(MODEL.last_index + 1, 9)
    with pytest.raises(StorageError, match=rf"/disk/{newest} at offset [\d,]+: Input/output error") as raised:
        opened.log.write([Persist(1, None, None, (entry,), 0)])
    disk.fault = None
    with pytest.raises(StorageError) as again:
        opened.log.write([Persist(2, None, None, (entry,), 0)])
    assert again.value is raised.value
    opened.close()
    opened = open_node(disk)
    assert opened.contents().batches == [*MODEL.batches, entry], "the kernel still shows it"
    disk.crash(random.Random(1), "lost")
    opened = open_node(disk)
    assert opened.contents().batches == [*MODEL.batches, entry], "what was believed once is durable"


def test_a_failure_of_a_read_ends_the_store() -> None:
    """Of a segment's records, and of its footer; the file is named that failed, not the one where the read began."""
    for broken in segments_of(FILES):
        disk = disk_of(FILES)
        opened = open_node(disk)

        def fail(what: str, name: str, broken: str = broken) -> None:
            if what == "pread" and name == broken:
                raise OSError(errno.EIO, "Input/output error")

        disk.fault = fail
        with pytest.raises(StorageError) as raised:
            opened.log.read(1, MODEL.last_index, 1 << 20)
        assert (
            str(raised.value)
            == f"/disk/{broken}: Input/output error: check the disk and start the node again"
        )
        assert [error.path for error in opened.log.verify()] == [f"/disk/{broken}"]
        disk.fault = None
        with pytest.raises(StorageError) as again:
            opened.log.write([Persist(1, None, HardState(9, None), (), 0)])
        assert again.value is raised.value
        opened.close()
        assert disk.open_files == []


def test_a_log_that_is_closed_says_so() -> None:
    """Neither written nor read through files that are somebody else's by now; closing twice is nothing."""
    disk = disk_of(FILES)
    opened = open_node(disk)
    opened.log.close()
    before = files_of(disk)
    with pytest.raises(StorageError, match="/disk: the log is closed"):
        opened.log.write([Persist(1, None, HardState(9, None), (), 0)])
    with pytest.raises(StorageError, match="/disk: the log is closed"):
        opened.log.read(1, 1, 1)
    opened.log.reserve()
    assert not opened.log.wants_reserve
    assert list(opened.log.verify()) == []
    opened.log.close()
    assert files_of(disk) == before
