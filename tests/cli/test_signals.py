"""Ctrl-C and SIGTERM end every command in one line and in order, whatever it is doing."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import TOTORA, Cluster, environment, running_cluster, started
from tests.processes.waiting import HANG_S, eventually_in_thread

SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), 1) as cluster:
        yield cluster


def ended(process: subprocess.Popen[bytes], number: signal.Signals) -> tuple[int, str]:
    """The exit code and stderr of a command that gets a signal."""
    process.send_signal(number)
    code = process.wait(HANG_S)
    assert process.stderr is not None
    return code, process.stderr.read().decode()


def log_ends_at(cluster: Cluster) -> int:
    return int(cluster("status", "--json").objects[0]["commit_index"])


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_append_says_what_is_appended(cluster: Cluster, number: signal.Signals, code: int, word: str) -> None:
    """It waits for more input when it is told to end; what it has read so far is appended."""
    before = log_ends_at(cluster)
    with started("append", "--nodes", cluster.spelled) as process:
        assert process.stdin is not None
        process.stdin.write(b"a\nb\nno end yet")
        process.stdin.flush()
        eventually_in_thread("both lines are appended", lambda: log_ends_at(cluster) >= before + 2)
        told = ended(process, number)
    assert told == (code, f"totora append: {word}; 2 lines are appended\n")
    assert [entry["value"] for entry in cluster("log", "--json", "--from", str(before + 1)).objects] == [
        "a",
        "b",
    ]


def test_append_leaves_the_flags_of_its_source_alone(cluster: Cluster) -> None:
    """Whoever shares the descriptor (a shell its terminal) would find it non-blocking otherwise."""
    reading, writing = os.pipe()
    before = fcntl.fcntl(reading, fcntl.F_GETFL)
    start = log_ends_at(cluster)
    command = [*TOTORA, "append", "--nodes", cluster.spelled]
    try:
        with subprocess.Popen(
            command, stdin=reading, stdout=subprocess.DEVNULL, env=environment()
        ) as process:
            try:
                os.write(writing, b"a\n")
                eventually_in_thread("the line is appended", lambda: log_ends_at(cluster) > start)
                assert fcntl.fcntl(reading, fcntl.F_GETFL) == before
                os.close(writing)
                writing = -1
                assert process.wait(HANG_S) == 0
            finally:
                process.kill()
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def test_append_accounts_for_programs_too(cluster: Cluster) -> None:
    before = log_ends_at(cluster)
    with started("append", "--json", "--nodes", cluster.spelled) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"a\n")
        process.stdin.flush()
        eventually_in_thread("the line is appended", lambda: log_ends_at(cluster) >= before + 1)
        code, _ = ended(process, signal.SIGINT)
        account = process.stdout.read()
    assert code == 130
    assert b'"appended":1,"unknown":0,' in account


def test_append_in_the_middle_of_a_torrent_knows_what_became_of_each_line(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Whatever is under way is answered before it ends, so nothing is unknown."""
    before = log_ends_at(cluster)
    file = tmp_path / "text"
    file.write_bytes(b"".join(b"%d\n" % n for n in range(2_000_000)))
    with started("append", "--nodes", cluster.spelled, file) as process:
        eventually_in_thread("it has begun", lambda: log_ends_at(cluster) > before + 1_000)
        code, words = ended(process, signal.SIGINT)
    assert code == 130
    after = log_ends_at(cluster)
    assert words == f"totora append: interrupted; {after - before:,} lines are appended\n"
    last = cluster("log", "--json", "--from", str(after)).objects[0]
    assert last["value"] == str(after - before - 1), "the first lines of the file, without a gap"


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
@pytest.mark.parametrize("words", [["log"], ["log", "--json"]])
def test_log_ends_even_where_nobody_reads_it(
    cluster: Cluster, words: list[str], number: signal.Signals, code: int, word: str
) -> None:
    """It is blocked in a write to a full pipe: no event loop turns there."""
    if log_ends_at(cluster) < 10_000:
        assert cluster("append", stdin="x\n" * 10_000).code == 0
    with started(*words, "--nodes", cluster.spelled) as process:
        assert process.stdout is not None
        process.stdout.readline()
        state = Path(f"/proc/{process.pid}/wchan")
        eventually_in_thread("the pipe is full", lambda: "pipe" in state.read_text())
        assert ended(process, number) == (code, f"totora log: {word}\n")


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_status_does_not_wait_for_silent_nodes(number: signal.Signals, code: int, word: str) -> None:
    """An address that takes the connection, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(HANG_S)
        nodes = f"1=127.0.0.1:{server.getsockname()[1]}"
        with started("status", "--nodes", nodes, "--timeout", "600") as process:
            connection, _ = server.accept()
            with connection:
                assert ended(process, number) == (code, f"totora status: {word}\n")


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_node_closes_its_log_and_says_that_it_has_stopped(
    tmp_path: Path, options: list[str], number: signal.Signals, code: int
) -> None:
    """SIGTERM is how a node is asked to stop, so that is no failure. Nothing but the usual lines."""
    cluster = Cluster(tmp_path, 1)
    words = ["node", "--id", "1", "--nodes", cluster.spelled, "--data", str(cluster.data_dir(1)), *options]
    with started(*words) as process:
        told = process.stdout if options else process.stderr
        assert told is not None
        first = told.readline()
        assert (b'"event":"started"' if options else b"listens on 127.0.0.1:") in first
        process.send_signal(number)
        assert process.wait(HANG_S) == code
        lines = told.read().splitlines()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert (b'"event":"stopped"' if options else b" node 1 has stopped") in lines[-1]
    assert not [line for line in lines if b"Traceback" in line]


def test_a_node_does_not_mind_that_nobody_reads_what_it_tells(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1)
    with started("node", "--id", "1", "--nodes", cluster.spelled, "--json") as process:
        assert process.stdout is not None
        assert b"started" in process.stdout.readline()
        process.stdout.close()
        assert cluster("append", "--json", stdin="goes on").objects[0]["appended"] == 1
        assert ended(process, signal.SIGTERM) == (0, "")
