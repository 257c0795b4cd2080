"""`totora check-history`: its verdict, what it shows, and what it says of files that are no histories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from tests.cli.shell import totora
from totora.cli.commands import totora as group
from totora.sim import linearizability

Lines = Sequence[dict[str, Any]]


def op(kind: str, value: Any, call_ms: float, return_ms: float, **more: Any) -> dict[str, Any]:
    times = {"call_ns": int(call_ms * 1e6), "return_ns": int(return_ms * 1e6)}
    return {"client": 0, "op": kind, "key": "x", "value": value, "status": "ok", **times, **more}


def check(history: Lines, *words: str) -> Result:
    text = "".join(f"{json.dumps(line)}\n" for line in history)
    return CliRunner().invoke(group, ["check-history", *words], input=text, prog_name="totora")


SOUND: Final = [op("put", 1, 1, 2), op("get", 1, 3, 4), op("get", None, 1, 2, key="y")]
STALE: Final = [op("put", 1, 1, 2), op("put", 2, 3, 4, client=10), op("get", 1, 5, 6.5)]


def test_a_linearizable_history_is_one_line_and_exit_code_0() -> None:
    ended = check(SOUND)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (
        0,
        "linearizable: 3 operations on 2 keys\n",
        "",
    )


def test_the_smallest_part_is_shown_with_its_times() -> None:
    ended = check([*SOUND[2:], *STALE])
    assert ended.exit_code == 1
    assert ended.stdout.splitlines() == [
        "NOT linearizable: 1 key of 2; 4 operations on 2 keys",
        "",
        'key "x", whatever it held before: of its 3 operations these 2 cannot be explained',
        "         0.000 to        1.000 ms  client 10  put 2",
        "         2.000 to        3.500 ms  client 0   get gave 1",
    ]


def test_each_kind_of_operation_is_spelled() -> None:
    missed: dict[str, Any] = {"status": "fail", "mismatch": True}
    history = [
        op("put", 1, 0, 1, key="a"),
        op("delete", None, 1.5, 2, key="a"),
        op("cas", [1, 2], 3, 4, key="a"),
        op("append", "b\x1b", 1, 2, key="b"),
        op("get", None, 3, 4, key="b"),
        op("put", 3, 0, 1, key="c"),
        op("put", "z" * 100, 1.5, 2, key="c"),
        op("cas", [1, 2], 3, 4, key="c", actual=3, **missed),
    ]
    said = check(history).stdout
    for words in (
        "delete",
        "cas from 1 to 2",
        'append "b\\u001b"',
        "get gave absent",
        f'put "{"z" * 59}...',
        "cas from 1 to 2 failed: it was not 1, but 3",
    ):
        assert f"  {words}\n" in said, words


def test_many_wrong_keys_are_named_and_three_are_shown() -> None:
    keys = [f"k{n}" for n in range(5)]
    ended = check([line | {"key": key} for key in keys for line in STALE])
    assert "NOT linearizable: 5 keys of 5" in ended.stdout
    assert ended.stdout.count("cannot be explained") == 3
    assert ended.stdout.splitlines()[-1] == 'likewise: "k3", "k4"'


def test_json_tells_the_same() -> None:
    ended = check(STALE, "--json")
    assert ended.exit_code == 1
    report = json.loads(ended.stdout)
    assert report["linearizable"] is False
    assert (report["operations"], report["keys"], report["undecided"]) == (3, 1, [])
    (violation,) = report["violations"]
    assert [line["op"] for line in violation["operations"]] == ["put", "get"]
    assert violation["anything_before"]
    assert json.loads(check(SOUND, "--json").stdout)["linearizable"] is True


def test_what_cannot_be_decided_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suffixes at once, and a text that holds another one: all their orders are to be looked at, which may be too many."""
    monkeypatch.setattr(linearizability, "STEPS_MAX", 100)
    puzzle = [op("append", chr(97 + n), 1, 100) for n in range(6)] + [op("get", "?", 101, 102)]
    ended = check(puzzle)
    assert ended.exit_code == 1
    assert ended.stdout.startswith("undecided: 1 key of 1 would take too long")
    assert json.loads(check(puzzle, "--json").stdout)["linearizable"] is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: Input data was truncated"),
        ('{"client":0}', "line 2: Object missing required field `op`"),
        (json.dumps(op("steal", 1, 1, 2)), "line 2: Invalid enum value 'steal'"),
        (json.dumps(op("put", 1, 2, 1)), "line 2: it returns at 1000000, before its call at 2000000"),
        ("\xff\x00", "line 2: "),
    ],
)
def test_a_line_that_makes_no_sense_is_named_and_exit_code_2(line: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.write_bytes(json.dumps(SOUND[0]).encode() + b"\n" + line.encode("latin-1") + b"\n")
    ended = totora("check-history", file)
    assert ended.code == 2
    assert ended.out == ""
    (said,) = ended.err.splitlines()
    assert said.startswith(f"totora check-history: {file}: {says}")


def test_a_file_that_is_not_there_is_named_and_exit_code_2(tmp_path: Path) -> None:
    ended = totora("check-history", tmp_path / "none")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"totora check-history: {tmp_path / 'none'}: No such file or directory\n"


def test_an_empty_history_is_linearizable() -> None:
    assert check([]).stdout == "linearizable: 0 operations on 0 keys\n"
