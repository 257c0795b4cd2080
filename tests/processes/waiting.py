"""Waits on conditions, with deadlines that only a hang can reach; and nodes of one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from totora import Address, Node, NodeId, Settings

__all__ = ["HANG_S", "QUICK", "eventually", "eventually_in_thread", "run", "running"]

HANG_S: Final = 60.0
LOOK_S: Final = 0.01

QUICK: Final = Settings(
    heartbeat_s=0.05,
    election_min_s=0.3,
    election_max_s=0.6,
    segment_bytes=1 << 20,
    batch_max_bytes=256 << 10,
    entry_max_bytes=256 << 10,
)
"""Short timeouts and small files: what is tested here does not depend on them."""

T = TypeVar("T")


def run(scenario: Awaitable[T], hang_s: float = 2 * HANG_S) -> T:
    """`asyncio.run` that ends a hang."""

    async def bounded() -> T:
        async with asyncio.timeout(hang_s):
            return await scenario

    return asyncio.run(bounded())


async def eventually(what: str, condition: Callable[[], T | None]) -> T:
    """The first result of `condition` that is true."""
    deadline = time.monotonic() + HANG_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(LOOK_S)
    return result


def eventually_in_thread(what: str, condition: Callable[[], T | None]) -> T:
    """`eventually` where there is no event loop."""
    deadline = time.monotonic() + HANG_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(LOOK_S)
    return result


@asynccontextmanager
async def running(
    nodes: dict[NodeId, Address], folder: Path, ids: Iterable[NodeId] = (), settings: Settings = QUICK
) -> AsyncGenerator[dict[NodeId, Node[str]]]:
    """Nodes (all of them, or `ids`) on this loop, with data directories within `folder`; stopped at the end."""
    started: dict[NodeId, Node[str]] = {}
    async with AsyncExitStack() as stack:
        for id in ids or nodes:
            node = Node(id, nodes, entry_type=str, data_dir=folder / f"node-{id}", settings=settings)
            started[id] = await stack.enter_async_context(node)
        yield started
