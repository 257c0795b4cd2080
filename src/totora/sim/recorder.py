"""From what the core of a node does to records of a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from ..core import effects as fx
from ..core import events as ev
from ..core.batch import Batch
from ..core.raft import Raft
from .trace import BatchRef, Record, Started, Step, Wrote

__all__ = ["Recorder", "reference", "started", "step"]


def reference(batch: Batch) -> BatchRef:
    checksum = int.from_bytes(batch.data[:4], "little")
    return BatchRef(batch.first_index, batch.last_index, batch.term, batch.kind, checksum)


_NAMES: Final = {
    ev.Tick: "tick",
    ev.Received: "received",
    ev.Persisted: "persisted",
    ev.Proposed: "proposed",
    ev.ReadRequested: "read_requested",
    ev.TransferRequested: "transfer_requested",
    ev.EntriesRead: "entries_read",
    ev.LinkUp: "link_up",
    ev.LinkLost: "link_lost",
}


def _message(message: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": type(message).__name__, **msgspec.structs.asdict(message)}
    if "batches" in fields:
        fields["batches"] = [reference(batch) for batch in fields["batches"]]
    return fields


def started(raft: Raft, log: Iterable[Batch], t_ns: int, *, wiped: bool = False) -> Started:
    """The record of a node that was just opened; `log` is all that its storage holds."""
    hard_state = raft.hard_state
    return Started(
        t_ns,
        raft.id,
        hard_state.current_term,
        hard_state.voted_for,
        raft.commit_index,
        [reference(batch) for batch in log],
        wiped,
    )


def step(raft: Raft, event: ev.Event, effects: list[fx.Effect], t_ns: int) -> Step:
    """The record of a step that was just taken."""
    hard_state, log = raft.hard_state, raft.log
    record = Step(
        t_ns,
        raft.id,
        _NAMES[type(event)],
        raft.role_name,
        hard_state.current_term,
        hard_state.voted_for,
        raft.commit_index,
        log.last_index,
        log.last_term,
    )
    if isinstance(event, ev.Received):
        record.sender, record.message = event.sender, _message(event.message)
    elif isinstance(event, ev.Persisted):
        record.token = event.token
    elif isinstance(event, ev.ReadRequested):
        record.key = repr(event.key)
    sent, reads = [], []
    for effect in effects:
        if isinstance(effect, fx.Send):
            sent.append((effect.to, _message(effect.message)))
        elif isinstance(effect, fx.Persist):
            hard = effect.hard_state
            record.wrote = Wrote(
                effect.token,
                effect.truncate_after,
                None if hard is None else (hard.current_term, hard.voted_for),
                [reference(batch) for batch in effect.batches],
            )
        elif isinstance(effect, fx.ReadReady):
            reads.append((repr(effect.key), effect.read_index))
    if sent:
        record.sent = sent
    if reads:
        record.reads = reads
    return record


class Recorder:
    """`ports.Observer` of one incarnation: hands each record on.

    now_ns: the world's time. read_log: all batches that the node's storage holds, when it is opened.
    """

    def __init__(
        self,
        record: Callable[[Record], None],
        now_ns: Callable[[], int],
        read_log: Callable[[], list[Batch]],
        *,
        wiped: bool = False,
    ) -> None:
        self._record = record
        self._now_ns = now_ns
        self._read_log = read_log
        self._wiped = wiped

    def opened(self, raft: Raft) -> None:
        self._record(started(raft, self._read_log(), self._now_ns(), wiped=self._wiped))

    def stepped(self, raft: Raft, event: ev.Event, effects: list[fx.Effect]) -> None:
        self._record(step(raft, event, effects, self._now_ns()))
