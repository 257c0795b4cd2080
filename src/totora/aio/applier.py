"""Committed entries into a state machine: in the order of the log, each once in a node's life, a slice at a time.

    committed -> batches (from memory, else from storage) -> machine.apply -> results -> calls that wait

A call waits for one index to be applied *here*: a command for its own entry, whose result it gets, a query for the index that it
must have seen. The place of an entry is known before its result (`settle`), so a result goes to its call or is dropped: none
is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from ..core.batch import Batch, Kind
from ..errors import (
    CommandFailed,
    DecodeFailed,
    NodeStopped,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    QueryFailed,
    RaftError,
    Unavailable,
)
from ..ports import AnswerT_co, Clock, QueryT_contra, ResultT_co, StateMachine
from ..session.requests import Err, Ok, Result
from ..session.units import Appended
from ..types import FAR_NS, LogIndex, Term
from ..wire.entries import EntryCodec
from .reading import LogReader
from .seldom import Seldom

__all__ = ["PENDING_CALLS_MAX", "Applier"]

PENDING_CALLS_MAX: Final = 65_536
"""Commands and queries of this node without an outcome."""

SLICE_STEPS_MAX: Final = 1_024
SLICE_NS: Final = 5_000_000
"""A slice ends after so many entries, or so much time, whichever comes first: then the loop sees to everything else."""

CHUNK_BYTES: Final = 256 << 10
"""Batches are taken from memory in pieces of this size."""

COMPLAIN_EVERY_NS: Final = 60_000_000_000

T = TypeVar("T")


class Requests(Protocol):
    """The way to the log, as the node's runtime has it."""

    def submit(
        self,
        payloads: Sequence[bytes],
        condition: tuple[LogIndex, Term] | None,
        timeout_s: float | None,
        resolve: Callable[[Appended | RaftError], None],
    ) -> None: ...

    def confirm_read(
        self, timeout_s: float | None, confirmed: Callable[[LogIndex | RaftError], None]
    ) -> None: ...

    def deadline_ns(self, timeout_s: float | None) -> int: ...


_Respond: TypeAlias = Callable[[Result[Any]], None]


@dataclass(slots=True, eq=False)
class _Call:
    """A command or a query without an outcome. answer: what a query does once it may; None: a command."""

    deadline_ns: int
    respond: _Respond
    answer: Callable[[], Result[Any]] | None = None


class Applier(Generic[T, ResultT_co, QueryT_contra, AnswerT_co]):
    """One machine, from nothing: the log is applied to it from its first entry on.

    applied_index: up to here.
    """

    def __init__(
        self, machine: StateMachine[T, ResultT_co, QueryT_contra, AnswerT_co], codec: EntryCodec[T]
    ) -> None:
        self._machine = machine
        self._codec = codec
        self.applied_index: LogIndex = 0
        self._commit_index: LogIndex = 0
        self._batches: deque[Batch] = deque()
        self._payloads: Iterator[memoryview] = iter(())
        self._scheduled = False
        self._loading = False
        self._waiting: dict[LogIndex, list[_Call]] = {}
        self._pending = 0
        self._earliest_ns = 0
        self._logged = Seldom(COMPLAIN_EVERY_NS)
        self._reader: LogReader
        self._clock: Clock
        self._guard: Callable[[Callable[[], None]], None]
        self._settle: Callable[[Batch], None]
        self._log: Callable[..., None]

    def start(
        self,
        reader: LogReader,
        clock: Clock,
        guard: Callable[[Callable[[], None]], None],
        settle: Callable[[Batch], None],
        log: Callable[..., None],
    ) -> None:
        """The log is open. guard: runs a slice, unless the node has stopped. settle: told of a batch before it is applied."""
        self._reader, self._clock, self._guard, self._settle = reader, clock, guard, settle
        self._log = log

    # -- the log

    def committed(self, commit_index: LogIndex) -> None:
        self._commit_index = commit_index
        self._go_on()

    def _go_on(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.call_soon(self._turn)

    def _turn(self) -> None:
        self._guard(self._slice)

    def _slice(self) -> None:
        # What raises here leaves it scheduled for good: an entry that was begun is neither passed over nor begun again.
        until_ns = self._clock.now_ns() + SLICE_NS
        for _ in range(SLICE_STEPS_MAX):
            if not self._step():
                self._scheduled = False
                return
            if self._clock.now_ns() >= until_ns:
                break
        self._clock.call_soon(self._turn)

    def _step(self) -> bool:
        """Apply an entry, or turn to the next batch; False if there is nothing to do, or not yet."""
        try:
            payload = next(self._payloads, None)
        except ProtocolError as error:
            raise RuntimeError(f"a committed batch is not sound behind entry {self.applied_index}") from error
        if payload is not None:
            self._apply(payload)
            return True
        if not self._batches and not self._refill():
            return False
        batch = self._batches.popleft()
        self._settle(batch)
        if batch.kind == Kind.ENTRIES:
            self._payloads = batch.each_payload()
        else:
            # It holds nothing for the machine, but a query may wait to have seen it.
            for index in range(batch.first_index, batch.last_index + 1):
                self._passed(index, Ok(None))
        return True

    def _refill(self) -> bool:
        start = self.applied_index + 1
        if self._loading or start > self._commit_index:
            return False
        batches = self._reader.recent(start, CHUNK_BYTES)
        if batches is None:
            self._loading = True
            self._reader.load_stored(start, self._commit_index, self._loaded)
            return False
        return self._take(batches)

    def _loaded(self, batches: list[Batch] | RaftError) -> None:
        self._loading = False
        # What cannot be read stops the node: the reader has seen to that.
        if not isinstance(batches, RaftError) and self._take(batches):
            self._go_on()

    def _take(self, batches: list[Batch]) -> bool:
        # What lies beyond may yet be replaced.
        self._batches.extend(batch for batch in batches if batch.last_index <= self._commit_index)
        return bool(self._batches)

    def _apply(self, payload: memoryview) -> None:
        index = self.applied_index + 1
        try:
            command = self._codec.decode(payload)
        except ValueError as error:
            # A client process may send anything. All members have this entry type, so all of them pass it over.
            if self._logged.passes("not decoded", self._clock.now_ns()):
                self._log("warning", "entry_passed_over", index=index)
            self._passed(index, Err(DecodeFailed(index, str(error))))
            return
        outcome: Result[ResultT_co]
        try:
            outcome = Ok(self._machine.apply(command))
        except MemoryError:
            raise  # It tells of this process, not of the command: the other nodes go on with it, so this one must stop.
        except Exception as error:
            outcome = Err(CommandFailed(index, error))
        self._passed(index, outcome)

    def _passed(self, index: LogIndex, outcome: Result[Any]) -> None:
        self.applied_index = index
        for call in self._waiting.pop(index, ()):
            self._finish(call, outcome if call.answer is None else call.answer())

    # -- calls

    def apply(
        self,
        requests: Requests,
        payload: bytes,
        timeout_s: float | None,
        respond: Callable[[Result[ResultT_co]], None],
    ) -> None:
        """Append a command; `respond` is called once, later, with what the machine returned. Raises what is known at once."""
        call = _Call(requests.deadline_ns(timeout_s), respond)

        def resolve(outcome: Appended | RaftError) -> None:
            if isinstance(outcome, RaftError):
                self._finish(call, Err(outcome))
            elif outcome.first_index <= self.applied_index:
                self._finish(
                    call, Err(OutcomeUnknown(f"applied at {outcome.first_index}; its result is not kept"))
                )
            else:
                self._wait(outcome.first_index, call)

        self._admit()
        try:
            requests.submit((payload,), None, timeout_s, resolve)
        except RaftError:
            self._pending -= 1
            raise

    def query(
        self,
        requests: Requests,
        query: QueryT_contra,
        timeout_s: float | None,
        respond: Callable[[Result[AnswerT_co]], None],
    ) -> None:
        """Answer a query once this node has applied all that was acknowledged before it; as `apply` otherwise."""

        def answer() -> Result[AnswerT_co]:
            try:
                return Ok(self._machine.query(query))
            except Exception as error:
                return Err(QueryFailed(error))

        call = _Call(requests.deadline_ns(timeout_s), respond, answer)

        def confirmed(outcome: LogIndex | RaftError) -> None:
            if isinstance(outcome, RaftError):
                self._finish(call, Err(outcome))
            elif outcome <= self.applied_index:
                self._finish(call, answer())
            else:
                self._wait(outcome, call)

        self._admit()
        try:
            requests.confirm_read(timeout_s, confirmed)
        except RaftError:
            self._pending -= 1
            raise

    def _admit(self) -> None:
        if self._pending >= PENDING_CALLS_MAX:
            raise Overloaded(PENDING_CALLS_MAX, "commands and queries")
        self._pending += 1

    def _wait(self, index: LogIndex, call: _Call) -> None:
        if not self._waiting or call.deadline_ns < self._earliest_ns:
            self._earliest_ns = call.deadline_ns
        self._waiting.setdefault(index, []).append(call)

    def _finish(self, call: _Call, outcome: Result[Any]) -> None:
        self._pending -= 1
        call.respond(outcome)

    # -- time, and the end

    def deadline(self) -> int:
        """When `expire` is wanted next."""
        return self._earliest_ns if self._waiting else FAR_NS

    def expire(self, now: int) -> None:
        """Give an outcome to every call that waits here and whose time is over."""
        if not self._waiting or now < self._earliest_ns:
            return
        late = self._take_out(lambda call: call.deadline_ns <= now)
        remaining = (call.deadline_ns for calls in self._waiting.values() for call in calls)
        self._earliest_ns = min(remaining, default=0)
        behind = f"this node has applied up to {self.applied_index}"
        for index, call in late:
            if call.answer is None:
                error: RaftError = OutcomeUnknown(
                    f"committed at {index}, {behind}: its result is not known in time"
                )
            else:
                error = Unavailable(f"{behind}, and the query has to see {index}")
            self._finish(call, Err(error))

    def stop(self, cause: BaseException | None) -> None:
        """The node stops: what is committed takes effect on the others, and here after a restart."""
        for index, call in self._take_out(lambda call: True):
            if call.answer is None:
                error: RaftError = OutcomeUnknown(
                    f"committed at {index}; the node stopped before its result was known"
                )
            else:
                error = NodeStopped(cause)
            self._finish(call, Err(error))

    def _take_out(self, which: Callable[[_Call], bool]) -> list[tuple[LogIndex, _Call]]:
        taken: list[tuple[LogIndex, _Call]] = []
        waiting, self._waiting = self._waiting, {}
        for index, calls in waiting.items():
            taken += [(index, call) for call in calls if which(call)]
            if kept := [call for call in calls if not which(call)]:
                self._waiting[index] = kept
        return taken
