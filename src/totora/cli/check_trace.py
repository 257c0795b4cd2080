"""`totora check-trace`: is a trace, from this project or from anywhere, one that the specification allows?"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec

from ..sim.trace_check import Refused, Verdict, check_trace
from .ending import Failed
from .text import count, escape, to_json
from .trace_text import spell, spell_state

__all__ = ["check_file"]


def check_file(file: str, *, as_json: bool) -> None:
    """The command. Raises Failed if the trace is refused or is none, OSError."""
    name = "the standard input" if file == "-" else file
    try:
        with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as lines:
            verdict = check_trace(lines)
    except ValueError as error:
        if as_json:
            print(to_json({"ok": False, "error": str(error)}))
        raise Failed(f"{name}: {error}") from error
    if as_json:
        print(to_json(_as_object(verdict)))
    else:
        for line in _told(verdict):
            print(escape(line))
    if verdict.refused is not None:
        raise Failed(f"{name}: line {verdict.refused.line}: {verdict.refused.violation}")


def _told(verdict: Verdict) -> list[str]:
    refused = verdict.refused
    if refused is None:
        return [
            (
                f"allowed: {count(verdict.steps, 'step')} and {count(verdict.starts, 'start')} "
                f"of {count(len(verdict.voters), 'node')}, terms up to {verdict.highest_term:,}, "
                f"committed up to {verdict.committed_index:,}"
            )
        ]
    return [
        f"refused, after {count(verdict.steps, 'step')}: line {refused.line}, {refused.violation.rule}",
        f"  was      {spell_state(refused.before)}",
        f"  did      {spell(refused.record).strip()}",
        f"  but      node {refused.violation.node} {refused.violation.why}",
        f"  allowed  {refused.violation.allowed}",
    ]


def _as_object(verdict: Verdict) -> dict[str, Any]:
    told: dict[str, Any] = {
        "ok": verdict.refused is None,
        "steps": verdict.steps,
        "starts": verdict.starts,
        "voters": verdict.voters,
        "highest_term": verdict.highest_term,
        "committed_index": verdict.committed_index,
    }
    return told if verdict.refused is None else told | _refused(verdict.refused)


def _refused(refused: Refused) -> dict[str, Any]:
    return {
        "line": refused.line,
        "rule": refused.violation.rule,
        "node": refused.violation.node,
        "why": refused.violation.why,
        "allowed": refused.violation.allowed,
        "before": None if refused.before is None else refused.before._asdict(),
        "record": msgspec.to_builtins(refused.record),
    }
