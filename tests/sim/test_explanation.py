"""The smallest part that cannot be explained is a part, is small, and cannot be explained."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from tests.levels import by_level
from tests.sim.test_linearizability import in_real_time, makes_sense, op, random_history
from totora.sim.explanation import Part, smallest_part
from totora.sim.history import Operation
from totora.sim.linearizability import check_history


def explained(*history: Operation) -> Part:
    part = smallest_part(history)
    assert part is not None
    return part


def test_a_stale_read_is_shown_with_the_write_that_it_missed() -> None:
    """A hundred sound operations around it are not."""
    history = [
        o for n in range(50) for o in (op("put", n, 20 * n, 20 * n + 1), op("get", n, 20 * n + 2, 20 * n + 9))
    ]
    late = [op("put", 100, 1_000, 1_001), op("get", 49, 1_002, 1_003)]
    after = [op("put", n, 10 * n, 10 * n + 1) for n in range(200, 250)]
    part = explained(*history, *late, *after)
    assert part == Part((late[0], late[1]), anything_before=True, beside=0)


def test_what_nobody_wrote_is_shown_alone() -> None:
    """Whatever was written, and whenever that took effect."""
    read = op("get", 99, 500, 501)
    part = explained(*(op("put", n, 10 * n, 10 * n + 15) for n in range(40)), read)
    assert part.operations == (read,)
    assert not part.anything_before


def test_two_winners_of_one_swap_are_shown() -> None:
    put, one, other = op("put", 0, 1, 2), op("cas", [0, 1], 3, 9), op("cas", [0, 2], 4, 8)
    assert explained(op("put", 7, 0, 1), put, one, other) == Part(
        (one, other), anything_before=True, beside=0
    )


def test_a_part_with_appends_starts_at_the_beginning() -> None:
    """What a suffix leaves depends on all that was before it."""
    history = [op("append", "a", 1, 2), op("append", "b", 3, 4), op("get", "ba", 5, 6)]
    part = explained(*history, op("get", "ba", 7, 8))
    assert part == Part((history[2],), anything_before=False, beside=2)


def test_what_is_linearizable_has_no_such_part() -> None:
    assert smallest_part([op("put", 1, 1, 2), op("get", 1, 3, 4)]) is None


def is_explained(history: list[Operation], part: Part) -> bool:
    """By the plain definition: some order explains the part together with some of the other writes."""
    named = set(map(id, part.operations))
    writes = [o for o in history if id(o) not in named and o.status != "fail" and o.op != "get"]
    for size in range(len(writes) + 1):
        for chosen in itertools.combinations(writes, size):
            for order in itertools.permutations([*part.operations, *chosen]):
                if in_real_time(order) and makes_sense(order):
                    return True
    return False


def test_a_read_that_began_before_the_part_may_have_been_over() -> None:
    """It is under way when the part begins, and a write that had returned by then may lie between both."""
    history = [
        op("put", "a", 6, 19),
        op("get", "a", 9, 23),
        op("put", "c", 14, 28),
        op("get", None, 23, 35),
        op("get", "b", 26, 39),
        op("cas", ["c", "a"], 29, 31),
    ]
    assert not is_explained(history, explained(*history))


def test_a_read_that_ends_behind_the_part_may_see_what_comes_later() -> None:
    history = [
        op("put", "a", 3, 4),
        op("get", "a", 6, 14),
        op("get", "b", 16, 29),
        op("get", None, 18, 22),
        op("put", "b", 28, 37),
    ]
    assert not is_explained(history, explained(*history))


@pytest.mark.parametrize("seed", range(by_level(quick=3, ci=30)))
def test_a_part_contradicts_itself_whatever_else_happened(seed: int) -> None:
    """Of random histories: with all others made weaker it is still not linearizable, and alone it is not either, whatever was
    before it if it says so."""
    chance = random.Random(seed)
    found = 0
    for history in (random_history(chance) for _ in range(250)):
        part = smallest_part(history)
        assert (part is None) == check_history(history).ok
        if part is None:
            continue
        found += 1
        assert not is_explained(history, part)
        states: list[Any] = [None, "a", "b", "aa", "ab", "c"] if part.anything_before else [None]
        for before in states:
            first = [op("put", before, -2, -1)] if before is not None else []
            assert not check_history([*first, *part.operations]).ok
    assert 50 < found < 200
