"""Power fails at any operation, and tears what was not synced: nothing acknowledged is lost, nothing removed comes back."""

from __future__ import annotations

import random
from typing import Literal

import pytest

from tests.levels import by_level
from tests.storage.model import Model, batch, check_summary, contents, open_log
from totora.core.effects import HardState, Persist
from totora.errors import StorageError
from totora.sim.disk import Fate, MemoryDisk


class PowerFailure(Exception):
    """Not an OSError: nobody handles it."""


def random_write(chance: random.Random, token: int, model: Model, commit_index: int) -> Persist:
    truncate_after = None
    last_index, last_term = model.last_index, model.last_term
    if chance.random() < 0.15 and last_index > commit_index:
        ends = [0, *(one.last_index for one in model.batches)]
        truncate_after = chance.choice([end for end in ends if commit_index <= end < last_index])
        last_index = truncate_after
        last_term += 1
    hard_state = HardState(max(last_term, model.hard_state.current_term) + 1, chance.choice([None, 1, 2]))
    batches = []
    for _ in range(chance.choice([0, 1, 1, 2, 5])):
        one = batch(
            last_index + 1, max(1, last_term), chance.choice([1, 1, 3]), chance.choice([0, 16, 700, 6_000])
        )
        batches.append(one)
        last_index = one.last_index
    return Persist(
        token, truncate_after, hard_state if chance.random() < 0.3 else None, tuple(batches), commit_index
    )


@pytest.mark.parametrize("seed", range(by_level(quick=40, ci=200)))
def test_what_was_acknowledged_survives_power_failures(seed: int) -> None:
    """Many lives of one disk."""
    live_through_power_failures(seed)


def live_through_power_failures(seed: int) -> None:
    """Random groups of writes, a power failure or a kill before a random operation, reopen, compare with the model."""
    chance = random.Random(seed)
    disk = MemoryDisk()
    possible = [Model()]
    commit_index = 0
    fate: Fate | Literal["killed"] = "lost"
    for _ in range(6):
        names_only = chance.random() < 0.3
        countdown = chance.randrange(1, 12 if names_only else chance.choice([25, 120]))

        def fail(what: str, name: str, names_only: bool = names_only) -> None:
            nonlocal countdown
            if what in ("pread", "open", "list") or (names_only and what not in ("rename", "sync_dir")):
                return
            countdown -= 1
            if countdown == 0:
                raise PowerFailure

        disk.fault = fail if chance.random() < 0.9 else None
        try:
            log, recovered = open_log(disk, chance.randrange(1 << 30))
            found = contents(log, recovered)
            assert found in possible, (
                f"{found.last_index} is none of {[model.last_index for model in possible]}"
            )
            check_summary(recovered, found)
            assert recovered.commit_index <= min(commit_index, found.last_index), "a lower bound"
            assert all(extent.sealed for extent in log._extents[:-1]), "only the newest segment has no footer"
            assert list(log.verify()) == []
            model = found
            possible = [model]
            for group_number in range(chance.choice([0, 1, 25, 25] if fate == "killed" else [1, 3, 25])):
                group = []
                for n in range(chance.choice([1, 1, 2, 4])):
                    write = random_write(chance, group_number * 10 + n, model, commit_index)
                    group.append(write)
                    possible += model.stages(write)
                    model = possible[-1]
                log.write(group)
                possible = [model]
                if chance.random() < 0.5:
                    ends = [end for end in (one.last_index for one in model.batches) if end >= commit_index]
                    commit_index = chance.choice(ends) if ends else commit_index
                while log.wants_reserve and chance.random() < 0.7:
                    log.reserve()
                    if not log.wants_reserve:
                        assert disk.names["reserve"].unsynced == [], (
                            "a full disk is known before it is needed"
                        )
            if chance.random() < 0.5:
                log.close()
        except PowerFailure:
            pass  # a group is written in order: any beginning of it may have reached the disk
        disk.fault = None
        # What a killed process leaves to the kernel is lost with the power soon after, if it is not made durable then.
        fate = chance.choice(
            ["lost", "lost", "torn"] if fate == "killed" else ["lost", "kept", "torn", "killed"]
        )
        if fate == "killed":
            disk.process_died()
        else:
            disk.crash(chance, fate)
    log, recovered = open_log(disk, 1)
    assert contents(log, recovered) in possible


def test_a_failed_write_ends_the_log() -> None:
    """EIO once, then the disk seems well again: the log must not believe it (fsyncgate)."""
    for what in ("pwrite", "sync"):
        disk = MemoryDisk()
        log, _ = open_log(disk)
        log.write([Persist(1, None, None, (batch(1),), 0)])

        def fail(operation: str, name: str, what: str = what) -> None:
            if operation == what:
                raise OSError(5, "Input/output error")

        disk.fault = fail
        with pytest.raises(StorageError, match="Input/output error"):
            log.write([Persist(2, None, None, (batch(2),), 0)])
        disk.fault = None
        with pytest.raises(StorageError):
            log.write([Persist(3, None, None, (batch(2),), 0)])
