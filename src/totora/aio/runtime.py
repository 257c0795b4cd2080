"""One running node in bytes: carries out what the engine wants through the ports, and tells the engine what happened.

    links, timer, workers -> Runtime -> Engine -> Runtime (as its Outlet) -> links, store

It knows no entry type (see `node`), and decides nothing about consensus: the engine does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from ..config import RANGE_BYTES_MAX, Settings
from ..core import effects as fx
from ..core.batch import Batch
from ..core.effects import Persist
from ..core.messages import Message
from ..core.quorum import Configuration, Member
from ..core.roles import Leader
from ..errors import (
    Compacted,
    ConfigurationError,
    NodeStopped,
    OutOfRange,
    RaftError,
    RangeTooLarge,
)
from ..ports import Ports, Timer, Worker
from ..session.engine import Engine
from ..session.explain import explain
from ..session.proposals import Appended
from ..storage.identity import Identity
from ..storage.store import LogStore
from ..types import Address, LogIndex, NodeId, NodeStatus, PeerStatus, RoleName, Term

__all__ = ["Runtime"]

READ_CHUNK_BYTES: Final = 1 << 20
"""Storage is read in pieces of about this size."""

R = TypeVar("R")


async def on_worker(worker: Worker, job: Callable[[], R]) -> R:
    """Await a job on a worker."""
    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()

    def done(result: R | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # a job that returns None has R = None

    worker.submit(job, done)
    return await future
