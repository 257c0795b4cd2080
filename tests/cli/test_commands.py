"""append, log and status on a running cluster: what goes in comes out, from any node, for people and for programs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import TOTORA, Cluster, environment, running_cluster, totora
from tests.processes.waiting import HANG_S
from totora import Entry
from totora.cli.demo_logs import read_log

LARGEST = 1 << 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def appended(cluster: Cluster, *words: str | Path, stdin: str | bytes = b"") -> tuple[int, int]:
    """First and last index of what a successful append says."""
    ended = cluster("append", "--json", *words, stdin=stdin)
    assert (ended.code, ended.err) == (0, "")
    (account,) = ended.objects
    assert set(account) == {"appended", "unknown", "first_index", "last_index", "seconds"}
    assert account["unknown"] == 0
    assert account["appended"] == account["last_index"] - account["first_index"] + 1
    return account["first_index"], account["last_index"]


def values(cluster: Cluster, first: int, last: int | None = None) -> list[str]:
    ended = cluster("log", "--json", "--from", str(first), *(() if last is None else ("--to", str(last))))
    assert (ended.code, ended.err) == (0, "")
    assert all(set(entry) == {"index", "term", "value"} for entry in ended.objects)
    return [entry["value"] for entry in ended.objects]


# -- append


def test_lines_of_a_file_and_of_a_pipe(cluster: Cluster, tmp_path: Path) -> None:
    """LF or CR LF, an empty line, a last line without an end."""
    file = tmp_path / "text"
    file.write_bytes("zürich\n\nlast".encode())
    assert values(cluster, *appended(cluster, file)) == ["zürich", "", "last"]
    assert values(cluster, *appended(cluster, stdin="a\r\n b \r\n")) == ["a", " b "]
    assert values(cluster, *appended(cluster, "-", stdin="-")) == ["-"]


def test_what_it_tells_people(cluster: Cluster) -> None:
    one = cluster("append", stdin="a")
    assert (one.code, one.err) == (0, "")
    assert one.out.startswith("1 line appended, index ")
    two = cluster("append", stdin="a\nb\n")
    assert two.out.startswith("2 lines appended, indexes ")
    assert two.out.endswith("/s)\n")
    none = cluster("append")
    assert (none.code, none.out, none.err) == (0, "no line, nothing appended\n", "")


@pytest.mark.parametrize("source", ["/dev/null", "<&-"])
def test_an_empty_source(cluster: Cluster, source: str) -> None:
    """/dev/null is neither a file nor a pipe; a closed standard input is nothing at all."""
    redirection = source if source == "<&-" else f"<{source}"
    command = f"{' '.join(TOTORA)} append --json --nodes {cluster.spelled} {redirection}"
    ended = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, env=environment(), timeout=HANG_S, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b'"appended":0,"unknown":0,"first_index":null,"last_index":null' in ended.stdout


def test_many_lines_of_all_lengths_keep_their_order(cluster: Cluster, tmp_path: Path) -> None:
    """More than a page of the log, in batches that do not end where pages do; every node has the same."""
    lines = [f"{n} " + "x" * (n * 7919 % 400) for n in range(12_000)]
    lines[5_000] = "y" * 20_000
    file = tmp_path / "text"
    file.write_text("\n".join(lines))
    first, last = appended(cluster, file)
    assert last - first + 1 == len(lines)
    assert values(cluster, first, last) == lines
    assert values(cluster, first + 4_999, first + 5_001) == lines[4_999:5_002]


def test_the_longest_line_is_carried(cluster: Cluster) -> None:
    longest = "x" * LARGEST
    first, last = appended(cluster, stdin=f"before\n{longest}\nafter")
    assert values(cluster, first, last) == ["before", longest, "after"]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"x" * (LARGEST + 1), "line 301 is longer than 1,048,576 bytes"),
        (b"abc\xff\xfe", "line 301 is not UTF-8: byte 4 of it is 0xff"),
    ],
)
def test_a_bad_line_ends_it_behind_those_before_and_nothing_follows(
    cluster: Cluster, tmp_path: Path, bad: bytes, says: str
) -> None:
    good = b"".join(b"%d\n" % n for n in range(300))
    file = tmp_path / "text"
    file.write_bytes(good + bad + b"\nnever\n")
    ended = cluster("append", file)
    assert ended.failed() == f"totora append: {says}; 300 lines are appended"
    (marker, _) = appended(cluster, stdin="marker")
    assert values(cluster, marker - 301)[-2:] == ["299", "marker"]
    assert "never" not in values(cluster, marker - 301)


def test_a_source_that_cannot_be_read(cluster: Cluster, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert cluster("append", missing).failed() == f"totora append: {missing}: No such file or directory"
    folder = cluster("append", tmp_path).failed()
    assert folder == f"totora append: {tmp_path}: Is a directory; nothing is appended"
    failed = cluster("append", "--json", tmp_path)
    assert failed.code == 1
    assert failed.objects[0]["appended"] == 0


# -- any node takes any request


@pytest.mark.parametrize("id", [1, 2, 3])
def test_any_node_takes_appends_and_answers_reads(cluster: Cluster, id: int) -> None:
    host, port = cluster.addresses[id]
    alone = f"{id}={host}:{port}"
    ended = totora("append", "--json", "--nodes", alone, stdin=f"through {id}")
    index = str(ended.objects[0]["first_index"])
    other = id % 3 + 1
    host, port = cluster.addresses[other]
    read = totora("log", "--json", "--nodes", f"{other}={host}:{port}", "--from", index, "--to", index)
    assert [entry["value"] for entry in read.objects] == [f"through {id}"]


# -- log


def test_ranges_of_the_log(cluster: Cluster) -> None:
    first, last = appended(cluster, stdin="a\nb\nc\nd")
    assert last == first + 3
    assert values(cluster, first + 1, first + 2) == ["b", "c"]
    assert values(cluster, last, last) == ["d"]
    assert values(cluster, last) == ["d"], "to the end"
    assert values(cluster, last, last + 100) == ["d"], "and beyond"
    assert values(cluster, last + 1) == [], "and behind it"


def test_control_characters_are_shown_in_rows_and_kept_in_json(cluster: Cluster) -> None:
    nasty = "\x1b[2J\x07tab\tdel\x7f c1 \x9b turn \u202e back\u2028end"
    first, last = appended(cluster, stdin=f"{nasty}\nplain\n")
    shown = cluster("log", "--from", str(first), "--to", str(last))
    assert (shown.code, shown.err) == (0, "")
    term = cluster("log", "--json", "--from", str(first)).objects[0]["term"]
    assert shown.out == (
        f"{first:>8} {term:>5}  \\x1b[2J\\x07tab\\tdel\\x7f c1 \\x9b turn \\u202e back\\u2028end\n"
        f"{last:>8} {term:>5}  plain\n"
    )
    assert values(cluster, first, first) == [nasty]


def test_what_the_locale_cannot_spell_is_escaped(cluster: Cluster) -> None:
    first, _ = appended(cluster, stdin="zürich \N{THUMBS UP SIGN}")
    shown = totora("log", "--nodes", cluster.spelled, "--from", str(first), PYTHONIOENCODING="ascii")
    assert shown.out.endswith("z\\xfcrich \\U0001f44d\n")


# -- status


def test_status_of_all_nodes(cluster: Cluster) -> None:
    _, last = appended(cluster, stdin="a")
    ended = cluster("status", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert [(node["id"], node["address"]) for node in ended.objects] == [
        (id, f"{host}:{port}") for id, (host, port) in cluster.addresses.items()
    ]
    leader, term = cluster.leader()
    for node in ended.objects:
        assert node["role"] == ("leader" if node["id"] == leader else "follower")
        assert (node["leader"], node["term"], node["volatile"], node["why"]) == (leader, term, False, None)
        assert node["last_index"] >= node["commit_index"] >= node["applied_index"] > 0
        assert {"durable_index", "cluster_id", "store_id", "incarnation", "peers"} <= set(node)
    assert ended.objects[leader - 1]["commit_index"] >= last


def test_status_for_people(cluster: Cluster) -> None:
    ended = cluster("status")
    assert (ended.code, ended.err) == (0, "")
    header, *rows = ended.lines
    assert header.split() == ["node", "address", "role", "term", "last", "commit", "applied"]
    leader, term = cluster.leader()
    assert [row.split()[2] for row in rows] == ["leader" if id == leader else "follower" for id in (1, 2, 3)]
    assert {row.split()[3] for row in rows} == {str(term)}


def test_status_finds_addresses_that_were_mixed_up(cluster: Cluster) -> None:
    (host, one), (_, two) = cluster.addresses[1], cluster.addresses[2]
    mixed = totora("status", "--nodes", f"1={host}:{two},2={host}:{one}")
    assert mixed.code == 0
    assert f"node 2, not node 1, answers at {host}:{two}: --nodes is wrong" in mixed.lines


# -- output that nobody takes


@pytest.mark.parametrize("words", [["log"], ["status"], ["append", "/dev/null"]])
def test_a_broken_pipe_is_no_news(cluster: Cluster, words: list[str]) -> None:
    """Whoever reads has gone before the command writes, as `head` does."""
    appended(cluster, stdin="x" * 200_000)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [*TOTORA, *words, "--nodes", cluster.spelled],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=HANG_S,
            check=False,
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("command", ["log", "status", "append"])
def test_a_full_disk_is_an_error_in_one_line(cluster: Cluster, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*TOTORA, command, "--nodes", cluster.spelled],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=HANG_S,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == f"totora {command}: No space left on device\n".encode()


# -- the nodes themselves


def test_a_node_tells_what_happens_to_it(cluster: Cluster) -> None:
    for id, (host, port) in cluster.addresses.items():
        first, *_ = told = cluster.events(id)
        assert first["event"] == "started"
        assert (first["node"], first["address"], first["last_index"]) == (id, f"{host}:{port}", 0)
        assert all({"at", "level", "event", "node"} <= set(event) for event in told)
        assert {"link_up"} <= {event["event"] for event in told}
        assert cluster.complaints(id) == ""


def test_what_was_appended_stands_on_every_disk(tmp_path: Path) -> None:
    """A cluster of its own: the logs are read once its nodes have stopped."""
    lines = [str(n) for n in range(1_000)]
    with running_cluster(tmp_path) as cluster:
        first, _ = appended(cluster, stdin="\n".join(lines))
        _, term = cluster.leader()
        for id, (host, port) in cluster.addresses.items():
            read = totora("log", "--nodes", f"{id}={host}:{port}")
            assert len(read.lines) == len(lines), "a follower that has answered holds what it has shown"
    entries = [Entry(index, term, line) for index, line in enumerate(lines, first)]
    assert [read_log(tmp_path / f"node-{id}") for id in (1, 2, 3)] == [entries] * 3
