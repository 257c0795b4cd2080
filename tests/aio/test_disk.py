"""The real disk: files of one directory, all of each call or an error, durable when it says so."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.levels import by_level
from totora.aio import disk as module
from totora.aio.disk import RealDisk
from totora.ports import LARGE_BYTES


@pytest.fixture
def disk(tmp_path: Path) -> RealDisk:
    """A prepared directory."""
    disk = RealDisk(str(tmp_path / "data"))
    disk.prepare()
    return disk


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of what the system was asked to make durable, in order."""
    paths: list[str] = []
    fsync, sync = os.fsync, module._sync

    def path_of(descriptor: int) -> str:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())

    def record_fsync(descriptor: int) -> None:
        paths.append(path_of(descriptor))
        fsync(descriptor)

    def record_sync(descriptor: int) -> None:
        paths.append(path_of(descriptor))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(module, "_sync", record_sync)
    return paths


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """With all that is missing above it; whatever the umask lets through."""
    before = os.umask(0)
    try:
        RealDisk(str(tmp_path / "a" / "b" / "data")).prepare()
    finally:
        os.umask(before)
    for path in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "data"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_new_directory_is_durable(tmp_path: Path, synced: list[str]) -> None:
    """Each one's name is in the one above it, which is synced."""
    (tmp_path / "old").mkdir()
    RealDisk(str(tmp_path / "old" / "a" / "data")).prepare()
    old = tmp_path / "old"
    assert synced == [str(old), str(old / "a"), str(tmp_path)], "also of what one found, whoever made it"


def test_nodes_that_start_together_make_the_directory_above_them_together(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each finds it missing; who comes second does not complain, and does not count on the first to make it durable."""
    mkdir = os.mkdir

    def come_second(path: str, mode: int) -> None:
        if path == str(tmp_path / "a"):
            mkdir(path, mode)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", come_second)
    disk = RealDisk(str(tmp_path / "a" / "n1"))
    disk.prepare()
    assert disk.list() == []
    assert synced[:2] == [str(tmp_path), str(tmp_path / "a")]


def test_a_directory_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    """Its rights are its owner's business."""
    tmp_path.chmod(0o755)
    disk = RealDisk(str(tmp_path))
    disk.prepare()
    disk.prepare()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert disk.list() == []


def test_the_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that messages help, and a change of the working directory does no harm."""
    monkeypatch.chdir(tmp_path)
    disk = RealDisk("data/1")
    assert disk.path == str(tmp_path / "data" / "1")
    disk.prepare()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert disk.list() == []


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    """At the directory's place, and above it."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        RealDisk(str(tmp_path / "file")).prepare()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        RealDisk(str(tmp_path / "file" / "data")).prepare()


def test_a_new_file_is_its_owners_alone_and_was_not_there(disk: RealDisk) -> None:
    """An existing one is never taken for new, and none is made by opening it."""
    before = os.umask(0)
    try:
        disk.open("x", create=True).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((Path(disk.path) / "x").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        disk.open("x", create=True)
    with pytest.raises(FileNotFoundError):
        disk.open("y")
    assert disk.list() == ["x"]


def test_what_is_written_is_read(disk: RealDisk) -> None:
    """Parts behind one another, over what was there, behind a hole, and up to the end."""
    file = disk.open("x", create=True)
    file.pwrite([b"abc", memoryview(b"def"), b""], 0)
    file.pwrite([b"XY"], 2)
    file.pwrite([b"end"], 10)
    assert file.size() == 13
    assert file.pread(100, 0) == b"abXYef\0\0\0\0end"
    assert file.pread(3, 1) == b"bXY"
    assert file.pread(0, 0) == b""
    assert file.pread(5, 13) == b""
    assert file.pread(5, 99) == b""
    file.close()
    again = disk.open("x")
    assert again.pread(13, 0) == b"abXYef\0\0\0\0end"
    again.close()


@pytest.mark.parametrize("has_it", [True, False], ids=["posix_fallocate", "without"])
def test_room_is_taken_and_nothing_is_changed(
    has_it: bool, disk: RealDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_it:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    file = disk.open("new", create=True)
    file.pwrite([b"some"], 0)
    file.allocate(1 << 20)
    assert file.size() == 1 << 20
    file.allocate(10)
    assert file.pread(2 << 20, 0) == b"some" + bytes((1 << 20) - 4)
    file.close()


def test_nothing_is_written_by_no_parts(disk: RealDisk) -> None:
    """Nor by empty ones."""
    file = disk.open("x", create=True)
    file.pwrite([], 5)
    file.pwrite([b""], 5)
    assert file.size() == 0
    file.close()


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("most", [1, 7, 1_000])
def test_what_the_system_does_in_pieces_is_done_to_its_end(
    disk: RealDisk, monkeypatch: pytest.MonkeyPatch, most: int, sync: bool
) -> None:
    """A call may write or read less than it was asked to (a signal, a large one): the rest follows."""
    pread, pwritev = os.pread, os.pwritev
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, most), offset))
    monkeypatch.setattr(
        os, "pwritev", lambda fd, parts, offset, flags: pwritev(fd, [parts[0][:most]], offset, flags)
    )
    file = disk.open("x", create=True)
    data = bytes(n % 251 for n in range(1_500))
    file.pwrite([data[:700], data[700:]], 3, sync=sync)
    assert file.pread(5_000, 0) == bytes(3) + data
    assert file.pread(20, 503) == data[500:520]
    file.close()


@pytest.mark.parametrize("most", [100, 70_000, 1 << 20])
def test_large_parts_are_written_as_they_are(
    disk: RealDisk, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """In one call, or as much of them as it takes, and then the rest."""
    taken: list[int] = []

    def pwritev(descriptor: int, parts: list[bytes], offset: int, flags: int) -> int:
        taken.append(len(parts))
        return os.pwrite(descriptor, b"".join(parts)[:most], offset)

    monkeypatch.setattr(os, "pwritev", pwritev, raising=False)
    file = disk.open("x", create=True)
    parts = [b"a" * 10, b"b" * LARGE_BYTES, b"c" * 20_000, b"d"]
    file.pwrite(parts, 5)
    assert file.pread(1 << 20, 0) == bytes(5) + b"".join(parts)
    assert taken[0] == 4
    taken.clear()
    file.pwrite([b"e"] * 2_000 + [b"f" * LARGE_BYTES], 0)
    assert set(taken) == {1}, "so many parts go in no single call"
    assert file.pread(2_001, 0) == b"e" * 2_000 + b"f"
    file.close()


@pytest.mark.skipif(not hasattr(os, "RWF_DSYNC"), reason="Linux has it")
def test_a_write_may_be_synced_in_the_same_call(
    disk: RealDisk, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system knows how to; where it does not, in two calls."""
    flags_of: list[int] = []
    pwritev = os.pwritev

    def record(descriptor: int, parts: list[bytes], offset: int, flags: int) -> int:
        flags_of.append(flags)
        return pwritev(descriptor, parts, offset, flags)

    monkeypatch.setattr(os, "pwritev", record)
    file = disk.open("x", create=True)
    file.pwrite([b"abc", b"def"], 0, sync=True)
    assert (flags_of, synced) == ([os.RWF_DSYNC], [])
    for unknown in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):

        def refuse(descriptor: int, parts: list[bytes], offset: int, flags: int, why: int = unknown) -> int:
            if flags:
                raise OSError(why, os.strerror(why))
            return pwritev(descriptor, parts, offset, flags)

        monkeypatch.setattr(os, "pwritev", refuse)
        file.close()
        file = disk.open("x")
        for _ in range(2):
            file.pwrite([b"ghi", b"jkl"], 6, sync=True)
        assert synced == [str(Path(disk.path) / "x")] * 2
        synced.clear()
    assert file.pread(20, 0) == b"abcdefghijkl"
    file.close()


@pytest.mark.parametrize("why", [errno.EIO, errno.ENOSPC])
def test_a_synced_write_that_fails_is_not_tried_again(
    disk: RealDisk, monkeypatch: pytest.MonkeyPatch, why: int
) -> None:
    """The kernel tells of a lost write once, and takes it for clean from then on."""
    calls: list[int] = []

    def fail(descriptor: int, parts: list[bytes], offset: int, flags: int) -> int:
        calls.append(flags)
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr(os, "pwritev", fail)
    file = disk.open("x", create=True)
    with pytest.raises(OSError, match=os.strerror(why)):
        file.pwrite([b"abc"], 0, sync=True)
    assert len(calls) == 1
    file.close()


def test_a_write_that_fails_on_its_way_says_so(disk: RealDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it is there, then the disk is full: that half counts for nothing."""

    def full_soon(descriptor: int, parts: list[bytes], offset: int, flags: int) -> int:
        if offset >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.pwrite(descriptor, parts[0][:4], offset)

    monkeypatch.setattr(os, "pwritev", full_soon)
    file = disk.open("x", create=True)
    with pytest.raises(OSError, match="No space left on device"):
        file.pwrite([b"abcdefgh"], 0)
    file.close()


def test_a_really_full_disk_says_so() -> None:
    """The system's own: it takes nothing."""
    file = module.RealFile(os.open("/dev/full", os.O_RDWR))
    with pytest.raises(OSError, match="No space left on device"):
        file.pwrite([b"x"], 0)
    file.close()


def test_a_sync_is_of_the_file_and_of_the_directory(disk: RealDisk, synced: list[str]) -> None:
    """The one for what stands in it, the other for the names."""
    file = disk.open("x", create=True)
    file.pwrite([b"x"], 0)
    file.sync()
    assert synced == [f"{disk.path}/x"]
    disk.sync_dir()
    assert synced == [f"{disk.path}/x", disk.path]
    file.close()


def test_what_cannot_be_synced_says_so(disk: RealDisk) -> None:
    """A sync that did nothing is never taken for one."""
    file = disk.open("x", create=True)
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.sync()
    with pytest.raises(FileNotFoundError):
        RealDisk(f"{disk.path}/gone").sync_dir()


def test_names_change_at_once(disk: RealDisk) -> None:
    """A rename replaces what was there; a file that is open stays readable under any name, and under none."""
    for name, data in (("old", b"1"), ("new", b"2")):
        file = disk.open(name, create=True)
        file.pwrite([data], 0)
        file.close()
    kept = disk.open("new")
    disk.rename("old", "new")
    assert disk.list() == ["new"]
    replaced = disk.open("new")
    assert replaced.pread(1, 0) == b"1"
    disk.remove("new")
    assert disk.list() == []
    assert (kept.pread(1, 0), replaced.pread(1, 0)) == (b"2", b"1")
    kept.close()
    replaced.close()
    with pytest.raises(FileNotFoundError):
        disk.rename("old", "new")
    with pytest.raises(FileNotFoundError):
        disk.remove("old")


def test_the_names_are_sorted(disk: RealDisk) -> None:
    """However the system lists them."""
    names = ["b", "a", "c", "IDENTITY", "000000000010.log", "000000000002.log"]
    for name in names:
        disk.open(name, create=True).close()
    assert disk.list() == sorted(names)


def test_a_lock_is_held_once(disk: RealDisk) -> None:
    """Neither in this process nor in another is it given again, until it is released; a refusal leaves nothing open."""
    before = descriptors()
    for _ in range(by_level(quick=2, ci=5)):
        lock = disk.lock("LOCK")
        for _ in range(3):
            with pytest.raises(BlockingIOError):
                RealDisk(disk.path).lock("LOCK")
        assert descriptors() == before + 1
        lock.release()
        assert descriptors() == before
    assert disk.list() == ["LOCK"]


def test_a_lock_is_held_against_other_processes_and_ends_with_them(disk: RealDisk) -> None:
    """The system gives it back, however the process ended."""
    program = (
        "import os, sys\n"
        "from totora.aio.disk import LARGE_BYTES, RealDisk\n"
        "lock = RealDisk(sys.argv[1]).lock('LOCK')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
        "os._exit(1)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, disk.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            disk.lock("LOCK")
        other.stdin.close()
        assert other.wait() == 1
    disk.lock("LOCK").release()


def test_nothing_is_inherited(disk: RealDisk) -> None:
    """A program that is started by this one holds neither our files nor our lock."""
    lock = disk.lock("LOCK")
    file = disk.open("x", create=True)
    program = "import os; print([os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if fd > '2'])"
    shown = subprocess.run(
        [sys.executable, "-c", program.replace("os.readlink", "os.path.realpath")],
        capture_output=True,
        text=True,
        check=True,
        close_fds=False,
    ).stdout
    assert disk.path not in shown
    file.close()
    lock.release()
