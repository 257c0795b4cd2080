"""One node of the demo in a process of its own: `python -m totora.cli.demo_node SETUP`, SETUP as JSON.

Says on stdout, ten times a second and when its role changes, what it knows; stops cleanly when stdin ends, so it never
outlives whoever started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from pathlib import Path
from typing import Final

import msgspec

from ..aio.loops import new_event_loop
from ..aio.node import Node
from ..config import Settings
from ..errors import RaftError
from ..types import Address, NodeId, NodeStatus

__all__ = ["Setup"]

REPORT_S: Final = 0.1


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What the process needs to know, in its one argument."""

    id: NodeId
    nodes: dict[NodeId, Address]
    data_dir: str
    segment_bytes: int


def _say(status: NodeStatus) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(status) + b"\n")
    sys.stdout.buffer.flush()


async def _stdin_ended() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    await reader.read()


class _RoleChanges(logging.Handler):
    """Sets an event when the node's role changes: that is told at once."""

    def __init__(self) -> None:
        super().__init__()
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("became_"):
            self.event.set()


async def _report(node: Node[str], changes: _RoleChanges) -> None:
    while True:
        changes.event.clear()
        _say(node.status())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPORT_S):
                await changes.event.wait()


async def _run(setup: Setup) -> None:
    settings = Settings(segment_bytes=setup.segment_bytes)
    changes = _RoleChanges()
    logger = logging.getLogger("totora")
    logger.addHandler(changes)
    logger.setLevel(logging.INFO)
    async with Node(
        setup.id, setup.nodes, entry_type=str, data_dir=Path(setup.data_dir), settings=settings
    ) as node:
        async with asyncio.TaskGroup() as tasks:
            report = tasks.create_task(_report(node, changes))
            failed = tasks.create_task(node.stopped())
            ended = tasks.create_task(_stdin_ended())
            await asyncio.wait([failed, ended], return_when=asyncio.FIRST_COMPLETED)
            for task in (report, failed, ended):
                task.cancel()
        if failed.done() and not failed.cancelled() and (cause := failed.result()) is not None:
            raise cause
        _say(node.status())


def main() -> int:
    setup = msgspec.json.decode(sys.argv[1], type=Setup, strict=False)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_run(setup))
    except (RaftError, BrokenPipeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
