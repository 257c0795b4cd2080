"""From a run that breaks a property to the least that still breaks it: fewer faults, shorter ones, less time, fewer operations.

The faults are cut by delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002). Every
fault carries the number from which its details are drawn, so the others stay what they were. What is found is a `Case`: a plan
and its faults, in a file that replays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from .faults import FAULTS, Fault
from .ledger import source_hash
from .simulation import Plan, Report, scheduled, simulate

__all__ = ["RUNS_MAX", "Case", "dump_case", "load_case", "shrink"]

RUNS_MAX: Final = 400
"""Runs that one search may take."""

VERSION: Final = 1
MS: Final = 1_000_000
S: Final = 1_000_000_000


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A run that breaks a property, whole.

    broken: the property, as `Report.broken` has it. source: the version that broke it. runs: how many it took to find.
    """

    version: int = VERSION
    source: str
    broken: str
    violation: str
    runs: int = 0
    plan: Plan
    faults: tuple[Fault, ...]


def dump_case(case: Case) -> bytes:
    """As JSON for people too: a field a line, and a fault a line."""
    fields: dict[str, Any] = msgspec.to_builtins(case)
    faults = fields.pop("faults")
    lines = [f"  {_json(name)}: {_json(value)}," for name, value in fields.items()]
    listed = ",\n".join(f"    {_json(fault)}" for fault in faults)
    lines.append(f'  "faults": [\n{listed}\n  ]' if faults else '  "faults": []')
    return ("{\n" + "\n".join(lines) + "\n}\n").encode()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def load_case(data: bytes) -> Case:
    """Raises ValueError."""
    try:
        case = msgspec.json.decode(data, type=Case)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if case.version > VERSION:
        raise ValueError(f"version {case.version} of the format, this totora knows {VERSION}")
    unknown = sorted({*case.plan.faults, *(fault.kind for fault in case.faults)} - set(FAULTS))
    if unknown:
        raise ValueError(f"no such kind of fault: {', '.join(unknown)}")
    return case


Play: TypeAlias = Callable[[Plan, "tuple[Fault, ...]"], Report]


def shrink(
    plan: Plan,
    faults: Sequence[Fault] | None = None,
    *,
    runs_max: int = RUNS_MAX,
    play: Play = simulate,
    told: Callable[[int, Case], object] = lambda runs, case: None,
) -> Case:
    """The least that breaks the same property as this plan does.

    faults: the schedule; None: the plan's own. play: plays one run, here by default. told: how many runs so far, and the
    least that was found, after each run.

    Raises ValueError if nothing breaks.
    """
    schedule = tuple(scheduled(plan) if faults is None else faults)
    search = _Search(play, runs_max, told)
    search.begin(plan, schedule)
    while search.improve():
        pass
    least = search.case
    kinds = tuple(sorted({fault.kind for fault in least.faults}))
    return msgspec.structs.replace(
        least, runs=search.runs, plan=msgspec.structs.replace(least.plan, faults=kinds)
    )


class _Enough(Exception):
    """No more runs."""


class _Search:
    """case: the least so far. runs: how many were taken."""

    case: Case

    def __init__(self, play: Play, runs_max: int, told: Callable[[int, Case], object]) -> None:
        self._play = play
        self.runs_max = runs_max
        self._told = told
        self.runs = 0
        self._tried: set[bytes] = set()
        self._at_s = 0.0

    def begin(self, plan: Plan, faults: tuple[Fault, ...]) -> None:
        report = self._run(plan, faults)
        if report.violation is None or report.broken is None:
            raise ValueError("no property breaks in this run")
        self._at_s = report.at_s or report.simulated_s
        self.case = Case(
            source=source_hash(),
            broken=report.broken,
            violation=report.violation,
            runs=1,
            plan=plan,
            faults=faults,
        )
        self._told(self.runs, self.case)

    def improve(self) -> bool:
        """All steps once; whether any of them helped."""
        before = self._weight()
        try:
            self._only_before_it()
            self._fewer_faults()
            self._shorter_faults()
            self._less_time()
            self._fewer_operations()
        except _Enough:
            return False
        return self._weight() != before

    def _weight(self) -> tuple[object, ...]:
        return self.case.plan, self.case.faults

    def _only_before_it(self) -> None:
        """What would come after the violation has no part in it, and neither has the time after it."""
        end_s = min(self.case.plan.seconds, float(int(self._at_s) + 1))
        early = tuple(fault for fault in self.case.faults if fault.at_ns <= self._at_s * S)
        _ = self._breaks(msgspec.structs.replace(self.case.plan, seconds=end_s), early) or self._breaks(
            self.case.plan, early
        )

    def _fewer_faults(self) -> None:
        """Delta debugging: without ever smaller pieces of the schedule."""
        if self._breaks(self.case.plan, ()):
            return
        pieces = 2
        while len(faults := self.case.faults) > 1 and pieces <= len(faults):
            for left, right in _cuts(len(faults), pieces):
                if self._breaks(self.case.plan, faults[:left] + faults[right:]):
                    pieces = max(2, pieces - 1)
                    break
            else:
                if pieces == len(faults):
                    break
                pieces = min(len(faults), 2 * pieces)

    def _shorter_faults(self) -> None:
        for place in range(len(self.case.faults)):
            fault = self.case.faults[place]
            for for_ns in _smaller(fault.for_ns, MS):
                shorter = Fault(fault.kind, fault.at_ns, for_ns, fault.number)
                faults = (*self.case.faults[:place], shorter, *self.case.faults[place + 1 :])
                if self._breaks(self.case.plan, faults):
                    break

    def _less_time(self) -> None:
        for seconds in _smaller(int(self.case.plan.seconds), 1):
            if seconds and self._breaks(
                msgspec.structs.replace(self.case.plan, seconds=float(seconds)), self.case.faults
            ):
                break

    def _fewer_operations(self) -> None:
        for share in (16, 4, 2):
            rate_per_s = round(self.case.plan.rate_per_s / share, 3)
            if rate_per_s >= 0.01 and self._breaks(
                msgspec.structs.replace(self.case.plan, rate_per_s=rate_per_s), self.case.faults
            ):
                break

    def _breaks(self, plan: Plan, faults: tuple[Fault, ...]) -> bool:
        """Whether this breaks the same property, and is not what we have already. Raises _Enough."""
        if (plan, faults) == self._weight():
            return False
        candidate = msgspec.json.encode((plan, faults))
        if candidate in self._tried:
            return False
        self._tried.add(candidate)
        if self.runs >= self.runs_max:
            raise _Enough
        report = self._run(plan, faults)
        found = report.violation is not None and report.broken == self.case.broken
        if found:
            self._at_s = report.at_s or report.simulated_s
            self.case = msgspec.structs.replace(
                self.case, plan=plan, faults=faults, violation=report.violation, runs=self.runs
            )
        self._told(self.runs, self.case)
        return found

    def _run(self, plan: Plan, faults: tuple[Fault, ...]) -> Report:
        self.runs += 1
        return self._play(plan, faults)


def _cuts(length: int, pieces: int) -> Iterator[tuple[int, int]]:
    """Where each of so many pieces begins and ends; the late ones first: what they hold is seldom needed."""
    for piece in reversed(range(pieces)):
        yield length * piece // pieces, length * (piece + 1) // pieces


def _smaller(value: int, unit: int) -> Iterator[int]:
    """Nothing, and then ever larger parts of it, in whole units."""
    if value:
        yield 0
    for share in (16, 4, 2):
        part = value // share // unit * unit
        if part:
            yield part
