"""Damages to logs that change places or come together, and what a finding looks like (the plain ones: tests/processes)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from totora import Entry
from totora.cli.demo_verify import FINDINGS_MAX, Finding, compare

Log = list[Entry[str]]

LINES = ["a", "b", "b", "c", "d", "e"]


def whole() -> Log:
    """Indexes 1 and 5 are the leaders' own."""
    places = [(2, 1), (3, 1), (4, 1), (6, 2), (7, 2), (8, 2)]
    return [Entry(index, term, line) for (index, term), line in zip(places, LINES, strict=True)]


def judge(*logs: Log, unanswered: tuple[int, ...] = ()) -> list[str]:
    acknowledged = {n: entry for n, entry in enumerate(whole()) if n not in unanswered}
    return [str(finding) for finding in compare(dict(enumerate(logs, 1)), LINES, acknowledged)]


def at_each_node(damage: Callable[[Log], None]) -> list[str]:
    """The first finding, which must name the node, wherever it is done."""
    said = []
    for damaged in (0, 1, 2):
        logs = [whole(), whole(), whole()]
        damage(logs[damaged])
        first, *_ = judge(*logs)
        assert first.startswith(f"node {damaged + 1}, ")
        said.append(first.partition(", ")[2])
    return said


def empty(log: Log) -> None:
    log.clear()


def first_missing(log: Log) -> None:
    del log[0]


def moved_up(log: Log) -> None:
    """A line is gone, and what follows has taken its place."""
    log[1:] = [Entry(one.index, one.term, other.value) for one, other in pairwise(log[1:])]


def doubled_within(log: Log) -> None:
    log[3:] = [Entry(5, 1, "b"), *log[3:]]


def swapped_in_place(log: Log) -> None:
    """Indexes and all."""
    log[3], log[4] = log[4], log[3]


def doubled_in_place(log: Log) -> None:
    log.insert(4, log[3])


def of_a_lower_term(log: Log) -> None:
    log.append(Entry(9, 1, "x"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (empty, "index 2: line 1 was acknowledged and is missing: expected 'a'"),
        (first_missing, "index 2: line 1 was acknowledged and is missing: expected 'a'"),
        (moved_up, "index 4: not line 3, which was acknowledged: expected 'b', found 'c'"),
        (doubled_within, "index 5: stands here once too often, or was never sent: found 'b'"),
        (swapped_in_place, "index 6: stands behind index 7: found 'c'"),
        (doubled_in_place, "index 6: stands behind index 6: found 'c'"),
        (of_a_lower_term, "index 9: stands here once too often, or was never sent: found 'x'"),
    ],
)
def test_damage_is_found_on_whichever_node_it_is(damage: Callable[[Log], None], says: str) -> None:
    assert at_each_node(damage) == [says] * 3


def test_terms_do_not_fall() -> None:
    """Line 6 was never answered, and stands in a term that was over."""
    log = [*whole()[:-1], Entry(8, 1, "e")]
    assert judge(log, unanswered=(5,)) == [
        "node 1, index 8: of term 1, stands behind an entry of term 2: found 'e'"
    ]


def test_logs_that_are_equally_wrong_are_found() -> None:
    """All three lost the same line: that they are equal does not help."""
    logs = [whole(), whole(), whole()]
    for log in logs:
        del log[2]
    assert judge(*logs) == [
        f"node {node}, index 4: line 3 was acknowledged and is missing: expected 'b'" for node in (1, 2, 3)
    ]


def test_what_was_never_answered_may_stand_there_once_in_its_order() -> None:
    assert judge(whole(), unanswered=(1, 2)) == []
    without = [entry for entry in whole() if entry.index not in (3, 4)]
    assert judge(without, unanswered=(1, 2)) == []
    one_of_two = [entry for entry in whole() if entry.index != 3]
    assert judge(one_of_two, unanswered=(1, 2)) == []
    thrice = sorted([*whole(), Entry(5, 1, "b")], key=lambda entry: entry.index)
    assert judge(thrice, unanswered=(1, 2)) == [
        "node 1, index 5: stands here once too often, or was never sent: found 'b'"
    ]


def test_two_lines_in_one_place() -> None:
    log = whole()
    acknowledged = dict(enumerate(log))
    acknowledged[2] = log[1]
    first, *_ = compare({1: log}, LINES, acknowledged)
    assert str(first) == "node 1, index 3: acknowledged for two lines, 2 and 3"


def test_each_damaged_log_is_reported_and_none_without_end() -> None:
    """One log that lacks everything does not hide the others' damage."""
    swapped = whole()
    swapped_in_place(swapped)
    lines = [str(n) for n in range(1_000)]
    log = [Entry(n + 2, 1, line) for n, line in enumerate(lines)]
    other = [*log[:500], *log[501:]]
    findings = compare({1: [], 2: log, 3: other}, lines, dict(enumerate(log)))
    assert len([finding for finding in findings if finding.node == 1]) == FINDINGS_MAX
    assert next(finding.index for finding in findings if finding.node == 3) == 502


def test_a_finding_is_one_short_line() -> None:
    finding = Finding(node=1, index=2, what="wrong", expected="x" * 1_000_000, found="a\n\x1b")
    words = str(finding)
    assert words == (
        f"node 1, index 2: wrong: expected '{'x' * 60}'... (1,000,000 characters), found 'a\\n\\x1b'"
    )
