"""A witness of everything that leaves: is it true of what the disks would still hold if all power failed at this instant?

It listens on the wire and decodes what nodes say to each other, handshakes included. For each promise it opens copies of the
disks as they would be without the writes that are not synced, and looks whether they keep it.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from totora.core.batch import Batch
from totora.core.effects import HardState
from totora.core.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    Message,
    ProposeAccepted,
    RequestVote,
    VoteAccepted,
    VoteRejected,
)
from totora.errors import ProtocolError
from totora.ports import Stream
from totora.sim.disk import MemoryDisk
from totora.sim.world import Host, World
from totora.storage.identity import Identity, read_identity
from totora.storage.wal import WriteAheadLog
from totora.types import LogIndex, NodeId
from totora.wire import codec
from totora.wire.frames import FRAME_BYTES_MAX, FrameReader
from totora.wire.handshake import Hello, Refusal, Welcome, decode_answer, decode_hello

__all__ = ["Kept", "Witness", "kept_by"]


@dataclass
class Kept:
    """What survives a loss of power."""

    identity: Identity | None
    hard_state: HardState
    batches: list[Batch]

    @property
    def last_index(self) -> LogIndex:
        return self.batches[-1].last_index if self.batches else 0


def kept_by(disk: MemoryDisk) -> Kept:
    """Open a copy as a node would, and read all of it."""
    copy = disk.durable_copy()
    if "IDENTITY" not in copy.names:
        return Kept(None, HardState(), [])
    identity = read_identity(copy)
    if not any(name.endswith(".log") for name in copy.names):
        return Kept(identity, HardState(), [])
    log = WriteAheadLog(
        copy,
        random.Random(0),
        store_id=bytes.fromhex(identity.store_id),
        configuration=identity.configuration,
        segment_bytes=64 << 10,
        may_create=False,
    )
    recovered = log.recover()
    batches: list[Batch] = []
    while (batches[-1].last_index if batches else 0) < recovered.last_index:
        batches += log.read((batches[-1].last_index if batches else 0) + 1, recovered.last_index, 1 << 20)
    return Kept(identity, recovered.hard_state, batches)


class Witness:
    """Watches one world. `seen` counts what was verified, by kind of message."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._hosts = {host.name: host for host in world.hosts.values()}
        self._readers: dict[Stream, tuple[FrameReader, bool]] = {}
        self._dialled_from: dict[int, str] = {}
        self._cache: dict[NodeId, tuple[int, Kept]] = {}
        self.seen: Counter[str] = Counter()
        world.ether.tap = self._tap

    # -- reading the wire

    def _tap(self, end: Stream, data: bytes) -> None:
        reader = self._readers.get(end)
        if reader is None:
            reader = self._readers[end] = FrameReader(FRAME_BYTES_MAX), False
        host, peer = self._hosts[end.host], self._hosts[end.peer_host]  # type: ignore[attr-defined]
        for header, blob in reader[0].feed(data):
            greeting = self._greeting(header)
            if greeting is not None:
                self._handshake(host, greeting)
            else:
                message = codec.decode(header, blob)
                self._message(host, peer, message)  # type: ignore[arg-type]

    def _greeting(self, header: memoryview) -> Hello | Welcome | Refusal | None:
        for decode in (decode_hello, decode_answer):
            try:
                return decode(header)
            except ProtocolError:
                continue
        return None

    # -- what each message promises

    def _handshake(self, host: Host, greeting: Hello | Welcome | Refusal) -> None:
        """Each start is counted on disk before anyone hears of it."""
        if isinstance(greeting, Refusal):
            return
        self.seen[type(greeting).__name__] += 1
        identity = self._kept(host).identity
        assert identity is not None, f"node {host.id} speaks, and its identity is not on disk"
        assert identity.store_id == greeting.store_id.hex(), "the identity on disk is the one that it shows"
        assert identity.incarnation >= greeting.incarnation, "a start is counted before it is shown"

    def _message(self, host: Host, peer: Host, message: Message) -> None:
        match message:
            case RequestVote():
                self._voted(host, message.term, host.id)
            case VoteAccepted():
                self._voted(host, message.term, peer.id)
            case VoteRejected() | AppendRejected():
                self._in_term(host, message.term)
            case AppendAccepted():
                self._in_term(host, message.term)
                assert self._kept(host).last_index >= message.match_index, (
                    f"node {host.id} acknowledges {message.match_index}, and its disk ends at "
                    f"{self._kept(host).last_index}"
                )
            case AppendEntries():
                self._in_term(host, message.term)
                self._committed(host, message.leader_commit)
            case ProposeAccepted():
                self._committed(host, message.first_index)
            case _:
                return
        self.seen[type(message).__name__] += 1

    def _voted(self, host: Host, term: int, candidate: NodeId) -> None:
        hard_state = self._kept(host).hard_state
        assert hard_state.current_term > term or hard_state == HardState(term, candidate), (
            f"node {host.id} gives its vote of term {term} to {candidate}, and its disk holds {hard_state}"
        )

    def _in_term(self, host: Host, term: int) -> None:
        held = self._kept(host).hard_state.current_term
        assert held >= term, f"node {host.id} speaks of term {term}, and its disk holds {held}"

    def _committed(self, host: Host, index: LogIndex) -> None:
        """What is committed is on most disks, and the same on all of those."""
        if index == 0:
            return
        held = [self._batch_at(other, index) for other in self._hosts.values()]
        batches = [batch for batch in held if batch is not None]
        most = max((batches.count(batch) for batch in batches), default=0)
        assert most > len(held) // 2, f"{index} counts as committed, and {most} of {len(held)} disks hold it"

    def _batch_at(self, host: Host, index: LogIndex) -> Batch | None:
        batches = self._kept(host).batches
        return next((b for b in reversed(batches) if b.first_index <= index <= b.last_index), None)

    def acknowledged(self, index: LogIndex) -> None:
        """A caller was told that the entry at `index` is committed."""
        self._committed(self._hosts[next(iter(self._hosts))], index)
        self.seen["response"] += 1

    def _kept(self, host: Host) -> Kept:
        """Opened anew only when something changed on the disk."""
        changes = host.disk.count
        known = self._cache.get(host.id)
        if known is None or known[0] != changes:
            known = self._cache[host.id] = changes, kept_by(host.disk)
        return known[1]
