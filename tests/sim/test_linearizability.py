"""The checker of client histories: right about small histories of all kinds, and as a search of all orders is."""

from __future__ import annotations

import itertools
import random
from typing import Any

import msgspec
import pytest

from tests.levels import by_level
from totora.sim.history import Operation, dump_history, load_history
from totora.sim.linearizability import check_history


def op(kind: str, value: Any, call: int, end: int | None, **more: Any) -> Operation:
    """One operation; without an end its outcome is unknown."""
    fields: dict[str, Any] = {
        "client": 0,
        "key": "x",
        "status": "ok" if end is not None else "unknown",
    } | more
    return Operation(op=kind, value=value, call_ns=call, return_ns=end or 0, **fields)  # type: ignore[arg-type]


def is_linearizable(*history: Operation) -> bool:
    verdict = check_history(history)
    assert not verdict.undecided
    assert verdict.checked == len(history)
    return verdict.ok


def test_reads_see_what_was_written_before_them() -> None:
    assert is_linearizable(op("get", None, 1, 2), op("put", 1, 3, 4), op("get", 1, 5, 6))
    assert not is_linearizable(op("put", 1, 1, 2), op("get", None, 3, 4))
    assert not is_linearizable(op("put", 1, 1, 2), op("put", 2, 3, 4), op("get", 1, 5, 6))


def test_a_read_during_a_write_sees_either() -> None:
    for read in (None, 1):
        assert is_linearizable(op("put", 1, 1, 10), op("get", read, 2, 3))


def test_a_value_that_was_seen_is_not_unseen() -> None:
    """Two reads during one write, one after the other: first the new, then the old value is a stale read."""
    assert is_linearizable(op("put", 1, 1, 10), op("get", None, 2, 3), op("get", 1, 4, 5))
    assert not is_linearizable(op("put", 1, 1, 10), op("get", 1, 2, 3), op("get", None, 4, 5))


def test_what_touches_in_time_counts_as_concurrent() -> None:
    """It returned at 2, the other was called at 2: either order."""
    assert is_linearizable(op("put", 1, 1, 2), op("get", None, 2, 3))


def test_an_unknown_write_may_take_effect_late_or_never() -> None:
    late = op("put", 1, 1, None)
    assert is_linearizable(late, op("get", None, 5, 6))
    assert is_linearizable(late, op("get", None, 5, 6), op("get", 1, 7, 8))
    assert not is_linearizable(late, op("get", 1, 5, 6), op("get", None, 7, 8))
    assert not is_linearizable(op("get", 1, 0, 1), op("put", 1, 2, None))


def test_an_unknown_write_takes_effect_once() -> None:
    twice = (op("append", "a", 1, None), op("get", "aa", 5, 6))
    assert not is_linearizable(*twice)
    assert is_linearizable(op("append", "a", 1, None), *twice)


def test_a_failed_write_has_no_effect() -> None:
    failed = op("put", 1, 1, 2, status="fail")
    assert is_linearizable(failed, op("get", None, 3, 4))
    assert not is_linearizable(failed, op("get", 1, 3, 4))


def test_an_unknown_read_says_nothing() -> None:
    assert is_linearizable(op("get", 99, 1, None))


def test_a_swap_needs_the_old_value() -> None:
    put = op("put", 1, 1, 2)
    assert is_linearizable(put, op("cas", [1, 2], 3, 4), op("get", 2, 5, 6))
    assert not is_linearizable(put, op("cas", [3, 2], 3, 4))
    assert is_linearizable(op("cas", [None, 1], 1, 2), op("get", 1, 3, 4))


def test_two_swaps_of_one_value_do_not_both_hold() -> None:
    """The lock that two clients hold at once."""
    put = op("put", 0, 1, 2)
    assert not is_linearizable(put, op("cas", [0, 1], 3, 9), op("cas", [0, 2], 4, 8))


def test_a_mismatch_is_an_observation() -> None:
    put = op("put", 1, 1, 2)
    missed: dict[str, Any] = {"status": "fail", "mismatch": True}
    assert is_linearizable(put, op("cas", [2, 3], 3, 4, **missed))
    assert not is_linearizable(put, op("cas", [1, 3], 3, 4, **missed))
    assert is_linearizable(put, op("cas", [2, 3], 3, 4, actual=1, **missed))
    assert not is_linearizable(put, op("cas", [2, 3], 3, 4, actual=5, **missed))
    assert not is_linearizable(put, op("cas", [1, 3], 3, 4, actual=1, **missed))
    assert is_linearizable(op("cas", [2, 3], 3, 4, actual=None, **missed))


def test_deletes_and_appends() -> None:
    put = op("put", "a", 1, 2)
    assert is_linearizable(put, op("append", "b", 3, 4), op("get", "ab", 5, 6))
    assert is_linearizable(put, op("delete", None, 3, 4), op("append", "b", 5, 6), op("get", "b", 7, 8))
    assert not is_linearizable(op("put", 1, 1, 2), op("append", "b", 3, 4))


def test_values_are_compared_as_json_does() -> None:
    """1, true and "1" are three values; lists and objects are values."""
    for one, other in ((1, True), (1, "1"), (0, False), ([1], [True])):
        assert not is_linearizable(op("put", one, 1, 2), op("get", other, 3, 4))
    assert is_linearizable(op("put", {"a": [1, None]}, 1, 2), op("get", {"a": [1, None]}, 3, 4))


def test_keys_are_independent() -> None:
    """A stale key is named, a sound one is not."""
    history = [
        op("put", 1, 1, 2),
        op("get", 1, 3, 4),
        op("put", 1, 1, 2, key="y"),
        op("get", None, 3, 4, key="y"),
    ]
    verdict = check_history(history)
    assert [violation.key for violation in verdict.violations] == ["y"]
    assert "key 'y'" in str(verdict.violations[0])


def test_an_unlinearizable_order_over_many_clients() -> None:
    """Two clients see two writes in different orders."""
    writes = [op("put", 1, 1, 20), op("put", 2, 1, 20)]
    one = [op("get", 1, 2, 3), op("get", 2, 4, 5)]
    assert is_linearizable(*writes, *one)
    assert not is_linearizable(*writes, *one, op("get", 1, 6, 7))


# -- against the plain definition


def plainly(history: list[Operation]) -> bool:
    """Try every order of every choice of the unknown ones."""
    definite = [o for o in history if o.status == "ok" or o.mismatch]
    unknown = [o for o in history if o.status == "unknown" and o.op != "get"]
    for size in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, size):
            for order in itertools.permutations([*definite, *chosen]):
                if in_real_time(order) and makes_sense(order):
                    return True
    return False


def in_real_time(order: tuple[Operation, ...]) -> bool:
    return not any(
        later.status != "unknown" and later.return_ns < earlier.call_ns
        for earlier, later in itertools.combinations(order, 2)
    )


def makes_sense(order: tuple[Operation, ...]) -> bool:
    state: Any = None
    for o in order:
        match o.op:
            case "get":
                if o.value != state:
                    return False
            case "put":
                state = o.value
            case "delete":
                state = None
            case "append":
                state = (state or "") + o.value
            case "cas":
                if o.mismatch:
                    if state == o.value[0] or (o.actual is not msgspec.UNSET and o.actual != state):
                        return False
                elif state != o.value[0]:
                    return False
                else:
                    state = o.value[1]
    return True


def random_history(chance: random.Random) -> list[Operation]:
    history = []
    for _ in range(chance.randint(2, 6)):
        call = chance.randrange(20)
        end = None if chance.random() < 0.2 else call + chance.randint(1, 8)
        values = [None, "a", "b"]
        match chance.choice(["get", "get", "put", "append", "cas", "cas", "delete"]):
            case "get":
                history.append(op("get", chance.choice([*values, "ab", "aa"]), call, end))
            case "put":
                history.append(op("put", chance.choice("ab"), call, end))
            case "append":
                history.append(op("append", chance.choice("ab"), call, end))
            case "delete":
                history.append(op("delete", None, call, end))
            case _:
                swap = [chance.choice(values), chance.choice("ab")]
                more: dict[str, Any] = {}
                if end is not None and chance.random() < 0.5:
                    more = {"status": "fail", "mismatch": True}
                    if chance.random() < 0.5:
                        more["actual"] = chance.choice(values)
                history.append(op("cas", swap, call, end, **more))
    return history


@pytest.mark.parametrize("seed", range(by_level(quick=4, ci=40)))
def test_it_agrees_with_the_plain_definition(seed: int) -> None:
    """Thousands of small random histories, about as many linearizable as not."""
    chance = random.Random(seed)
    verdicts = []
    for _ in range(250):
        history = random_history(chance)
        verdicts.append(is_linearizable(*history))
        assert verdicts[-1] == plainly(history), [str(o) for o in history]
    assert 25 < sum(verdicts) < 225


def test_long_histories_with_many_unknown_outcomes_are_decided() -> None:
    """Thousands of operations of ten clients on one key, hundreds of them unknown: still a matter of seconds."""
    chance = random.Random(1)
    history: list[Operation] = []
    value: Any = None
    now = 0
    for n in range(3_000):
        now += 10
        if chance.random() < 0.1:
            history.append(op("put", n, now - chance.randrange(50), None))
            if chance.random() < 0.5:
                value = n
        elif chance.random() < 0.5:
            value = n
            history.append(op("put", n, now - chance.randrange(50), now + chance.randrange(50)))
        else:
            history.append(op("get", value, now - chance.randrange(50), now + chance.randrange(50)))
    assert is_linearizable(*history)
    stale = op(
        "get", next(o.value for o in history if o.op == "put" and o.status == "ok"), now + 60, now + 70
    )
    assert not is_linearizable(*history, stale)


# -- the file


def test_a_history_is_read_as_it_was_written() -> None:
    history = [
        op("put", {"a": 1}, 1, 2),
        op("get", None, 3, None),
        op("cas", [1, 2], 3, 4, status="fail", mismatch=True, actual=None),
        op("cas", [1, 2], 3, 4, status="fail", mismatch=True),
    ]
    assert list(load_history(dump_history(history))) == history


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"client":0,"op":"steal","key":"x","value":1,"status":"ok","call_ns":1,"return_ns":2}',
        '{"client":0,"op":"put","key":"x","value":1,"status":"ok","call_ns":2,"return_ns":1}',
        '{"client":0,"op":"cas","key":"x","value":1,"status":"ok","call_ns":1,"return_ns":2}',
        '{"client":0,"op":"append","key":"x","value":1,"status":"ok","call_ns":1,"return_ns":2}',
        '{"client":0,"op":"get","key":"x","value":1,"status":"ok","mismatch":true,"call_ns":1,"return_ns":2}',
    ],
)
def test_a_line_that_makes_no_sense_is_named(line: str) -> None:
    sound = '{"client":0,"op":"get","key":"x","value":null,"status":"ok","call_ns":1,"return_ns":2}'
    with pytest.raises(ValueError, match="line 3"):
        list(load_history([sound, "", line]))
