"""What `totora simulate` shows: what broke as it is found, a line that moves on a terminal, a summary at the end."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ..sim.campaign import Result, Summary
from ..sim.faults import FAULTS
from ..sim.ledger import Failed, Played
from ..sim.shrink import Case
from ..sim.simulation import Plan, Report
from .text import count, escape, to_json
from .trace_text import spell_all

__all__ = ["Progress", "View", "listed_faults", "replay_words", "replayed"]

SHOWN_MAX: Final = 5
"""So many runs that broke something are shown with their last events; the others in a line."""

EVENTS_SHOWN: Final = 12
WIDTH: Final = 100
FRAME_S: Final = 0.1
NAME: Final = max(map(len, FAULTS))
LASTS: Final = len("0.01 to 20 s")


def replay_words(plan: Plan) -> str:
    """The command that plays this plan again."""
    words = ["totora", "simulate", "--replay", str(plan.seed)]
    usual = Plan(seed=plan.seed)
    for name in ("seconds", "workload", "size", "transport"):
        value = getattr(plan, name)
        if value != getattr(usual, name):
            words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    if plan.rate_per_s != usual.rate_per_s:
        words += ["--rate", f"{plan.rate_per_s:g}"]
    if set(plan.faults) != set(FAULTS):
        words += ["--faults", ",".join(sorted(plan.faults)) or "none"]
    return shlex.join(words)


def replayed(report: Report) -> list[str]:
    """What one run amounted to, for people."""
    faults = sum(report.injected.values())
    operations = sum(report.operations.values())
    lines = [
        (
            f"{_named(report.plan)}: {report.simulated_s:.1f} s of a cluster's life, {count(report.steps, 'step')}, "
            f"{count(operations, 'operation')}, {count(faults, 'fault')}"
        )
    ]
    if report.violation is None:
        return [*lines, "no property broke"]
    return [*lines, *_broken(report)]


def _named(plan: Plan) -> str:
    return f"seed {plan.seed}, workload {plan.workload}"


def _broken(report: Report) -> list[str]:
    at = "" if report.at_s is None else f", {report.at_s:.6f} s into the run"
    lines = [f"broken: {escape(report.broken or '')}{at}", f"  {escape(report.violation or '')}"]
    if report.last:
        lines.append("  the last that happened:")
        lines += [f"  {escape(line)}" for line in spell_all(report.last[-EVENTS_SHOWN:])]
    return lines


def listed_faults() -> list[str]:
    """A line or more for each kind: its name, how long it lasts, what it is."""
    rows = {f"{name:{NAME}}  {_lasts(*kind.lasts_ms):{LASTS}}  ": kind.about for name, kind in FAULTS.items()}
    lines: list[str] = []
    for head, about in rows.items():
        lines += textwrap.wrap(about, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
    return lines


def _lasts(shortest_ms: int, longest_ms: int) -> str:
    return f"{shortest_ms / 1e3:g} to {longest_ms / 1e3:g} s" if longest_ms else "a moment"


class Progress:
    """A line on stderr that is written over, if that is a terminal; nothing else ever."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.text = ""
        self._shown = False
        self._wanted = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._lock = threading.Lock()

    def frame(self) -> None:
        if self._wanted:
            with self._lock:
                width = shutil.get_terminal_size().columns
                sys.stderr.write(f"\r{self.text[: width - 1]}\x1b[K")
                sys.stderr.flush()
                self._shown = True

    def say(self, lines: Iterable[str]) -> None:
        """Print on stdout, where the line stood."""
        with self._lock:
            self._clear()
            for line in lines:
                print(line)
            sys.stdout.flush()

    def end(self) -> None:
        with self._lock:
            self._clear()
            self._wanted = False

    def _clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


class View:
    """Of one campaign. runs: how many there are in all; None: nobody knows. hours: that are wanted; None: all runs are."""

    def __init__(self, summary: Summary, *, runs: int | None, hours: float | None, as_json: bool) -> None:
        self.progress = Progress(quiet=as_json)
        self._summary = summary
        self._runs = runs
        self._hours = hours
        self._as_json = as_json
        self._began_s = time.monotonic()
        self._before_ns = summary.simulated_ns
        self._shown = 0
        self.moved()

    def moved(self) -> None:
        """The line, as things are."""
        summary = self._summary
        runs = (
            f"{summary.played:,} runs" if self._runs is None else f"{summary.played:,} of {self._runs:,} runs"
        )
        hours = f"{summary.simulated_hours:,.1f}" + ("" if self._hours is None else f" of {self._hours:,g}")
        broken = count(len(summary.violations), "violation")
        failed = f"  {len(summary.failed):,} failed" if summary.failed else ""
        self.progress.text = (
            f"{runs}  {hours} h simulated, {self.speed:,.0f} times real time  {broken}{failed}"
        )

    @property
    def speed(self) -> float:
        """Simulated seconds for each real one, since this command began."""
        return (
            (self._summary.simulated_ns - self._before_ns) / 1e9 / max(time.monotonic() - self._began_s, 1e-3)
        )

    def happened(self, result: Result) -> None:
        """A run is over."""
        self.moved()
        outcome, plan = result.outcome, result.plan
        if isinstance(outcome, Failed):
            self._event(
                "failed", plan, [f"{_named(plan)}: not played: {escape(outcome.why)}"], why=outcome.why
            )
        elif outcome.violation is not None and result.report is not None:
            self._violation(plan, result.report)

    def _violation(self, plan: Plan, report: Report) -> None:
        lines = [f"{_named(plan)}: {line}" for line in _broken(report)[:1]] + _broken(report)[1:]
        self._shown += 1
        if self._shown > SHOWN_MAX:
            lines = lines[:2]
        lines.append(f"  again: {replay_words(plan)}")
        self._event(
            "violation",
            plan,
            lines,
            broken=report.broken,
            violation=report.violation,
            at_s=report.at_s,
            last=report.last,
            replay=replay_words(plan),
        )

    def shrinking(self, plan: Plan, runs: int, case: Case) -> None:
        faults = count(len(case.faults), "fault")
        self.progress.text = f"shrinking {_named(plan)}: {count(runs, 'run')}, {faults} left"

    def shrunk(self, plan: Plan, case: Case, file: Path) -> None:
        kinds = ", ".join(fault.kind for fault in case.faults) or "none"
        lines = [
            (
                f"{_named(plan)}: {escape(case.broken)} breaks with {count(len(case.faults), 'fault')} ({kinds}) "
                f"in {case.plan.seconds:g} s, found in {count(case.runs, 'run')}"
            ),
            f"  again: {shlex.join(['totora', 'simulate', '--replay', str(file)])}",
        ]
        self._event(
            "shrunk",
            plan,
            lines,
            broken=case.broken,
            faults=len(case.faults),
            seconds=case.plan.seconds,
            runs=case.runs,
            file=str(file),
        )

    def not_shrunk(self, plan: Plan, why: str) -> None:
        self._event("not_shrunk", plan, [f"{_named(plan)}: not shrunk: {escape(why)}"], why=why)

    def _event(self, event: str, plan: Plan, lines: list[str], **fields: Any) -> None:
        if self._as_json:
            told = {"event": event, "seed": plan.seed, "workload": plan.workload, **fields}
            lines = [to_json(told)]
        self.progress.say(lines)

    # -- the end

    def end(self) -> None:
        """The summary, of this command and of what its ledger held."""
        self.progress.end()
        seconds = time.monotonic() - self._began_s
        if self._as_json:
            print(to_json(self._as_object(seconds)))
            return
        summary = self._summary
        resumed = f", {summary.resumed:,} of them before" if summary.resumed else ""
        speed = f", {self.speed:,.0f} times real time" if summary.played > summary.resumed else ""
        print(
            f"{count(summary.played, 'run')} played{resumed}: {summary.simulated_hours:,.2f} h simulated{speed}"
        )
        _tell("faults", summary.injected, "")
        _tell("operations", summary.operations, " checked")
        print(f"{'violations':10}  {_violations(summary)}")
        if summary.failed:
            _tell("not played", {_named(plan): None for plan, _ in summary.failed}, "")

    def _as_object(self, seconds: float) -> dict[str, Any]:
        summary = self._summary
        return {
            "event": "summary",
            "ok": summary.ok,
            "played": summary.played,
            "resumed": summary.resumed,
            "simulated_s": round(summary.simulated_ns / 1e9, 3),
            "seconds": round(seconds, 3),
            "times_real_time": round(self.speed, 1),
            "steps": summary.steps,
            "committed": summary.committed,
            "faults": dict(sorted(summary.injected.items())),
            "operations": dict(sorted(summary.operations.items())),
            "violations": [_as_object(plan, outcome) for plan, outcome in summary.violations],
            "failed": [_as_object(plan, outcome) for plan, outcome in summary.failed],
        }


def _as_object(plan: Plan, outcome: Played | Failed) -> dict[str, Any]:
    told: dict[str, Any] = {"seed": plan.seed, "workload": plan.workload}
    if isinstance(outcome, Failed):
        return told | {"why": outcome.why}
    return told | {"broken": outcome.broken, "violation": outcome.violation, "at_s": outcome.at_s}


def _violations(summary: Summary) -> str:
    if not summary.violations:
        return "none"
    seeds: dict[str, list[int]] = {}
    for plan, outcome in summary.violations:
        seeds.setdefault(outcome.broken or "", []).append(plan.seed)
    spelled = [
        f"{escape(broken)} ({count(len(them), 'run')}, seed {', '.join(map(str, sorted(set(them))[:3]))}"
        f"{' ...' if len(set(them)) > 3 else ''})"
        for broken, them in seeds.items()
    ]
    return f"{len(summary.violations):,}: {'; '.join(spelled)}"


def _tell(title: str, counts: Mapping[str, int | None], what: str) -> None:
    """A number, and what it is made of, most first."""
    total = sum(value if value is not None else 1 for value in counts.values())
    parts = sorted(counts.items(), key=lambda part: (-(part[1] or 0), part[0]))
    spelled = ", ".join(name if value is None else f"{name} {value:,}" for name, value in parts)
    text = f"{total:,}{what}" + (f": {spelled}" if spelled else "")
    for line in textwrap.wrap(
        text, WIDTH, initial_indent=f"{title:10}  ", subsequent_indent=" " * 12, break_on_hyphens=False
    ):
        print(line)
