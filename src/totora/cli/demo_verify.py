"""Were the logs on the three disks what they must be? Reads closed data directories, knows no process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice, pairwise
from typing import Final

import msgspec

from ..types import Entry, LogIndex, NodeId

__all__ = ["FINDINGS_MAX", "Acknowledged", "Finding", "compare"]

FINDINGS_MAX: Final = 5
"""For each log; what follows the first few is mostly their consequence."""

QUOTED_MAX: Final = 60
"""Characters of an entry that a finding shows."""

Acknowledged = Mapping[int, Entry[str]]
"""By the line's number, from 0: where the cluster said that it stands."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong."""

    node: NodeId
    index: LogIndex
    what: str
    expected: str | None = None
    found: str | None = None

    def __str__(self) -> str:
        details = [
            f"{name} {_quoted(value)}"
            for name, value in (("expected", self.expected), ("found", self.found))
            if value is not None
        ]
        return f"node {self.node}, index {self.index}: {self.what}" + (
            f": {', '.join(details)}" if details else ""
        )


def _quoted(value: str) -> str:
    if len(value) <= QUOTED_MAX:
        return repr(value)
    return f"{value[:QUOTED_MAX]!r}... ({len(value):,} characters)"


def compare(
    logs: Mapping[NodeId, Sequence[Entry[str]]], lines: Sequence[str], acknowledged: Acknowledged
) -> list[Finding]:
    """What is wrong with these logs, empty if nothing is; the first few findings of each.

    Every acknowledged line stands at its place on every node, in the order of the input; nothing else stands there but
    lines whose outcome is unknown, each at most once; all logs are equal.
    """
    findings: list[Finding] = []
    (first_node, first), *_ = logs.items()
    for node, log in logs.items():
        of_log = chain(
            _against_input(node, log, lines, acknowledged),
            _against_order(node, log),
            _against_each_other(first_node, first, node, log),
        )
        findings += islice(of_log, FINDINGS_MAX)
    return findings


def _against_input(
    node: NodeId, log: Sequence[Entry[str]], lines: Sequence[str], acknowledged: Acknowledged
) -> Iterator[Finding]:
    at = {entry.index: entry for entry in log}
    places: dict[LogIndex, int] = {}
    behind, previous = 0, 0
    for number in sorted(acknowledged):
        told, line = acknowledged[number], lines[number]
        if told.index in places:
            what = f"acknowledged for two lines, {places[told.index] + 1} and {number + 1}"
            yield Finding(node=node, index=told.index, what=what)
        elif told.index < previous:
            what = f"line {number + 1} was acknowledged here, but line {behind + 1} behind it, at {previous}"
            yield Finding(node=node, index=told.index, what=what)
        behind, previous = number, told.index
        places[told.index] = number
        entry = at.get(told.index)
        if entry is None:
            what = f"line {number + 1} was acknowledged and is missing"
            yield Finding(node=node, index=told.index, what=what, expected=line)
        elif entry.value != line:
            what = f"not line {number + 1}, which was acknowledged"
            yield Finding(node=node, index=told.index, what=what, expected=line, found=entry.value)
        elif entry.term != told.term:
            what = f"line {number + 1} was acknowledged in term {told.term}, but stands in term {entry.term}"
            yield Finding(node=node, index=told.index, what=what)
    yield from _unaccounted(node, log, lines, places)


def _unaccounted(
    node: NodeId, log: Sequence[Entry[str]], lines: Sequence[str], places: Mapping[LogIndex, int]
) -> Iterator[Finding]:
    """Entries that nobody acknowledged: right only if they are, in order, lines that were sent and never answered."""
    number = -1
    answered = set(places.values())
    for entry in log:
        known = places.get(entry.index)
        if known is not None:
            number = max(number, known)
            continue
        following = number + 1
        while following < len(lines) and following not in answered and lines[following] != entry.value:
            following += 1
        if following < len(lines) and following not in answered:
            number = following
            continue
        what = "stands here once too often, or was never sent"
        yield Finding(node=node, index=entry.index, what=what, found=entry.value)


def _against_order(node: NodeId, log: Sequence[Entry[str]]) -> Iterator[Finding]:
    """Indexes ascend, terms do not fall (section 5.3)."""
    for one, other in pairwise(log):
        if other.index <= one.index:
            what = f"stands behind index {one.index}"
            yield Finding(node=node, index=other.index, what=what, found=other.value)
        elif other.term < one.term:
            what = f"of term {other.term}, stands behind an entry of term {one.term}"
            yield Finding(node=node, index=other.index, what=what, found=other.value)


def _against_each_other(
    first_node: NodeId, first: Sequence[Entry[str]], node: NodeId, log: Sequence[Entry[str]]
) -> Iterator[Finding]:
    for one, other in zip(first, log, strict=False):
        if one != other:
            what = f"differs from node {first_node}, which has index {one.index} of term {one.term} in this place"
            yield Finding(node=node, index=other.index, what=what, expected=one.value, found=other.value)
            return
    if len(first) != len(log):
        what = f"the log holds {len(log):,} entries, that of node {first_node} {len(first):,}"
        yield Finding(node=node, index=log[-1].index if log else 0, what=what)
