"""The node keeps Maelstrom's contract: real processes over pipes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes.waiting import HANG_S
from totora.testing.maelstrom_messages import LINE_BYTES_MAX, Lines


class Node:
    """A process, and a client of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._number = 0

    def line(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def reply(self) -> dict[str, Any]:
        """The next message to the client; what it sends to other nodes leads nowhere."""
        assert self.process.stdout is not None
        while True:
            message: dict[str, Any] = json.loads(self.process.stdout.readline())
            if message["dest"] == "c1":
                assert message["src"] == "n1"
                body: dict[str, Any] = message["body"]
                return body

    def __call__(self, kind: str, **fields: Any) -> Any:
        """The code of an error, the value of a read, else the type of the answer."""
        self._number += 1
        body = {"type": kind, "msg_id": self._number} | {
            name.rstrip("_"): value for name, value in fields.items()
        }
        self.line(json.dumps({"src": "c1", "dest": "n1", "body": body}).encode())
        reply = self.reply()
        assert reply["in_reply_to"] == self._number
        if reply["type"] == "error":
            return reply["code"]
        return reply["value"] if kind == "read" else reply["type"]

    def init(self, *names: str) -> None:
        assert self("init", node_id="n1", node_ids=["n1", *names]) == "init_ok"


@contextmanager
def running(*words: str | Path) -> Generator[Node]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "totora.testing.maelstrom", *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield Node(process)
        finally:
            process.kill()


def ended(node: Node) -> tuple[int, str]:
    """Its exit code, and what it told, once its input is over."""
    _, told = node.process.communicate(timeout=HANG_S)
    return node.process.returncode, told.decode()


def test_the_workload_lin_kv() -> None:
    """Answers and codes as the contract has them: 20 no such key, 22 another value."""
    with running() as node:
        node.init()
        assert node("read", key=1) == 20
        assert node("cas", key=1, from_=1, to=2) == 20
        assert node("write", key=1, value=1) == "write_ok"
        assert node("read", key=1) == 1
        assert node("cas", key=1, from_=2, to=3) == 22
        assert node("cas", key=1, from_=1, to=2) == "cas_ok"
        assert node("read", key=1) == 2
        assert node("read", key="1") == 20
        code, told = ended(node)
    assert code == 0
    assert "became_leader" in told
    assert "Traceback" not in told


def test_a_value_is_any_json() -> None:
    """Equal whatever the order of an object's members; null is a value; 1, 1.0 and true are three."""
    with running() as node:
        node.init()
        assert node("write", key=[1], value={"a": 1, "b": [None, "\N{SNOWMAN}"]}) == "write_ok"
        assert node("cas", key=[1], from_={"b": [None, "\N{SNOWMAN}"], "a": 1}, to=None) == "cas_ok"
        assert node("read", key=[1]) is None
        assert node("cas", key=[1], from_=None, to=1) == "cas_ok"
        assert node("cas", key=[1], from_=True, to=2) == 22
        assert node("cas", key=[1], from_=1.0, to=2) == 22
        assert node("cas", key=[1], from_=1, to=2) == "cas_ok"


def test_what_makes_no_sense_is_an_error_and_a_line_on_stderr() -> None:
    """Never the end: code 12 for what is malformed, 10 for what is not known, nothing where nobody can be answered."""
    with running() as node:
        assert node("read", key=1) == 11
        assert node("init", node_id="n1", node_ids=["n2"]) == 12
        assert node("init", node_id="../n1", node_ids=["../n1"]) == 12
        node.init()
        assert node("init", node_id="n1", node_ids=["n1"]) == 14
        assert node("steal", key=1) == 10
        assert node("read") == 12
        assert node("cas", key=1, from_=1) == 12
        assert node("cas", key=1, from_=1, to=2, create_if_not_exists=True) == 10
        assert node("write", key=1, value="x" * 40_000) == 10
        for line in (
            b"{",
            b"[]",
            b"\xff\xfe",
            b"{}",
            b'{"src":"c1","dest":"n1","body":7}',
            b'{"src":"c1","dest":"n1","body":{"type":"error","in_reply_to":4,"msg_id":1,"code":0}}',
            b'{"src":"n2","dest":"n1","body":{"type":"totora","datagram":"hello"}}',
            b'{"src":"c1","dest":"n1","body":{"type":"write","msg_id":1,"key":' + b"[" * 5_000 + b"}}",
            b"x" * (LINE_BYTES_MAX + 1),
            b"",
        ):
            node.line(line)
        assert node("write", key=1, value=1) in ("write_ok", 12)
        code, told = ended(node)
    assert code == 0
    for words in ("is no message", "is not understood", "too long", "peer_trouble"):
        assert words in told
    assert "Traceback" not in told


def test_without_a_majority_a_request_is_certainly_without_effect() -> None:
    """It never left this node: code 11, definite."""
    with running("--timeout", "0.2") as node:
        node.init("n2", "n3")
        assert node("write", key=1, value=1) == 11
        assert node("cas", key=1, from_=1, to=2) == 11
        assert node("read", key=1) == 11


def test_with_data_a_node_that_was_killed_goes_on(tmp_path: Path) -> None:
    for value in (1, 2):
        with running("--data", tmp_path) as node:
            node.init()
            assert node("read", key=1) == (20 if value == 1 else 1)
            assert node("write", key=1, value=value) == "write_ok"
    assert [path.name for path in tmp_path.iterdir()] == ["n1"]


def test_a_node_that_cannot_open_its_log_says_so_and_ends(tmp_path: Path) -> None:
    (tmp_path / "n1").write_text("a file where a directory should be")
    with running("--data", tmp_path) as node:
        assert node("init", node_id="n1", node_ids=["n1"]) == 13
        code, told = ended(node)
    assert code == 1
    assert f"{tmp_path / 'n1'} cannot be used as a data directory" in told


def test_sigterm_ends_it_cleanly() -> None:
    with running() as node:
        node.init()
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(HANG_S) == 0


def test_bad_usage_is_refused() -> None:
    with running("--timeout", "never") as node:
        code, told = ended(node)
    assert code == 2
    assert "--timeout" in told


# -- lines


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_do_not_depend_on_where_chunks_are_cut(size: int) -> None:
    data = b"one\n\ntwo\n \nthree\nrest"
    lines: list[bytes] = []
    protocol = Lines(lines.append, lambda: None, lambda: lines.append(b"overlong"))
    for start in range(0, len(data), size):
        protocol.data_received(data[start : start + size])
    assert lines == [b"one", b"two", b"three"]


def test_a_line_that_is_too_long_is_passed_over() -> None:
    lines: list[bytes] = []
    protocol = Lines(lines.append, lambda: lines.append(b"end"), lambda: lines.append(b"overlong"))
    for _ in range(3):
        protocol.data_received(b"x" * (LINE_BYTES_MAX // 2 + 1))
    protocol.data_received(b"xx\nnext\n")
    protocol.connection_lost(None)
    assert lines == [b"overlong", b"next", b"end"]
