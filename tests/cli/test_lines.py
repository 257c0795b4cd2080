"""Bytes become lines, and lines become groups, wherever the chunks are cut; what is printed is shown and not obeyed."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totora.cli.append import GROUP_CHARACTERS, GROUP_LINES, _grouped
from totora.cli.ending import Failed
from totora.cli.lines import Splitter, all_lines
from totora.cli.text import count, escape, to_json, why

T = TypeVar("T")

# -- splitting


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\nb", ["a", "", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\rb\r", ["a\rb"]),
        (b"\r", [""]),
        ("1\x0b2\x0c3\x1c4\x855\u20286\n".encode(), ["1\x0b2\x0c3\x1c4\x855\u20286"]),
        (b"\0\n", ["\0"]),
    ],
)
def test_a_line_ends_in_lf_or_cr_lf_and_in_nothing_else(data: bytes, lines: list[str]) -> None:
    assert all_lines(data) == lines


@given(
    lines=st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=5)),
    cuts=st.lists(st.integers(1, 9)),
)
def test_lines_do_not_depend_on_where_chunks_are_cut(lines: list[str], cuts: list[int]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    splitter, split, rest = Splitter(), list[str](), data
    for cut in cuts:
        chunk, rest = rest[:cut], rest[cut:]
        split += splitter.feed(chunk)
        assert splitter.number == len(split)
    split += [*splitter.feed(rest), *splitter.end()]
    assert split == lines


def until_failed(items: Iterator[T]) -> tuple[list[T], str]:
    """What comes before the failure, and its words."""
    good: list[T] = []
    while True:
        try:
            good.append(next(items))
        except Failed as error:
            return good, str(error)


def gradually(splitter: Splitter, data: bytes, size_bytes: int) -> Iterator[str]:
    for start in range(0, len(data), size_bytes):
        yield from splitter.feed(data[start : start + size_bytes])
    yield from splitter.end()


@pytest.mark.parametrize("size_bytes", [1, 3, 1_000])
def test_what_is_not_utf_8_is_named_by_line_and_byte(size_bytes: int) -> None:
    data = "zürich\nb\n".encode() + b"ab\xff\nc\n"
    good, reason = until_failed(gradually(Splitter(), data, size_bytes))
    assert good == ["zürich", "b"]
    assert reason == "line 3 is not UTF-8: byte 3 of it is 0xff"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\nmore"])
@pytest.mark.parametrize("size_bytes", [1, 4, 1_000])
def test_a_line_is_as_long_as_the_limit_and_not_longer(size_bytes: int, end: bytes) -> None:
    lines = list(gradually(Splitter(limit_bytes=8), b"a\n" + b"x" * 8 + end, size_bytes))
    assert lines[:2] == ["a", "x" * 8]
    good, reason = until_failed(gradually(Splitter(limit_bytes=8), b"a\n" + b"x" * 9 + end, size_bytes))
    assert good == ["a"]
    assert reason == "line 2 is longer than 8 bytes"


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    """It is refused as soon as it is too long, not when it ends."""
    splitter = Splitter(limit_bytes=1_000)
    assert not [*splitter.feed(b"x" * 500), *splitter.feed(b"x" * 500)]
    with pytest.raises(Failed, match="line 1 is longer"):
        list(splitter.feed(b"xx"))


# -- grouping


def test_groups_keep_the_order_and_the_bounds() -> None:
    lines = [str(n) * (n % 7) for n in range(3 * GROUP_LINES)] + [
        "x" * GROUP_CHARACTERS,
        "y",
        "z" * (GROUP_CHARACTERS + 1),
    ]
    groups = list(_grouped(1, iter(lines)))
    assert [line for group in groups for line in group.lines] == lines
    number = 1
    for group in groups:
        assert group.first_number == number
        number += len(group.lines)
        assert len(group.lines) <= GROUP_LINES
        assert sum(map(len, group.lines)) <= GROUP_CHARACTERS or len(group.lines) == 1
        assert group.is_large == (len(group.lines[0]) > GROUP_CHARACTERS)
    assert groups[-1].is_large
    assert str(groups[0]) == "lines 1 to 256"
    assert str(groups[-1]) == f"line {len(lines):,}"


def test_what_was_good_before_a_bad_line_is_a_group() -> None:
    groups, reason = until_failed(_grouped(1, Splitter().feed(b"a\nb\n\xff\nc\n")))
    assert reason.startswith("line 3 ")
    assert [group.lines for group in groups] == [["a", "b"]]


# -- words for people


TURNS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_control_character_gets_through(text: str) -> None:
    shown = escape(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Zl", "Zp")]
    assert not [
        c
        for c in shown
        if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, zürich, \N{THUMBS UP SIGN} \\ 'quoted'", "plain, zürich, \N{THUMBS UP SIGN} \\ 'quoted'"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\tb\r\nc\0", "a\\tb\\r\\nc\\x00"),
        ("\x7f\x9b2J", "\\x7f\\x9b2J"),
        ("abc\u202ecba\u2028", "abc\\u202ecba\\u2028"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_one_thing_is_not_called_many() -> None:
    assert [count(n, "line") for n in (0, 1, 2, 1_000)] == ["0 lines", "1 line", "2 lines", "1,000 lines"]
    assert [count(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


def test_an_error_has_a_reason() -> None:
    assert why(FileNotFoundError(2, "No such file or directory", "a")) == "a: No such file or directory"
    assert why(OSError(28, "No space left on device")) == "No space left on device"
    assert why(ValueError("wrong")) == "wrong"
    assert why(TimeoutError()) == "TimeoutError"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_is_one_line_without_control_characters(text: str) -> None:
    line = to_json({"value": text})
    assert line.splitlines() == [line]
    assert not [
        c
        for c in line
        if unicodedata.category(c) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(c) in TURNS
    ]
    assert json.loads(line) == {"value": text}
