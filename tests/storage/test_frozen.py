"""A closed directory is read as a start would find it, and not a byte of it changes."""

from __future__ import annotations

import errno
import random

import pytest

from tests.storage.directory import (
    WatchedDisk,
    Writer,
    closed_directory,
    disk_of,
    files_of,
    open_node,
    segments_of,
)
from totora.errors import ConfigurationError, StorageError
from totora.sim.disk import Inode
from totora.storage.frozen import frozen
from totora.storage.segment import FIRST_RECORD

FILES, MODEL = closed_directory()


def chance() -> random.Random:
    return random.Random(1)


def test_it_holds_what_a_start_would_find() -> None:
    with frozen(disk_of(FILES), chance()) as found:
        started = open_node(disk_of(FILES))
        assert found.identity.node_id == 1
        assert found.identity.store_id == started.directory.identity.store_id
        assert found.recovered.hard_state == started.recovered.hard_state
        assert (found.recovered.last_index, found.recovered.commit_index) == (
            started.recovered.last_index,
            started.recovered.commit_index,
        )
        assert list(found.batches(1, 1 << 40)) == MODEL.batches
        assert list(found.batches(5, 7)) == MODEL.batches[4:7]
        assert list(found.batches(1 << 40, 1 << 41)) == []
        assert list(found.damages()) == []


def test_nothing_changes_and_nothing_stays_open() -> None:
    """Although a start would make room for the next segment, and count itself."""
    files = {name: data for name, data in FILES.items() if not name.startswith("reserve")}
    disk = disk_of(files)
    with frozen(disk, chance()) as found:
        assert list(found.batches(1, 1 << 40)) == MODEL.batches
    assert files_of(disk) == files
    assert disk.open_files == []
    assert disk.locks == set()
    assert not {"create", "pwrite", "rename", "remove", "sync", "sync_dir"} & {
        what for what, _, _ in disk.operations
    }


def test_a_torn_tail_stays_as_it_is() -> None:
    """A start would cut it."""
    disk = WatchedDisk()
    opened = open_node(disk)
    Writer(opened.log).write(100, 200)
    files = files_of(disk)
    name = segments_of(files)[-1]
    torn = bytearray(files[name])
    torn[opened.log._offset - 10] ^= 1
    files[name] = bytes(torn)
    again = disk_of(files)
    with frozen(again, chance()) as found:
        assert found.recovered.last_index == 1
    assert files_of(again) == files


def test_damage_in_a_segment_that_a_start_does_not_read_is_named() -> None:
    """Two places of it: the first is told, and nothing is served from there on."""
    files = dict(FILES)
    name = segments_of(files)[0]
    spoilt = bytearray(files[name])
    spoilt[FIRST_RECORD + 60] ^= 1
    spoilt[FIRST_RECORD + 900] ^= 1
    files[name] = bytes(spoilt)
    with frozen(disk_of(files), chance()) as found:
        (damage,) = found.damages()
        assert f"/{name} at offset 4,1" in str(damage)
        with pytest.raises(StorageError, match=name):
            list(found.batches(1, 1 << 40))


def test_what_is_no_data_directory_says_so() -> None:
    with (
        pytest.raises(ConfigurationError, match="/disk is no data directory: it has no IDENTITY"),
        frozen(WatchedDisk(), chance()),
    ):
        pass


def test_a_damaged_end_is_told_as_a_start_tells_it() -> None:
    files = dict(FILES)
    name = segments_of(files)[-1]
    spoilt = bytearray(files[name])
    spoilt[FIRST_RECORD + 5] ^= 1
    files[name] = bytes(spoilt)
    disk = disk_of(files)
    with pytest.raises(StorageError, match=name), frozen(disk, chance()):
        pass
    assert disk.open_files == []


def test_a_directory_in_use_is_left_alone() -> None:
    disk = WatchedDisk()
    opened = open_node(disk)
    with (
        pytest.raises(ConfigurationError, match="is in use: stop the node, or ask it"),
        frozen(disk, chance()),
    ):
        pass
    opened.close()
    disk.names["LOCK"] = Inode()
    with frozen(disk, chance()) as found:
        assert found.recovered.last_index == 0
        assert disk.locks == {"LOCK"}, "no node starts meanwhile"
    assert disk.locks == set()


@pytest.mark.parametrize("why", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_cannot_be_locked_is_read_all_the_same(why: int) -> None:
    """A copy on a disk that nobody can write to: no node can run there."""
    disk = disk_of({**FILES, "LOCK": b""})
    disk.fault = lambda what, name: refuse(why) if what == "lock" else None
    with frozen(disk, chance()) as found:
        assert list(found.batches(1, 1 << 40)) == MODEL.batches


def test_any_other_failure_of_the_lock_is_one() -> None:
    disk = disk_of({**FILES, "LOCK": b""})
    disk.fault = lambda what, name: refuse(errno.EIO) if what == "lock" else None
    with pytest.raises(OSError, match="Input/output error"), frozen(disk, chance()):
        pass


def refuse(why: int) -> None:
    raise OSError(why, "Input/output error" if why == errno.EIO else "not here")
