"""Requests of one entry each that share a lot: each gets its own outcome, in their order, whatever comes between."""

from __future__ import annotations

import pytest

from tests.session.test_proposals import FAR, Bench
from totora.core.batch import HEADER_BYTES, join_payloads
from totora.errors import EntryTooLarge, NodeStopped, OutcomeUnknown, Overloaded, RaftError, Unavailable
from totora.session import proposals as limits
from totora.session.units import LENGTH_BYTES, Appended, Lot


class Lots:
    """Lots of one bench, and what each of their entries got."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.outcomes: dict[bytes, Appended | RaftError] = {}

    def open(
        self, *payloads: bytes, need_bytes: int = 1, limit_bytes: int = 1 << 20, deadline_ns: int = FAR
    ) -> Lot:
        def resolve(start: int, stop: int, outcome: Appended | RaftError) -> None:
            for place, payload in enumerate(lot.taken[start:stop]):
                assert payload not in self.outcomes, "one outcome for each"
                if isinstance(outcome, Appended):
                    self.outcomes[payload] = Appended(outcome.first_index + place, outcome.term)
                else:
                    self.outcomes[payload] = outcome

        lot = self.bench.proposals.open_lot(need_bytes, limit_bytes, deadline_ns, resolve)
        for payload in payloads:
            add(lot, payload)
        return lot

    def kinds(self) -> dict[bytes, type[Appended | RaftError]]:
        return {payload: type(outcome) for payload, outcome in self.outcomes.items()}


def add(lot: Lot, payload: bytes) -> None:
    lot.room_bytes -= len(payload) + LENGTH_BYTES
    assert lot.room_bytes >= 0
    lot.taken.append(payload)


@pytest.fixture
def lots() -> Lots:
    return Lots(Bench())


def test_entries_of_a_lot_are_one_batch_and_each_has_its_place(lots: Lots) -> None:
    lot = lots.open(b"a", b"b")
    add(lot, b"c")
    assert lots.bench.proposals.pending == 3
    (unit,) = lots.bench.out()
    assert (unit.sequence, unit.count, unit.body) == (1, 3, join_payloads([b"a", b"b", b"c"]))
    assert lot.room_bytes == 0, "what comes now has another lot"
    lots.bench.accept(unit, 10, term=3)
    assert lots.outcomes == {b"a": Appended(10, 3), b"b": Appended(11, 3), b"c": Appended(12, 3)}
    assert lots.bench.proposals.pending == 0


def test_another_request_closes_the_lot_so_that_all_keep_their_order(lots: Lots) -> None:
    first = lots.open(b"a")
    lots.bench.submit("between")
    assert first.room_bytes == 0
    lots.open(b"z")
    (unit,) = lots.bench.out()
    assert unit.body == join_payloads([b"a", b"between", b"z"])


def test_a_turn_that_ends_closes_the_lot_also_where_nothing_can_be_handed_over(lots: Lots) -> None:
    """Otherwise those that come later would share the deadline of those before them."""
    lot = lots.open(b"a", deadline_ns=50)
    lots.bench.proposals.close_lot()
    assert lot.room_bytes == 0
    lots.open(b"b", deadline_ns=90)
    lots.bench.pass_time(60)
    assert lots.kinds() == {b"a": Unavailable}
    lots.bench.pass_time(40)
    assert lots.kinds() == {b"a": Unavailable, b"b": Unavailable}
    assert lots.bench.proposals.pending == 0


def test_a_lot_has_no_more_room_than_may_be_pending(lots: Lots, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filled with empty entries it reaches the bound and no more; one entry, however large, always finds room."""
    monkeypatch.setattr(limits, "PENDING_PROPOSALS_MAX", 5)
    lots.bench.submit("one")
    lot = lots.open(need_bytes=LENGTH_BYTES)
    while lot.room_bytes:
        add(lot, b"")
    assert lots.bench.proposals.pending == 5
    with pytest.raises(Overloaded):
        lots.open(b"more")


def test_a_lot_has_room_for_the_entry_that_opened_it(lots: Lots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PENDING_PROPOSALS_MAX", 2)
    lots.bench.submit("one")
    assert lots.open(need_bytes=1_000).room_bytes == 1_000


def test_bytes_are_bounded_too(lots: Lots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PENDING_BYTES_MAX", 100)
    lot = lots.open(b"x" * 60, need_bytes=64)
    assert lot.room_bytes == 100 - 64
    with pytest.raises(Overloaded):
        lots.open(need_bytes=64)


def test_a_lot_that_is_too_large_for_the_leader_goes_on_in_parts(lots: Lots) -> None:
    """An entry that is too large by itself is refused, the others are appended, in their order."""
    lots.bench.submit("before", b"1")
    lots.open(b"a" * 40, b"b" * 200, b"c" * 40, b"d" * 40)
    (unit,) = lots.bench.out()
    lots.bench.reject(unit, "too_large", HEADER_BYTES + 100)
    assert lots.kinds() == {b"b" * 200: EntryTooLarge}
    lots.bench.pass_time(limits.RETRY_NS)
    index = 1
    bodies = []
    while units := lots.bench.out():
        for unit in units:
            bodies.append(unit.body)
            assert len(unit.body) <= 100
            lots.bench.accept(unit, index)
            index += unit.count
    assert bodies == [join_payloads([b"1", b"a" * 40, b"c" * 40]), join_payloads([b"d" * 40])]
    assert lots.outcomes[b"a" * 40] == Appended(2, 1)
    assert lots.outcomes[b"d" * 40] == Appended(4, 1)
    assert lots.bench.proposals.pending == 0


def test_what_may_have_been_appended_is_unknown_for_each(lots: Lots) -> None:
    lots.open(b"a" * 80, b"b" * 80)
    (unit,) = lots.bench.out()
    lots.bench.reject(unit, "not_leader", appended=True)
    lots.bench.pass_time(limits.RETRY_NS)
    (unit,) = lots.bench.out()
    lots.bench.reject(unit, "too_large", HEADER_BYTES + 100)
    assert lots.kinds() == {b"a" * 80: OutcomeUnknown, b"b" * 80: OutcomeUnknown}


def test_a_node_that_stops_tells_every_entry(lots: Lots) -> None:
    """Also those of a lot that is still open."""
    lots.open(b"handed")
    lots.bench.out()
    lot = lots.open(b"waiting")
    lots.bench.proposals.stop(None)
    assert lots.kinds() == {b"handed": OutcomeUnknown, b"waiting": NodeStopped}
    assert lot.room_bytes == 0
