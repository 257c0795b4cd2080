"""Whose directory it is: what does not belong together is told apart, and the disk stays as it was."""

from __future__ import annotations

import errno
import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.storage.directory import (
    FINGERPRINT,
    WatchedDisk,
    closed_directory,
    disk_of,
    files_of,
    open_node,
    segments_of,
    unchanged,
)
from tests.storage.model import CONFIGURATION
from totora.aio.disk import RealDisk
from totora.core.quorum import Configuration, Member
from totora.errors import ConfigurationError, RaftError, StorageError
from totora.sim.disk import MemoryDisk
from totora.storage.identity import open_directory

FILES, MODEL = closed_directory()


def configuration(*ids: int, port: int = 1) -> Configuration:
    return Configuration(tuple(Member(id, "127.0.0.1", port) for id in ids), frozenset(ids))


def refused(
    disk: MemoryDisk,
    error: type[RaftError] = ConfigurationError,
    *,
    node_id: int = 1,
    configuration: Configuration = CONFIGURATION,
    fingerprint: bytes = FINGERPRINT,
) -> str:
    """Opening fails, changes nothing, and gives the lock back; returns what it says."""
    with unchanged(disk), pytest.raises(error) as raised:
        open_node(disk, node_id=node_id, configuration=configuration, fingerprint=fingerprint)
    return str(raised.value)


def signed(line: bytes) -> bytes:
    """An identity file with a checksum that matches."""
    return line + b"\n" + f"crc32 {zlib.crc32(line):08x}".encode() + b"\n"


def identity_of(disk: MemoryDisk) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(files_of(disk)["IDENTITY"].partition(b"\n")[0])
    return fields


# -- the first start, and the next ones


def test_the_first_start_says_whose_directory_it_is() -> None:
    """One line that people can read, and a store id that nobody else has."""
    disk = WatchedDisk()
    opened = open_node(disk, seed=1)
    assert identity_of(disk) == {
        "format": 1,
        "node_id": 1,
        "store_id": opened.directory.store_id.hex(),
        "incarnation": 1,
        "fingerprint": FINGERPRINT.hex(),
        "nodes": [{"id": 1, "host": "127.0.0.1", "port": 1}, {"id": 2, "host": "127.0.0.1", "port": 2}],
    }
    assert len(opened.directory.store_id) == 16
    other = open_node(WatchedDisk(), seed=2)
    assert other.directory.store_id != opened.directory.store_id


def test_each_start_is_counted() -> None:
    """The store id stays, the incarnation rises, and the cluster's first configuration is the one it was made with."""
    disk = WatchedDisk()
    seen: list[int] = []
    for _ in range(3):
        opened = open_node(disk, configuration=CONFIGURATION)
        seen.append(opened.directory.identity.incarnation)
        assert opened.directory.identity.configuration == CONFIGURATION
        opened.close()
    assert seen == [1, 2, 3]
    assert identity_of(disk)["incarnation"] == 3


def test_addresses_may_change() -> None:
    """They are hints: the ids alone say which cluster it is."""
    opened = open_node(disk_of(FILES), configuration=configuration(1, 2, port=99))
    assert opened.directory.identity.configuration == CONFIGURATION
    assert opened.contents() == MODEL


def test_a_start_that_never_got_a_log_begins_again() -> None:
    """The directory has an identity, but no start was counted: nothing was promised yet."""
    disk = WatchedDisk()
    directory = open_directory(disk, random.Random(1), 1, CONFIGURATION, FINGERPRINT)
    directory.release()
    store_id = directory.store_id
    opened = open_node(disk, seed=9)
    assert opened.directory.store_id == store_id
    assert opened.directory.identity.incarnation == 1


# -- what does not belong together


def test_a_directory_of_another_node_is_refused() -> None:
    """Two nodes with one past would vote twice."""
    why = refused(disk_of(FILES), node_id=2)
    assert why == "/disk belongs to node 1, this is node 2: use its own data_dir"


@pytest.mark.parametrize("ids", [(1,), (1, 3), (1, 2, 3)])
def test_a_directory_of_other_members_is_refused(ids: tuple[int, ...]) -> None:
    """Fewer, others, more: membership comes from the log, not from a list that was mistyped."""
    why = refused(disk_of(FILES), configuration=configuration(*ids))
    given = ", ".join(map(str, ids))
    assert why == (
        f"/disk was started with nodes 1, 2, now nodes are {given}: start it with the former, "
        "members change through the log"
    )


def test_a_directory_of_another_entry_type_is_refused() -> None:
    """Its entries could not be decoded."""
    why = refused(disk_of(FILES), fingerprint=b"g" * 32)
    assert why == "/disk holds entries of another type: start the node with the entry_type it was made with"


def test_a_directory_of_a_newer_format_is_refused() -> None:
    """Its fields may be others: not even those are decoded."""
    line = json.dumps({"format": 2, "node": {"id": 1}}).encode()
    why = refused(disk_of(FILES | {"IDENTITY": signed(line)}))
    assert why == "/disk/IDENTITY has format 2, this totora knows 1: upgrade it"


def test_segments_without_an_identity_are_refused() -> None:
    """A new identity would make a new store of them, and of its promises nobody would know."""
    files = {name: data for name, data in FILES.items() if name != "IDENTITY"}
    why = refused(disk_of(files))
    assert why == (
        f"/disk holds {segments_of(FILES)[0]} but no IDENTITY: restore that file from a copy, "
        "or use an empty directory"
    )


def test_a_directory_with_something_else_in_it_is_refused() -> None:
    """Somebody's home is not for us."""
    why = refused(disk_of({"thesis.tex": b"\\begin{document}"}))
    assert "/disk holds thesis.tex but no IDENTITY" in why


def test_what_a_crash_in_the_first_start_left_is_no_stranger() -> None:
    """The lock, and an identity that was not finished."""
    disk = disk_of({"IDENTITY.tmp": b"{"})
    disk.lock("LOCK").release()
    opened = open_node(disk)
    opened.close()
    assert "IDENTITY.tmp" not in files_of(disk)


# -- damage


@pytest.mark.parametrize("bit", range(8))
def test_a_flip_at_any_byte_of_the_identity_is_found_or_means_nothing(bit: int) -> None:
    """Never another node, another store, another count."""
    expected = open_node(disk_of(FILES)).directory.identity
    harmless: list[int] = []
    for offset in range(len(FILES["IDENTITY"])):
        disk = disk_of(FILES)
        disk.flip("IDENTITY", offset, bit)
        try:
            opened = open_node(disk)
        except ConfigurationError as error:
            text = str(error)
        else:
            assert opened.directory.identity == expected
            harmless.append(offset)
            continue
        assert text == "/disk/IDENTITY is damaged: restore it from a copy of this directory"
    assert harmless in ([], [len(FILES["IDENTITY"]) - 1]), "only the last line's end means nothing"


def test_an_identity_that_is_cut_off_anywhere_is_refused() -> None:
    """Down to an empty file."""
    for size in range(len(FILES["IDENTITY"]) - 1):
        disk = disk_of(FILES)
        disk.truncate("IDENTITY", size)
        why = refused(disk)
        assert why == "/disk/IDENTITY is damaged: restore it from a copy of this directory"


@pytest.mark.parametrize(
    "line", [b"{}", b"[]", b"7", b'"a"', b"{", b"\xff", b'{"format": "x"}', b'{"format": 1}', b""]
)
def test_an_identity_that_is_none_is_refused(line: bytes) -> None:
    """Whole, but of another program, or of another shape."""
    why = refused(disk_of(FILES | {"IDENTITY": signed(line)}))
    assert why.startswith("/disk/IDENTITY is ")
    assert "restore it from a copy" in why


# -- the lock


def test_a_directory_in_use_is_refused() -> None:
    """Until its node gives it back."""
    disk = disk_of(FILES)
    opened = open_node(disk)
    why = refused(disk)
    assert why == "/disk is in use by another node or process: stop it, or use another data_dir"
    opened.close()
    open_node(disk).close()


def test_a_refused_start_gives_the_lock_back() -> None:
    """The right node may start right after it."""
    disk = disk_of(FILES)
    refused(disk, node_id=2)
    disk.truncate("IDENTITY", 0)
    refused(disk)
    disk = disk_of(FILES)
    disk.names.pop(segments_of(FILES)[-1])
    refused(disk, StorageError)
    assert disk.locks == set()


# -- the disk says no


def failing(what: str, code: int) -> Callable[[str, str], None]:
    def fault(operation: str, name: str) -> None:
        if operation == what:
            raise OSError(code, "it says no")

    return fault


@pytest.mark.parametrize("what", ["prepare", "lock", "list", "create"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_directory_that_cannot_be_used_is_said_so(what: str, code: int) -> None:
    """Not made, not locked, not listed, not written: settings or permissions are wrong, not the disk."""
    disk = WatchedDisk()
    disk.fault = failing(what, code)
    why = refused(disk)
    assert why == (
        "/disk cannot be used as a data directory: it says no; "
        "let this user write there, or use another data_dir"
    )


@pytest.mark.parametrize(
    "what", ["prepare", "lock", "list", "create", "pwrite", "sync", "rename", "sync_dir"]
)
def test_a_disk_that_fails_in_the_first_start_is_said_so(what: str) -> None:
    """An error of the disk is none of the settings."""
    disk = WatchedDisk()
    disk.fault = failing(what, errno.EIO)
    with pytest.raises(StorageError) as raised:
        open_node(disk)
    assert str(raised.value) == "/disk/IDENTITY: it says no: check the disk and start the node again"
    assert disk.open_files == []
    assert disk.locks == set()
    disk.fault = None
    open_node(disk).close()


@pytest.mark.parametrize("what", ["open", "pread"])
def test_a_disk_on_which_the_identity_cannot_be_read_is_said_so(what: str) -> None:
    """EIO is the disk's fault, a lack of permission is not."""
    for code, error in ((errno.EIO, StorageError), (errno.EACCES, ConfigurationError)):
        disk = disk_of(FILES)
        disk.fault = failing(what, code)
        assert "/disk" in refused(disk, error)


@pytest.mark.parametrize("what", ["list", "create", "pwrite", "sync", "rename", "sync_dir"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_start_that_cannot_be_counted_is_none(what: str, code: int) -> None:
    """It is a StorageError, the old count stays in memory, and on disk it never goes back."""
    disk = disk_of(FILES)
    directory = open_directory(disk, random.Random(1), 1, CONFIGURATION, FINGERPRINT)
    before = directory.identity
    disk.fault = failing(what, code)
    with pytest.raises(StorageError) as raised:
        directory.begin()
    remedy = "free at least 8,192 bytes" if code == errno.ENOSPC else "check the disk"
    assert str(raised.value).startswith("/disk/IDENTITY: ")
    assert remedy in str(raised.value)
    assert directory.identity == before
    assert disk.open_files == []
    disk.fault = None
    directory.release()
    opened = open_node(disk)
    assert opened.directory.identity.incarnation > before.incarnation
    assert opened.contents() == MODEL


# -- on the real disk


def test_a_file_in_the_way_is_said_so(tmp_path: Path) -> None:
    """Where the directory should be, or above it."""
    path = tmp_path / "file"
    path.write_text("mine")
    for data_dir in (path, path / "below"):
        with pytest.raises(ConfigurationError) as raised:
            open_directory(RealDisk(str(data_dir)), random.Random(1), 1, CONFIGURATION, FINGERPRINT)
        assert str(raised.value).startswith(f"{data_dir} cannot be used as a data directory: ")
        assert "use another data_dir" in str(raised.value)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["IDENTITY", "LOCK"])
def test_a_folder_in_the_way_is_said_so(tmp_path: Path, name: str) -> None:
    """Where one of our files should be."""
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigurationError, match=f"{tmp_path} cannot be used as a data directory"):
        open_directory(RealDisk(str(tmp_path)), random.Random(1), 1, CONFIGURATION, FINGERPRINT)


def test_a_place_that_takes_no_directories_is_said_so() -> None:
    """Not even from root."""
    with pytest.raises(ConfigurationError, match="/proc/totora/data cannot be used as a data directory"):
        open_directory(RealDisk("/proc/totora/data"), random.Random(1), 1, CONFIGURATION, FINGERPRINT)


def test_a_real_directory_is_locked_while_it_is_open(tmp_path: Path) -> None:
    """By another object in the same process, too."""
    disk = RealDisk(str(tmp_path / "data"))
    directory = open_directory(disk, random.Random(1), 1, CONFIGURATION, FINGERPRINT)
    with pytest.raises(ConfigurationError, match="is in use by another node or process: stop it"):
        open_directory(RealDisk(str(tmp_path / "data")), random.Random(1), 1, CONFIGURATION, FINGERPRINT)
    directory.release()
    again = open_directory(RealDisk(str(tmp_path / "data")), random.Random(1), 1, CONFIGURATION, FINGERPRINT)
    assert again.store_id == directory.store_id
    again.release()
