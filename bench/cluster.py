"""Node processes on loopback with their data on a real disk: started, asked, killed and stopped by a measurement."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

from totora.cli.demo_cluster import free_addresses

__all__ = ["Answer", "Cluster", "Worker", "running"]

ANSWER_S: Final = 60.0
"""How long an answer may take, beyond what a command takes by itself: only a hang gets there."""

ROOT: Final = Path(__file__).resolve().parent.parent

Answer: TypeAlias = dict[str, Any]


class Worker:
    """A process: of the node `id`, or of a client if that is 0. It runs `module`, which reads its setup, then commands."""

    def __init__(self, id: int, setup: dict[str, object], module: str = "bench.worker") -> None:
        self.id = id
        # Compiled once, as what is installed is: a restart is not the time of a compiler.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(setup)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None, "stdout is a pipe"
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def answer(self, timeout_s: float = ANSWER_S) -> Answer:
        """The next line; TimeoutError, or RuntimeError if the process has ended."""
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"node {self.id} did not answer within {timeout_s:.0f} s") from None
        if not line:
            raise RuntimeError(f"node {self.id} has ended with code {self.process.wait()}")
        answer: Answer = json.loads(line)
        return answer

    def tell(self, do: str, **fields: object) -> None:
        assert self.process.stdin is not None, "stdin is a pipe"
        self.process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, do: str, *, seconds: float = 0.0, **fields: object) -> Answer:
        self.tell(do, seconds=seconds, **fields)
        return self.answer(ANSWER_S + seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Let it end by itself; kill it if it does not."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Cluster:
    """Workers by id; without a folder they keep nothing on disk. loss: the share of datagrams that each of them drops."""

    def __init__(
        self,
        count: int,
        folder: Path | None,
        transport: str = "tcp",
        *,
        channels: bool = False,
        loss: float = 0.0,
    ) -> None:
        self.folder = folder
        self.transport = transport
        self.channels = channels
        self.loss = loss
        self.nodes = free_addresses(count)
        self.workers: dict[int, Worker] = {}

    def start(self, id: int) -> Worker:
        setup: dict[str, object] = {
            "id": id,
            "nodes": self.nodes,
            "data_dir": str(self.folder / f"node{id}") if self.folder else None,
            "transport": self.transport,
            "channels": self.channels,
            "loss": self.loss,
        }
        self.workers[id] = worker = Worker(id, setup)
        return worker

    def client(self, id: int) -> Worker:
        """A client process that talks to this node; the caller stops it."""
        nodes = {id: self.nodes[id]}
        return Worker(0, {"id": 0, "nodes": nodes, "transport": "tcp", "channels": False})

    def start_all(self) -> None:
        for id in self.nodes:
            self.start(id)
        for worker in self.workers.values():
            worker.answer()

    def leader(self, timeout_s: float = 30.0) -> Worker:
        """The node that leads and whose no-op is committed, once every other one knows it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            statuses = {id: worker.ask("status") for id, worker in self.workers.items()}
            leaders = {status["leader"] for status in statuses.values()}
            if len(leaders) == 1 and (id := leaders.pop()) in self.workers:
                status = statuses[id]
                if status["role"] == "leader" and status["commit_index"] == status["last_index"]:
                    return self.workers[id]
            time.sleep(0.02)
        raise TimeoutError(f"no leader within {timeout_s:.0f} s")

    def stop(self) -> None:
        for worker in self.workers.values():
            if worker.process.stdin is not None:
                with suppress(BrokenPipeError):
                    worker.process.stdin.close()
        for worker in self.workers.values():
            worker.stop()


@contextmanager
def running(
    count: int,
    folder: Path | None,
    *,
    transport: str = "tcp",
    channels: bool = False,
    loss: float = 0.0,
) -> Generator[Cluster]:
    """A started cluster of `count` nodes; stopped at the end, whatever happens."""
    cluster = Cluster(count, folder, transport, channels=channels, loss=loss)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.stop()
