"""What the options of `totora simulate` ask for: kinds of faults, plans, and whether they fit together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final, Literal

import click
from click.core import ParameterSource

from ..sim.faults import FAULTS
from ..sim.simulation import Plan
from .simulate import print_faults, read_case, replay, run_campaign, unknown_kinds

__all__ = ["carry_out"]

OF_A_PLAN: Final = ("seconds", "faults", "workload", "size", "transport", "rate")
OF_A_CAMPAIGN: Final = ("seeds", "hours", "minutes", "jobs", "ledger", "shrink", "cases")
OF_A_REPLAY: Final = ("trace", "history")


def carry_out(
    context: click.Context,
    *,
    seeds: range,
    seconds: float,
    hours: float | None,
    minutes: float | None,
    jobs: int,
    faults: str,
    list_faults: bool,
    workload: Literal["log", "kv", "all"] | None,
    size: int | None,
    transport: Literal["tcp", "udp"] | None,
    rate: float,
    ledger: Path | None,
    shrink: bool,
    cases: Path,
    replayed: str | None,
    trace: Path | None,
    history: Path | None,
    as_json: bool,
) -> None:
    """The command. Raises UsageError, and what a campaign or a replay raises."""
    if list_faults:
        print_faults(as_json=as_json)
        return
    shared: dict[str, Any] = {
        "seconds": seconds,
        "faults": _kinds(faults),
        "size": size,
        "transport": transport,
        "rate_per_s": rate,
    }
    if replayed is None:
        _refuse(context, OF_A_REPLAY, "belongs to --replay")
        has_end = hours is not None or minutes is not None
        if has_end and "seeds" not in _given(context):
            seeds = range(sys.maxsize)
        if seeds.stop == sys.maxsize and not has_end:
            raise click.UsageError("seeds without an end: give --hours or --minutes")
        workloads: tuple[Literal["log", "kv"], ...] = ("log", "kv")
        if workload == "log" or workload == "kv":
            workloads = (workload,)
        run_campaign(
            [Plan(seed=0, workload=each, **shared) for each in workloads],
            seeds,
            jobs=jobs,
            hours=hours,
            minutes=minutes,
            ledger=ledger,
            shrinks=shrink,
            folder=cases,
            as_json=as_json,
        )
        return
    _refuse(context, OF_A_CAMPAIGN, "does not belong to --replay, which plays one run")
    case = None
    if replayed.isascii() and replayed.isdecimal() and len(replayed) < 19:
        if workload == "all":
            raise click.UsageError("--replay plays one run: --workload log or --workload kv")
        plan = Plan(seed=int(replayed), workload=workload or "log", **shared)
    else:
        _refuse(context, OF_A_PLAN, "does not belong to --replay FILE, which says all of the run")
        case = read_case(Path(replayed))
        plan = case.plan
    if history is not None and plan.workload != "kv":
        raise click.UsageError("--history is of --workload kv")
    replay(plan, case, trace=trace, history=history, as_json=as_json)


def _kinds(faults: str) -> tuple[str, ...]:
    if faults in ("all", "none"):
        return tuple(FAULTS) if faults == "all" else ()
    kinds = tuple(dict.fromkeys(kind.strip() for kind in faults.split(",")))
    unknown = unknown_kinds(kinds)
    if unknown:
        named = ", ".join(map(repr, unknown))
        raise click.BadParameter(
            f"there is no {named}; kinds are {', '.join(FAULTS)}. --list-faults says what they do.",
            param_hint="'--faults'",
        )
    return kinds


def _given(context: click.Context) -> set[str]:
    return {
        name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def _refuse(context: click.Context, names: tuple[str, ...], why: str) -> None:
    given = sorted(_given(context) & set(names))
    if given:
        raise click.UsageError(f"--{given[0]} {why}")
