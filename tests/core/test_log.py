"""The log as the core sees it: runs of terms, a bounded tail, compared with a plain list."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totora.core import log as log_module
from totora.core.batch import Batch
from totora.core.effects import HardState
from totora.core.log import RaftLog, Recovered
from totora.core.summary import LogSummary

from .cluster import entries, entry, founded


def log_of(batches: list[Batch], *, base: tuple[int, int] = (0, 0), tail: int | None = None) -> RaftLog:
    """A log as a store would have recovered it, with the newest `tail` batches in memory."""
    runs: list[tuple[int, int]] = []
    summary = LogSummary(founded(3))
    for batch in batches:
        summary.append(batch)
        if not runs or runs[-1][1] != batch.term:
            runs.append((batch.first_index, batch.term))
    return RaftLog(
        Recovered(
            hard_state=HardState(),
            commit_index=0,
            base_index=base[0],
            base_term=base[1],
            runs=runs,
            last_index=batches[-1].last_index if batches else base[0],
            summary=summary,
            tail=batches if tail is None else batches[-tail:],
            largest_batch_bytes=0,
        )
    )


ascending = st.lists(st.integers(1, 6), max_size=12).map(sorted)


def test_an_empty_log_ends_before_its_first_entry() -> None:
    """Index and term 0, as in Figure 2's last_log_index and last_log_term."""
    log = log_of([])
    assert (log.last_index, log.last_term, log.first_index, log.durable_index) == (0, 0, 1, 0)
    assert (log.term_at(0), log.term_at(1)) == (0, None)
    assert log.batches_from(1, 100) is None


def test_a_log_after_a_snapshot_begins_where_that_ends() -> None:
    """Nothing is kept: its last entry is the snapshot's."""
    log = log_of([], base=(7, 3))
    assert (log.last_index, log.last_term, log.first_index) == (7, 3, 8)
    assert (log.term_at(6), log.term_at(7), log.term_at(8)) == (None, 3, None)
    assert log.last_at_or_before(9, 9) == (7, 3)
    log.append(entry(8, 3))
    assert log.last_at_or_before(9, 9) == (8, 3)
    assert log.last_at_or_before(8, 2) == (7, 3)
    assert log.last_at_or_before(5, 9) == (7, 3)


@given(ascending)
def test_terms_are_found_by_index(terms: list[int]) -> None:
    """For every index, before and behind the log too."""
    log = log_of(entries(*terms))
    assert [log.term_at(index) for index in range(len(terms) + 2)] == [0, *terms, None]
    assert log.last_term == (terms[-1] if terms else 0)


@given(ascending, st.integers(0, 14), st.integers(0, 7))
def test_the_last_entry_at_or_before_an_index_and_a_term(terms: list[int], index: int, term: int) -> None:
    """By brute force."""
    best = max([i for i in range(1, len(terms) + 1) if i <= index and terms[i - 1] <= term], default=0)
    expected = (best, terms[best - 1] if best else 0)
    assert log_of(entries(*terms)).last_at_or_before(index, term) == expected


def test_a_log_only_grows_at_its_end_and_in_terms() -> None:
    """A hole and a falling term are bugs of ours: assertions, named after the property."""
    log = log_of(entries(1, 3))
    with pytest.raises(AssertionError, match="no holes"):
        log.append(entry(4, 3))
    with pytest.raises(AssertionError, match="terms never fall"):
        log.append(entry(3, 2))


def test_a_truncation_is_of_something_and_at_the_end_of_a_batch() -> None:
    """Likewise."""
    log = log_of([entry(1, 1), entry(2, 1, b"a", b"b")])
    for index in (3, -1):
        with pytest.raises(AssertionError, match="something that is there"):
            log.truncate_after(index)
    with pytest.raises(AssertionError, match="never cut"):
        log.truncate_after(2)


def test_a_log_under_random_appends_truncations_and_trims_is_like_a_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against a plain list of batches; what memory holds no longer is None, never something else."""
    monkeypatch.setattr(log_module, "TAIL_BYTES_MAX", 400)
    for seed in range(50):
        chance = random.Random(seed)
        log, model, term = log_of([]), list[Batch](), 1
        for _ in range(100):
            if chance.random() < 0.15 and model:
                model = model[: chance.randrange(len(model))]
                log.truncate_after(model[-1].last_index if model else 0)
            else:
                term += chance.random() < 0.2
                model.append(entry(log.last_index + 1, term, *[b"x"] * chance.randint(1, 3)))
                log.append(model[-1])
            if chance.random() < 0.3:
                log.durable_index = log.last_index
                log.trim()
                assert log.tail_bytes <= 800
            assert log.last_index == (model[-1].last_index if model else 0)
            assert log.durable_index <= log.last_index
            for batch in model:
                assert {log.term_at(i) for i in range(batch.first_index, batch.last_index + 1)} == {
                    batch.term
                }
                found = log.batches_from(batch.last_index, 200)
                if found is not None:
                    at = model.index(batch)
                    assert found == model[at : at + len(found)]
                    assert sum(len(b.data) for b in found) <= 200 or len(found) == 1


def test_what_is_not_durable_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much that is: storage does not have it."""
    monkeypatch.setattr(log_module, "TAIL_BYTES_MAX", 100)
    log = log_of([])
    for index in range(1, 20):
        log.append(entry(index, 1))
    log.trim()
    assert log.batches_from(1, 1) == [entry(1, 1)]
    log.durable_index = 5
    log.trim()
    assert log.batches_from(5, 1) is None
    assert log.batches_from(6, 1) == [entry(6, 1)]


def test_the_tail_that_was_recovered_may_be_short() -> None:
    """The store decides how much it returns; terms are known all the same."""
    log = log_of(entries(1, 1, 2, 2, 3), tail=2)
    assert log.batches_from(3, 1_000) is None
    assert log.batches_from(4, 1_000) == entries(1, 1, 2, 2, 3)[3:]
    assert log.term_at(1) == 1
    log.truncate_after(2)
    assert (log.last_index, log.last_term, log.durable_index, log.tail_bytes) == (2, 1, 2, 0)


def test_what_lies_behind_the_last_index_is_not_looked_at() -> None:
    """A read of one entry takes the batch that holds it, however much follows."""
    batches = [entry(1, 1, b"a"), entry(2, 1, b"b", b"c"), entry(4, 1, b"d")]
    log = log_of(batches)
    assert log.batches_from(1, 1_000, 1) == batches[:1]
    assert log.batches_from(1, 1_000, 2) == batches[:2], "the batch that holds it, whole"
    assert log.batches_from(3, 1_000, 3) == batches[1:2]
    assert log.batches_from(1, 1_000, 9) == batches
    assert log.batches_from(3, 1_000, 1) == batches[1:2], "at least one"
