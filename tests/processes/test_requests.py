"""Requests that are wrong: refused by the exact error at whichever face, nothing is appended, and the next one works."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import pytest

from tests.processes.waiting import QUICK, eventually, run, running
from totora import (
    Client,
    Entry,
    EntryTooLarge,
    Err,
    InvalidRequest,
    LogMismatch,
    Node,
    OutOfRange,
    Response,
    append_request,
)
from totora.aio.face import Face
from totora.cli.demo_cluster import free_addresses
from totora.core.batch import HEADER_BYTES

ENTRY_MAX: Final = QUICK.entry_max_bytes
"""A batch holds no more either here, so that a request over that limit needs two entries."""

LARGEST: Final = QUICK.batch_max_bytes - HEADER_BYTES - 4

Call: TypeAlias = Callable[[Face[str]], Awaitable[Any]]


@asynccontextmanager
async def faces(folder: Path) -> AsyncGenerator[dict[str, Face[str]]]:
    """The leader of three nodes, a follower, and a client process that talks to another follower."""
    nodes = free_addresses(3)
    async with running(nodes, folder) as started:
        await started[1].propose("first")
        leader = await eventually("one leads", lambda: started[1].status().leader)
        follower, other = (id for id in nodes if id != leader)
        async with Client({other: nodes[other]}, entry_type=str, settings=QUICK) as client:
            yield {"leader": started[leader], "follower": started[follower], "client": client}


def appends(entries: Any, **prev: Any) -> Call:
    return lambda face: face.append(entries, **prev)


def reads(start: Any, end: Any) -> Call:
    return lambda face: face.index_range(start, end)


def proposes(entry: Any) -> Call:
    return lambda face: face.propose(entry)


async def first_of(face: Face[str], start_index: int) -> object:
    return await anext(face.entries(start_index))


BAD: Final[list[tuple[str, Call, type[Exception], str]]] = [
    ("no entry", appends([]), InvalidRequest, "at least one entry"),
    ("text for entries", appends("text"), InvalidRequest, r"write \[entry\]"),
    ("bytes for entries", appends(b"bytes"), InvalidRequest, r"write \[entry\]"),
    ("a number for entries", appends(5), InvalidRequest, "entries is a sequence of entries, not int"),
    ("an entry of another type", appends(["fine", 7]), InvalidRequest, "an entry is of type int, not str"),
    ("None for an entry", appends([None]), InvalidRequest, "an entry is of type NoneType, not str"),
    ("a lone surrogate", appends(["\ud800"]), InvalidRequest, "an entry is not valid text"),
    ("an entry over the limit", appends(["x" * (ENTRY_MAX + 1)]), EntryTooLarge, "an entry of 262,145 bytes"),
    ("a request over the limit", appends(["x" * (ENTRY_MAX // 2)] * 2), EntryTooLarge, "a request of "),
    ("a byte too many", appends(["x" * (LARGEST + 1)]), EntryTooLarge, "a request of 262,145 bytes"),
    ("an index alone", appends(["a"], prev_log_index=1), InvalidRequest, "or neither"),
    ("a term alone", appends(["a"], prev_log_term=1), InvalidRequest, "or neither"),
    ("a negative index", appends(["a"], prev_log_index=-1, prev_log_term=0), InvalidRequest, "at least 0"),
    ("a negative term", appends(["a"], prev_log_index=1, prev_log_term=-1), InvalidRequest, "at least 0"),
    (
        "an index that no log has",
        appends(["a"], prev_log_index=1 << 63, prev_log_term=1),
        InvalidRequest,
        r"prev_log_index is a whole number, at least 0 and below 2\*\*63, not 9223372036854775808",
    ),
    (
        "a huge term",
        appends(["a"], prev_log_index=1, prev_log_term=1 << 80),
        InvalidRequest,
        "prev_log_term is a",
    ),
    (
        "a fraction",
        appends(["a"], prev_log_index=1.5, prev_log_term=1),
        InvalidRequest,
        "prev_log_index is a whole",
    ),
    ("a truth value", appends(["a"], prev_log_index=True, prev_log_term=1), InvalidRequest, "whole number"),
    (
        "a wrong condition",
        appends(["a"], prev_log_index=1, prev_log_term=1),
        LogMismatch,
        "the last entry is [0-9]+ of term",
    ),
    (
        "an entry to come",
        appends(["a"], prev_log_index=1_000_000, prev_log_term=9),
        LogMismatch,
        "the last entry is [0-9]+ of term",
    ),
    ("a range from 0", reads(0, 1), InvalidRequest, "from an index of at least 1"),
    ("a negative range", reads(-3, -1), InvalidRequest, "from an index of at least 1"),
    ("a reversed range", reads(3, 2), InvalidRequest, "not 3 to 2"),
    ("a range beyond the log", reads(1, 1_000_000), OutOfRange, "the committed log holds indexes 1 to "),
    ("a range beyond every log", reads(1, 1 << 80), InvalidRequest, "end_index is a whole number"),
    ("a fraction of a range", reads(1, 2.5), InvalidRequest, "end_index is a whole number"),
    ("entries from 0", lambda face: first_of(face, 0), InvalidRequest, "the first place in the log is 1"),
    ("entries from below", lambda face: first_of(face, -1), InvalidRequest, "start_index is a whole number"),
    ("a single entry too large", proposes("x" * (ENTRY_MAX + 1)), EntryTooLarge, "an entry of"),
    ("a single entry of another type", proposes(7), InvalidRequest, "of type int, not str"),
]


def test_every_bad_request_is_refused_at_every_face_and_nothing_is_appended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Between good ones that are under way with it. It costs no node and no link anything."""
    caplog.set_level(logging.INFO, "totora")

    async def scenario() -> None:
        async with faces(tmp_path) as found:
            expected = ["first"]
            links_lost = caplog.messages.count("link_lost")
            for where, face in found.items():
                for what, call, error, why in BAD:
                    good = [f"before {what}, {where}", f"behind {what}, {where}"]
                    before, wrong, behind = await asyncio.gather(
                        face.propose(good[0]), call(face), face.propose(good[1]), return_exceptions=True
                    )
                    assert type(wrong) is error, (what, where, wrong)
                    assert re.search(why, str(wrong)), (what, where, wrong)
                    assert isinstance(before, Entry), (what, where, before)
                    assert isinstance(behind, Entry), (what, where, behind)
                    expected += good
            assert [entry.value async for entry in found["leader"].entries()] == expected
            assert caplog.messages.count("link_lost") == links_lost
            assert "peer_trouble" not in caplog.messages

    run(scenario())


def test_the_largest_request_is_taken_at_every_face(tmp_path: Path) -> None:
    """One entry, or many that are as large together."""

    async def scenario() -> None:
        async with faces(tmp_path) as found:
            for face in found.values():
                for entries in (["x" * LARGEST], ["x" * ((LARGEST + 4) // 4 - 4)] * 4):
                    appended = await face.append(entries)
                    assert [entry.value for entry in appended] == entries

    run(scenario())


def test_a_list_that_changes_after_the_call_changes_nothing(tmp_path: Path) -> None:
    """What is appended is what was given, and so is what is returned."""

    async def scenario() -> None:
        async with faces(tmp_path) as found:
            for face in found.values():
                entries = ["a", "b"]
                appending = face.append(entries)
                await asyncio.sleep(0)
                entries.clear()
                appended = await appending
                assert [entry.value for entry in appended] == ["a", "b"]
                assert await face.index_range(appended[0].index, appended[1].index) == appended

    run(scenario())


def test_a_request_that_became_empty_is_refused(tmp_path: Path) -> None:
    """A batch of nothing would be a place in the log that stands for no entry."""

    async def scenario() -> None:
        async with faces(tmp_path) as found:
            for face in found.values():
                entries = ["a"]
                request = append_request(entries)
                entries.clear()
                answers: list[Response[str]] = []
                face.submit(request, answers.append)
                (answer,) = answers
                assert isinstance(answer, Err)
                assert type(answer.error) is InvalidRequest
                await face.propose("the next one")

    run(scenario())


class Money(msgspec.Struct):
    """An entry type with a rule of its own."""

    amount: int

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ValueError("no debts")


@pytest.mark.parametrize("wrong", [7, None, {"amount": "much"}, {"amount": -1}, object(), [1]])
def test_an_entry_of_a_users_type_is_checked_before_it_is_appended(wrong: Any) -> None:
    """By what msgspec makes of it, so also by the rules of the type itself; what it makes of a dict is such an entry."""
    nodes = free_addresses(1)

    async def scenario() -> None:
        async with Node(1, nodes, entry_type=Money, settings=QUICK) as node:
            with pytest.raises(InvalidRequest, match="an entry is not of type Money: "):
                await node.propose(wrong)
            with pytest.raises(InvalidRequest, match="an entry is not of type Money: "):
                await node.append([Money(1), wrong])
            entry = await node.propose(Money(5))
            assert [found async for found in node.entries()] == [entry]

    run(scenario())
