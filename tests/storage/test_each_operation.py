"""A crash before each single operation of one long story: whatever the disk keeps of what was not synced, nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import pytest

from tests.storage.model import Model, batch, check_summary, contents, open_log
from totora.core.effects import HardState, Persist
from totora.sim.disk import MemoryDisk

SEGMENT_BYTES: Final = 16 << 10

Crash: TypeAlias = Literal["lost", "kept", "torn", "killed"]
"""What becomes of what was not synced. killed: the kernel keeps all of it, until the power fails in the next life."""


class Crashed(Exception):
    """Not an OSError: nobody handles it."""


class Story:
    """Writes that meet everything once: full segments, truncations within one and over several, recycled files, reopening.

    possible: what a log may hold after a crash right now; the last one is what it holds if nothing was lost.
    """

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk
        self._token = 0
        self.possible = [Model()]

    def write(self, log_write: Callable[[list[Persist]], None], *writes: Persist) -> None:
        model = self.possible[-1]
        for write in writes:
            stages = model.stages(write)
            self.possible += stages
            model = stages[-1]
        log_write(list(writes))
        self.possible = [model]

    def persist(
        self,
        *sizes: int,
        term: int = 1,
        truncate_after: int | None = None,
        hard_state: HardState | None = None,
    ) -> Persist:
        self._token += 1
        last_index = self.possible[-1].last_index if truncate_after is None else truncate_after
        batches = tuple(batch(last_index + 1 + n, term, size=size) for n, size in enumerate(sizes))
        return Persist(self._token, truncate_after, hard_state, batches, 0)

    def tell(self) -> None:
        for _ in range(2):
            log, recovered = open_log(self._disk, 1, SEGMENT_BYTES)
            found = contents(log, recovered)
            assert found in self.possible
            self.possible = [found]
            term = found.hard_state.current_term + 1
            self.write(log.write, self.persist(hard_state=HardState(term, 1)))
            for _ in range(6):
                self.write(log.write, self.persist(5_000, 10, term=term))
                log.reserve()
            last = self.possible[-1].last_index
            self.write(log.write, self.persist(20, term=term + 1, truncate_after=last - 1))
            self.write(log.write, self.persist(20, term=term + 2, truncate_after=last - 9))
            self.write(log.write, self.persist(6_000, 6_000, term=term + 2))
            while log.wants_reserve:
                log.reserve()
            self.write(log.write, self.persist(6_000, 6_000, 30_000, term=term + 2))
            last = self.possible[-1].last_index
            self.write(
                log.write,
                self.persist(hard_state=HardState(term + 3, 2)),
                self.persist(100, 200, term=term + 3, truncate_after=last - 7),
            )
            log.close()


def crash_before(number: int, crash: Crash, seed: int = 0) -> bool:
    """Tell the story, crash before its operation `number`, go on in a new life; False if it has no such operation."""
    disk = MemoryDisk()
    story = Story(disk)
    left = number

    def fault(what: str, name: str) -> None:
        nonlocal left
        if what != "pread":
            left -= 1
            if left < 0:
                raise Crashed

    disk.fault = fault
    try:
        story.tell()
    except Crashed:
        pass
    else:
        return False
    disk.fault = None
    chance = random.Random(seed)
    if crash == "killed":
        disk.process_died()
    else:
        disk.crash(chance, crash)
    log, recovered = open_log(disk, 2, SEGMENT_BYTES)
    found = contents(log, recovered)
    assert found in story.possible, f"{found.last_index} is not what was written before {crash}"
    check_summary(recovered, found)
    story.possible = [found]
    # What was found once is found again, and what is written now stays.
    for sizes in ((), (10, 20), (6_000, 6_000, 6_000)):
        if sizes:
            story.write(log.write, story.persist(*sizes, term=found.last_term + 1))
        disk.crash(chance, "lost")
        log, recovered = open_log(disk, 3, SEGMENT_BYTES)
        assert contents(log, recovered) == story.possible[-1], "what a log was opened with is durable"
        check_summary(recovered, story.possible[-1])
    return True


@pytest.mark.parametrize("crash", ["lost", "kept", "torn", "killed"])
def test_a_crash_before_any_operation_loses_nothing(crash: Crash) -> None:
    """Each operation of the story once."""
    number = 0
    while crash_before(number, crash, seed=number):
        number += 1
    assert number > 150, "the story is long enough to be worth telling"
