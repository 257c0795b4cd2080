"""On a terminal: lines that are typed, a bar, colours for those who want them, ^C."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from tests.cli.shell import TOTORA, Cluster, environment, running_cluster
from tests.processes.waiting import HANG_S
from totora import Entry
from totora.cli.append_view import Bar, Typed

STYLE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), 1) as cluster:
        yield cluster


class Terminal:
    """One that a command runs in; `shown` is all that it ever wrote, `keys` types."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.shown = ""
        self.process = process
        self._master = master

    def keys(self, typed: str) -> None:
        os.write(self._master, typed.encode())

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline_s = time.monotonic() + HANG_S
        while (found := re.search(pattern, self.shown)) is None:
            assert self._read(deadline_s), f"never: {pattern} in {self.shown!r}"
        return found

    def end(self) -> int:
        deadline_s = time.monotonic() + HANG_S
        while self._read(deadline_s):
            pass
        return self.process.wait(HANG_S)

    def _read(self, deadline_s: float) -> bool:
        """False: the command has ended."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline_s - time.monotonic()))
        assert ready, f"nothing more is shown: {self.shown!r}"
        with contextlib.suppress(OSError):
            data = os.read(self._master, 1 << 16)
            self.shown += data.decode(errors="replace")
            return bool(data)
        return False


@contextmanager
def terminal(*words: str | Path, width: int = 80, variables: Mapping[str, str] = {}) -> Generator[Terminal]:
    """A command in a session of its own, with all three ends in a terminal."""
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        with subprocess.Popen(
            # Whoever leads a session and opens a terminal is controlled by it: Ctrl-C is a signal then.
            ["/bin/sh", "-c", 'exec "$@" <>"$0" >&0 2>&0', os.ttyname(slave), *TOTORA, *map(str, words)],
            stdin=slave,
            env=environment(**{"TERM": "xterm-256color", **variables}),
            start_new_session=True,
        ) as process:
            os.close(slave)
            try:
                yield Terminal(master, process)
            finally:
                process.kill()
    finally:
        os.close(master)


# -- append


def test_typed_lines_are_appended_one_by_one(cluster: Cluster) -> None:
    """Each is answered by its index; Ctrl-D ends. The terminal stays as it was: no bar is drawn into what is typed."""
    with terminal("append", "--nodes", cluster.spelled) as shell:
        shell.wait_for(r"each line becomes an entry; Ctrl-D ends\r\n")
        shell.keys("first\n")
        first = int(shell.wait_for(r"  index ([\d,]+)\r\n")[1])
        shell.keys("second\n")
        shell.wait_for(rf"  index {first + 1}\r\n")
        shell.keys("\x04")
        assert shell.end() == 0
    assert "\x1b" not in shell.shown
    assert f"2 lines appended, indexes {first} to {first + 1}, in " in shell.shown
    log = cluster("log", "--json", "--from", str(first)).objects
    assert [entry["value"] for entry in log] == ["first", "second"]


def test_ctrl_c_ends_typing(cluster: Cluster) -> None:
    with terminal("append", "--nodes", cluster.spelled) as shell:
        shell.wait_for("Ctrl-D ends")
        shell.keys("only\n")
        shell.wait_for(r"index \d+\r\n")
        shell.keys("\x03")
        assert shell.end() == 130
    assert shell.shown.endswith("^C\r\ntotora append: interrupted; 1 line is appended\r\n")


def test_typed_lines_wait_and_say_why(tmp_path: Path) -> None:
    nobody = Cluster(tmp_path, 1).spelled
    with terminal("append", "--nodes", nobody) as shell:
        shell.wait_for("Ctrl-D ends")
        shell.keys("into the void\n")
        shell.wait_for(r"  waiting: no node answers \(node 1: connection refused\)\r\n")
        shell.keys("\x03")
        assert shell.end() == 130
    assert "nothing is appended" in shell.shown


def test_a_file_gets_a_bar_that_goes_away(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("x\n" * 400_000)
    with terminal("append", "--nodes", cluster.spelled, file) as shell:
        shell.wait_for(r"\d+%[\x1b\[0-9m ]+[1-9][\d,]* lines  [\d,]+/s")
        assert shell.end() == 0
    assert "━" in shell.shown
    last = shell.shown.splitlines()[-1]
    assert (
        STYLE.sub("", last).startswith("400,000 lines appended, indexes ") or "400,000 lines appended" in last
    )
    assert shell.shown.count("\x1b[?25l") == shell.shown.count("\x1b[?25h"), "the cursor is there again"


def test_ctrl_c_takes_the_bar_away(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("x\n" * 5_000_000)
    with terminal("append", "--nodes", cluster.spelled, file) as shell:
        shell.wait_for(r"[1-9][\d,]* lines  [\d,]+/s")
        shell.keys("\x03")
        assert shell.end() == 130
    assert re.search(r"totora append: interrupted; [\d,]+ lines are appended\r\n$", shell.shown)
    assert shell.shown.count("\x1b[?25l") == shell.shown.count("\x1b[?25h")


def bar(width: int, size_bytes: int | None, why: str | None = None) -> list[str]:
    """What is seen of a bar after 1,500 lines of 3 bytes."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=width)
    with Bar(size_bytes, console) as drawn:
        drawn.sending(2_000)
        drawn.acknowledged([Entry(n, 1, "ab") for n in range(1_500)])
        drawn.frame(why, 3.2)
        frame = out.getvalue()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame).replace("\r", "").splitlines()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_bar_fits_and_tells_share_lines_and_rate(width: int) -> None:
    (line,) = bar(width, 6_000)
    assert len(line.rstrip()) <= width
    assert re.search(r"━╸? .* 75%  1,500 lines  0/s", line)


def test_where_the_size_is_not_known_there_is_no_bar() -> None:
    (line,) = bar(80, None)
    assert line.rstrip() == "1,500 lines  0/s"


def test_the_bar_says_what_it_waits_for() -> None:
    lines = bar(40, 6_000, "there is no leader: no quorum: 1 of 3 voters \x1b[2J reachable")
    words = " ".join(line.strip() for line in lines[1:])
    assert words == "waiting for 3 s: there is no leader: no quorum: 1 of 3 voters \\x1b[2J reachable"
    assert max(map(len, lines)) <= 40


def test_why_it_waits_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Typed() as typed:
        for why in (None, "a", "a", None, "b\x07", "b\x07"):
            typed.frame(why, 2.0)
        typed.acknowledged([Entry(7, 1, "x")])
        typed.frame("a", 2.0)
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  waiting: a",
        "  waiting: b\\x07",
        "  index 7",
        "  waiting: a",
    ]


# -- log and status


def test_status_fits_the_terminal_and_has_colours(cluster: Cluster) -> None:
    with terminal("status", "--nodes", cluster.spelled, width=40) as shell:
        assert shell.end() == 0
    lines = shell.shown.splitlines()
    assert {"node", "role", "term", "commit"} <= set(STYLE.sub("", lines[0]).split())
    assert max(len(STYLE.sub("", line)) for line in lines) <= 40
    assert "\x1b[1;32m" in lines[1], "the leader"


@pytest.mark.parametrize(
    ("command", "variables"),
    [("status", {"NO_COLOR": "1"}), ("status", {"TERM": "dumb"}), ("log", {"NO_COLOR": "1"})],
)
def test_no_colours_where_they_are_not_wanted(
    cluster: Cluster, command: str, variables: dict[str, str]
) -> None:
    index = cluster("append", "--json", stdin="a").objects[0]["first_index"]
    words = [command, "--nodes", cluster.spelled, *(["--from", str(index)] if command == "log" else [])]
    with terminal(*words, variables=variables) as shell:
        assert shell.end() == 0
    assert shell.shown
    assert "\x1b" not in shell.shown
    with terminal(*words) as shell:
        assert shell.end() == 0
    assert "\x1b[" in shell.shown


# -- demo


def test_the_demo_is_drawn_in_place(tmp_path: Path) -> None:
    with terminal("demo", "--entries", "3000", variables={"TMPDIR": str(tmp_path)}) as shell:
        assert shell.end() == 0
    assert shell.shown.count("\x1b[?25l") == shell.shown.count("\x1b[?25h") == 1
    final = STYLE.sub("", shell.shown.rpartition("totora demo")[2])
    assert final.count("✓ verified") == 3
    assert "100%" in final
    for words in (
        "is elected in term",
        "kill -9: node",
        "took over in term",
        "has caught up",
        "3 logs of 3,000 entries",
    ):
        assert words in final, words


def test_the_demo_on_a_dumb_terminal_is_a_list() -> None:
    with terminal("demo", "--entries", "3000", variables={"TERM": "dumb"}) as shell:
        assert shell.end() == 0
    assert "\x1b" not in shell.shown
    assert "✓ 3 logs of 3,000 entries" in shell.shown
