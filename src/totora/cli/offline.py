"""`totora log --data` and `totora verify`: a data directory, read without a cluster."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from ..aio.disk import RealDisk
from ..core.batch import Kind
from ..errors import StorageError
from ..storage.frozen import Frozen, frozen
from ..storage.identity import Identity
from ..storage.segment import number_of
from ..types import Entry, LogIndex
from ..wire.entries import EntryCodec
from .ending import Failed
from .text import count, escape, is_colorful, to_json

__all__ = ["print_offline", "verify"]

SOUND: Final = "all records and footers are there, all checksums match"


def print_offline(data_dir: Path, first: LogIndex, last: LogIndex | None, *, as_json: bool) -> None:
    """The command: entries, committed or not, for offline nobody can tell. Raises Failed, OSError, RaftError."""
    with frozen(_disk(data_dir), random.SystemRandom()) as found:
        decode = _decoder(found.identity)
        place = "{:>8} {:>5}  "
        if is_colorful(sys.stdout):
            place = f"\x1b[2m{place}\x1b[0m"
        for batch in found.batches(first, found.recovered.last_index if last is None else last):
            if batch.kind != Kind.ENTRIES:
                continue
            for index, payload in enumerate(batch.payloads(), batch.first_index):
                if index < first or (last is not None and index > last):
                    continue
                value = decode(payload)
                if as_json:
                    print(to_json(Entry(index, batch.term, value)))
                else:
                    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
                    print(f"{place.format(index, batch.term)}{escape(shown)}")


def _decoder(identity: Identity) -> Callable[[memoryview], Any]:
    """Text as text, bytes as text too where they are; what else there is as it was encoded, without its type."""
    if identity.fingerprint == EntryCodec(str).fingerprint.hex():
        return lambda payload: str(payload, "utf-8", "backslashreplace")
    if identity.fingerprint == EntryCodec(bytes).fingerprint.hex():
        return lambda payload: bytes(payload).decode("utf-8", "backslashreplace")
    return msgspec.msgpack.decode


def verify(data_dir: Path, *, as_json: bool) -> None:
    """The command: read everything. Raises Failed if anything is damaged, OSError, RaftError."""
    disk = _disk(data_dir)
    try:
        with frozen(disk, random.SystemRandom()) as found:
            account = _account(found, data_dir)
            damages = [str(damage) for damage in found.damages()]
    except StorageError as error:
        # The newest segment, or a missing one: there is nothing to account for.
        account, damages = {}, [str(error)]
    if as_json:
        print(to_json({"sound": not damages, "damages": damages, **account}))
    else:
        for line in (*_lines(account), *(map(escape, damages) if damages else (SOUND,))):
            print(line)
    if damages:
        raise Failed(f"{data_dir} is damaged: {count(len(damages), 'place')} named above")


def _disk(data_dir: Path) -> RealDisk:
    if not data_dir.is_dir():
        raise Failed(f"{data_dir} is no directory")
    return RealDisk(str(data_dir))


def _account(found: Frozen, data_dir: Path) -> dict[str, Any]:
    identity, recovered = found.identity, found.recovered
    cluster_id = recovered.summary.cluster_id
    segments = [path for path in data_dir.iterdir() if number_of(path.name) is not None]
    return {
        "node": identity.node_id,
        "cluster_id": None if cluster_id is None else cluster_id.hex(),
        "store_id": identity.store_id,
        "incarnation": identity.incarnation,
        "term": recovered.hard_state.current_term,
        "voted_for": recovered.hard_state.voted_for,
        "first_index": recovered.base_index + 1,
        "last_index": recovered.last_index,
        "commit_index": recovered.commit_index,
        "voters": sorted(recovered.summary.configuration.voters),
        "segments": len(segments),
    }


def _lines(account: dict[str, Any]) -> list[str]:
    if not account:
        return []
    vote = "no vote" if account["voted_for"] is None else f"a vote for node {account['voted_for']}"
    cluster = "no cluster yet" if account["cluster_id"] is None else f"cluster {account['cluster_id']}"
    started = count(account["incarnation"], "time")
    segments = count(account["segments"], "segment")
    span = f"entries {account['first_index']:,} to {account['last_index']:,}"
    return [
        f"node {account['node']} of {cluster}, store {account['store_id']}, started {started}",
        f"term {account['term']}, {vote}; voters {', '.join(map(str, account['voters']))}",
        f"{span}, known to be committed up to {account['commit_index']:,}, in {segments}",
    ]
