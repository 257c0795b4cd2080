"""Opening what a node stands on: its data directory and log, or memory. Blocking: runs on the writer.

directory (lock, identity) -> log (recovered) -> this start is counted -> the node may speak
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..config import Settings
from ..core.log import Recovered
from ..core.quorum import Configuration
from ..ports import Ports
from ..storage.identity import open_directory
from ..storage.memory import MemoryStore
from ..storage.store import LogStore
from ..storage.wal import WriteAheadLog
from ..types import NodeId

__all__ = ["Opened", "open_store"]


@dataclass(slots=True)
class Opened:
    """A store and whose it is. `close` ends both."""

    store: LogStore
    recovered: Recovered
    store_id: bytes
    incarnation: int
    volatile: bool
    close: Callable[[], None]


def open_store(
    ports: Ports, node_id: NodeId, configuration: Configuration, fingerprint: bytes, settings: Settings
) -> Opened:
    """Raises ConfigurationError, StorageError."""
    if ports.disk is None:
        volatile = MemoryStore(configuration)
        store_id = ports.random.getrandbits(128).to_bytes(16, "big")
        return Opened(volatile, volatile.recover(), store_id, 1, True, volatile.close)
    directory = open_directory(ports.disk, ports.random, node_id, configuration, fingerprint)
    store: WriteAheadLog | None = None
    try:
        store = WriteAheadLog(
            ports.disk,
            ports.random,
            store_id=directory.store_id,
            configuration=directory.identity.configuration,
            segment_bytes=settings.segment_bytes,
            may_create=directory.identity.incarnation == 0,
        )
        recovered = store.recover()
        directory.begin()
    except BaseException:
        if store is not None:
            store.close()
        directory.release()
        raise

    def close() -> None:
        try:
            store.close()
        finally:
            directory.release()

    return Opened(store, recovered, directory.store_id, directory.identity.incarnation, False, close)
