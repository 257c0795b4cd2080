"""The five properties of Figure 3, as functions: shared by assertions, tests and simulation.

Each takes what an observer of all servers knows and raises AssertionError, naming the property, if it does not hold. Logs are
sequences of batches, without what a snapshot replaced.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from ..types import LogIndex, NodeId, Term
from .batch import Batch

__all__ = [
    "election_safety",
    "leader_append_only",
    "leader_completeness",
    "log_matching",
    "state_machine_safety",
]


def election_safety(leaders: MutableMapping[Term, NodeId], term: Term, leader_id: NodeId) -> None:
    """At most one leader can be elected in a given term (section 5.2). `leaders` remembers those seen so far."""
    known = leaders.setdefault(term, leader_id)
    assert known == leader_id, f"Election Safety: nodes {known} and {leader_id} both lead in term {term}"


def leader_append_only(before: Sequence[Batch], after: Sequence[Batch]) -> None:
    """A leader never overwrites or deletes entries in its log; it only appends (section 5.3)."""
    assert list(after[: len(before)]) == list(before), (
        "Leader Append-Only: a leader changed what its log held"
    )


def log_matching(one: Sequence[Batch], other: Sequence[Batch]) -> None:
    """If two logs hold an entry of the same index and term, they are identical up to it (section 5.3)."""
    by_index = {batch.first_index: batch for batch in other}
    matched = False
    for batch in reversed(one):
        twin = by_index.get(batch.first_index)
        if twin is None:
            continue
        if matched or twin.term == batch.term:
            matched = True
            assert twin == batch, f"Log Matching: {batch!r} and {twin!r} differ below an entry that agrees"


def leader_completeness(
    committed: Sequence[tuple[Batch, Term]], term: Term, log: Sequence[Batch], base_index: LogIndex = 0
) -> None:
    """What was committed in a term is in the logs of the leaders of all later terms (section 5.4).

    committed: batches with the term in which each was committed; `log` is that of the leader of `term`, after `base_index`.
    """
    by_index = {batch.first_index: batch for batch in log}
    for batch, committed_in in committed:
        if committed_in < term and batch.first_index > base_index:
            assert by_index.get(batch.first_index) == batch, (
                f"Leader Completeness: the leader of term {term} lacks {batch!r}, committed in term {committed_in}"
            )


def state_machine_safety(applied: MutableMapping[LogIndex, Batch], batch: Batch) -> None:
    """If a server has applied an entry at an index, no other ever applies another one there (section 5.4.3)."""
    known = applied.setdefault(batch.first_index, batch)
    assert known == batch, f"State Machine Safety: {known!r} and {batch!r} were both applied"
