"""The demo from its first process to its verdict: the story for people and for programs, what damages do, what an end leaves."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.shell import TOTORA, environment, started, totora
from tests.levels import by_level
from tests.processes.waiting import HANG_S, eventually_in_thread
from totora import Entry
from totora.cli.demo import run_demo
from totora.cli.demo_logs import read_log
from totora.cli.ending import Failed

ENTRIES = by_level(quick=3_000, ci=100_000)
STORY = [
    "started",
    "elected",
    "killed",
    "took_over",
    "restarted",
    "caught_up",
    "acknowledged",
    "stopped",
    "verified",
]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the demo keeps its data; nothing may be left there."""
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def demo_processes(folder: Path) -> list[int]:
    """The nodes of demos with data in that folder."""
    found = []
    for proc in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if proc.name.isdigit() and str(folder).encode() in (proc / "cmdline").read_bytes():
                found.append(int(proc.name))
    return found


def test_the_whole_story_for_programs(folder: Path) -> None:
    ended = totora("demo", "--entries", str(ENTRIES), "--json", TMPDIR=str(folder))
    assert (ended.code, ended.err) == (0, ""), ended
    assert all({"event", "at_s"} <= set(event) for event in ended.objects)
    story = {event["event"]: event for event in ended.objects if event["event"] != "progress"}
    assert list(story) == STORY
    assert (story["started"]["nodes"], story["started"]["total"]) == (3, ENTRIES)
    leader, heir = story["killed"]["node"], story["took_over"]["node"]
    assert leader == story["elected"]["node"] == story["restarted"]["node"] == story["caught_up"]["node"]
    assert heir != leader
    assert story["took_over"]["term"] > story["elected"]["term"]
    assert story["took_over"]["failover_ms"] > 0
    assert ENTRIES // 2 <= story["killed"]["acknowledged"] < ENTRIES
    assert story["caught_up"]["entries"] > 0
    assert story["acknowledged"]["acknowledged"] == ENTRIES
    assert (story["verified"]["ok"], story["verified"]["entries"], story["verified"]["nodes"]) == (
        True,
        ENTRIES,
        3,
    )
    progress = [event for event in ended.objects if event["event"] == "progress"]
    assert progress
    for event in progress:
        assert {"acknowledged", "total", "lines_per_s", "nodes"} <= set(event)
        assert [node["id"] for node in event["nodes"]] == [1, 2, 3]


def test_the_whole_story_of_a_file_in_a_pipe(folder: Path) -> None:
    """Lines of all kinds, among them equal and empty ones; the file lies where nothing else does."""
    ended = totora("demo", __file__, TMPDIR=str(folder))
    assert (ended.code, ended.err) == (0, ""), ended
    title, *lines = ended.lines
    count = len(Path(__file__).read_text().splitlines())
    assert title == f"totora demo: 3 nodes replicate {count} lines of {__file__}"
    assert all(re.match(r" *\d+\.\d\d s  ", line) for line in lines)
    patterns = [
        r"· 3 processes run",
        r"✓ node \d is elected in term \d",
        r"✗ kill -9: node \d, the leader, is dead; \d+ lines are acknowledged",
        r"✓ node \d took over in term \d+: first answer \d+ ms after the kill",
        r"· node \d is started again; its log ends at \d+",
        r"✓ node \d has caught up: \d+ entr",
        rf"· {count} of {count} lines acknowledged, in ",
        r"· all nodes are stopped",
        rf"✓ 3 logs of {count} entries are equal to each other and to the text: no acknowledged line is missing",
    ]
    told = [line for line in lines if re.search(r" s  [·✓✗] ", line)]
    assert len(told) == len(patterns)
    for line, pattern in zip(told, patterns, strict=True):
        assert re.search(pattern, line), line
    assert any("100%" in line for line in lines)


@pytest.mark.parametrize("text", ["one", "one\ntwo", "\n\n\n"])
def test_short_texts_have_the_same_story(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """However short: the next leader is left something to acknowledge."""
    file = tmp_path_factory.mktemp("text") / "short"
    file.write_text(text)
    ended = totora("demo", file, "--json", TMPDIR=str(folder))
    assert (ended.code, ended.err) == (0, "")
    assert [event["event"] for event in ended.objects if event["event"] != "progress"] == STORY


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it holds no line"),
        (b"a\n\xff", "line 2 is not UTF-8: byte 1 of it is 0xff"),
        (b"a\n" + b"x" * ((1 << 20) + 1), "line 2 is longer than 1,048,576 bytes"),
    ],
)
def test_a_text_that_cannot_be_one(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, data: bytes, says: str
) -> None:
    file = tmp_path_factory.mktemp("text") / "bad"
    file.write_bytes(data)
    ended = totora("demo", file, TMPDIR=str(folder))
    assert ended.failed() == f"totora demo: {file}: {says}"
    assert ended.out == ""
    missing = file.with_name("missing")
    assert totora("demo", missing).failed() == f"totora demo: {missing}: No such file or directory"


# -- bugs that are planted


Log = list[Entry[str]]


def dropped(log: Log) -> None:
    del log[40]


def swapped(log: Log) -> None:
    log[40], log[41] = (
        Entry(log[40].index, log[40].term, log[41].value),
        Entry(log[41].index, log[41].term, log[40].value),
    )


def doubled(log: Log) -> None:
    log.insert(41, log[40])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (dropped, "node 2, index {index}: line 41 was acknowledged and is missing: expected 'line 41'"),
        (
            swapped,
            "node 2, index {index}: not line 41, which was acknowledged: expected 'line 41', found 'line 42'",
        ),
        (doubled, "node 2, index {index}: stands behind index {index}: found 'line 41'"),
    ],
)
def test_a_log_that_is_wrong_fails_the_demo(
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Log], None],
    says: str,
) -> None:
    file = tmp_path_factory.mktemp("text") / "text"
    file.write_text("".join(f"line {n}\n" for n in range(1, 101)))
    index = 0

    def read(data_dir: Path) -> Log:
        nonlocal index
        log = read_log(data_dir)
        if data_dir.name == "node-2":
            index = log[40].index
            damage(log)
        return log

    with pytest.raises(Failed) as raised:
        run_demo(file, entries=0, as_json=False, folder=folder, read=read)
    finding = says.format(index=index)
    assert str(raised.value) == f"the logs are not what was acknowledged: {finding}"
    told = capsys.readouterr().out
    assert f"✗ {finding}\n" in told
    assert told.endswith(f"✗ the logs are not what was acknowledged: {finding}\n")
    assert "verified" not in told


PLANTED = """
import sys
from pathlib import Path
from totora.cli import demo
from totora.cli.demo_logs import read_log
from totora.cli.main import main
demo.run_demo.__kwdefaults__["read"] = lambda data_dir: read_log(data_dir)[data_dir.name == "node-3":]
sys.argv = ["totora", "demo", "--json", "--entries", "100"]
main()
"""


def test_a_demo_that_fails_ends_with_1_and_says_why_in_one_line(folder: Path) -> None:
    """The first line is missing on node 3."""
    ended = subprocess.run(
        [sys.executable, "-c", PLANTED],
        capture_output=True,
        env=environment(TMPDIR=str(folder)),
        timeout=HANG_S,
        check=False,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.decode().splitlines()
    assert re.search(
        r"^totora demo: the logs are not what was acknowledged: node 3, index \d+: line 1 was acknowledged and is missing",
        line,
    )
    assert b'"event":"finding"' in ended.stdout
    assert (
        b'"ok":false,"why":"the logs are not what was acknowledged: node 3' in ended.stdout.splitlines()[-1]
    )


def test_a_node_that_dies_by_itself_fails_the_demo_at_once(folder: Path) -> None:
    with started("demo", "--json", TMPDIR=str(folder)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while b'"started"' not in process.stdout.readline():
            pass
        os.kill(min(demo_processes(folder)), signal.SIGKILL)
        assert process.wait(HANG_S) == 1
        words = process.stderr.read().decode()
    assert re.fullmatch(r"totora demo: node \d has ended: signal 9\n", words)


# -- ends


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize(
    "act", by_level(quick=["killed"], ci=["progress", "started", "elected", "killed", "restarted", "stopped"])
)
def test_a_signal_leaves_no_process_and_no_directory(
    folder: Path, act: str, number: int, code: int, word: str
) -> None:
    """More of them, by somebody impatient, change nothing."""
    with started(
        "demo", "--json", "--entries", by_level(quick="60000", ci="300000"), TMPDIR=str(folder)
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while f'"event":"{act}"'.encode() not in process.stdout.readline():
            pass
        again_s, words = 0.02, b""
        for _ in range(int(HANG_S / again_s)):
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, words = process.communicate(timeout=again_s)
                break
        assert process.wait(HANG_S) == code
    assert words.decode() == f"totora demo: {word}; all nodes are stopped, their data is removed\n"
    assert demo_processes(folder) == []


def test_kill_9_of_the_demo_leaves_no_process(tmp_path: Path) -> None:
    """Its nodes see that nobody listens any more; only their directories are left."""
    with started("demo", "--json", TMPDIR=str(tmp_path)) as process:
        assert process.stdout is not None
        while b'"elected"' not in process.stdout.readline():
            pass
        process.kill()
        process.wait()
    eventually_in_thread("the nodes have ended", lambda: not demo_processes(tmp_path))


def test_nobody_reads_the_story_to_its_end(folder: Path) -> None:
    command = f"{' '.join(TOTORA)} demo --entries 3000 | head -n 2"
    ended = subprocess.run(
        ["/bin/sh", "-c", command],
        capture_output=True,
        env=environment(TMPDIR=str(folder)),
        timeout=HANG_S,
        check=False,
    )
    assert (len(ended.stdout.splitlines()), ended.stderr) == (2, b"")
    eventually_in_thread(
        "the nodes have ended", lambda: not demo_processes(folder) and not list(folder.iterdir())
    )


def test_default_text_is_long_enough() -> None:
    """At least 100,000 entries, of the project's own pages and sources."""
    from totora.cli.commands import demo
    from totora.cli.demo_text import load

    (entries,) = (option.default for option in demo.params if option.name == "entries")
    assert isinstance(entries, int)
    assert entries >= 100_000
    text = load(None, entries)
    assert len(text.lines) == entries
    assert {"# totora", "class Raft:"} <= set(text.lines)
