"""A user's entries and their bytes: what is of the type comes back, what is not is refused, by either end's own words."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.levels import by_level
from tests.wire.samples import any_value
from totora.errors import ConfigurationError, InvalidRequest
from totora.wire.entries import EntryCodec

EXAMPLES: Final = by_level(quick=50, ci=1_000)


class Set(msgspec.Struct, tag=True):
    key: str
    value: int


class Delete(msgspec.Struct, tag=True):
    key: str


class Grown(msgspec.Struct, tag="Delete"):
    key: str
    why: str = ""


class Positive(msgspec.Struct):
    """A type that checks itself, with an error of its own."""

    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise KeyError("negative")


@dataclass
class Point:
    x: int
    y: int


class Plain:
    """What msgspec knows nothing of."""


@dataclass
class Unresolved:
    """Names a type that does not exist."""

    member: Missing  # type: ignore[name-defined]  # noqa: F821


Command: Final[Any] = Set | Delete
ANYTHING: Final[Any] = Any


def codec_of(entry_type: Any) -> EntryCodec[Any]:
    return EntryCodec(entry_type)


# -- there and back --------------------------------------------------------------------------------


@given(st.text(st.characters(codec="utf-8")))
@settings(max_examples=EXAMPLES, deadline=None)
def test_text_is_utf_8_as_it_is(text: str) -> None:
    codec = codec_of(str)
    assert codec.encode(text) == text.encode()
    assert codec.decode(codec.encode(text)) == text


@given(st.binary())
@settings(max_examples=EXAMPLES, deadline=None)
def test_bytes_are_as_they_are(data: bytes) -> None:
    codec = codec_of(bytes)
    assert codec.encode(data) == data
    assert codec.decode(memoryview(data)) == data


@pytest.mark.parametrize(
    ("entry_type", "entry"),
    [
        (int, -(1 << 63)),
        (int, (1 << 64) - 1),
        (float, 1.5),
        (bool, True),
        (type(None), None),
        (dict, {"b": 1, "a": [None]}),
        (dict[int, str], {2: "two", 1: "one"}),
        (list[Point], [Point(1, 2), Point(3, 4)]),
        (tuple[int, str], (1, "one")),
        (set[int], {3, 1, 2}),
        (int | str, "one"),
        (Command, Set("key", 1)),
        (Command, Delete("key")),
        (Positive, Positive(0)),
        (dt.datetime, dt.datetime(2024, 2, 29, tzinfo=dt.UTC)),
        (ANYTHING, {"a": [1, 2.5, "three", b"four", None, {"b": False}]}),
    ],
    ids=str,
)
def test_an_entry_comes_back(entry_type: Any, entry: Any) -> None:
    codec = codec_of(entry_type)
    payload = codec.encode(entry)
    assert codec.decode(payload) == entry
    assert codec.decode(memoryview(payload)) == entry


def test_an_entry_outlives_the_bytes_that_it_came_in() -> None:
    buffer = bytearray(b"entry")
    entries = [codec_of(kind).decode(memoryview(buffer)) for kind in (str, bytes)]
    buffer[:] = b"xxxxx"
    assert entries == ["entry", b"entry"]


# -- what is not of the type -----------------------------------------------------------------------


def endless() -> list[Any]:
    nested: list[Any] = []
    nested.append(nested)
    return nested


def negative() -> Positive:
    entry = Positive(1)
    entry.number = -1
    return entry


@pytest.mark.parametrize(
    ("entry_type", "entry"),
    [
        (str, b"bytes"),
        (str, None),
        (str, 1),
        (str, "\ud800"),
        (bytes, "text"),
        (bytes, bytearray(b"changes later")),
        (bytes, memoryview(b"changes later")),
        (bytes, None),
        (int, "1"),
        (int, 1.5),
        (int, True),
        (int, None),
        (int, 1 << 64),
        (int, -(1 << 63) - 1),
        (int | str, 1.5),
        (Point, (1, 2)),
        (Point, Point("1", 2)),  # type: ignore[arg-type]
        (Point, object()),
        (list[Point], [Point(1, 2), None]),
        (Command, Point(1, 2)),
        (Command, Set("key", None)),  # type: ignore[arg-type]
        (dict[str, int], {1: 1}),
        (list[str], ["\ud800"]),
        (Positive, negative()),
        (ANYTHING, object()),
        (ANYTHING, lambda: None),
        (ANYTHING, 1 << 64),
        (ANYTHING, endless()),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, type) else value.__name__,
)
def test_a_value_of_another_type_is_refused(entry_type: Any, entry: Any) -> None:
    """Before it is sent anywhere, with a sentence that names the type."""
    with pytest.raises(InvalidRequest, match=r"^an entry is "):
        codec_of(entry_type).encode(entry)


@pytest.mark.parametrize(
    ("entry_type", "payload"),
    [
        (str, b"\xff"),
        (str, b"\xed\xa0\x80"),
        (int, b""),
        (int, b"\x01\x01"),
        (int, b"\xa11"),
        (Point, b"\x81\xa1x\x01"),
        (Command, b"\x81\xa4type\xa5Other"),
        (Positive, b"\x81\xa6number\xff"),
        (set[Any], b"\x91\x80"),
        (ANYTHING, b"\x81\x80\x01"),
        (ANYTHING, b"\xc1"),
        (ANYTHING, b"\x91" * 100_000),
        (ANYTHING, b"\x81\x01" * 100_000),
        (ANYTHING, b"\xdd\xff\xff\xff\xff"),
        (ANYTHING, b"\xc7\x0c\xff\x00\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"),
    ],
    ids=[
        "text: not utf-8",
        "text: a surrogate",
        "nothing",
        "more than one",
        "another type",
        "a member is missing",
        "an unknown tag",
        "refused by the type itself",
        "a set of maps",
        "a map with a map as key",
        "no such byte",
        "nested lists",
        "nested maps",
        "a list that is longer than its bytes",
        "no such time",
    ],
)
def test_bytes_of_another_type_raise_value_error_alone(entry_type: Any, payload: bytes) -> None:
    """Who appended them may have meant harm: a reader gets `DecodeFailed`, which is made of this one."""
    with pytest.raises(ValueError, match=r"."):
        codec_of(entry_type).decode(payload)


def test_random_payloads_decode_or_raise_value_error_and_nothing_else() -> None:
    """Random bytes, and sound MessagePack of anything, for types of all kinds."""
    chance = random.Random(1)
    codecs = [
        codec_of(kind)
        for kind in (str, bytes, int, set[Any], dict[Any, Any], list[Point], Command, Positive, ANYTHING)
    ]
    decoded = 0
    for _ in range(by_level(quick=1_000, ci=10_000)):
        for payload in (
            chance.randbytes(chance.randrange(40)),
            msgspec.msgpack.encode(any_value(chance)),
        ):
            for codec in codecs:
                try:
                    codec.decode(payload)
                except ValueError:
                    continue
                decoded += 1
    assert decoded > 0


# -- types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry_type",
    [object, Plain, complex, Callable, Set | Point, Unresolved, 5, "str"],
    ids=str,
)
def test_a_type_that_msgspec_does_not_know_is_refused(entry_type: Any) -> None:
    """When the node is made, not with the first entry."""
    with pytest.raises(ConfigurationError, match="not supported by msgspec"):
        codec_of(entry_type)


def test_the_fingerprint_tells_types_apart() -> None:
    types = (str, bytes, int, float, dict, list[int], list[Point], Point, Set, Delete, Command, ANYTHING)
    fingerprints = [codec_of(kind).fingerprint for kind in types]
    assert len(set(fingerprints)) == len(types)
    assert {len(fingerprint) for fingerprint in fingerprints} == {16}
    assert codec_of(Delete).fingerprint != codec_of(Grown).fingerprint, "a member more is another type"


def test_the_fingerprint_is_that_of_every_process() -> None:
    """What members compare must not depend on a hash seed, nor on when the type was made."""
    assert codec_of(str).fingerprint.hex() == "1f95a31927304ce8c8102dba582351e1"
    assert codec_of(bytes).fingerprint.hex() == "9ab366ad455508d5f47b0128d7d243a2"
    assert codec_of(dict[str, int]).fingerprint.hex() == "9db3d4d62b451e5559de1c732eabcb61"
    assert codec_of(Command).fingerprint == codec_of(Set | Delete | Set).fingerprint
