"""The fold over the log: it can be taken back, copied and encoded; sessions are bounded."""

from __future__ import annotations

import random

from totora.core import summary as summary_module
from totora.core.batch import Batch, Kind, join_payloads
from totora.core.quorum import Configuration, Member
from totora.core.summary import RUNS_MAX, LogSummary, session_number

from .cluster import entry, founded, noop


def configuration_entry(index: int, term: int, configuration: Configuration) -> Batch:
    return Batch.build(Kind.CONFIGURATION, term, index, 1, join_payloads([configuration.encode()]))


def fold(batches: list[Batch]) -> LogSummary:
    summary = LogSummary(founded(3))
    for batch in batches:
        summary.append(batch)
    return summary


def seen(summary: LogSummary) -> object:
    """All that a summary tells, but for the order of its sessions and what it has forgotten."""
    table = summary.sessions
    return (
        summary.configurations,
        (summary.last_user_index, summary.last_user_term),
        {id: session.runs for id in range(1, 9) if (session := table.get(id)) is not None},
    )


def random_log(chance: random.Random, length: int) -> list[Batch]:
    log: list[Batch] = []
    next_sequence: dict[int, int] = {}
    for number in range(length):
        index = log[-1].last_index + 1 if log else 1
        term = 1 + number // 5
        kind = chance.random()
        if kind < 0.1:
            log.append(noop(index, term))
        elif kind < 0.2:
            members = (Member(1, "h", number),)
            log.append(configuration_entry(index, term, Configuration(members, frozenset({1}))))
        else:
            session = chance.randrange(5)
            payloads = [b"x"] * chance.randint(1, 3)
            sequence = next_sequence.get(session, 1)
            next_sequence[session] = sequence + len(payloads)
            numbered = {"session": session, "sequence": sequence} if session else {}
            log.append(entry(index, term, *payloads, **numbered))
    return log


def test_what_is_taken_back_was_never_there() -> None:
    """Random logs, cut anywhere above what is settled: as if the rest had not been folded. More than 64 runs included."""
    for seed in range(100):
        chance = random.Random(seed)
        log = random_log(chance, 40 if seed % 4 else 5 * RUNS_MAX)
        keep = chance.randrange(len(log))
        settled = log[chance.randrange(keep + 1)].last_index if keep else 0
        summary = fold(log)
        summary.settle(min(settled, log[keep - 1].last_index) if keep else 0)
        summary.truncate_after(log[keep - 1].last_index if keep else 0)
        expected = fold(log[:keep])
        expected.settle(min(settled, log[keep - 1].last_index) if keep else 0)
        assert seen(summary) == seen(expected)
        for batch in log[keep:]:
            summary.append(batch)
        expected = fold(log)
        assert summary.configuration == expected.configuration
        assert (summary.last_user_index, summary.last_user_term) == (
            expected.last_user_index,
            expected.last_user_term,
        )


def test_a_copy_is_independent_and_can_be_taken_back_too() -> None:
    """What is folded into one does not show in the other."""
    log = random_log(random.Random(3), 30)
    summary = fold(log)
    twin = summary.copy()
    assert seen(twin) == seen(summary)
    before = repr(seen(summary))
    twin.append(entry(log[-1].last_index + 1, 99, session=1, sequence=1_000))
    twin.truncate_after(log[9].last_index)
    assert repr(seen(summary)) == before
    assert seen(twin) == seen(fold(log[:10]))


def test_a_summary_is_decoded_as_it_was_encoded() -> None:
    """The horizon too; the same state is the same bytes."""
    summary = fold(random_log(random.Random(4), 60))
    summary.sessions.horizon = 17
    decoded = LogSummary.decode(summary.encode())
    assert seen(decoded) == seen(summary)
    assert decoded.sessions.horizon == 17
    assert decoded.encode() == summary.encode() == summary.copy().encode()
    assert LogSummary.decode(memoryview(summary.encode())).configuration == summary.configuration


def test_settling_forgets_configurations_that_were_replaced() -> None:
    """The one in force is the latest; a committed one will not come back."""
    one, other = founded(3), founded(5)
    summary = fold([configuration_entry(1, 1, one), noop(2, 1), configuration_entry(3, 1, other)])
    assert [index for index, _ in summary.configurations] == [0, 1, 3]
    summary.settle(2)
    assert [index for index, _ in summary.configurations] == [1, 3]
    summary.truncate_after(2)
    assert summary.configuration == one
    summary.append(configuration_entry(3, 2, other))
    summary.settle(9)
    assert summary.configurations == [(3, other)]


def test_sessions_are_bounded_and_the_oldest_is_forgotten() -> None:
    """The one that appended least recently; the horizon is where it last stood."""
    summary = LogSummary(founded(3))
    for number in range(1, summary_module.SESSIONS_MAX + 1):
        summary.append(entry(number, 1, session=number, sequence=1))
    assert (len(summary.sessions), summary.sessions.horizon) == (summary_module.SESSIONS_MAX, 0)
    index = summary_module.SESSIONS_MAX + 1
    summary.append(entry(index, 1, session=1, sequence=2))
    summary.append(entry(index + 1, 1, session=999_999, sequence=1))
    assert (len(summary.sessions), summary.sessions.horizon) == (summary_module.SESSIONS_MAX, 2)
    assert summary.sessions.get(2) is None
    assert summary.sessions.get(1) is not None


def test_taking_back_what_was_forgotten_meanwhile_is_nothing() -> None:
    """A session's batch is truncated after the session was pushed out: it stays forgotten, and the horizon stays."""
    summary = LogSummary(founded(3))
    table = summary.sessions
    summary.append(entry(1, 1, session=1, sequence=1))
    for number in range(2, summary_module.SESSIONS_MAX + 3):
        summary.append(entry(number, 1, session=number, sequence=1))
    assert table.get(1) is None
    horizon = table.horizon
    summary.truncate_after(0)
    assert (len(table), table.horizon) == (0, horizon)
    assert horizon >= 2


def test_of_a_holder_the_latest_session_is_remembered_and_taken_back() -> None:
    """In a copy too, which shares nothing with the original."""
    first, second = session_number(7, 0), session_number(7, 1)
    summary = fold([entry(1, 1, session=first, sequence=1), entry(2, 1, session=first, sequence=2)])
    for index, sequence in ((3, 1), (4, 2)):
        summary.append(entry(index, 1, session=second, sequence=sequence))
    table = summary.sessions
    assert (len(table), table.get(first), table.is_over(first), table.is_over(second)) == (
        1,
        None,
        True,
        False,
    )
    decoded = LogSummary.decode(summary.encode()).sessions
    assert decoded.get(second) == table.get(second)
    twin = summary.copy()
    for one in (summary, twin):
        one.truncate_after(3)
        known = one.sessions.get(second)
        assert known is not None
        assert known.next_sequence == 2
        one.truncate_after(2)
        known = one.sessions.get(first)
        assert known is not None
        assert known.next_sequence == 3
        one.append(entry(3, 2, session=first, sequence=3))


def test_a_session_finds_what_it_still_remembers() -> None:
    """A batch, a part of one, nothing older than the oldest, nothing beyond the newest."""
    summary = fold([entry(1, 1, b"a", b"b", session=1, sequence=1), entry(3, 1, b"c", session=1, sequence=3)])
    session = summary.sessions.get(1)
    assert session is not None
    assert session.next_sequence == 4
    assert session.find(1, 2) == session.find(2, 1) == (1, 1, 2, 1)
    assert session.find(3, 1) == (3, 3, 1, 1)
    assert session.find(2, 2) is None
    assert session.find(0, 1) is None
    assert session.find(4, 1) is None
