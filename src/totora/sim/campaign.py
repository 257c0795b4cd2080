"""Many seeds, played over any `concurrent.futures.Executor`, and an account of what they amounted to.

    with ProcessPoolExecutor() as executor:
        campaign = Campaign(Plan(seed=0, seconds=60), range(1_000), executor=executor)
        for outcome in campaign.run():
            ...
        print(campaign.summary)

Seeds are handed out in their order, a bounded number at a time, and their outcomes come as they are ready. The summary does not
depend on that order. With a ledger a campaign goes on where it was, whatever ended it.
"""

from __future__ import annotations

import math
import os
import queue
import time
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec

from .faults import FAULTS
from .ledger import Failed, Ledger, Outcome, Played, plan_key, source_hash
from .simulation import Plan, Report, simulate

__all__ = ["Campaign", "Outcome", "Run", "Summary", "play"]

RUNS_IN_FLIGHT: Final = 2 * (os.cpu_count() or 1)
"""How many runs an executor has at a time, unless told otherwise."""

S: Final = 1_000_000_000


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What comes back from whoever played: the report, by which version of the source, in how many real seconds."""

    report: Report
    source: str
    took_s: float


def play(plan: Plan) -> Run:
    """Play one plan, anywhere."""
    began_s = time.perf_counter()
    report = simulate(plan)
    return Run(report=report, source=source_hash(), took_s=time.perf_counter() - began_s)


@dataclass
class Summary:
    """What seeds amounted to; the same in whatever order they are added.

    resumed: how many of those played are from the ledger. took_s: real seconds of all runs together, on whatever played them.
    violations, failed: by plan and seed, in their order.
    """

    played: int = 0
    resumed: int = 0
    simulated_ns: int = 0
    steps: int = 0
    committed: int = 0
    took_ms: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[Plan, Played]] = field(default_factory=list)
    failed: list[tuple[Plan, Failed]] = field(default_factory=list)

    @property
    def simulated_hours(self) -> float:
        return self.simulated_ns / (3_600 * S)

    @property
    def ok(self) -> bool:
        """Every seed was played, and no property broke."""
        return not self.violations and not self.failed

    def add(self, plan: Plan, outcome: Outcome) -> None:
        """plan: with its seed."""
        if isinstance(outcome, Failed):
            self.failed.append((plan, outcome))
            self.failed.sort(key=_place)
            return
        self.played += 1
        self.simulated_ns += outcome.simulated_ns
        self.steps += outcome.steps
        self.committed += outcome.committed
        self.took_ms += round(outcome.took_s * 1e3)
        self.operations.update(outcome.operations)
        self.injected.update(outcome.injected)
        if outcome.violation is not None:
            self.violations.append((plan, outcome))
            self.violations.sort(key=_place)


def _place(found: tuple[Plan, Outcome]) -> tuple[int, str]:
    return found[0].seed, found[1].plan


@dataclass(frozen=True)
class Result:
    """One seed that was played now. report: all of what is known of it; None: it failed."""

    plan: Plan
    outcome: Outcome
    report: Report | None


_Pending: TypeAlias = "dict[Future[Run], tuple[str, Plan]]"


class Campaign:
    """Each seed with each plan; a plan's own seed means nothing.

    executor: anything that carries out `play` on plans, here or elsewhere. in_flight: how many it has at a time.
    ledger: what is in it is not played again; what is played goes into it.
    hours: simulated ones, those of the ledger included; no run begins after them.
    minutes: real ones, from `run` on; no run begins after them.

    Raises ValueError if a plan names a kind of fault that is not known.
    """

    def __init__(
        self,
        plans: Plan | Sequence[Plan],
        seeds: Sequence[int],
        *,
        executor: Executor,
        ledger: Ledger | None = None,
        hours: float | None = None,
        minutes: float | None = None,
        in_flight: int = RUNS_IN_FLIGHT,
    ) -> None:
        plans = [plans] if isinstance(plans, Plan) else list(plans)
        unknown = sorted({kind for plan in plans for kind in plan.faults} - set(FAULTS))
        if unknown:
            raise ValueError(f"no such kind of fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
        self.source = source_hash()
        self.plans = {plan_key(plan, self.source): plan for plan in plans}
        self.summary = Summary()
        self._seeds = seeds
        self._executor = executor
        self._ledger = ledger
        self._limit_ns = None if hours is None else round(hours * 3_600 * S)
        self._limit_s = math.inf if minutes is None else minutes * 60
        self._began_s = math.inf
        self._in_flight = in_flight
        self._done: queue.SimpleQueue[Future[Run] | None] = queue.SimpleQueue()
        self._stopping = False
        self._known: set[tuple[str, int]] = set()
        self._resume()

    def _resume(self) -> None:
        if self._ledger is None:
            return
        wanted: Container[int] = self._seeds if isinstance(self._seeds, range) else frozenset(self._seeds)
        for outcome in self._ledger.played(self.plans):
            if outcome.seed not in wanted:
                continue
            self._known.add((outcome.plan, outcome.seed))
            self.summary.add(self._plan(outcome.plan, outcome.seed), outcome)
            self.summary.resumed += 1

    def _plan(self, key: str, seed: int) -> Plan:
        return msgspec.structs.replace(self.plans[key], seed=seed)

    def stop(self) -> None:
        """From any thread: hand out no more, and do not wait for what is under way; `run` ends."""
        self._stopping = True
        self._done.put(None)

    def run(self) -> Iterator[Result]:
        """Play, once; each outcome when it is known. Raises OSError if the ledger cannot be written.

        An executor that takes no more work ends it: what it had counts as failed.
        """
        pending: _Pending = {}
        todo = self._todo()
        self._began_s = time.monotonic()
        try:
            while self._hand_out(todo, pending) or pending:
                future = self._done.get()
                if future is None:
                    break
                key, plan = pending.pop(future)
                yield self._account(key, plan, future)
        finally:
            for future in pending:
                future.cancel()

    def _todo(self) -> Iterator[tuple[str, Plan]]:
        for seed in self._seeds:
            for key in self.plans:
                if (key, seed) not in self._known:
                    yield key, self._plan(key, seed)

    def _hand_out(self, todo: Iterator[tuple[str, Plan]], pending: _Pending) -> bool:
        """Keep the executor busy; whether there is anything under way."""
        while len(pending) < self._in_flight and not self._stopping and not self._is_enough(pending):
            given = next(todo, None)
            if given is None:
                break
            try:
                future = self._executor.submit(play, given[1])
            except RuntimeError as error:  # it is broken, or was shut down
                self._stopping = True
                future = Future()
                future.set_exception(error)
            pending[future] = given
            future.add_done_callback(self._done.put)
        return bool(pending)

    def _is_enough(self, pending: _Pending) -> bool:
        """Is the time over, or will all that is under way reach the hours that are wanted?"""
        if time.monotonic() - self._began_s >= self._limit_s:
            return True
        if self._limit_ns is None:
            return False
        expected_ns = sum(round(plan.seconds * S) for _, plan in pending.values())
        return self.summary.simulated_ns + expected_ns >= self._limit_ns

    def _account(self, key: str, plan: Plan, future: Future[Run]) -> Result:
        report, outcome = self._outcome(key, plan, future)
        self.summary.add(plan, outcome)
        if self._ledger is not None:
            self._ledger.write(self.plans[key], self.source, outcome)
        return Result(plan, outcome, report)

    def _outcome(self, key: str, plan: Plan, future: Future[Run]) -> tuple[Report | None, Outcome]:
        try:
            run = future.result()
        except Exception as error:  # CancelledError says nothing
            return None, Failed(plan=key, seed=plan.seed, why=str(error) or type(error).__name__)
        if run.source != self.source:
            why = f"it was played by another version of the source: {run.source}, here is {self.source}"
            return None, Failed(plan=key, seed=plan.seed, why=why)
        return run.report, Played.of(key, run.report, run.took_s)
