"""Opening what a node stands on: its data directory and log, or memory. Blocking: runs on the writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..config import Settings
from ..core.quorum import Configuration
from ..ports import Ports
from ..storage.memory import MemoryStore
from ..storage.store import LogStore
from ..types import NodeId

__all__ = ["Opened", "open_store"]


@dataclass(slots=True)
class Opened:
    """A store and whose it is. `close` ends both."""

    store: LogStore
    store_id: bytes
    incarnation: int
    volatile: bool
    close: Callable[[], None]


def open_store(
    ports: Ports, node_id: NodeId, configuration: Configuration, fingerprint: bytes, settings: Settings
) -> Opened:
    """Raises ConfigurationError, StorageError."""
    if ports.disk is None:
        store = MemoryStore(configuration)
        return Opened(store, ports.random.getrandbits(128).to_bytes(16, "big"), 1, True, store.close)
    raise NotImplementedError
