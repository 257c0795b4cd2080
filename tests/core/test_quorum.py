"""Configurations, and majorities of one or two sets of voters, compared with their definition by brute force."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totora.core.quorum import Configuration, Member, committed_index, has_quorum
from totora.errors import ProtocolError

IDS = range(1, 8)

sets = st.frozensets(st.sampled_from(IDS), min_size=1)
indexes = st.dictionaries(st.sampled_from(IDS), st.integers(0, 9))


def configuration(voters: frozenset[int], voters_old: frozenset[int] = frozenset()) -> Configuration:
    return Configuration(tuple(Member(id, "h", id) for id in IDS), voters, voters_old)


def agree(voters: frozenset[int], agreeing: set[int]) -> bool:
    """The definition: more agree than do not."""
    return not voters or len(voters & agreeing) > len(voters - agreeing)


@given(sets, st.sets(st.sampled_from(IDS)))
def test_a_quorum_is_more_than_half(voters: frozenset[int], agreeing: set[int]) -> None:
    """One set of voters; others who agree do not count."""
    assert has_quorum(configuration(voters), agreeing.__contains__) == agree(voters, agreeing)


@given(sets, sets, st.sets(st.sampled_from(IDS)))
def test_a_quorum_of_two_sets_is_one_of_each(
    voters: frozenset[int], voters_old: frozenset[int], agreeing: set[int]
) -> None:
    """Joint consensus (section 6): separate majorities of the old and of the new voters."""
    both = agree(voters, agreeing) and agree(voters_old, agreeing)
    assert has_quorum(configuration(voters, voters_old), agreeing.__contains__) == both


@given(sets, st.one_of(st.just(frozenset[int]()), sets), indexes)
def test_the_committed_index_is_the_highest_that_a_quorum_holds(
    voters: frozenset[int], voters_old: frozenset[int], match_index: dict[int, int]
) -> None:
    """By brute force: the highest N of which a quorum has match_index >= N; who is absent holds nothing."""
    among = configuration(voters, voters_old)

    def held(n: int) -> bool:
        return has_quorum(among, lambda id: match_index.get(id, 0) >= n)

    highest = max(n for n in range(11) if held(n))
    assert committed_index(among, match_index) == highest


@given(sets, st.one_of(st.just(frozenset[int]()), sets))
def test_any_two_quorums_meet(voters: frozenset[int], voters_old: frozenset[int]) -> None:
    """What safety rests on: no two disjoint sets of servers are both a quorum."""
    among = configuration(voters, voters_old)
    everyone = voters | voters_old
    for size in range(len(everyone) + 1):
        for some in itertools.combinations(sorted(everyone), size):
            others = everyone - set(some)
            assert not (has_quorum(among, set(some).__contains__) and has_quorum(among, others.__contains__))


@pytest.mark.parametrize(
    ("members", "voters", "voters_old"),
    [
        ((), frozenset(), frozenset()),
        ((1, 2), frozenset(), frozenset()),
        ((1, 1), frozenset({1}), frozenset()),
        ((1, 2), frozenset({3}), frozenset()),
        ((1, 2), frozenset({1}), frozenset({3})),
    ],
)
def test_a_configuration_holds_its_voters(
    members: tuple[int, ...], voters: frozenset[int], voters_old: frozenset[int]
) -> None:
    """Distinct members, at least one voter, every voter a member."""
    with pytest.raises(ValueError, match="voters"):
        Configuration(tuple(Member(id, "h", id) for id in members), voters, voters_old)


def test_what_a_configuration_says_of_a_member() -> None:
    """Its entry, whether it votes (in either set), and the same with something learned."""
    among = configuration(frozenset({1, 2}), frozenset({2, 3}))
    assert among.member(2) == Member(2, "h", 2)
    assert among.member(99) is None
    assert [among.is_voter(id) for id in (1, 2, 3, 4)] == [True, True, True, False]
    learned = among.with_member(Member(2, "h", 2, b"store"))
    assert learned.member(2) == Member(2, "h", 2, b"store")
    assert learned.member(1) == among.member(1)
    assert Member(2, "host", 99).address == ("host", 99)


@given(sets, st.one_of(st.just(frozenset[int]()), sets))
def test_a_configuration_is_decoded_as_it_was_encoded(
    voters: frozenset[int], voters_old: frozenset[int]
) -> None:
    """And the bytes of equal configurations are equal, in whatever order their sets were built."""
    one = configuration(voters, voters_old)
    other = configuration(frozenset(sorted(voters, reverse=True)), frozenset(sorted(voters_old)))
    assert Configuration.decode(one.encode()) == one
    assert one.encode() == other.encode()


def test_sets_that_collide_are_encoded_in_the_same_order() -> None:
    """1, 9, 17 ... share a slot in a small set, so its order is that of insertion; the encoding's is not."""
    members = tuple(Member(id, "h", id) for id in (1, 9, 17, 25))
    orders = {
        tuple(frozenset(order)): Configuration(members, frozenset(order)).encode()
        for order in itertools.permutations((1, 9, 17, 25))
    }
    assert len(orders) > 1, "the sets did not differ: the test shows nothing"
    assert len(set(orders.values())) == 1


def test_a_configuration_encodes_alike_under_another_hash_seed() -> None:
    """In another process, with another PYTHONHASHSEED."""
    code = (
        "from totora.core.quorum import *;"
        "print(Configuration(tuple(Member(i, 'h', i, b's') for i in (3, 99, 17, 4, 12)),"
        "frozenset((3, 99, 17)), frozenset((17, 4, 12)), b'c').encode().hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x90", b"\x92\x90\x90", b"\xff" * 20])
def test_what_is_no_configuration_is_an_error(data: bytes) -> None:
    """Also one without voters, which is well formed and wrong."""
    with pytest.raises(ProtocolError, match="configuration"):
        Configuration.decode(data)
