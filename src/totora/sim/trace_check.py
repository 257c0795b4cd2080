"""Is a trace, whoever wrote it, one that the specification allows?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .specification import ServerState, Specification, Violation
from .trace import Header, Record, Started, Step, numbered_trace

__all__ = ["Refused", "Verdict", "check_trace"]


@dataclass(frozen=True)
class Refused:
    """The first record that is not allowed. before: the server's state until then; None: it was never started."""

    line: int
    record: Record
    before: ServerState | None
    violation: Violation


@dataclass
class Verdict:
    """What a trace amounts to. refused: None: all of it is allowed."""

    steps: int = 0
    starts: int = 0
    voters: list[int] = field(default_factory=list)
    highest_term: int = 0
    committed_index: int = 0
    refused: Refused | None = None


def check_trace(lines: Iterable[bytes | str]) -> Verdict:
    """Raises ValueError if it is no trace; the text names the line and what is wrong there."""
    verdict = Verdict()
    specification = Specification(())
    for number, record in numbered_trace(lines):
        if isinstance(record, Header):
            specification = Specification(record.voters)
            verdict.voters = record.voters
            continue
        before = specification.state_of(record.node)
        try:
            specification.check(record)
        except Violation as violation:
            verdict.refused = Refused(number, record, before, violation)
            break
        verdict.starts += isinstance(record, Started)
        verdict.steps += isinstance(record, Step)
        verdict.highest_term = max(verdict.highest_term, getattr(record, "term", 0))
    verdict.committed_index = specification.committed_index
    return verdict
