"""The shrinker: what is left still breaks the same property, is little, and replays from a file."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec
import pytest

from tests.levels import by_level
from tests.planted.example import BREAKS, BROKEN, planted
from totora.sim.faults import Fault, schedule
from totora.sim.ledger import source_hash
from totora.sim.shrink import Case, dump_case, load_case, shrink
from totora.sim.simulation import Plan, Report, scheduled, simulate

S = 1_000_000_000


def test_a_planted_bug_is_cut_to_what_it_needs() -> None:
    """The file of what is left shows it again; without the bug nothing breaks."""
    with planted():
        whole = scheduled(BREAKS)
        case = shrink(BREAKS)
        assert case.broken == BROKEN
        assert case.source == source_hash()
        assert len(case.faults) <= 4 < len(whole)
        assert {fault.number for fault in case.faults} <= {fault.number for fault in whole}
        assert case.plan.seconds <= BREAKS.seconds
        for place in range(len(case.faults)):
            fewer = case.faults[:place] + case.faults[place + 1 :]
            assert simulate(case.plan, fewer).broken != BROKEN, "every fault is needed"
        restored = load_case(dump_case(case))
        assert restored == case
        again = simulate(restored.plan, restored.faults)
        assert (again.broken, again.violation) == (BROKEN, case.violation)
    assert simulate(restored.plan, restored.faults).violation is None


def test_what_breaks_nothing_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="no property breaks"):
        shrink(Plan(seed=0, seconds=2))


# -- the search, on runs that are told and not played

PLAN = Plan(seed=1, seconds=60)
FAULTS = schedule(random.Random(1), PLAN.faults, 60)
Told = Callable[[Plan, Sequence[Fault]], str | None]


class Runs:
    """Each run breaks what `breaks` says, `at_s` into it."""

    def __init__(self, breaks: Told, at_s: float = 70.0) -> None:
        self.breaks = breaks
        self.at_s = at_s
        self.count = 0

    def __call__(self, plan: Plan, faults: Sequence[Fault]) -> Report:
        self.count += 1
        violation = self.breaks(plan, faults)
        return Report(plan=plan, violation=violation, at_s=None if violation is None else self.at_s)


def needs(*numbers: int) -> Told:
    """All of these faults, or nothing breaks."""
    needed = {FAULTS[number].number for number in numbers}

    def breaks(plan: Plan, faults: Sequence[Fault]) -> str | None:
        return "AssertionError: it" if needed <= {fault.number for fault in faults} else None

    return breaks


@pytest.mark.parametrize("seed", range(by_level(quick=20, ci=150)))
def test_exactly_what_is_needed_is_left(seed: int) -> None:
    """Whichever faults those are; shorter, sooner over, with fewer operations, as far as that breaks it."""
    chance = random.Random(seed)
    numbers = sorted(chance.sample(range(len(FAULTS)), chance.randrange(0, 5)))
    runs = Runs(needs(*numbers))
    case = shrink(PLAN, FAULTS, play=runs)
    assert [fault.number for fault in case.faults] == [FAULTS[number].number for number in numbers]
    assert all(fault.for_ns == 0 for fault in case.faults)
    assert case.plan.seconds <= 2
    assert case.plan.rate_per_s < 0.1
    assert case.plan.faults == tuple(sorted({fault.kind for fault in case.faults}))
    assert case.runs == runs.count <= 400


def test_what_comes_after_the_violation_is_dropped_first() -> None:
    early = [fault for fault in FAULTS if fault.at_ns <= 20 * S]
    tried: list[tuple[float, int]] = []

    def breaks(plan: Plan, faults: Sequence[Fault]) -> str | None:
        tried.append((plan.seconds, len(faults)))
        return "AssertionError: it" if early[-1] in faults else None

    shrink(PLAN, FAULTS, play=Runs(breaks, at_s=20.0))
    assert tried[:2] == [(60, len(FAULTS)), (21, len(early))]


def test_another_property_does_not_count() -> None:
    """Without its last fault the run breaks something else: that fault stays."""
    last = FAULTS[-1]

    def breaks(plan: Plan, faults: Sequence[Fault]) -> str | None:
        return f"AssertionError: {'this' if last in faults else 'that'} at {len(faults)}"

    case = shrink(PLAN, FAULTS, play=Runs(breaks))
    assert case.faults == (last,)
    assert case.violation == "AssertionError: this at 1"


def test_durations_time_and_rate_fall_only_as_far_as_they_may() -> None:
    """Each is halved while the property breaks."""

    def breaks(plan: Plan, faults: Sequence[Fault]) -> str | None:
        long = [fault for fault in faults if fault.number == FAULTS[3].number and fault.for_ns >= 100_000_000]
        return "AssertionError: it" if long and plan.seconds >= 11 and plan.rate_per_s >= 1 else None

    case = shrink(PLAN, [Fault("kill", 0, 4_000_000_000, FAULTS[3].number)], play=Runs(breaks))
    (fault,) = case.faults
    assert 100_000_000 <= fault.for_ns < 200_000_000
    assert 11 <= case.plan.seconds < 22
    assert 1 <= case.plan.rate_per_s < 2


@pytest.mark.parametrize("runs_max", [1, 2, 7, 30])
def test_the_search_is_bounded(runs_max: int) -> None:
    """What it found until then is kept, and breaks the property."""
    runs = Runs(needs(0, 5, 9))
    least: list[int] = []
    case = shrink(
        PLAN, FAULTS, play=runs, runs_max=runs_max, told=lambda runs, case: least.append(len(case.faults))
    )
    assert case.runs == runs.count == runs_max == len(least)
    assert least == sorted(least, reverse=True)
    assert runs(case.plan, case.faults).violation is not None


# -- files


def case_of(**changed: object) -> dict[str, object]:
    case = Case(source="a", broken="b", violation="c", plan=PLAN, faults=tuple(FAULTS[:2]))
    told: dict[str, object] = msgspec.to_builtins(case)
    return told | changed


def test_a_file_is_for_people_too() -> None:
    """A line for each fault."""
    case = msgspec.convert(case_of(), Case)
    lines = dump_case(case).decode().splitlines()
    assert len(lines) == 6 + 2 + 2 + 2
    assert all(fault.kind in line for fault, line in zip(FAULTS, lines[8:10], strict=False))
    assert load_case(dump_case(case)) == case
    without = msgspec.structs.replace(case, faults=())
    assert load_case(dump_case(without)) == without


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "truncated"),
        (b"[1]", "Expected `object`"),
        (b'{"more":' + b"[" * 100_000, "nested too deep"),
        (msgspec.json.encode(case_of(version=2)), "version 2 of the format, this totora knows 1"),
        (msgspec.json.encode(case_of(faults=[["boredom", 1, 1, 1]])), "no such kind of fault: boredom"),
        (msgspec.json.encode(case_of(faults=[["kill", 1, 1]])), "length"),
        (msgspec.json.encode(case_of(plan={"seed": "x"})), "seed"),
    ],
)
def test_what_is_no_case_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        load_case(data)
