"""Traces from anywhere: what is read, what is refused before it is believed, and that nothing in them can do harm."""

from __future__ import annotations

import contextlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.levels import by_level
from totora.sim import specification
from totora.sim.simulation import Plan, Simulation
from totora.sim.specification import RULES
from totora.sim.trace import Record, dump_record, load_trace
from totora.sim.trace_check import check_trace

PLAN = Plan(seed=3, seconds=8, size=3)


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """The trace of a run with faults."""
    written: list[bytes] = []

    def record(what: Record) -> None:
        written.append(dump_record(what))

    report = Simulation(PLAN, record=record).run()
    assert report.violation is None
    return written


def test_a_trace_is_checked_like_its_run(lines: list[bytes]) -> None:
    verdict = check_trace(lines)
    assert verdict.refused is None
    assert verdict.voters == [1, 2, 3]
    assert verdict.committed_index > 10
    assert verdict.highest_term >= 1
    assert verdict.steps + verdict.starts < len(lines)


def test_the_order_of_fields_means_nothing(lines: list[bytes]) -> None:
    """Whoever receives a message may write it down in another order than whoever sent it."""
    chance = random.Random(1)

    def shuffled(value: Any) -> Any:
        if isinstance(value, list):
            return [shuffled(item) for item in value]
        if isinstance(value, dict):
            names = list(value)
            chance.shuffle(names)
            return {name: shuffled(value[name]) for name in names}
        return value

    again = [json.dumps(shuffled(json.loads(line))) for line in lines]
    assert check_trace(again) == check_trace(lines)
    assert [dump_record(record) for record in load_trace(lines)] == lines


def test_fields_that_nobody_knows_are_no_trouble(lines: list[bytes]) -> None:
    """They belong to the message that they are in, and are part of what was said."""
    more = [
        line.replace(b'"type":"AppendEntries"', b'"type":"AppendEntries","lease":{"ms":7}') for line in lines
    ]
    assert check_trace(more).refused is None
    heard = b'"message":{"type":"AppendEntries","lease":{"ms":7}'
    place = next(n for n, line in enumerate(more) if heard in line)
    more[place] = more[place].replace(heard, heard.replace(b"7", b"8"))
    refused = check_trace(more).refused
    assert refused is not None
    assert (refused.line, refused.violation.rule) == (place + 1, "Network")


def test_every_rule_says_what_is_allowed() -> None:
    """Whatever a violation may name; and no rule is there that none names."""
    source = Path(specification.__file__).read_text()
    named = set(re.findall(r'Violation\(\s*"([^"]+)"', source))
    assert named <= set(RULES)
    by_kind = {"RequestVote", "RequestPreVote", "VoteAccepted", "AppendEntries", "AppendAccepted"}
    assert set(RULES) - named <= by_kind


HEADER = '{"type":"header","voters":[1,2,3]}'


def started(log: str = "[]", **more: object) -> str:
    told = {"type": "started", "t_ns": 0, "node": 1, "term": 1, "voted_for": None, "commit_index": 0}
    return json.dumps(told | more)[:-1] + f',"log":{log}}}'


def step(**more: object) -> str:
    told = {
        "type": "step",
        "t_ns": 0,
        "node": 1,
        "event": "tick",
        "role": "follower",
        "term": 1,
        "voted_for": None,
    }
    return json.dumps(told | {"commit_index": 0, "last_index": 0, "last_term": 0} | more)


def received(**message: object) -> str:
    return step(event="received", sender=2, message=message)


ENTRIES = {"type": "AppendEntries", "term": 1, "prev_log_index": 0, "prev_log_term": 0, "leader_commit": 0}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (HEADER, "a second header"),
        (started("[[2,3,1,2,9]]"), "a log begins at 1, not at 2"),
        (started("[[1,1,1,2,9],[3,3,1,2,9]]"), "after 1 comes 2, not BatchRef"),
        (started("[[1,0,1,2,9]]"), "no batch is so"),
        (started("[[1,1,1,2]]"), "length 5"),
        (started(term=-1), "not negative: -1"),
        (step(last_index=-1), "not negative: -1"),
        (step(wrote={"token": 1, "truncate_after": -1}), "not negative: -1"),
        (step(wrote={"token": 1, "batches": [[3, 2, 1, 2, 9]]}), "no batch is so"),
        (step(event="persisted"), "persisted needs a token"),
        (step(event="read_requested"), "read_requested needs a key"),
        (step(message={"type": "RequestVote"}), "a message belongs to received, not to tick"),
        (received(term=1), "a message has a type"),
        (received(type="VoteAccepted"), "missing required field `term`"),
        (received(type="VoteAccepted", term="1"), r"Expected `int`, got `str` - at `\$.term`"),
        (received(type="Anything", term=-1), "Expected `int` >= 0"),
        (received(**ENTRIES), "missing required field `batches`"),
        (received(**ENTRIES, batches=[[1, 1]]), "length 5"),
        (received(**ENTRIES | {"prev_log_index": -1}, batches=[]), r">= 0 - at `\$.prev_log_index`"),
        (received(type="AppendAccepted", term=1, match_index=-1), r">= 0 - at `\$.match_index`"),
        (received(type="VoteAccepted", term=1, batches=7), "Expected `array`"),
        (step(sent=[[2, {"type": 7}]]), "a message has a type"),
        ('{"type":"step"' + ',"x":' + "[" * 100_000, "."),
    ],
)
def test_what_cannot_be_so_is_refused_with_its_line(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^line 2: .*{why}"):
        check_trace([HEADER, line])


@pytest.mark.parametrize("header", ['{"type":"header","voters":[]}', '{"type":"header","voters":[1,1]}'])
def test_a_header_names_each_voter_once(header: str) -> None:
    with pytest.raises(ValueError, match="line 1: voters are"):
        check_trace([header])


@pytest.mark.parametrize("seed", range(by_level(quick=150, ci=1_000)))
def test_a_trace_that_was_tampered_with_is_allowed_refused_or_no_trace(seed: int, lines: list[bytes]) -> None:
    """Whatever is changed, left out or doubled: no other error, and no end that never comes."""
    chance = random.Random(seed)
    changed = lines[: chance.randrange(20, 400)]
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(changed))
        match chance.randrange(4):
            case 0:
                del changed[place]
            case 1:
                changed.insert(chance.randrange(len(changed)), changed[place])
            case 2:
                with contextlib.suppress(ValueError):  # it was tampered with before
                    told = json.loads(changed[place])
                    tamper(told, chance)
                    changed[place] = json.dumps(told).encode()
            case _:
                line = bytearray(changed[place])
                line[chance.randrange(len(line))] = chance.randrange(256)
                changed[place] = bytes(line)
    error = ""
    try:
        check_trace(changed)
    except ValueError as raised:
        error = str(raised)
    assert re.match(r"line \d+: |$", error)


def tamper(told: Any, chance: random.Random) -> None:
    """Change, add or remove one value, somewhere."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            places.append((value, name))
            if isinstance(inner, dict | list):
                walk(inner)

    walk(told)
    if places:
        where, name = chance.choice(places)
        where[name] = chance.choice([None, -1, 0, 1, 7, 2**63, 1.5, "x", [], {}, [1, 1, 1, 1, 1], True])
