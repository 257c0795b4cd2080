"""Each property of Figure 3 as a function: it holds where it should, and fails on a planted violation."""

from __future__ import annotations

import pytest

from totora.core import invariants
from totora.core.batch import Batch

from .cluster import entries, entry


def test_election_safety() -> None:
    """The same leader may be seen again; another one in its term may not."""
    leaders: dict[int, int] = {}
    invariants.election_safety(leaders, 1, 7)
    invariants.election_safety(leaders, 1, 7)
    invariants.election_safety(leaders, 2, 8)
    with pytest.raises(AssertionError, match="Election Safety: nodes 7 and 8 both lead in term 1"):
        invariants.election_safety(leaders, 1, 8)


def test_leader_append_only() -> None:
    """More is fine; less, or something else, is not."""
    invariants.leader_append_only(entries(1, 1), entries(1, 1, 2))
    invariants.leader_append_only([], [])
    for after in (entries(1), entries(1, 2), entries(1, 2, 2), []):
        with pytest.raises(AssertionError, match="Leader Append-Only"):
            invariants.leader_append_only(entries(1, 1), after)


def test_log_matching() -> None:
    """Logs may differ after the last entry that agrees in index and term; below it they may not."""
    for one, other in (
        (entries(1, 1, 2), entries(1, 1, 3)),
        (entries(1, 1), entries(1, 1, 3)),
        (entries(1, 2, 2), entries(1, 3)),
        (entries(1), []),
    ):
        invariants.log_matching(one, other)
        invariants.log_matching(other, one)
    differing: list[tuple[list[Batch], list[Batch]]] = [
        (entries(1, 1, 3), entries(1, 2, 3)),
        ([entry(1, 1, b"x")], [entry(1, 1, b"y")]),
        ([entry(1, 1), entry(2, 2), entry(3, 4)], [entry(1, 1), entry(2, 3), entry(3, 4)]),
        ([entry(1, 1), entry(2, 1)], [entry(1, 1), entry(2, 1, b"a", b"b")]),
    ]
    for one, other in differing:
        with pytest.raises(AssertionError, match="Log Matching"):
            invariants.log_matching(one, other)
        with pytest.raises(AssertionError, match="Log Matching"):
            invariants.log_matching(other, one)


def test_log_matching_of_logs_of_which_one_begins_later() -> None:
    """A snapshot replaced the beginning of one."""
    invariants.log_matching(entries(1, 1, 2)[1:], entries(1, 1, 2))


def test_log_matching_sees_batches_that_are_cut_elsewhere() -> None:
    """The same entries, once as one batch and once as two: batches are atomic, so this is a difference."""
    whole, cut = [entry(1, 1, b"a", b"b"), entry(3, 2)], [entry(1, 1, b"a"), entry(2, 1, b"b"), entry(3, 2)]
    for one, other in ((whole, cut), (cut, whole)):
        with pytest.raises(AssertionError, match="Log Matching"):
            invariants.log_matching(one, other)


def test_leader_completeness() -> None:
    """What an earlier term committed must be there; what is below the log's start is in the snapshot."""
    log = entries(1, 1, 2)
    committed = [(log[0], 1), (log[1], 1), (entry(3, 3), 3)]
    invariants.leader_completeness(committed, 3, log)
    invariants.leader_completeness(committed[:2], 3, log[1:], base_index=1)
    with pytest.raises(AssertionError, match=r"Leader Completeness: the leader of term 4 lacks .* term 3"):
        invariants.leader_completeness(committed, 4, log)
    with pytest.raises(AssertionError, match="Leader Completeness"):
        invariants.leader_completeness(committed, 2, log[1:])


def test_state_machine_safety() -> None:
    """The same entry any number of times; another one at its index never."""
    applied: dict[int, Batch] = {}
    invariants.state_machine_safety(applied, entry(1, 1))
    invariants.state_machine_safety(applied, entry(1, 1))
    with pytest.raises(AssertionError, match="State Machine Safety"):
        invariants.state_machine_safety(applied, entry(1, 2))
