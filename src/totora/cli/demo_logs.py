"""Reads a node's log from its closed data directory, and changes nothing there."""

from __future__ import annotations

import random
from pathlib import Path

from ..aio.disk import RealDisk
from ..aio.ranges import entries_of
from ..storage.frozen import frozen
from ..types import Entry
from ..wire.entries import EntryCodec

__all__ = ["read_log"]


def read_log(data_dir: Path) -> list[Entry[str]]:
    """The users' entries that a restarted node would have. Nothing may be running there.

    Raises ConfigurationError, StorageError, OSError, DecodeFailed.
    """
    with frozen(RealDisk(str(data_dir)), random.SystemRandom()) as found:
        last_index = found.recovered.last_index
        return entries_of(EntryCodec(str), found.batches(1, last_index), 1, last_index)
