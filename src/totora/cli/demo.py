"""`totora demo`: three node processes replicate a text, lose their leader to `kill -9`, and lose nothing else.

lines -> client -> three processes -> three logs on disk -> read back and compared with the lines, entry by entry
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from ..aio.client import Client
from ..errors import RaftError
from ..types import Entry, NodeId
from .demo_cluster import LocalCluster, NodeFailed, NodeProcess, free_addresses
from .demo_feed import Feed
from .demo_logs import read_log
from .demo_text import Text, load
from .demo_verify import compare
from .demo_views import Event, JsonView, PlainView, Scene, Tone, View
from .ending import Failed
from .running import run
from .text import count, why

__all__ = ["run_demo"]

NODES: Final = 3
SEGMENT_BYTES: Final = 4 << 20
"""Small, so that the log of a short text takes more than one."""

KILL_AT: Final = 0.5
RESTART_AT: Final = 0.7
FRAME_S: Final = 0.08
HANG_S: Final = 300.0
"""Only a hang gets there."""

ReadLog = Callable[[Path], list[Entry[str]]]


def run_demo(
    file: Path | None,
    *,
    entries: int,
    as_json: bool,
    folder: Path | None = None,
    read: ReadLog = read_log,
) -> None:
    """The command. Raises Failed if anything acknowledged is missing, doubled or out of order on any node.

    file: the text; None: this project's own, repeated to `entries` lines.
    folder: where the nodes' data directories are made, and removed at the end; the system's temporary one by default.
    read: how the log in a closed data directory is read.
    """
    text = load(file, entries)

    async def playing() -> None:
        with tempfile.TemporaryDirectory("", "totora-demo-", folder, ignore_cleanup_errors=True) as data:
            await _Play(text, Path(data), as_json, read).run()

    run(playing, "at leisure", lambda: "all nodes are stopped, their data is removed")


def _view(scene: Scene, as_json: bool) -> View:
    if as_json:
        return JsonView(scene)
    if not sys.stdout.isatty():
        return PlainView(scene)
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_dumb_terminal:
        return PlainView(scene)
    from .demo_live import LiveView

    return LiveView(scene, console)


class _Play:
    """The acts, in order, and what is seen of them."""

    def __init__(self, text: Text, folder: Path, as_json: bool, read: ReadLog) -> None:
        lines = text.lines
        title = f"totora demo: {NODES} nodes replicate {count(len(lines), 'line')} of {text.origin}"
        self._scene = Scene(title, len(lines), dict.fromkeys(range(1, NODES + 1)))
        self._view = _view(self._scene, as_json)
        self._cluster = LocalCluster(free_addresses(NODES), folder, SEGMENT_BYTES)
        self._feed = Feed(lines)
        self._read = read
        self._fed = False

    async def run(self) -> None:
        with self._view:
            try:
                async with asyncio.timeout(HANG_S):
                    await _together([self._acts()], background=[self._watch(), self._cluster.guard()])
            except TimeoutError:
                self._failed(f"it did not end within {HANG_S:.0f} s")
            except (Failed, NodeFailed, RaftError) as error:
                self._failed(why(error))
            finally:
                await self._cluster.stop()

    def _failed(self, reason: str) -> None:
        self._tell("failed", reason, "bad", ok=False, why=reason)
        raise Failed(reason) from None

    def _tell(
        self, name: str, text: str, tone: Tone = "fact", at_s: float | None = None, **fields: Any
    ) -> None:
        moment = self._scene.elapsed_s if at_s is None else at_s - self._scene.began_s
        event = Event(moment, name, text, tone, fields)
        self._look()
        self._scene.story.append(event)
        self._view.happened(event)

    async def _watch(self) -> None:
        """Keep the picture moving."""
        past: list[tuple[float, int]] = []
        while True:
            if self._feed.acknowledged and not self._fed:
                past = [*past[-20:], (time.monotonic(), len(self._feed.acknowledged))]
                (since_s, before), (now_s, after) = past[0], past[-1]
                self._scene.rate = (after - before) / (now_s - since_s) if now_s > since_s else 0.0
            self._look()
            self._view.moved()
            await asyncio.sleep(FRAME_S)

    def _look(self) -> None:
        self._scene.acknowledged = len(self._feed.acknowledged)
        for id, process in self._cluster.processes.items():
            # A node that was killed, or told to stop, is shown as it was before.
            if process.status is not None and not process.dismissed:
                self._scene.nodes[id] = process.status

    # -- the acts

    async def _acts(self) -> None:
        await self._start()
        async with Client(self._cluster.nodes, entry_type=str) as client:
            began_s = time.monotonic()
            await _together([self._kill_and_restart(), self._feed.run(client)])
        self._account(time.monotonic() - began_s)
        await self._cluster.agreed()
        await self._stop()
        await self._read_back()

    async def _start(self) -> None:
        await self._cluster.start_all()
        self._tell(
            "started",
            f"{NODES} processes run, each with a data directory of its own",
            nodes=NODES,
            total=self._scene.total,
        )
        leader, term = await self._leader()
        self._tell(
            "elected", f"node {leader.id} is elected in term {term}", "good", node=leader.id, term=term
        )

    async def _leader(self, least_term: int = 0) -> tuple[NodeProcess, int]:
        """The leader of `least_term` or later, once it says so; and its term."""
        while True:
            leader = self._cluster.leader()
            if leader is not None and leader.status is not None and leader.status.term >= least_term:
                return leader, leader.status.term
            await self._cluster.news()

    async def _kill_and_restart(self) -> None:
        await self._feed.reached(KILL_AT)
        victim = await self._kill_leader()
        await self._feed.reached(RESTART_AT)
        await self._restart(victim.id)

    async def _kill_leader(self) -> NodeProcess:
        leader, term = await self._leader()
        acknowledged = len(self._feed.acknowledged)
        taken_over = self._feed.taken_over(term)
        killed_s = time.monotonic()
        self._scene.marks[leader.id] = "killed"
        await leader.kill()
        self._tell(
            "killed",
            f"kill -9: node {leader.id}, the leader, is dead; {count(acknowledged, 'line is', 'lines are')} acknowledged",
            "kill",
            killed_s,
            node=leader.id,
            acknowledged=acknowledged,
        )
        self._feed.release()
        first = await taken_over
        heir, _ = await self._leader(first.term)
        failover_ms = (first.at_s - killed_s) * 1e3
        self._tell(
            "took_over",
            f"node {heir.id} took over in term {first.term}: first answer {failover_ms:.0f} ms after the kill",
            "good",
            first.at_s,
            node=heir.id,
            term=first.term,
            failover_ms=round(failover_ms, 1),
        )
        return leader

    async def _restart(self, dead: NodeId) -> None:
        began_s = time.monotonic()
        self._scene.marks[dead] = "starting"
        process = await self._cluster.start(dead)
        self._scene.marks[dead] = "catching up"
        end = process.status.last_index if process.status else 0
        self._tell(
            "restarted", f"node {dead} is started again; its log ends at {end:,}", node=dead, last_index=end
        )
        await self._cluster.caught_up(dead)
        del self._scene.marks[dead]
        missed = (process.status.commit_index if process.status else end) - end
        seconds = time.monotonic() - began_s
        self._tell(
            "caught_up",
            f"node {dead} has caught up: {count(missed, 'entry', 'entries')}, {seconds:.1f} s after its start",
            "good",
            node=dead,
            entries=missed,
            seconds=round(seconds, 3),
        )

    def _account(self, seconds: float) -> None:
        self._fed = True
        acknowledged = len(self._feed.acknowledged)
        assert acknowledged == self._scene.total, "a feed that ends has every line acknowledged"
        self._scene.rate = acknowledged / seconds
        self._tell(
            "acknowledged",
            f"{acknowledged:,} of {count(self._scene.total, 'line')} acknowledged, in {seconds:.1f} s",
            acknowledged=acknowledged,
            seconds=round(seconds, 3),
        )

    async def _stop(self) -> None:
        unclean = await self._cluster.stop()
        if unclean:
            raise self._cluster.processes[unclean[0]].failure()
        self._scene.marks = dict.fromkeys(self._cluster.nodes, "stopped")
        self._tell("stopped", "all nodes are stopped; now their logs are read from disk")

    async def _read_back(self) -> None:
        logs: dict[NodeId, list[Entry[str]]] = {}
        for id in self._cluster.nodes:
            self._scene.marks[id] = "reading"
            logs[id] = await asyncio.to_thread(self._read, self._cluster.data_dir(id))
        findings = await asyncio.to_thread(compare, logs, self._feed.lines, self._feed.acknowledged)
        damaged = {finding.node for finding in findings}
        for id in logs:
            self._scene.marks[id] = "damaged" if id in damaged else "verified"
        for finding in findings:
            self._tell(
                "finding", str(finding), "bad", node=finding.node, index=finding.index, what=finding.what
            )
        if findings:
            raise Failed("the logs are not what was acknowledged: " + str(findings[0]))
        entries = len(logs[1])
        self._tell(
            "verified",
            f"{NODES} logs of {count(entries, 'entry', 'entries')} are equal to each other and to the text: "
            "no acknowledged line is missing, doubled or out of order",
            "good",
            ok=True,
            entries=entries,
            nodes=NODES,
        )


async def _together(
    acts: Sequence[Coroutine[Any, Any, None]], background: Sequence[Coroutine[Any, Any, None]] = ()
) -> None:
    """Run all until the acts are done; the first error of any ends all, and is raised as it is."""
    leading = [asyncio.ensure_future(act) for act in acts]
    tasks = [*leading, *(asyncio.ensure_future(each) for each in background)]
    try:
        while not all(task.done() for task in leading):
            done, _ = await asyncio.wait(
                [task for task in tasks if not task.done()], return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
