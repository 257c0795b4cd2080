"""Node processes on this machine, each with a data directory of its own: started, watched, killed, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from ..types import Address, NodeId, NodeStatus
from .demo_node import Setup

__all__ = ["LocalCluster", "NodeFailed", "NodeProcess", "free_addresses"]

STOP_S: Final = 10.0
"""How long a node may take to close its log; only a hang gets there."""

PORTS: Final = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections."""

_STATUS: Final = msgspec.json.Decoder(NodeStatus)


class NodeFailed(Exception):
    """A node's process ended although nobody asked it to; `str()` holds its last words."""


class NodeProcess:
    """One node's process and what it said last.

    status: None until it runs, and once it is dead. dismissed: it was told to end.
    ended: called when it has.
    """

    def __init__(self, id: NodeId, process: asyncio.subprocess.Process, ended: Callable[[], None]) -> None:
        self.id = id
        self.status: NodeStatus | None = None
        self.last_words = ""
        self.dismissed = False
        self._process = process
        self._ended = ended
        self._changed = asyncio.Event()
        self._watching = asyncio.ensure_future(self._watch())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None and not self._watching.done()

    async def _watch(self) -> None:
        assert self._process.stdout is not None, "stdout is a pipe"
        assert self._process.stderr is not None, "stderr is a pipe"
        errors = asyncio.ensure_future(self._process.stderr.read())
        async for line in self._process.stdout:
            self.status = _STATUS.decode(line)
            self._changed.set()
        self.last_words = (await errors).decode(errors="replace").strip()
        await self._process.wait()
        self._changed.set()
        self._ended()

    def failure(self) -> NodeFailed:
        """Why it must not have ended."""
        code = self._process.returncode
        said = self.last_words.splitlines()
        words = (
            said[-1] if said else f"signal {-code}" if code is not None and code < 0 else "it said nothing"
        )
        return NodeFailed(f"node {self.id} has ended: {words}")

    async def changed(self) -> None:
        """Wait until it says something; raises NodeFailed if it has ended."""
        if not self.running:
            raise self.failure()
        self._changed.clear()
        await self._changed.wait()

    async def kill(self) -> None:
        """SIGKILL."""
        self.dismissed = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._watching
        self.status = None

    async def stop(self) -> bool:
        """Let it close its log and end; True if it ended cleanly, else it is killed."""
        assert self._process.stdin is not None, "stdin is a pipe"
        self.dismissed = True
        self._process.stdin.close()
        try:
            await asyncio.wait_for(asyncio.shield(self._watching), STOP_S)
        except TimeoutError:
            await self.kill()
        return self._process.returncode == 0


class LocalCluster:
    """Nodes by id. Whoever makes one calls `stop` at the end, whatever happened."""

    def __init__(self, nodes: dict[NodeId, Address], folder: Path, segment_bytes: int) -> None:
        self.nodes = nodes
        self.folder = folder
        self.processes: dict[NodeId, NodeProcess] = {}
        self._segment_bytes = segment_bytes
        self._ended = asyncio.Event()

    def data_dir(self, id: NodeId) -> Path:
        return self.folder / f"node-{id}"

    async def start(self, id: NodeId) -> NodeProcess:
        """Start a process and wait for its first word. Raises NodeFailed."""
        setup = Setup(
            id=id, nodes=self.nodes, data_dir=str(self.data_dir(id)), segment_bytes=self._segment_bytes
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "totora.cli.demo_node",
            msgspec.json.encode(setup).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the one who started it
        )
        self.processes[id] = node = NodeProcess(id, process, self._ended.set)
        while node.status is None:
            await node.changed()
        return node

    async def start_all(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for id in self.nodes:
                tasks.create_task(self.start(id))

    async def guard(self) -> NoReturn:
        """Raises NodeFailed once a process ends that nobody told to."""
        while True:
            self._ended.clear()
            for process in self.processes.values():
                if not process.running and not process.dismissed:
                    raise process.failure()
            await self._ended.wait()

    def statuses(self) -> Iterator[NodeStatus]:
        for process in self.processes.values():
            if process.running and process.status is not None:
                yield process.status

    def leader(self) -> NodeProcess | None:
        """The one that says it leads, in the highest term."""
        leading = [status for status in self.statuses() if status.role == "leader"]
        return self.processes[max(leading, key=lambda status: status.term).id] if leading else None

    async def caught_up(self, id: NodeId) -> None:
        """Wait until a node has committed what its leader had committed when asked. Raises NodeFailed."""
        process = self.processes[id]
        goal: int | None = None
        while True:
            await process.changed()
            if goal is None and (leader := self.leader()) is not None and leader.status is not None:
                goal = leader.status.commit_index
            if goal is not None and process.status is not None and process.status.commit_index >= goal:
                return

    async def agreed(self) -> None:
        """Wait until all nodes run, have committed all that stands in their logs, and have the same last index."""
        while True:
            statuses = list(self.statuses())
            ends = {index for status in statuses for index in (status.last_index, status.commit_index)}
            if len(statuses) == len(self.nodes) and len(ends) == 1:
                return
            await self.news()

    async def news(self) -> None:
        """Wait until some node that runs says something. Raises NodeFailed if none does, or one has ended."""
        waits = [asyncio.ensure_future(p.changed()) for p in self.processes.values() if p.running]
        if not waits:
            raise NodeFailed("no node runs")
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in done:
                wait.result()
        finally:
            for wait in waits:
                wait.cancel()

    async def stop(self) -> list[NodeId]:
        """Stop all that run; returns those that did not end cleanly."""
        stopping = [process for process in self.processes.values() if process.running]
        clean = await asyncio.gather(*(process.stop() for process in stopping))
        return [process.id for process, good in zip(stopping, clean, strict=True) if not good]


def free_addresses(count: int) -> dict[NodeId, Address]:
    """Addresses on loopback that nobody listens on now, for nodes 1 to `count`.

    Not the system's choice: its next outgoing connection may choose the same port before the node listens there.
    """
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
            if len(ports) == count:
                break
    return {id: ("127.0.0.1", port) for id, port in enumerate(ports, 1)}
