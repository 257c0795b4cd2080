"""`totora demo`: three node processes replicate a text, lose their leader to `kill -9`, and lose nothing else.

lines -> client -> three processes -> three logs on disk -> read back and compared with the lines, entry by entry
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ..aio.client import Client
from ..aio.loops import new_event_loop
from ..types import Entry, NodeId
from . import demo_text
from .demo_cluster import LocalCluster, NodeFailed, NodeProcess, free_addresses
from .demo_feed import Feed
from .demo_logs import read_log
from .demo_verify import compare
from .demo_views import Event, JsonView, LiveView, PlainView, Scene, Tone, View

__all__ = ["run"]

NODES: Final = 3
SEGMENT_BYTES: Final = 4 << 20
"""Small, so that the log of a short text takes more than one."""

KILL_AT: Final = 0.5
RESTART_AT: Final = 0.7
FRAME_S: Final = 0.08
HANG_S: Final = 300.0
"""Only a hang gets there."""


class _Failed(Exception):
    """The demo shows something that must not be; `str()` says what."""


def run(file: Path | None, *, entries: int = 100_000, json: bool = False, folder: Path | None = None) -> int:
    """Play it and return the exit code: 0 only if no acknowledged line is missing, doubled or out of order on any node.

    file: the text; None: this project's own, repeated to `entries` lines.
    folder: where the nodes' data directories are made, and removed at the end; the system's temporary one by default.
    """
    try:
        text = demo_text.load(file, entries)
    except (OSError, ValueError) as error:
        print(f"totora demo: {error}", file=sys.stderr)
        return 1
    title = f"totora demo: {len(text.lines):,} lines ({text.origin}) on {NODES} nodes of this machine"
    scene = Scene(title, len(text.lines), dict.fromkeys(range(1, NODES + 1)))
    view: View = JsonView(scene) if json else LiveView(scene) if sys.stdout.isatty() else PlainView(scene)
    with (
        tempfile.TemporaryDirectory(prefix="totora-demo-", dir=folder, ignore_cleanup_errors=True) as data,
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        try:
            with view:
                return runner.run(_Play(scene, view, text.lines, Path(data)).run())
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("totora demo: interrupted; all nodes are stopped, their data is removed", file=sys.stderr)
            return 130


class _Play:
    """The acts, in order, and what is seen of them."""

    def __init__(self, scene: Scene, view: View, lines: Sequence[str], folder: Path) -> None:
        self._scene = scene
        self._view = view
        self._cluster = LocalCluster(free_addresses(NODES), folder, SEGMENT_BYTES)
        self._feed = Feed(lines)

    def _tell(
        self, name: str, text: str, tone: Tone = "fact", at_s: float | None = None, **fields: Any
    ) -> None:
        moment = self._scene.elapsed_s if at_s is None else at_s - self._scene.began_s
        event = Event(moment, name, text, tone, fields)
        self._look()
        self._scene.story.append(event)
        self._view.happened(event)

    async def run(self) -> int:
        task = asyncio.current_task()
        assert task is not None, "this is a task"
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        watching = asyncio.ensure_future(self._watch())
        failures: list[Exception] = []
        try:
            async with asyncio.timeout(HANG_S):
                await self._acts()
        except* (_Failed, NodeFailed, TimeoutError) as group:
            failures = _leaves(group)
        finally:
            watching.cancel()
            await self._cluster.stop()
        for error in failures:
            why = str(error) or f"it did not end within {HANG_S:.0f} s"
            self._tell("failed", why, "bad", ok=False, why=why)
        return 1 if failures else 0

    async def _watch(self) -> None:
        """Keep the picture moving."""
        loop = asyncio.get_running_loop()
        past: list[tuple[float, int]] = []
        while True:
            past = [*past[-20:], (loop.time(), len(self._feed.acknowledged))]
            (since, before), (now, after) = past[0], past[-1]
            self._scene.rate = (after - before) / (now - since) if now > since else 0.0
            self._look()
            self._view.moved()
            await asyncio.sleep(FRAME_S)

    def _look(self) -> None:
        self._scene.acknowledged = len(self._feed.acknowledged)
        for id, process in self._cluster.processes.items():
            if process.status is not None:  # a dead node is shown as it was last
                self._scene.nodes[id] = process.status

    # -- the acts

    async def _acts(self) -> None:
        await self._start()
        async with Client(self._cluster.nodes, entry_type=str) as client, asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(self._feed.run(client))
            victim = await self._kill_leader()
            await self._restart(victim)
            await feeding
        self._account()
        await self._cluster.agreed()
        await self._stop()
        await self._read_back()

    async def _start(self) -> None:
        await self._cluster.start_all()
        self._tell("started", f"{NODES} processes run, each with a data directory of its own")
        while (leader := self._cluster.leader()) is None:
            await self._news()
        assert leader.status is not None, "a leader has said so"
        self._tell(
            "elected",
            f"node {leader.id} is elected in term {leader.status.term}",
            "good",
            node=leader.id,
            term=leader.status.term,
        )

    async def _news(self) -> None:
        """Wait until some node says something."""
        waits = [asyncio.ensure_future(p.changed()) for p in self._cluster.processes.values() if p.running]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _kill_leader(self) -> NodeProcess:
        await self._feed.reached(KILL_AT)
        while (leader := self._cluster.leader()) is None or leader.status is None:
            await self._news()
        term, acknowledged = leader.status.term, len(self._feed.acknowledged)
        first = self._feed.first_above(term)
        killed_s = time.monotonic()
        self._scene.dead.add(leader.id)
        await leader.kill()
        self._tell(
            "killed",
            f"kill -9: node {leader.id}, the leader, is dead after {acknowledged:,} acknowledged lines",
            "kill",
            killed_s,
            node=leader.id,
            acknowledged=acknowledged,
        )
        first_s, new_term = await first
        while (heir := self._cluster.leader()) is None or heir.status is None or heir.status.term < new_term:
            await self._news()
        failover_ms = (first_s - killed_s) * 1e3
        self._tell(
            "took_over",
            f"node {heir.id} leads in term {new_term}: first line acknowledged {failover_ms:.0f} ms after the kill",
            "good",
            node=heir.id,
            term=new_term,
            failover_ms=round(failover_ms, 1),
        )
        return leader

    async def _restart(self, dead: NodeProcess) -> None:
        await self._feed.reached(RESTART_AT)
        before = time.monotonic()
        process = await self._cluster.start(dead.id)
        self._scene.dead.discard(dead.id)
        behind = process.status.last_index if process.status else 0
        self._tell(
            "restarted",
            f"node {dead.id} is started again; its log ends at {behind:,}",
            node=dead.id,
            last_index=behind,
        )
        await self._cluster.caught_up(dead.id)
        now = process.status.commit_index if process.status else 0
        seconds = time.monotonic() - before
        self._tell(
            "caught_up",
            f"node {dead.id} has caught up: {now - behind:,} entries, {seconds:.1f} s after its start",
            "good",
            node=dead.id,
            entries=now - behind,
            seconds=round(seconds, 3),
        )

    def _account(self) -> None:
        """Every line has an outcome."""
        feed = self._feed
        self._tell(
            "acknowledged",
            f"{len(feed.acknowledged):,} lines are acknowledged, {len(feed.failed):,} are not",
            "bad" if feed.failed else "fact",
            acknowledged=len(feed.acknowledged),
            failed=len(feed.failed),
        )

    async def _stop(self) -> None:
        unclean = await self._cluster.stop()
        self._scene.stopped = True
        if unclean:
            raise _Failed(
                f"node {unclean[0]} did not stop cleanly: {self._cluster.processes[unclean[0]].last_words}"
            )
        self._tell("stopped", "all nodes are stopped; reading their logs from disk")

    async def _read_back(self) -> None:
        feed = self._feed
        logs: dict[NodeId, list[Entry[str]]] = {}
        for id in self._cluster.nodes:
            logs[id] = await asyncio.to_thread(read_log, self._cluster.data_dir(id))
        findings = await asyncio.to_thread(compare, logs, feed.lines, feed.acknowledged)
        for finding in findings:
            self._tell("finding", str(finding), "bad", node=finding.node, index=finding.index)
        if feed.failed:
            number, error = next(iter(sorted(feed.failed.items())))
            raise _Failed(
                f"{len(feed.failed):,} lines were not acknowledged; the first is line {number + 1}: {error}"
            )
        if findings:
            raise _Failed("the logs are not what was acknowledged")
        entries = len(logs[1])
        self._tell(
            "verified",
            f"{NODES} logs of {entries:,} entries, equal to each other and to the text: "
            "nothing acknowledged is missing, doubled or out of order",
            "good",
            ok=True,
            entries=entries,
            nodes=NODES,
        )


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    leaves: list[Exception] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
