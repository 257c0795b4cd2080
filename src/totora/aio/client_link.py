"""What a client process asks, carried to whichever node answers: one stream, retries, exactly one outcome for each request.

    submit, ask -> pending -> flush, once per turn of the loop -> the stream -> answers -> outcomes
                      ^--------- another node, the same requests -------'

It is the `face.Backend` of a client: it knows bytes, not entries, and uses the ports Network, Clock and Random alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from ..config import Settings
from ..core.batch import Batch
from ..core.messages import Propose, ProposeAccepted, ProposeRejected
from ..errors import (
    ConfigurationError,
    NodeStopped,
    OutcomeUnknown,
    ProtocolError,
    RaftError,
    RangeTooLarge,
    Unavailable,
)
from ..ports import Ports, Timer
from ..session.proposals import Proposals
from ..session.units import Appended, Lot, ResolvePart
from ..types import FAR_NS, Address, LogIndex, NodeId, NodeStatus, Term
from ..wire import codec
from ..wire.client import (
    HandedOver,
    HandOver,
    RangesRead,
    RequestFailed,
    RequestStatus,
    StatusReport,
    error_of,
)
from ..wire.handshake import Refusal, Welcome
from .client_stream import ClientEnd, Greeting, probe, spell
from .futures import new_future, settle
from .questions import Questions
from .ranges import Ranges, ResolveRanges

__all__ = ["ClientLink"]

R = TypeVar("R")

_ONLY_ID: Final = 1
"""Of a question that has a stream to itself."""

ATTEMPT_NS: Final = 1_000_000_000
"""A node that does not welcome, confirm a read or answer at all within this is left for the next one."""

LEADERLESS_NS: Final = 500_000_000
"""A node that refuses for so long because it knows no leader may be cut off: others may know one."""

BACKOFF_MIN_NS: Final = 20_000_000
BACKOFF_MAX_NS: Final = 1_000_000_000

PAGE_ENTRIES: Final = 4_096
"""The first page of a long read."""

FINAL: Final = frozenset(("version", "cluster", "entry_type", "certificate"))
"""Refusals that trying again does not change."""


class ClientLink:
    """Keeps one stream to any of `addresses`, and what was asked until it has an outcome."""

    def __init__(
        self, addresses: Sequence[Address], fingerprint: bytes, ports: Ports, settings: Settings
    ) -> None:
        self._addresses = addresses
        self._fingerprint = fingerprint
        self._ports = ports
        self._clock = ports.clock
        self._settings = settings
        self._request_id = ports.random.getrandbits(48)
        self._proposals = Proposals(ports.random, self._next_request_id, settings.batch_limit_bytes)
        self._questions = Questions(self._next_request_id, ATTEMPT_NS)
        self._commit_index: LogIndex = 0
        self._page_entries = PAGE_ENTRIES
        self._cluster_id: bytes | None = None
        # Clients that start together do not all choose the same node.
        self._place = int(ports.random.random() * len(addresses))
        self._end: ClientEnd | None = None
        self._closing: ClientEnd | None = None
        self._failures: dict[Address, str | Refusal] = {}
        self._failed_in_a_row = 0
        self._backoff_ns = BACKOFF_MIN_NS
        self._redial: Timer | None = None
        self._patience: Timer | None = None
        self._said: str | None = None
        self._leaderless_since_ns: int | None = None
        self._ping: tuple[int, int] | None = None
        self._waiting_since_ns = 0
        self._timer: Timer | None = None
        self._timer_ns = 0
        self._flush_scheduled = False
        self._open = False

    def _next_request_id(self) -> int:
        self._request_id += 1
        return self._request_id

    # -- life

    def start(self) -> None:
        self._open = True

    async def close(self) -> None:
        """Give every request an outcome, close the stream."""
        if not self._open:
            return
        self._open = False
        for timer in (self._redial, self._patience, self._timer):
            if timer is not None:
                timer.cancel()
        self._give_outcomes("the client was closed")
        end, self._end = self._end, None
        if end is None:
            return
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def left() -> None:
            if not gone.done():
                gone.set_result(None)

        end.gone = left
        open_still = end.stream is not None
        end.forget()
        if open_still:
            await gone

    def _give_outcomes(self, why: str) -> None:
        self._proposals.expire(FAR_NS, lambda: why)
        self._questions.expire(FAR_NS, lambda: why)

    # -- requests

    def submit(
        self,
        payloads: Sequence[bytes],
        condition: tuple[LogIndex, Term] | None,
        timeout_s: float | None,
        resolve: Callable[[Appended | RaftError], None],
    ) -> None:
        """Append these entries; `resolve` is called once, later. Raises Overloaded, ConfigurationError, Unavailable."""
        self._check()
        idle = not self._outstanding
        self._proposals.submit(
            payloads, condition, self._deadline_ns(timeout_s), lambda outcome: resolve(self._told(outcome))
        )
        self._flush_soon(idle)

    def open_lot(self, need_bytes: int, limit_bytes: int, resolve: ResolvePart) -> Lot:
        """Where requests of one entry each go in this turn of the loop. Raises as `submit` does."""
        self._check()
        idle = not self._outstanding
        lot = self._proposals.open_lot(
            need_bytes,
            limit_bytes,
            self._deadline_ns(None),
            lambda start, stop, outcome: resolve(start, stop, self._told(outcome)),
        )
        self._flush_soon(idle)
        return lot

    def open_reads(self, timeout_s: float | None, resolve: ResolveRanges) -> Ranges:
        """Where ranges to read go in this turn of the loop; `resolve` is called once for each. Raises as `submit` does."""
        self._check()
        idle = not self._outstanding
        lot = self._questions.open(
            self._deadline_ns(timeout_s),
            lambda start, stop, outcome: resolve(start, stop, self._told(outcome)),
        )
        self._flush_soon(idle)
        return lot

    async def read_index(self, timeout_s: float | None) -> LogIndex:
        self._check()
        idle = not self._outstanding
        future: asyncio.Future[LogIndex] = new_future()
        self._questions.ask_index(
            self._deadline_ns(timeout_s), lambda outcome: settle(future, self._told(outcome))
        )
        self._flush_soon(idle)
        return await future

    async def load_page(
        self, start: LogIndex, end: LogIndex, timeout_s: float | None
    ) -> tuple[Sequence[Batch], LogIndex]:
        """Committed batches from `start` on, up to `end`, and the index to go on at; pages grow while they fit an answer."""
        last = min(end, start + self._page_entries - 1)
        while True:
            try:
                batches = await self._read_alone(start, last, timeout_s)
            except RangeTooLarge as error:
                last = error.next_index - 1
                self._page_entries = max(1, error.next_index - start)
            else:
                if last == start + self._page_entries - 1:
                    self._page_entries *= 2
                return batches, last + 1

    async def _read_alone(self, start: LogIndex, end: LogIndex, timeout_s: float | None) -> Sequence[Batch]:
        future: asyncio.Future[Sequence[Batch]] = new_future()
        self.open_reads(timeout_s, lambda _start, _stop, outcome: settle(future, outcome)).add(
            start, end, alone=True
        )
        return await future

    async def status(self, address: Address, timeout_s: float) -> NodeStatus | RaftError:
        """What the node at `address` says of itself, or why it says nothing. Raises NodeStopped."""
        self._check_open()
        question = RequestStatus(_ONLY_ID)
        answer = await probe(self._ports, round(timeout_s * 1e9), address, Greeting(b""), question)
        return answer.status if isinstance(answer, StatusReport) else _no_answer(answer)

    def transfer(self, target: NodeId | None, timeout_s: float | None) -> asyncio.Future[NodeId]:
        """Have the leader hand over, through the first node that can ask it to."""
        self._check_open()
        return asyncio.ensure_future(self._transfer(target, self._deadline_ns(timeout_s)))

    async def _transfer(self, target: NodeId | None, deadline_ns: int) -> NodeId:
        why: RaftError = Unavailable("no node was asked in time")
        for address in self._addresses:
            left_ns = deadline_ns - self._ports.clock.now_ns()
            if left_ns <= 0:
                break
            question = HandOver(_ONLY_ID, left_ns, target)
            answer = await probe(self._ports, left_ns, address, Greeting(b""), question)
            if isinstance(answer, HandedOver):
                return answer.leader_id
            why = _no_answer(answer)
            if not isinstance(why, Unavailable):
                break
        raise why

    @property
    def _refusal(self) -> ConfigurationError | None:
        """All nodes refuse this client for good: asking again is of no use."""
        refusals = [self._failures.get(address) for address in self._addresses]
        if not all(isinstance(refusal, Refusal) and refusal.code in FINAL for refusal in refusals):
            return None
        return ConfigurationError(f"this client is refused: {self._describe_failures()}")

    def _told(self, outcome: R | RaftError) -> R | RaftError:
        """To wait for other nodes is no remedy where all have refused: the settings are wrong."""
        return self._refusal or outcome if isinstance(outcome, Unavailable) else outcome

    def _check_open(self) -> None:
        if not self._open:
            raise NodeStopped(
                ConfigurationError("the client is closed, or was never opened: use `async with`")
            )

    def _check(self) -> None:
        self._check_open()
        if (refusal := self._refusal) is not None:
            raise refusal

    def _deadline_ns(self, timeout_s: float | None) -> int:
        settings = self._settings
        timeout_ns = settings.request_timeout_ns if timeout_s is None else round(timeout_s * 1e9)
        return self._clock.now_ns() + timeout_ns

    @property
    def _outstanding(self) -> bool:
        return bool(self._proposals.pending or self._questions)

    # -- one stream

    def _dial(self) -> None:
        self._redial = None
        if not self._open:
            return
        self._end = end = ClientEnd(
            self._ports,
            min(ATTEMPT_NS, self._settings.handshake_timeout_ns),
            self._addresses[self._place],
            Greeting(self._fingerprint, self._cluster_id),
            welcomed=self._welcomed,
            delivered=self._delivered,
            ended=self._ended,
        )
        self._ports.network.connect(end.address, end)

    def _welcomed(self, end: ClientEnd, welcome: Welcome) -> None:
        self._failures.clear()
        self._failed_in_a_row = 0
        self._cluster_id = welcome.cluster_id or self._cluster_id
        self._commit_index = max(self._commit_index, welcome.commit_index)
        self._said, self._leaderless_since_ns, self._ping = None, None, None
        self._waiting_since_ns = self._clock.now_ns()
        self._proposals.leader_changed()
        self._questions.ask_again()
        self._flush()

    def _ended(self, end: ClientEnd, why: str | Refusal) -> None:
        """The stream is of no use any more: go on with the next node, at once if this one had been good."""
        if end is not self._end:
            return
        self._end = None
        self._failures[end.address] = why
        self._place = (self._place + 1) % len(self._addresses)
        self._failed_in_a_row += 1
        if self._refusal is not None:
            self._give_outcomes(self._describe_failures())
        delay_ns = 0
        if self._failed_in_a_row >= len(self._addresses):
            delay_ns = round(self._backoff_ns * (0.5 + self._ports.random.random() / 2))
            if self._failed_in_a_row % len(self._addresses) == 0:
                self._backoff_ns = min(2 * self._backoff_ns, BACKOFF_MAX_NS)
        if self._open:
            self._redial = self._clock.call_at(self._clock.now_ns() + delay_ns, self._dial)

    def _describe_failures(self) -> str:
        said = []
        for address, why in self._failures.items():
            said.append(f"{spell(address)} {why.text if isinstance(why, Refusal) else why}")
        return "; ".join(said)

    def _why_waiting(self) -> str:
        end = self._end
        if end is not None and end.welcome is not None:
            node = f"node {end.welcome.node_id} at {spell(end.address)}"
            return f"{node} says: {self._said}" if self._said else f"{node} did not answer in time"
        return f"no node can be reached: {self._describe_failures() or 'none has answered yet'}"

    # -- handing over

    def _flush_soon(self, was_idle: bool) -> None:
        """Requests of one turn of the loop travel together."""
        if was_idle:
            self._waiting_since_ns = self._clock.now_ns()
        if self._end is None and self._redial is None:
            self._dial()
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._clock.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        self._proposals.close_lot()
        self._questions.close_lots()
        if not self._open:
            return
        end = self._end
        if end is not None and end.welcome is not None and not end.closed:
            now = self._clock.now_ns()
            self._hand_proposals(end, now)
            for question in self._questions.outgoing(now):
                end.write(codec.encode(question))
            end.flush()
        self._arm()

    def _hand_proposals(self, end: ClientEnd, now: int) -> None:
        for unit in self._proposals.outgoing(now, self._commit_index):
            call = Propose(
                unit.request_id,
                unit.session,
                unit.sequence,
                unit.count,
                unit.opened_at,
                max(1, self._proposals.patience_ns - now),
                unit.body,
                *(unit.condition or (None, None)),
            )
            end.write(codec.encode(call))

    # -- being answered

    def _delivered(self, end: ClientEnd, message: codec.WireMessage) -> None:
        if end is not self._end:
            return
        self._ping = None
        match message:
            case ProposeAccepted():
                self._leaderless_since_ns = None
                self._commit_index = max(self._commit_index, message.first_index)
                self._proposals.accepted(message)
            case ProposeRejected():
                self._rejected(end, message)
            case RangesRead():
                self._questions.answered(spell(end.address), message)
            case RequestFailed():
                self._question_failed(end, message)
            case StatusReport():
                self._said = message.status.why
            case _:
                raise ProtocolError(spell(end.address), f"sent {type(message).__name__} to a client")
        if self._outstanding:
            self._flush_soon(was_idle=False)

    def _rejected(self, end: ClientEnd, message: ProposeRejected) -> None:
        now = self._clock.now_ns()
        if message.reason == "not_leader" and self._leaderless_since_ns is None:
            self._leaderless_since_ns = now
            self._ask_status(end)
        self._proposals.rejected(message, now)
        if self._leaderless_since_ns is not None and now - self._leaderless_since_ns > LEADERLESS_NS:
            end.give_up(f"knows no leader{f': {self._said}' if self._said else ''}")

    def _question_failed(self, end: ClientEnd, message: RequestFailed) -> None:
        error = error_of(message)
        if not isinstance(error, Unavailable | OutcomeUnknown):
            self._questions.failed(spell(end.address), message.request_id, message.count, error)
            return
        # It is this node that cannot: another one may.
        self._said = message.text
        end.give_up(message.text)

    def _ask_status(self, end: ClientEnd) -> None:
        end.write(codec.encode(RequestStatus(self._next_request_id())))
        end.flush()

    # -- time

    def _arm(self) -> None:
        """Keep one timer, never later than what is due; an early one only looks again."""
        when = self._due_ns()
        if when < FAR_NS and (self._timer is None or when < self._timer_ns):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_ns = when
            self._timer = self._clock.call_at(when, self._tick)

    def _due_ns(self) -> int:
        when = min(self._proposals.deadline(), self._questions.deadline())
        if self._outstanding and self._end is not None and self._end.welcome is not None:
            when = min(when, self._silent_from_ns(self._end) + ATTEMPT_NS)
        return when

    def _silent_from_ns(self, end: ClientEnd) -> int:
        """Since when an answer of any kind is missing: the ping's, if one was sent."""
        if self._ping is not None:
            return self._ping[1]
        return max(end.heard_ns, self._waiting_since_ns)

    def _tick(self) -> None:
        self._timer = None
        if not self._open:
            return
        now = self._clock.now_ns()
        self._proposals.expire(now, self._why_waiting)
        self._questions.expire(now, self._why_waiting)
        end = self._end
        if end is not None and end.welcome is not None and self._outstanding:
            self._check_silence(end, now)
        self._flush()

    def _check_silence(self, end: ClientEnd, now: int) -> None:
        """A node that is slow answers a ping, a dead one does not."""
        if now < self._silent_from_ns(end) + ATTEMPT_NS:
            return
        if self._ping is None:
            self._ping = self._next_request_id(), now
            self._ask_status(end)
        elif end.heard_ns >= self._ping[1]:
            self._ping = None
        else:
            end.give_up("does not answer any more")


def _no_answer(answer: object) -> RaftError:
    return answer if isinstance(answer, RaftError) else Unavailable(f"answers with {type(answer).__name__}")
