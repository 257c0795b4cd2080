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
from typing import Final

from ..core.batch import HEADER_BYTES, join_payloads
from ..core.messages import ProposeAccepted, ProposeRejected
from ..core.proposals import UNCOMMITTED_BYTES_MAX
from ..core.summary import EPOCHS_MAX, HOLDER_BITS, RUNS_MAX, session_number
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
from ..types import FAR_NS, LogIndex, Random, Term
from .units import LENGTH_BYTES, Appended, Lot, Request, Resolve, ResolvePart, Unit

__all__ = ["PENDING_BYTES_MAX", "PENDING_PROPOSALS_MAX", "Proposals"]

PENDING_PROPOSALS_MAX: Final = 65_536
PENDING_BYTES_MAX: Final = 64 << 20
UNITS_IN_FLIGHT_MAX: Final = RUNS_MAX
"""No more than the cluster remembers of a session."""

RETRY_NS: Final = 5_000_000
"""What was refused for a passing reason is handed over again after this."""


class Proposals:
    """One holder's requests, in one session after another.

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
        self._waiting: deque[Request] = deque()
        self._units: deque[Unit] = deque()
        self._bytes = 0
        self._pending = 0
        self._number = 0
        self._paused_until_ns = 0
        self._holder = self._epoch = self._session = 0
        self._next_sequence = 1
        self._next_number = 1
        self._opened_at: LogIndex = 0
        self._known_commit_index: LogIndex = 0
        self._renew = True
        self._earliest_ns = FAR_NS
        self._lot: Lot | None = None

    @property
    def pending(self) -> int:
        """Requests without an outcome."""
        return self._pending + (len(self._lot.taken) if self._lot else 0)

    @property
    def patience_ns(self) -> int:
        """Until when the units under way are worth carrying out: the latest stands on all before it."""
        return max([unit.patience_ns for unit in self._units], default=0)

    def submit(
        self,
        payloads: Sequence[bytes],
        condition: tuple[LogIndex, Term] | None,
        deadline_ns: int,
        resolve: Resolve,
    ) -> None:
        """Take a request; `resolve` is called once, later, with its outcome. Raises Overloaded."""
        self.close_lot()
        size_bytes = sum(map(len, payloads)) + LENGTH_BYTES * len(payloads)
        self._check_room(size_bytes)
        self._bytes += size_bytes
        self._pending += 1
        self._take(Request(self._next_place(), payloads, size_bytes, condition, deadline_ns, resolve))

    def open_lot(self, need_bytes: int, limit_bytes: int, deadline_ns: int, resolve: ResolvePart) -> Lot:
        """A lot for entries that come now: it takes one of `need_bytes` at least, of `limit_bytes` in all at most.

        Closed by `close_lot`, when another request comes, and when it is handed over. Raises Overloaded.
        """
        self.close_lot()
        self._check_room(need_bytes)
        # As full of empty entries as it can be, it is no more than may be pending.
        room_bytes = LENGTH_BYTES * (PENDING_PROPOSALS_MAX - self._pending)
        room_bytes = max(need_bytes, min(limit_bytes, room_bytes, PENDING_BYTES_MAX - self._bytes))
        self._lot = Lot(self._next_place(), room_bytes, deadline_ns, resolve)
        self._take(self._lot)
        return self._lot

    def close_lot(self) -> None:
        """The turn is over: what comes from now on goes into another lot."""
        lot, self._lot = self._lot, None
        if lot is not None:
            lot.close()
            self._bytes += lot.size_bytes
            self._pending += lot.count

    def _check_room(self, need_bytes: int) -> None:
        if self._pending >= PENDING_PROPOSALS_MAX:
            raise Overloaded(PENDING_PROPOSALS_MAX)
        if self._pending and self._bytes + need_bytes > PENDING_BYTES_MAX:
            raise Overloaded(PENDING_BYTES_MAX, "bytes of requests")

    def _next_place(self) -> int:
        self._number += 1
        return self._number

    def _take(self, request: Request) -> None:
        self._waiting.append(request)
        self._earliest_ns = min(self._earliest_ns, request.deadline_ns)

    # -- handing over

    def outgoing(self, now: int, commit_index: LogIndex) -> list[Unit]:
        """The units to hand to the leader now, in order; each has a new request_id."""
        self.close_lot()
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
            if not self._holder or self._epoch == EPOCHS_MAX:
                self._holder, self._epoch = self._random.getrandbits(HOLDER_BITS) or 1, 0
            self._session = session_number(self._holder, self._epoch)
            self._epoch += 1
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
        payloads = requests[0].payloads
        if len(requests) > 1:
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
            max([request.deadline_ns for request in requests]),
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
        unit.requests = [part for request in unit.requests for part in self._parts(request)]
        for request in unit.requests:
            if request.size_bytes > self._body_limit_bytes:
                self._finish(request, EntryTooLarge(request.size_bytes, self._body_limit_bytes, "a request"))
        self._take_back(without_effect)

    def _parts(self, request: Request) -> list[Request]:
        return [request] if request.size_bytes <= self._body_limit_bytes else request.parts()

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

    def _finish(self, request: Request, outcome: Appended | RaftError) -> None:
        resolve, request.resolve = request.resolve, None
        if resolve is not None:
            self._bytes -= request.size_bytes
            self._pending -= request.count
            resolve(outcome)

    # -- time

    def deadline(self) -> int:
        """When `expire` is wanted next, or `outgoing` again; FAR_NS: not for time's sake."""
        when = self._earliest_ns
        if self._paused_until_ns and (self._units or self._waiting):
            when = min(when, self._paused_until_ns)
        if self._retransmit_ns:
            handed_ns = min((unit.handed_ns for unit in self._units if unit.handed), default=FAR_NS)
            when = min(when, handed_ns + self._retransmit_ns)
        return when

    def expire(self, now: int, why: Callable[[], str]) -> None:
        """Give an outcome to every request whose time is over; `why` tells what is missing."""
        if now >= self._paused_until_ns:
            self._paused_until_ns = 0
        if self._retransmit_ns:
            for unit in self._units:
                unit.handed = unit.handed and now < unit.handed_ns + self._retransmit_ns
        if now < self._earliest_ns:
            return
        self.close_lot()
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
            # Nobody waits: stop asking. Later requests go in the next session, for this one may have a gap; what still comes
            # of this one afterwards comes too late.
            self._units.clear()
            self._renew = True
        deadlines = [request.deadline_ns for request in self._waiting]
        deadlines += [r.deadline_ns for unit in self._units for r in unit.requests if r.resolve is not None]
        self._earliest_ns = min(deadlines, default=FAR_NS)

    def _is_refuted(self, unit: Unit, now: int) -> bool:
        """Nobody will wait for it, and each of its attempts was answered: certainly without effect, if it ends here."""
        waited_for = any(
            request.resolve is not None and request.deadline_ns > now for request in unit.requests
        )
        # Where messages may be lost they may be doubled too: the copy of an attempt that was refused may yet be taken.
        return not (waited_for or unit.unanswered or self._retransmit_ns)

    def stop(self, cause: BaseException | None) -> None:
        """The node stops: what was handed over is unknown, the rest never left."""
        self.close_lot()
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
