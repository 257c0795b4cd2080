"""Any single bit of a data directory turns over: what was acknowledged is served, or an error says where it is damaged."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.levels import by_level
from tests.storage.directory import (
    Opened,
    WatchedDisk,
    closed_directory,
    disk_of,
    files_of,
    open_node,
    places,
    segments_of,
    tell,
)
from tests.storage.model import Model, batch
from totora.core.effects import HardState, Persist
from totora.errors import ConfigurationError, StorageError
from totora.sim.disk import MemoryDisk
from totora.storage.record import RecordType

FILES, MODEL = closed_directory()
SEGMENTS = segments_of(FILES)
NEWEST = SEGMENTS[-1]
SEALED = SEGMENTS[0]


def flipped(files: dict[str, bytes], name: str, offset: int, bit: int = 0) -> WatchedDisk:
    disk = disk_of(files)
    disk.flip(name, offset, bit)
    return disk


def read_all(disk: MemoryDisk) -> Model | str:
    """What a node makes of a directory: everything that it holds, or why it stops."""
    try:
        opened: Opened = open_node(disk)
        found = opened.contents()
        damage = list(opened.log.verify())
    except (StorageError, ConfigurationError) as error:
        return str(error)
    return str(damage[0]) if damage else found


def any_bit(chance: random.Random, files: dict[str, bytes]) -> tuple[str, int, int]:
    """Mostly among bytes that mean something."""
    while True:
        name = chance.choice(sorted(files))
        offset = chance.randrange(len(files[name]))
        if files[name][offset] or chance.random() < 0.02:
            return name, offset, chance.randrange(8)


@pytest.mark.parametrize("part", range(by_level(quick=4, ci=20)))
def test_any_flip_after_a_clean_end_is_harmless_or_found(part: int) -> None:
    """The mark says that all before it is on stable storage: no bit is left whose flip looks like a torn tail."""
    chance = random.Random(part)
    for _ in range(150):
        name, offset, bit = any_bit(chance, FILES)
        outcome = read_all(flipped(FILES, name, offset, bit))
        assert outcome == MODEL or str(outcome).startswith("/disk/"), f"{name} at {offset}, bit {bit}"


def crashed_directory() -> tuple[dict[str, bytes], Model, list[Model]]:
    """After a crash right behind a group of three writes; and what the log held after each part of that group."""
    disk = WatchedDisk()
    opened = open_node(disk)
    writer = tell(opened)
    before = model = writer.model
    group = []
    stages = [before]
    for n, hard_state in enumerate((None, HardState(9, 2), None)):
        write = Persist(100 + n, None, hard_state, (batch(model.last_index + 1, 9, size=30 + n),), 0)
        group.append(write)
        stages += model.stages(write)
        model = stages[-1]
    opened.log.write(group)
    disk.crash(random.Random(1), "lost")
    return files_of(disk), model, stages


@pytest.mark.parametrize("part", range(by_level(quick=4, ci=20)))
def test_any_flip_after_a_crash_is_harmless_or_found_but_in_the_last_group(part: int) -> None:
    """The one exception: nothing says yet that the last group of writes was synced, so damage in it looks like a torn tail.

    Then a beginning of that group is left, whole writes before it are not touched, and no other bytes are exempt.
    """
    files, model, stages = CRASHED
    records = places(files[NEWEST])
    last_group = [place for place in records if place.synced == records[-1].synced]
    assert len(last_group) == 4
    chance = random.Random(part)
    flips = [any_bit(chance, files) for _ in range(110)]
    start, end = last_group[0].offset, last_group[-1].end
    flips += [(NEWEST, chance.randrange(start, end), chance.randrange(8)) for _ in range(40)]
    for name, offset, bit in flips:
        outcome = read_all(flipped(files, name, offset, bit))
        if outcome == model or isinstance(outcome, str):
            assert outcome == model or str(outcome).startswith("/disk/"), "it is named"
            continue
        assert name == NEWEST, f"{name} at {offset}, bit {bit}"
        assert start <= offset < end, f"{name} at {offset}, bit {bit}"
        assert outcome in stages
        damaged = next(place for place in last_group if place.offset <= offset < place.end)
        kept = [place for place in last_group if place.offset < damaged.offset]
        batches = [place for place in kept if place.type == RecordType.BATCH]
        assert len(outcome.batches) == len(stages[0].batches) + len(batches), "all before the flip is there"


CRASHED = crashed_directory()


def test_the_exception_ends_with_the_next_write() -> None:
    """Any record behind the group says that it was synced."""
    files, _, _ = CRASHED
    group = [place for place in places(files[NEWEST]) if place.synced == places(files[NEWEST])[-1].synced]
    offset = group[1].offset + 40
    assert isinstance(read_all(flipped(files, NEWEST, offset)), Model)
    ends: list[Callable[[Opened], object]] = [
        lambda opened: opened.close(),
        lambda opened: opened.log.write([Persist(1, None, HardState(10, None), (), 0)]),
    ]
    for end in ends:
        disk = disk_of(files)
        end(open_node(disk))
        outcome = read_all(flipped(files_of(disk), NEWEST, offset))
        assert isinstance(outcome, str)
        assert f"/disk/{NEWEST} at offset {group[1].offset:,}: damaged" in outcome


def test_a_torn_record_vouches_for_what_was_synced_before_it() -> None:
    """The body of the newest batch is torn, its header is not: what the header says was true when it was written."""
    disk = MemoryDisk()
    opened = open_node(disk)
    opened.log.write([Persist(1, None, None, (batch(1),), 0)])
    opened.log.write([Persist(2, None, None, (batch(2, size=900),), 0)])
    disk.crash(random.Random(1), "lost")
    first, second = places(files_of(disk)[SEALED])
    disk.flip(SEALED, second.end - 5)
    assert open_node(disk_of(files_of(disk))).contents() == Model([batch(1)])
    disk.flip(SEALED, first.end - 5)
    with pytest.raises(StorageError) as raised:
        open_node(disk)
    assert raised.value.offset == first.offset
