"""`totora append` across the death of leaders: each line stands in the log once, in its order."""

from __future__ import annotations

import random
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.cli.shell import Cluster, started
from tests.levels import by_level
from tests.processes.waiting import HANG_S, eventually_in_thread, run
from totora import Client, NodeStatus
from totora.cli.demo_logs import read_log

CHUNK_LINES = 100


class Torrent:
    """Writes lines to a pipe without a pause, from a thread of its own, and remembers them."""

    def __init__(self, pipe: IO[bytes], chance: random.Random) -> None:
        self.lines: list[bytes] = []
        self._pipe = pipe
        self._chance = chance

    @contextmanager
    def running(self) -> Generator[None]:
        enough = threading.Event()
        thread = threading.Thread(target=self._write, args=(enough,))
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()

    def _write(self, enough: threading.Event) -> None:
        while not enough.is_set():
            lines = [
                # Each stands there twice: a line that the input repeats is no repetition of a request.
                b"%d " % ((len(self.lines) + n) // 2) + b"x" * self._chance.randrange(600)
                for n in range(CHUNK_LINES)
            ]
            self.lines += lines
            self._pipe.write(b"".join(b"%s\n" % line for line in lines))


def commit_index(cluster: Cluster) -> int:
    async def asking() -> int:
        async with Client(cluster.addresses, entry_type=str) as client:
            found = (await client.statuses()).values()
        return max(status.commit_index for status in found if isinstance(status, NodeStatus))

    return run(asking())


def wait_for_more(cluster: Cluster) -> None:
    enough = commit_index(cluster) + CHUNK_LINES
    eventually_in_thread("lines are under way", lambda: commit_index(cluster) > enough)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.abandon()


@pytest.mark.timeout(600)
def test_append_survives_kill_9_of_the_leader(cluster: Cluster) -> None:
    """The leader is killed while groups of lines are under way, and started again for the next round."""
    leader, term = cluster.leader()
    with started("append", "--json", "--nodes", cluster.spelled) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        torrent = Torrent(process.stdin, random.Random(7))
        for _ in range(by_level(quick=2, ci=20)):
            with torrent.running():
                wait_for_more(cluster)
                cluster.kill(leader)
                heir, new_term = cluster.leader(not_in_term=term)
                assert heir != leader
            cluster.start(leader)
            cluster.wait_until(leader, "became_follower")
            leader, term = heir, new_term
        process.stdin.close()
        assert process.wait(HANG_S) == 0, process.stderr.read()
        assert b'"appended":%d,"unknown":0,' % len(torrent.lines) in process.stdout.read()
    lines = [line.decode() for line in torrent.lines]
    assert [entry["value"] for entry in cluster("log", "--json").objects] == lines
    cluster.stop()
    logs = [[entry.value for entry in read_log(cluster.data_dir(id))] for id in cluster.addresses]
    assert all(log == lines[: len(log)] for log in logs)
    assert sum(log == lines for log in logs) >= 2, "a majority holds what was acknowledged"
