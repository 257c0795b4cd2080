"""Who is let in, and what is said to who is not: every reason of both ends (DESIGN 6)."""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.levels import by_level
from tests.wire.samples import HANDSHAKES, SAMPLES, any_message, bits_flipped, framed
from totora.core.quorum import Configuration, Member
from totora.errors import ProtocolError
from totora.wire.frames import HANDSHAKE_BYTES_MAX, FrameReader
from totora.wire.handshake import (
    VERSION_MAX,
    VERSION_MIN,
    Hello,
    Local,
    Refusal,
    StreamRole,
    Welcome,
    decode_answer,
    decode_hello,
    encode_handshake,
    hash_of_list,
    judge,
    judge_welcome,
)

EXAMPLES: Final = by_level(quick=25, ci=1_000)

CLUSTER: Final = b"c" * 16
OTHER: Final = b"o" * 16
TYPE: Final = b"t" * 16
ROLES: Final[tuple[StreamRole, ...]] = ("control", "bulk", "client")
PEER_ROLES: Final = ROLES[:2]


def store(id: int) -> bytes:
    return bytes([id]) * 16


def local(
    id: int = 1,
    *,
    cluster_id: bytes | None = CLUSTER,
    known: frozenset[int] = frozenset(),
    members: tuple[int, ...] = (1, 2, 3),
    fingerprint: bytes = TYPE,
) -> Local:
    """A node of a cluster that has recorded the stores of `known`."""
    listed = tuple(Member(n, "127.0.0.1", 7000 + n, store(n) if n in known else None) for n in members)
    return Local(
        id,
        store(id),
        4,
        fingerprint,
        hash_of_list(members),
        ("127.0.0.1", 7000 + id),
        cluster_id,
        Configuration(listed, frozenset(members), cluster_id=cluster_id),
        9,
    )


def changed(hello: Any, **fields: object) -> Any:
    return msgspec.structs.replace(hello, **fields)


def code(answer: Welcome | Refusal | None) -> str:
    assert isinstance(answer, Refusal), f"let in: {answer}"
    assert answer.text, "a person is told why"
    return answer.code


# -- the acceptor ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("clusters", [(CLUSTER, CLUSTER), (CLUSTER, None), (None, CLUSTER), (None, None)])
def test_a_member_is_let_in(role: StreamRole, clusters: tuple[bytes | None, bytes | None]) -> None:
    """Whether or not the cluster has a name already, at either end."""
    mine, its = clusters
    acceptor = local(1, cluster_id=mine, known=frozenset((1, 2)))
    answer = judge(local(2, cluster_id=its).hello(role, 1), acceptor, None)
    assert answer == Welcome(1, mine, 1, store(1), 4, 9)


def test_a_client_that_knows_nothing_is_let_in() -> None:
    stranger = Hello("totora", 1, 1, "client", None, b"", 0, b"", 0, b"", "", 0, None)
    assert isinstance(judge(stranger, local(), None), Welcome)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "versions", [(VERSION_MAX + 1, VERSION_MAX + 9), (0, VERSION_MIN - 1), (-5, -1), (1 << 63, 1 << 63)]
)
def test_another_protocol_version_is_refused(role: StreamRole, versions: tuple[int, int]) -> None:
    low, high = versions
    hello = changed(local(2).hello(role, 1), version_min=low, version_max=high)
    assert code(judge(hello, local(), None)) == "version"


def test_version_ranges_that_overlap_agree_on_the_highest_of_both() -> None:
    hello = changed(local(2).hello("control", 1), version_min=0, version_max=VERSION_MAX + 9)
    assert judge(hello, local(), None) == local().welcome(VERSION_MAX)


def test_the_version_is_judged_before_anything_else() -> None:
    """Nothing else in the Hello means for sure what it means here."""
    hello = changed(
        local(7, cluster_id=OTHER, fingerprint=b"x").hello("control", 5), version_min=2, version_max=2
    )
    assert code(judge(hello, local(), None)) == "version"


@pytest.mark.parametrize("role", ROLES)
def test_who_wants_another_node_is_refused(role: StreamRole) -> None:
    """The addresses in somebody's list are mixed up."""
    assert code(judge(local(2).hello(role, 3), local(), None)) == "address"


@pytest.mark.parametrize("role", ROLES)
def test_another_cluster_is_refused(role: StreamRole) -> None:
    assert code(judge(local(2, cluster_id=OTHER).hello(role, 1), local(), None)) == "cluster"


@pytest.mark.parametrize("role", PEER_ROLES)
@pytest.mark.parametrize("clusters", [(CLUSTER, None), (None, CLUSTER), (None, None)])
def test_another_list_is_refused_while_one_of_both_knows_no_cluster(
    role: StreamRole, clusters: tuple[bytes | None, bytes | None]
) -> None:
    mine, its = clusters
    hello = local(2, cluster_id=its, members=(1, 2)).hello(role, 1)
    assert code(judge(hello, local(cluster_id=mine), None)) == "list"


def test_once_both_know_the_cluster_the_first_list_does_not_count() -> None:
    """Members come and go; the lists with which nodes were first started differ then."""
    hello = local(2, members=(1, 2)).hello("control", 1)
    assert isinstance(judge(hello, local(), None), Welcome)


def test_a_client_has_no_list() -> None:
    hello = changed(local(2).hello("client", 1), list_hash=b"", cluster_id=None)
    assert isinstance(judge(hello, local(cluster_id=None), None), Welcome)


@pytest.mark.parametrize("role", ROLES)
def test_another_entry_type_is_refused(role: StreamRole) -> None:
    hello = local(2, fingerprint=b"x" * 16).hello(role, 1)
    assert code(judge(hello, local(), None)) == "entry_type"


@pytest.mark.parametrize("role", PEER_ROLES)
def test_a_peer_must_name_its_entry_type(role: StreamRole) -> None:
    """Only a client may leave it open."""
    assert code(judge(local(2, fingerprint=b"").hello(role, 1), local(), None)) == "entry_type"


@pytest.mark.parametrize("role", PEER_ROLES)
@pytest.mark.parametrize("to", [1, None])
def test_a_node_with_this_nodes_own_id_is_refused(role: StreamRole, to: int | None) -> None:
    """Two nodes with one id, or a node whose own address stands for another in its list."""
    assert code(judge(local(1).hello(role, to), local(), None)) == "self"


@pytest.mark.parametrize("role", PEER_ROLES)
@pytest.mark.parametrize("id", [4, 0, -1, (1 << 64) - 1])
def test_who_is_no_member_is_refused(role: StreamRole, id: int) -> None:
    hello = changed(local(2).hello(role, 1), node_id=id)
    assert code(judge(hello, local(), None)) == "member"


@pytest.mark.parametrize("role", PEER_ROLES)
@pytest.mark.parametrize("its_store", [store(3), b"", store(2) + b"x"])
def test_another_data_directory_is_refused(role: StreamRole, its_store: bytes) -> None:
    """A wiped node must not vote a second time, nor may a second node with the same id."""
    hello = changed(local(2).hello(role, 1), store_id=its_store)
    assert code(judge(hello, local(known=frozenset((2,))), None)) == "store"
    assert isinstance(judge(hello, local(), None), Welcome), "not before the log knows the right one"


@pytest.mark.parametrize("role", PEER_ROLES)
@pytest.mark.parametrize(
    "names",
    [frozenset[str](), frozenset(("node-3",)), frozenset(("node-22", "node-2.example", "2", "NODE-2"))],
)
def test_a_certificate_that_does_not_name_the_node_is_refused(
    role: StreamRole, names: frozenset[str]
) -> None:
    assert code(judge(local(2).hello(role, 1), local(), names)) == "certificate"


@pytest.mark.parametrize("names", [frozenset(("node-2",)), frozenset(("node-3", "node-2"))])
def test_a_certificate_that_names_the_node_is_accepted(names: frozenset[str]) -> None:
    assert isinstance(judge(local(2).hello("control", 1), local(), names), Welcome)


def test_a_clients_certificate_need_not_name_a_node() -> None:
    """That the authority signed it is what a client's certificate says."""
    hello = local(2).hello("client", 1)
    assert isinstance(judge(hello, local(), frozenset(("somebody",))), Welcome)


@pytest.mark.parametrize("role", ROLES)
def test_any_hello_gets_an_answer_that_arrives(role: StreamRole) -> None:
    """Whatever its fields say: judging raises nothing, and the answer fits into the handshake's limit."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(any_message(Hello), st.none() | st.frozensets(st.text(max_size=8), max_size=3))
    def check(hello: Hello, certified: frozenset[str] | None) -> None:
        answer = judge(changed(hello, role=role), local(), certified)
        data = b"".join(encode_handshake(answer))
        assert len(data) <= 12 + HANDSHAKE_BYTES_MAX
        arrived = [decode_answer(header) for header, _ in FrameReader(HANDSHAKE_BYTES_MAX).feed(data)]
        assert arrived == [answer]

    check()


@pytest.mark.parametrize("field", ["cluster_id", "list_hash", "store_id", "fingerprint"])
def test_a_long_name_is_no_name(field: str) -> None:
    """A refusal quotes it: it must not grow beyond what the other end takes."""
    hello = changed(local(2).hello("control", 1), **{field: b"x" * 64})
    (header,) = headers(hello)
    answer = judge(decode_hello(header), local(cluster_id=b"y" * 64), None)
    assert sum(map(len, encode_handshake(answer))) <= 12 + HANDSHAKE_BYTES_MAX
    (header,) = headers(changed(hello, **{field: b"x" * 65}))
    with pytest.raises(ProtocolError, match="length <= 64"):
        decode_hello(header)


def test_a_refusal_that_quotes_a_long_certificate_arrives() -> None:
    names = frozenset(f"name-{n}.example.org" for n in range(100))
    answer = judge(local(2).hello("control", 1), local(), names)
    assert code(answer) == "certificate"
    assert sum(map(len, encode_handshake(answer))) <= 12 + HANDSHAKE_BYTES_MAX


# -- the dialler -----------------------------------------------------------------------------------


def welcome(id: int = 2, **fields: Any) -> Welcome:
    answer: Welcome = changed(local(id).welcome(1), **fields)
    return answer


@pytest.mark.parametrize("clusters", [(CLUSTER, CLUSTER), (CLUSTER, None), (None, CLUSTER), (None, None)])
@pytest.mark.parametrize("certified", [None, frozenset(("node-2",))])
def test_the_expected_node_is_accepted(
    clusters: tuple[bytes | None, bytes | None], certified: frozenset[str] | None
) -> None:
    mine, its = clusters
    dialler = local(cluster_id=mine, known=frozenset((2,)))
    assert judge_welcome(welcome(cluster_id=its), 2, dialler, certified) is None


@pytest.mark.parametrize("id", [1, 3, 4, 0, -1])
def test_another_node_at_the_address_is_not_accepted(id: int) -> None:
    """Itself included."""
    assert code(judge_welcome(welcome(node_id=id), 2, local(), None)) == "address"


@pytest.mark.parametrize("version", [VERSION_MIN - 1, VERSION_MAX + 1, -1, 1 << 63])
def test_a_version_that_was_not_offered_is_not_accepted(version: int) -> None:
    assert code(judge_welcome(welcome(version=version), 2, local(), None)) == "version"


def test_another_cluster_is_not_accepted() -> None:
    assert code(judge_welcome(welcome(cluster_id=OTHER), 2, local(), None)) == "cluster"


def test_another_data_directory_is_not_accepted() -> None:
    answer = welcome(store_id=store(3))
    assert code(judge_welcome(answer, 2, local(known=frozenset((2,))), None)) == "store"
    assert judge_welcome(answer, 2, local(), None) is None, "not before the log knows the right one"


@pytest.mark.parametrize("names", [frozenset[str](), frozenset(("node-1",)), frozenset(("node-22",))])
def test_a_certificate_of_another_node_is_not_accepted(names: frozenset[str]) -> None:
    assert code(judge_welcome(welcome(), 2, local(), names)) == "certificate"


# -- the bytes -------------------------------------------------------------------------------------


def headers(message: Hello | Welcome | Refusal) -> list[memoryview]:
    data = b"".join(encode_handshake(message))
    return [header for header, _ in FrameReader(HANDSHAKE_BYTES_MAX).feed(data)]


@given(any_message(Hello))
@settings(max_examples=EXAMPLES, deadline=None)
def test_every_hello_of_this_protocol_comes_back(hello: Hello) -> None:
    hello = changed(hello, magic="totora")
    assert list(map(decode_hello, headers(hello))) == [hello]


@pytest.mark.parametrize("kind", [Welcome, Refusal])
def test_every_answer_comes_back(kind: type[Any]) -> None:
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(any_message(kind))
    def check(answer: Any) -> None:
        assert list(map(decode_answer, headers(answer))) == [answer]

    check()


@pytest.mark.parametrize("magic", ["", "Totora", "totora ", "raft", "totora\0"])
def test_another_magic_is_refused(magic: str) -> None:
    (header,) = headers(changed(local(2).hello("client", 1), magic=magic))
    with pytest.raises(ProtocolError, match="not a totora node"):
        decode_hello(header)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x91" * 100_000,
        b"\x81\x01" * 100_000,
        b"\x91\xdd\xff\xff\xff\xff",
    ],
    ids=["nothing", "nil", "http", "tls", "nested lists", "nested maps", "a long list"],
)
def test_what_is_no_greeting_is_refused(data: bytes) -> None:
    """A web browser, a TLS client where none is expected, and those who mean it."""
    for decode in (decode_hello, decode_answer):
        with pytest.raises(ProtocolError):
            decode(memoryview(data))


@pytest.mark.parametrize("greeting", HANDSHAKES, ids=lambda greeting: type(greeting).__name__)
def test_nesting_behind_the_last_field_is_refused(greeting: Hello | Welcome | Refusal) -> None:
    """What a newer version may add is passed over, but not at any depth."""
    (header,) = headers(greeting)
    opened = bytes([header[0] + 1]) + bytes(header[1:])
    decode = decode_hello if isinstance(greeting, Hello) else decode_answer
    assert decode(memoryview(opened + b"\x00")) == greeting
    with pytest.raises(ProtocolError):
        decode(memoryview(opened + b"\x91" * 100_000 + b"\x00"))


def test_a_hello_is_no_answer_and_an_answer_no_hello() -> None:
    """Nor is a message either of them."""
    hello, *answers = HANDSHAKES
    with pytest.raises(ProtocolError):
        decode_answer(*headers(hello))
    for answer in answers:
        with pytest.raises(ProtocolError):
            decode_hello(*headers(answer))
    for message in SAMPLES:
        for decode in (decode_hello, decode_answer):
            with pytest.raises(ProtocolError):
                decode(memoryview(framed(message)[12:]))


@pytest.mark.parametrize("greeting", HANDSHAKES, ids=lambda greeting: type(greeting).__name__)
def test_a_greeting_that_is_cut_or_followed_is_refused(greeting: Hello | Welcome | Refusal) -> None:
    (header,) = headers(greeting)
    decode = decode_hello if isinstance(greeting, Hello) else decode_answer
    for end in range(len(header)):
        with pytest.raises(ProtocolError):
            decode(header[:end])
    with pytest.raises(ProtocolError):
        decode(memoryview(bytes(header) + b"\x00"))


@pytest.mark.parametrize("greeting", HANDSHAKES, ids=lambda greeting: type(greeting).__name__)
def test_a_field_of_a_wrong_type_is_refused(greeting: Hello | Welcome | Refusal) -> None:
    (header,) = headers(greeting)
    fields: list[object] = msgspec.msgpack.decode(header)
    decode = decode_hello if isinstance(greeting, Hello) else decode_answer
    impossible: tuple[object, ...] = 1.5, [], {}, True, msgspec.msgpack.Ext(1, b"1234")
    for at in range(len(fields)):
        for wrong in impossible:
            changed_fields = [*fields[:at], wrong, *fields[at + 1 :]]
            with pytest.raises(ProtocolError):
                decode(memoryview(msgspec.msgpack.encode(changed_fields)))


def test_flipped_bits_are_judged_or_refused_and_nothing_else() -> None:
    """Greetings whose checksum fits although bits were flipped: whatever comes out of it gets an answer."""
    chance = random.Random(1)
    (header,) = headers(local(2).hello("control", 1))
    for _ in range(by_level(quick=2_000, ci=10_000)):
        bits = [chance.randrange(8 * len(header)) for _ in range(chance.randrange(1, 4))]
        try:
            hello = decode_hello(memoryview(bits_flipped(bytes(header), bits)))
        except ProtocolError:
            continue
        assert isinstance(judge(hello, local(), None), Welcome | Refusal)


# -- the list --------------------------------------------------------------------------------------


def test_the_lists_hash_depends_on_the_ids_alone() -> None:
    assert hash_of_list([1, 2, 3]) == hash_of_list({3: "a", 1: "b", 2: "c"}) == hash_of_list((3, 2, 1))
    hashes = {hash_of_list(ids) for ids in ((1, 2, 3), (1, 2), (1, 23), (12, 3), (123,), (1, 2, 3, 4))}
    assert len(hashes) == 6
    assert hash_of_list((1, 2, 3)).hex() == "8a6ae15122001229edb8866f56e342af", "the same in every version"
