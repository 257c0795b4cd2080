"""The holder of a session: gives each of its requests exactly one outcome, whatever happens to leaders and links.

    submit -> waiting -> a unit, numbered -> handed to the leader -> accepted or refused -> the request's outcome
                                   ^-------- handed again, unchanged -------'

Requests that wait while others are under way are joined into one unit, encoded once. A unit that was handed over keeps its
sequence numbers and its bytes for good, so the cluster's session table recognizes it however often it arrives (section 8).
Members and client processes use this same class.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ..core.batch import HEADER_BYTES, join_payloads
from ..core.messages import ProposeAccepted, ProposeRejected
from ..core.proposals import UNCOMMITTED_BYTES_MAX
from ..core.summary import RUNS_MAX
from ..errors import (
    EntryTooLarge,
    LogMismatch,
    NodeStopped,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    RaftError,
    SessionExpired,
    Unavailable,
)
from ..types import LogIndex, Random, Term

__all__ = ["PENDING_BYTES_MAX", "PENDING_PROPOSALS_MAX", "Appended", "Proposals", "Unit"]

PENDING_PROPOSALS_MAX: Final = 65_536
PENDING_BYTES_MAX: Final = 64 << 20
UNITS_IN_FLIGHT_MAX: Final = RUNS_MAX
"""No more than the cluster remembers of a session."""

RETRY_NS: Final = 5_000_000
"""What was refused for a passing reason is handed over again after this."""


@dataclass(slots=True, frozen=True)
class Appended:
    """The entries of a request are committed, the first at `first_index`, all in `term`."""

    first_index: LogIndex
    term: Term


Resolve: TypeAlias = Callable[[Appended | RaftError], None]


@dataclass(slots=True)
class _Request:
    number: int
    payloads: Sequence[bytes]
    size_bytes: int
    condition: tuple[LogIndex, Term] | None
    deadline_ns: int
    resolve: Resolve | None


@dataclass(slots=True)
class Unit:
    """Requests that travel, and stand in the log, as one batch.

    number: its place among the units of its session. patience_ns: until when anybody waits for it.
    request_id: of the latest attempt; 0: the next one has a new number. attempts: how often it was handed over.
    unanswered: attempts of which it is not known that they were without effect. refusal: the latest answer.
    handed: to the present leader, at handed_ns, and not answered yet.
    """

    number: int

    session: int
    sequence: int
    count: int
    opened_at: LogIndex
    body: bytes
    condition: tuple[LogIndex, Term] | None
    requests: list[_Request] = field(default_factory=list)
    patience_ns: int = 0
    request_id: int = 0
    attempts: int = 0
    unanswered: int = 0
    refusal: ProposeRejected | None = None
    handed: bool = False
    handed_ns: int = 0

    @property
    def abandoned(self) -> bool:
        """Nobody waits for it any more; it may still commit."""
        return all(request.resolve is None for request in self.requests)


class Proposals:
    """One session's requests.

    batch_limit_bytes: the largest batch; whoever submits has checked that a request alone is not larger.
    retransmit_ns: what is unanswered for so long is handed over again under the same number, where messages may be lost; 0:
        they are not. An answer to any copy is an answer, however slow the network is.
    """

    def __init__(
        self,
        random: Random,
        next_request_id: Callable[[], int],
        batch_limit_bytes: int,
        *,
        retransmit_ns: int = 0,
    ) -> None:
        self._random = random
        self._next_request_id = next_request_id
        self._body_limit_bytes = batch_limit_bytes - HEADER_BYTES
        self._retransmit_ns = retransmit_ns
        self._waiting: deque[_Request] = deque()
        self._units: deque[Unit] = deque()
        self._bytes = 0
        self._pending = 0
        self._number = 0
        self._paused_until_ns = 0
        self._session = 0
        self._next_sequence = 1
        self._next_number = 1
        self._opened_at: LogIndex = 0
        self._known_commit_index: LogIndex = 0
        self._renew = True
        self._earliest_ns: int | None = None

    @property
    def pending(self) -> int:
        """Requests without an outcome."""
        return self._pending

    @property
    def patience_ns(self) -> int:
        """Until when the units under way are worth carrying out: the latest stands on all before it."""
        return max((unit.patience_ns for unit in self._units), default=0)

    def submit(
        self,
        payloads: Sequence[bytes],
        condition: tuple[LogIndex, Term] | None,
        deadline_ns: int,
        resolve: Resolve,
    ) -> None:
        """Take a request; `resolve` is called once, later, with its outcome. Raises Overloaded."""
        if self._pending >= PENDING_PROPOSALS_MAX:
            raise Overloaded(PENDING_PROPOSALS_MAX)
        size_bytes = sum(map(len, payloads)) + 4 * len(payloads)
        if self._pending and self._bytes + size_bytes > PENDING_BYTES_MAX:
            raise Overloaded(PENDING_BYTES_MAX, "bytes of requests")
        self._bytes += size_bytes
        self._pending += 1
        self._number += 1
        self._waiting.append(_Request(self._number, payloads, size_bytes, condition, deadline_ns, resolve))
        if self._earliest_ns is None or deadline_ns < self._earliest_ns:
            self._earliest_ns = deadline_ns

    # -- handing over

    def outgoing(self, now: int, commit_index: LogIndex) -> list[Unit]:
        """The units to hand to the leader now, in order; each has a new request_id."""
        if now < self._paused_until_ns:
            return []
        units = []
        for unit in self._units:
            if not unit.handed:
                self._hand(unit, now)
                units.append(unit)
        while self._waiting and self._may_form():
            unit = self._form(commit_index)
            self._units.append(unit)
            self._hand(unit, now)
            units.append(unit)
        return units

    def _hand(self, unit: Unit, now: int) -> None:
        if not unit.request_id:
            unit.request_id = self._next_request_id()
            unit.unanswered += 1
        unit.attempts += 1
        unit.handed, unit.handed_ns = True, now

    def _may_form(self) -> bool:
        if not self._units:
            return True
        # A condition may fail and leave its numbers free for others: nothing else may be under way with it.
        barrier = self._waiting[0].condition is not None or self._units[-1].condition is not None
        # Answers may overtake each other: what counts is how far back the oldest unit lies that is not answered.
        behind = self._next_number - self._units[0].number
        return not barrier and not self._renew and behind < UNITS_IN_FLIGHT_MAX

    def _form(self, commit_index: LogIndex) -> Unit:
        if self._renew:
            self._session = self._random.getrandbits(63) or 1
            self._opened_at = max(commit_index, self._known_commit_index)
            self._next_sequence, self._next_number, self._renew = 1, 1, False
        requests = [self._waiting.popleft()]
        size_bytes = requests[0].size_bytes
        condition = requests[0].condition
        while self._waiting and condition is None and self._waiting[0].condition is None:
            size_bytes += self._waiting[0].size_bytes
            if size_bytes > self._body_limit_bytes:
                break
            requests.append(self._waiting.popleft())
        payloads = [payload for request in requests for payload in request.payloads]
        unit = Unit(
            self._next_number,
            self._session,
            self._next_sequence,
            len(payloads),
            self._opened_at,
            join_payloads(payloads),
            condition,
            requests,
            max(request.deadline_ns for request in requests),
        )
        self._next_sequence += len(payloads)
        self._next_number += 1
        return unit

    def leader_changed(self) -> None:
        """Whatever is under way may be lost: hand it to the new leader, from the first unit on."""
        for unit in self._units:
            unit.handed, unit.request_id = False, 0
        self._paused_until_ns = 0

    # -- being answered

    def accepted(self, response: ProposeAccepted) -> None:
        unit = self._find(response.request_id)
        if unit is not None:
            self._appended(unit, response.first_index, response.entry_term)

    def settled(self, session: int, sequence: int, first_index: LogIndex, term: Term) -> bool:
        """A batch with these numbers is committed here: an answer to its unit, though the leader's is late or lost.

        False: no unit under way has them.
        """
        if session != self._session:
            return False
        for unit in self._units:
            if unit.sequence == sequence:
                self._appended(unit, first_index, term)
                return True
        return False

    def _appended(self, unit: Unit, first_index: LogIndex, term: Term) -> None:
        self._units.remove(unit)
        for request in unit.requests:
            self._finish(request, Appended(first_index, term))
            first_index += len(request.payloads)

    def rejected(self, response: ProposeRejected, now: int) -> None:
        unit = self._find(response.request_id)
        if unit is None:
            return
        if response.reason == "mismatch":
            self._mismatched(unit, response)
        elif response.reason == "expired":
            self._expired(unit, response, now)
        elif response.reason == "too_large":
            self._too_large(unit, response)
        else:
            # Refused for now. What follows it is refused for the gap: all is handed over again, in order.
            unit.handed, unit.request_id = False, 0
            unit.unanswered -= not response.appended
            unit.refusal = response
            if response.reason == "gap":
                self._fill_gap(response.last_index)
            self._paused_until_ns = now + RETRY_NS

    def _mismatched(self, unit: Unit, response: ProposeRejected) -> None:
        self._units.remove(unit)
        if unit.condition is not None and unit.condition[0] > response.last_index:
            # It names an entry that may yet be appended: a late copy of it must not meet its numbers in other hands.
            self._renew = True
        else:
            # Nothing of it is in the log and its condition can never hold again, so its numbers are free.
            self._next_sequence, self._next_number = unit.sequence, unit.number
        self._finish_all(unit, LogMismatch(response.last_index, response.last_term))

    def _fill_gap(self, expected_sequence: int) -> None:
        """The leader misses this number and so refuses all that follows: hand over again from there on."""
        for unit in self._units:
            if unit.sequence >= expected_sequence:
                unit.handed, unit.request_id = False, 0

    def _expired(self, unit: Unit, response: ProposeRejected, now: int) -> None:
        """The session is forgotten: certainly without effect if this was the only attempt, else that cannot be told."""
        self._renew = True
        # A session that is opened with less knowledge than this would be refused again.
        self._known_commit_index = max(self._known_commit_index, response.last_index)
        self._paused_until_ns = now + RETRY_NS
        self._units.remove(unit)
        if unit.attempts > 1 or response.appended or self._retransmit_ns:
            # Where messages may be lost they may be doubled too: one attempt can arrive twice.
            self._finish_all(unit, SessionExpired("the session was forgotten before the outcome was known"))
        else:
            self._take_back([unit])

    def _too_large(self, unit: Unit, response: ProposeRejected) -> None:
        """The leader takes only smaller batches, so the session has a gap for good: go on with smaller units in another."""
        self._renew = True
        limit_bytes = response.last_index
        self._body_limit_bytes = min(self._body_limit_bytes, limit_bytes - HEADER_BYTES)
        following = [other for other in self._units if other.sequence > unit.sequence]
        self._units.remove(unit)
        for other in following:
            self._units.remove(other)
        certain = unit.attempts == 1 and not response.appended
        without_effect = []
        for other in (unit, *following):
            # Where the gap is certain, so is it that nothing behind it was appended.
            if certain and other.attempts == 1:
                without_effect.append(other)
            else:
                self._finish_all(
                    other, OutcomeUnknown("an entry before it, or it, is too large for the leader")
                )
        for request in unit.requests:
            if request.size_bytes > self._body_limit_bytes:
                self._finish(request, EntryTooLarge(request.size_bytes, self._body_limit_bytes, "a request"))
        self._take_back(without_effect)

    def _take_back(self, units: Sequence[Unit]) -> None:
        """These certainly had no effect and never will: whoever still waits for them waits in line again."""
        requests = [r for unit in units for r in unit.requests if r.resolve is not None]
        self._waiting = deque(sorted((*requests, *self._waiting), key=lambda request: request.number))

    def _find(self, request_id: int) -> Unit | None:
        for unit in self._units:
            if unit.request_id == request_id:
                return unit
        return None

    def _finish_all(self, unit: Unit, error: RaftError) -> None:
        for request in unit.requests:
            self._finish(request, error)

    def _finish(self, request: _Request, outcome: Appended | RaftError) -> None:
        resolve, request.resolve = request.resolve, None
        if resolve is not None:
            self._bytes -= request.size_bytes
            self._pending -= 1
            resolve(outcome)

    # -- time

    def deadline(self) -> int | None:
        """When `expire` is wanted next, or `outgoing` again; None: not for time's sake."""
        wanted = [] if self._earliest_ns is None else [self._earliest_ns]
        if self._paused_until_ns and (self._units or self._waiting):
            wanted.append(self._paused_until_ns)
        if self._retransmit_ns:
            wanted += [unit.handed_ns + self._retransmit_ns for unit in self._units if unit.handed]
        return min(wanted, default=None)

    def expire(self, now: int, why: Callable[[], str]) -> None:
        """Give an outcome to every request whose time is over; `why` tells what is missing."""
        if now >= self._paused_until_ns:
            self._paused_until_ns = 0
        if self._retransmit_ns:
            for unit in self._units:
                unit.handed = unit.handed and now < unit.handed_ns + self._retransmit_ns
        if self._earliest_ns is None or now < self._earliest_ns:
            return
        late = [request for request in self._waiting if request.deadline_ns <= now]
        if late:
            self._waiting = deque(request for request in self._waiting if request.deadline_ns > now)
        for request in late:
            self._finish(request, Unavailable(why()))
        refuted = all(self._is_refuted(unit, now) for unit in self._units)
        for unit in tuple(self._units):
            for request in unit.requests:
                if request.resolve is not None and request.deadline_ns <= now:
                    self._finish(request, _refused(unit, why()) if refuted else _unknown(why()))
        if self._units and all(unit.abandoned for unit in self._units):
            # Nobody waits: stop asking. Later requests go in a session of their own, for this one may have a gap.
            self._units.clear()
            self._renew = True
        deadlines = [request.deadline_ns for request in self._waiting]
        deadlines += [r.deadline_ns for unit in self._units for r in unit.requests if r.resolve is not None]
        self._earliest_ns = min(deadlines, default=None)

    def _is_refuted(self, unit: Unit, now: int) -> bool:
        """Nobody will wait for it, and each of its attempts was answered: certainly without effect, if it ends here."""
        waited_for = any(
            request.resolve is not None and request.deadline_ns > now for request in unit.requests
        )
        # Where messages may be lost they may be doubled too: the copy of an attempt that was refused may yet be taken.
        return not (waited_for or unit.unanswered or self._retransmit_ns)

    def stop(self, cause: BaseException | None) -> None:
        """The node stops: what was handed over is unknown, the rest never left."""
        units, self._units = self._units, deque()
        waiting, self._waiting = self._waiting, deque()
        for unit in units:
            self._finish_all(unit, OutcomeUnknown("the node stopped before the outcome was known"))
        for request in waiting:
            self._finish(request, NodeStopped(cause))


def _unknown(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"no answer in time: {why}; it may still take effect")


def _refused(unit: Unit, why: str) -> RaftError:
    assert unit.refusal is not None, "all of its attempts were answered"
    if unit.refusal.reason == "overloaded":
        return Overloaded(UNCOMMITTED_BYTES_MAX, "uncommitted bytes")
    return NotLeader(unit.refusal.current_leader, why)
