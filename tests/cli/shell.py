"""`totora` in processes of its own: run to their ends, left running, and as the nodes of a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.processes.waiting import HANG_S, eventually_in_thread
from totora import NodeId
from totora.cli.demo_cluster import free_addresses

__all__ = ["TOTORA", "Cluster", "Ended", "environment", "running_cluster", "started", "totora"]

TOTORA: Final = (sys.executable, "-m", "totora.cli")


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would change the command line's mind."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TOTORA_") or name == "TOTORA_TEST_RUN"
    }
    for name in ("NO_COLOR", "COLUMNS", "LINES", "PYTHONUNBUFFERED", "TERM"):
        ours.pop(name, None)
    return ours | more


@dataclass(frozen=True)
class Ended:
    """What a command left: its exit code (negative: a signal) and its words."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def failed(self) -> str:
        """The one line of an error, of a command that says nothing else."""
        assert self.code == 1, self
        (line,) = self.err.splitlines()
        assert line.startswith("totora "), line
        return line


def totora(*words: str | Path, stdin: str | bytes = b"", **variables: str) -> Ended:
    """Run a command to its end."""
    ended = subprocess.run(
        [*TOTORA, *map(str, words)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env=environment(**variables),
        timeout=2 * HANG_S,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


@contextmanager
def started(*words: str | Path, **variables: str) -> Generator[subprocess.Popen[bytes]]:
    """A command with pipes at all three ends; whatever happens, it does not outlive the block."""
    process = subprocess.Popen(
        [*TOTORA, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**variables),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


class Cluster:
    """Nodes started through `totora node`, each with a data directory; by id.

    spelled: as --nodes has it. options: what all of them get, with {id} for the node's id.
    """

    def __init__(self, folder: Path, count: int = 3, options: Sequence[str] = ()) -> None:
        self.addresses = free_addresses(count)
        self.spelled = ",".join(f"{id}={host}:{port}" for id, (host, port) in self.addresses.items())
        self._folder = folder
        self._options = options
        self._processes: dict[NodeId, subprocess.Popen[bytes]] = {}
        self._starts = 0

    def data_dir(self, id: NodeId) -> Path:
        return self._folder / f"node-{id}"

    def start(self, *ids: NodeId) -> None:
        """Start these, or all."""
        for id in ids or self.addresses:
            self._starts += 1
            words = [
                "node",
                "--id",
                str(id),
                "--nodes",
                self.spelled,
                "--data",
                str(self.data_dir(id)),
                "--json",
            ]
            said = self._said(id)
            with said.open("wb") as out, said.with_suffix(".err").open("wb") as err:
                self._processes[id] = subprocess.Popen(
                    [*TOTORA, *words, *(option.format(id=id) for option in self._options)],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=environment(),
                )

    def _said(self, id: NodeId) -> Path:
        return self._folder / f"node-{id}.json"

    def events(self, id: NodeId) -> list[dict[str, Any]]:
        """What a node has told since its latest start."""
        whole, _, _ = self._said(id).read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def complaints(self, id: NodeId) -> str:
        """What a node has written to stderr since its latest start."""
        return self._said(id).with_suffix(".err").read_text()

    def wait_until(self, id: NodeId, event: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            assert self._processes[id].poll() is None, self.complaints(id)
            return next((told for told in self.events(id) if told["event"] == event), None)

        return eventually_in_thread(f"node {id}: {event}", found)

    def leader(self, *, not_in_term: int = 0) -> tuple[NodeId, int]:
        """Wait for a leader in a term above `not_in_term`; its id and its term."""

        def found() -> tuple[NodeId, int] | None:
            best: tuple[NodeId, int] | None = None
            for id, process in self._processes.items():
                roles = [told for told in self.events(id) if told["event"].startswith("became_")]
                if process.poll() is None and roles and roles[-1]["event"] == "became_leader":
                    term = roles[-1]["term"]
                    if term > max(not_in_term, best[1] if best else 0):
                        best = id, term
            return best

        return eventually_in_thread("some node leads", found)

    def kill(self, id: NodeId) -> None:
        process = self._processes.pop(id)
        process.kill()
        process.wait()

    def signal(self, id: NodeId, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        process = self._processes.pop(id)
        process.send_signal(number)
        return process.wait(HANG_S)

    def stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        codes = {id: process.wait(HANG_S) for id, process in self._processes.items()}
        self._processes.clear()
        assert not any(codes.values()), f"nodes end cleanly: {codes}"

    def abandon(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def __call__(self, command: str, *words: str | Path, stdin: str | bytes = b"") -> Ended:
        """Run a command on this cluster."""
        return totora(command, "--nodes", self.spelled, *words, stdin=stdin)


@contextmanager
def running_cluster(folder: Path, count: int = 3, options: Sequence[str] = ()) -> Generator[Cluster]:
    """A cluster with a leader; stopped at the end, cleanly."""
    cluster = Cluster(folder, count, options)
    try:
        cluster.start()
        cluster.leader()
        yield cluster
        cluster.stop()
    finally:
        cluster.abandon()
