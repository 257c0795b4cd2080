"""The judge of the demo and of the kill test is judged: each kind of damage to a log is found, and named by its place."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from totora import Entry
from totora.cli.demo_verify import compare

LINES = ["a", "", "a", "b", "c"]

Log = list[Entry[str]]


def whole_log() -> Log:
    """Index 1 is the first leader's no-op, index 5 the second one's."""
    places = [(2, 1), (3, 1), (4, 1), (6, 2), (7, 2)]
    return [Entry(index, term, line) for (index, term), line in zip(places, LINES, strict=True)]


def judge(damaged: Log, *, unanswered: tuple[int, ...] = ()) -> list[str]:
    acknowledged = {n: entry for n, entry in enumerate(whole_log()) if n not in unanswered}
    logs = {1: whole_log(), 2: damaged, 3: whole_log()}
    return [str(finding) for finding in compare(logs, LINES, acknowledged)]


def test_whole_logs_are_accepted() -> None:
    assert judge(whole_log()) == []
    assert judge(whole_log(), unanswered=(1, 4)) == []


def missing(log: Log) -> None:
    del log[3]


def missing_at_the_end(log: Log) -> None:
    del log[4]


def doubled(log: Log) -> None:
    log.append(Entry(8, 2, "c"))


def swapped(log: Log) -> None:
    log[3], log[4] = Entry(6, 2, "c"), Entry(7, 2, "b")


def changed(log: Log) -> None:
    log[1] = Entry(3, 1, " ")


def of_another_term(log: Log) -> None:
    log[4] = Entry(7, 3, "c")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (missing, "node 2, index 6: line 4 was acknowledged and is missing: expected 'b'"),
        (missing_at_the_end, "node 2, index 7: line 5 was acknowledged and is missing: expected 'c'"),
        (doubled, "node 2, index 8: stands here once too often, or was never sent: found 'c'"),
        (swapped, "node 2, index 6: not line 4, which was acknowledged: expected 'b', found 'c'"),
        (changed, "node 2, index 3: not line 2, which was acknowledged: expected '', found ' '"),
        (of_another_term, "node 2, index 7: line 5 was acknowledged in term 2, but stands in term 3"),
    ],
)
def test_damage_is_named(damage: Callable[[Log], None], says: str) -> None:
    log = whole_log()
    damage(log)
    assert judge(log)[0] == says


def test_logs_that_differ_in_what_nobody_was_told_are_told_apart() -> None:
    """Line 5 was never answered: one node may not have it while the others do."""
    findings = judge(whole_log()[:-1], unanswered=(4,))
    assert findings == ["node 2, index 6: the log holds 4 entries, that of node 1 5"]


def test_acknowledgements_out_of_order_are_found() -> None:
    log = whole_log()
    acknowledged = dict(enumerate(log))
    acknowledged[3], acknowledged[4] = log[4], log[3]
    findings = [str(finding) for finding in compare({1: log}, LINES, acknowledged)]
    assert any("was acknowledged here, but line 4 behind it" in finding for finding in findings)
