"""Power fails where it hurts most: in the first start ever, in a repair, in the count of starts."""

from __future__ import annotations

import random
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
    open_node,
    places,
    segments_of,
    tell,
)
from tests.storage.model import Model, batch, contents, open_log
from totora.core.effects import HardState, Persist
from totora.errors import StorageError
from totora.sim.disk import Fate, MemoryDisk
from totora.storage.record import RecordType

FATES: Final[tuple[Fate, ...]] = ("lost", "kept", "torn")
CHANGES: Final = ("pwrite", "allocate", "sync", "create", "rename", "remove", "sync_dir")


class PowerFailure(Exception):
    """Not an OSError: nobody handles it."""


def fail_at(disk: MemoryDisk, number: int) -> None:
    """Power fails in place of the change that comes after so many others."""
    left = number

    def fault(what: str, name: str) -> None:
        nonlocal left
        if what in CHANGES:
            left -= 1
            if left < 0:
                raise PowerFailure

    disk.fault = fault


def start_until_it_fails(disk: MemoryDisk, number: int, seed: int = 1) -> bool:
    """A start; False if power failed in it."""
    fail_at(disk, number)
    try:
        open_node(disk, seed=seed)
    except PowerFailure:
        return False
    finally:
        disk.fault = None
    return True


def test_lost_unsynced_writes() -> None:
    """Everything after the last sync is gone, or torn; a rename whose directory was not synced is gone."""
    for seed in range(by_level(quick=60, ci=200)):
        chance = random.Random(seed)
        disk = MemoryDisk()
        opened = open_node(disk)
        writer = tell(opened)
        acknowledged = writer.model
        fail_at(disk, chance.randrange(12))
        try:
            for _ in range(6):
                writer.write(900, 800, 700, term=9, hard_state=HardState(9, 1))
                acknowledged = writer.model
                opened.log.reserve()
        except PowerFailure:
            pass
        disk.fault = None
        disk.crash(chance, chance.choice(FATES))
        found = open_node(disk).contents()
        assert found in [acknowledged, *writer.possible]
        assert found.batches[: len(acknowledged.batches)] == acknowledged.batches


@pytest.mark.parametrize("fate", FATES)
def test_the_first_start_ever_may_fail_anywhere(fate: Fate) -> None:
    """Whatever it leaves, the next one begins; a first log is empty, and the store keeps the identity that it showed."""
    number = 0
    while True:
        disk = WatchedDisk()
        complete = start_until_it_fails(disk, number)
        disk.crash(random.Random(number), fate)
        opened = open_node(disk, seed=2)
        assert opened.contents() == Model()
        assert opened.directory.identity.incarnation in ((2,) if complete else (1, 2))
        writer = Writer(opened.log)
        writer.write(10, hard_state=HardState(1, 1))
        disk.crash(random.Random(number), "lost")
        assert open_node(disk, seed=3).contents() == writer.model
        if complete:
            break
        number += 1
    assert number > 15, "there are many places to fail at"


@pytest.mark.parametrize("fate", FATES)
def test_a_count_of_starts_never_goes_back(fate: Fate) -> None:
    """Power fails at any change of a start: a count that was shown is never shown again, and the directory stays usable."""
    files, model = closed_directory()
    number = 0
    complete = False
    while not complete:
        disk = disk_of(files)
        shown = 1
        for life in range(4):
            complete = start_until_it_fails(disk, number, seed=life)
            shown += complete
            disk.crash(random.Random(number * 10 + life), fate)
            opened = open_node(disk, seed=9)
            assert opened.directory.identity.incarnation > shown
            shown = opened.directory.identity.incarnation
            assert opened.contents() == model
            disk.crash(random.Random(life), "lost")
        number += 1
    assert number > 8


def torn_directory(seed: int) -> tuple[WatchedDisk, list[Model]]:
    """A disk whose power failed in a cut, in a rotation, or within a group; and what its log may hold."""
    chance = random.Random(seed)
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = tell(opened)
    fail_at(disk, chance.randrange(20))
    try:
        writer.write(*[chance.choice([20, 700])] * 5, truncate_after=chance.randrange(9, 28), term=9)
        writer.write(900, 800, 900, 800, 900, term=9)
        writer.write(20, 30, term=9)
    except PowerFailure:
        pass
    disk.fault = None
    disk.crash(chance, "torn")
    return disk, writer.possible


@pytest.mark.parametrize("seed", range(by_level(quick=12, ci=80)))
def test_a_repair_may_fail_again_and_again(seed: int) -> None:
    """Power fails at every change of the start that repairs, one after the other on one disk: it comes to the same end."""
    disk, possible = torn_directory(seed)
    chance = random.Random(seed)
    found: Model | None = None
    number = 0
    while not start_until_it_fails(disk, number, seed=number):
        disk.crash(chance, chance.choice(FATES))
        copy = open_node(disk_of(files_of(disk)))
        assert copy.contents() in possible
        assert found in (None, copy.contents()), "what one start found is what the next one finds"
        found = copy.contents()
        number += 1
    disk.crash(chance, "lost")
    opened = open_node(disk)
    assert opened.contents() in possible
    assert found in (None, opened.contents())
    writer = Writer(opened.log, opened.contents())
    writer.write(700, 600, 500, term=10)
    disk.crash(chance, "lost")
    assert open_node(disk).contents() == writer.model


def test_what_a_killed_process_wrote_counts_only_once_it_is_durable() -> None:
    """The kernel shows a group that was never synced. It is believed, and so made durable before anything rests on it."""
    disk = MemoryDisk()
    opened = open_node(disk)
    fail_at(disk, 1)
    with pytest.raises(PowerFailure):
        opened.log.write([Persist(1, None, HardState(3, 2), (batch(1, 3), batch(2, 3)), 0)])
    disk.fault = None
    disk.process_died()
    held = Model([batch(1, 3), batch(2, 3)], HardState(3, 2))
    assert open_node(disk).contents() == held
    disk.crash(random.Random(1), "lost")
    assert open_node(disk).contents() == held


def test_what_was_never_synced_is_not_taken_for_damage() -> None:
    """A start believes what a killed process left, and goes on writing; then power fails, and only the newer write survives."""
    disk = MemoryDisk()
    opened = open_node(disk)
    fail_at(disk, 1)
    with pytest.raises(PowerFailure):
        opened.log.write([Persist(1, None, None, (batch(1, size=2_000),), 0)])
    disk.fault = None
    disk.process_died()
    opened = open_node(disk)
    fail_at(disk, 1)
    with pytest.raises(PowerFailure):
        opened.log.write([Persist(2, None, None, (batch(2, size=1_000),), 0)])
    disk.fault = None
    disk.crash(random.Random(1), "kept")
    assert [one.first_index for one in open_node(disk).contents().batches] == [1, 2]


def test_a_segment_whose_name_only_the_kernel_knew_stays() -> None:
    """Killed between the rename and its sync, then started, written to, and without power: nothing written is lost."""
    disk = WatchedDisk()
    log, _ = open_log(disk, segment_bytes=SEGMENT_BYTES)
    writer = Writer(log)
    writer.fill()

    def kill(what: str, name: str) -> None:
        if what == "sync_dir":
            raise PowerFailure

    disk.fault = kill
    with pytest.raises(PowerFailure):
        writer.write(10)
    disk.fault = None
    disk.process_died()
    assert len(segments_of(disk)) == 2
    log, recovered = open_log(disk, segment_bytes=SEGMENT_BYTES)
    writer = Writer(log, contents(log, recovered))
    writer.write(20)
    disk.crash(random.Random(1), "lost")
    log, recovered = open_log(disk, segment_bytes=SEGMENT_BYTES)
    assert contents(log, recovered) == writer.model


def test_a_footer_that_only_the_kernel_knew_stays() -> None:
    """Killed between the footer and its sync, then started, written to, and without power: opening reads footers alone."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    writer.fill()
    first, second = "000000000001.log", "000000000002.log"

    def kill(what: str, name: str) -> None:
        if what == "sync" and second in disk.names:
            raise PowerFailure

    disk.fault = kill
    with pytest.raises(PowerFailure):
        writer.write(10)
    disk.fault = None
    disk.process_died()
    assert places(files_of(disk)[first])[-1].type == RecordType.FOOTER
    opened = open_node(disk)
    writer = Writer(opened.log, opened.contents())
    writer.fill()
    writer.write(10)
    disk.crash(random.Random(1), "lost")
    for name in (first, second):
        assert places(files_of(disk)[name])[-1].type == RecordType.FOOTER
    assert open_node(disk).contents() == writer.model


def test_a_torn_tail_is_erased_before_anything_is_written_behind_it() -> None:
    """All that could be taken for a record later: whole ones behind a torn one, and what only looks like a beginning."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = Writer(opened.log)
    writer.write(10)
    name = segments_of(disk)[0]
    salt = files_of(disk)[name][12:16]
    end = places(files_of(disk)[name])[-1].end
    data = disk.names[name].durable
    data[end + 500 : end + 504] = salt
    data[end + 2_000 : end + 2_004] = salt
    disk.crash(random.Random(1), "lost")
    opened = open_node(disk)
    assert opened.contents() == writer.model
    assert not any(files_of(disk)[name][end:])
    disk.crash(random.Random(1), "lost")
    assert not any(files_of(disk)[name][end:])


def test_nothing_is_repaired_in_a_log_that_is_refused() -> None:
    """Its newest segment has a torn tail, and an older one is damaged: the tail is left for whoever looks into it."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = tell(opened)
    opened.log.write(
        [Persist(9, None, None, tuple(batch(writer.model.last_index + n, 9) for n in (1, 2)), 0)]
    )
    disk.crash(random.Random(1), "lost")
    newest, older = segments_of(disk)[-1], segments_of(disk)[-2]
    torn = places(files_of(disk)[newest])[-2]
    disk.flip(newest, torn.offset + 40)
    assert open_node(disk_of(files_of(disk))).contents() == writer.model
    disk.flip(older, places(files_of(disk)[older])[0].offset + 40)
    before = files_of(disk)
    with pytest.raises(StorageError, match=f"/disk/{older} at offset"):
        open_node(disk)
    assert files_of(disk) == before
