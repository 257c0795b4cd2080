"""`totora simulate`: seeds played over processes, what broke shrunk, one run replayed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Final

import msgspec

from ..sim.campaign import Campaign
from ..sim.faults import FAULTS, Fault
from ..sim.history import dump_history
from ..sim.ledger import Ledger, Played, source_hash
from ..sim.shrink import Case, dump_case, load_case, shrink
from ..sim.simulation import Plan, Report, Simulation, simulate
from ..sim.trace import Record, dump_record
from ..sim.workers import WorkerDied, Workers
from .ending import Failed
from .running import run
from .simulate_view import FRAME_S, View, listed_faults, replayed
from .text import count, to_json

__all__ = ["print_faults", "read_case", "replay", "run_campaign", "unknown_kinds"]

SHRUNK_MAX: Final = 3
"""So many properties have a run shrunk, one for each."""

ENDLESS: Final = sys.maxsize


def print_faults(*, as_json: bool) -> None:
    """All kinds of faults, and what they do."""
    if as_json:
        for name, kind in FAULTS.items():
            print(to_json({"kind": name, "lasts_ms": kind.lasts_ms, "about": kind.about}))
    else:
        print("\n".join(listed_faults()))


def unknown_kinds(kinds: Sequence[str]) -> list[str]:
    """Those that are no kinds of faults."""
    return [kind for kind in kinds if kind not in FAULTS]


def run_campaign(
    plans: Sequence[Plan],
    seeds: range,
    *,
    jobs: int,
    hours: float | None,
    minutes: float | None,
    ledger: Path | None,
    shrinks: bool,
    folder: Path,
    as_json: bool,
) -> None:
    """The command. Raises Failed if a property broke or a run could not be played, Interrupted, OSError.

    folder: where the files of shrunk runs go.
    """
    with contextlib.ExitStack() as stack:
        try:
            book = None if ledger is None else stack.enter_context(Ledger(ledger))
            workers = Workers(jobs)
            campaign = Campaign(
                plans,
                seeds,
                executor=workers,
                ledger=book,
                hours=hours,
                minutes=minutes,
                in_flight=2 * jobs,
            )
        except ValueError as error:
            raise Failed(str(error)) from error
        play = _Play(campaign, workers, seeds, hours, folder if shrinks else None, as_json)
        play.has_ledger = book is not None
        run(play.run, "at leisure", play.account)
        play.judge()


class _Play:
    """A campaign in a thread, what is seen of it in the loop."""

    has_ledger = False

    def __init__(
        self,
        campaign: Campaign,
        workers: Workers,
        seeds: range,
        hours: float | None,
        folder: Path | None,
        as_json: bool,
    ) -> None:
        self._campaign = campaign
        self._workers = workers
        self._folder = folder
        runs = None if seeds.stop == ENDLESS else len(seeds) * len(campaign.plans)
        self._view = View(campaign.summary, runs=runs, hours=hours, as_json=as_json)
        self._stopped = False
        self._to_shrink: dict[str, Plan] = {}

    async def run(self) -> None:
        work = asyncio.get_running_loop().run_in_executor(None, self._work)
        try:
            while not work.done():
                self._view.progress.frame()
                await asyncio.wait([work], timeout=FRAME_S)
        finally:
            self._stopped = True
            self._campaign.stop()
            self._workers.kill()
            await asyncio.wait([work])
            failure = work.exception()
            self._view.end()
        if failure is not None:
            raise failure

    def _work(self) -> None:
        for result in self._campaign.run():
            self._view.happened(result)
            outcome = result.outcome
            if isinstance(outcome, Played) and outcome.broken is not None:
                self._to_shrink.setdefault(outcome.broken, result.plan)
        if self._folder is not None:
            for plan in list(self._to_shrink.values())[:SHRUNK_MAX]:
                if not self._stopped:
                    self._shrink(plan, self._folder)

    def _shrink(self, plan: Plan, folder: Path) -> None:
        def elsewhere(plan: Plan, faults: tuple[Fault, ...]) -> Report:
            return self._workers.submit(simulate, plan, faults).result()

        try:
            case = shrink(
                plan, play=elsewhere, told=lambda runs, case: self._view.shrinking(plan, runs, case)
            )
        except (WorkerDied, CancelledError, RuntimeError, ValueError) as error:
            if not self._stopped:
                self._view.not_shrunk(plan, str(error))
            return
        file = folder / f"seed-{plan.seed}-{plan.workload}.json"
        file.write_bytes(dump_case(case))
        self._view.shrunk(plan, case, file)

    def account(self) -> str:
        """What had become of it when it was interrupted."""
        kept = ", the ledger has them" if self.has_ledger else ""
        return f"{count(self._campaign.summary.played, 'run')} played{kept}"

    def judge(self) -> None:
        """Raises Failed unless all is well."""
        summary = self._campaign.summary
        if summary.ok:
            return
        parts = []
        if summary.violations:
            properties = {outcome.broken for _, outcome in summary.violations}
            parts.append(
                f"{count(len(summary.violations), 'run')} broke {count(len(properties), 'property', 'properties')}"
            )
        if summary.failed:
            parts.append(f"{count(len(summary.failed), 'run')} could not be played")
        raise Failed(", ".join(parts))


# -- one run


def read_case(file: Path) -> Case:
    """A run from a file. Raises Failed, OSError."""
    try:
        return load_case(file.read_bytes())
    except ValueError as error:
        raise Failed(f"{file}: {error}") from error


def replay(plan: Plan, case: Case | None, *, trace: Path | None, history: Path | None, as_json: bool) -> None:
    """Play one run here, and write what happened. Raises Failed if a property broke, OSError.

    case: where the plan is from, if it was read from a file.
    """
    with contextlib.ExitStack() as stack:
        out = None if trace is None else stack.enter_context(trace.open("wb"))

        def record(what: Record) -> None:
            if out is not None:
                out.write(dump_record(what) + b"\n")

        simulation = Simulation(
            plan, faults=None if case is None else case.faults, record=record if out is not None else None
        )

        async def playing() -> Report:
            return await asyncio.to_thread(simulation.run)

        report = run(playing, "at once")
    if history is not None:
        with history.open("wb") as file:
            file.writelines(line + b"\n" for line in dump_history(simulation.history))
    if case is not None and case.source != source_hash():
        print("note: another version of the source found this run", file=sys.stderr)
    if as_json:
        print(to_json({"event": "replayed", **msgspec.to_builtins(report), "broken": report.broken}))
    else:
        print("\n".join(replayed(report)))
    if report.violation is not None:
        raise Failed(f"seed {plan.seed} breaks {report.broken}")
