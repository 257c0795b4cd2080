"""One end of a stream, over a stream that a test holds: what waits is bounded, what is closed says nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from tests.aio.strangers import hello
from tests.wire.samples import SAMPLES, framed
from totora.aio.streams import BUFFERED_BYTES_MAX, Accepted, StreamEnd
from totora.core.messages import RequestRead
from totora.errors import ProtocolError
from totora.wire.client import RangesRead
from totora.wire.codec import WireMessage
from totora.wire.frames import frame
from totora.wire.handshake import Hello, encode_handshake

TIMEOUT_NS = 1_000


class Timer:
    def __init__(self, when_ns: int, callback: Callable[[], None]) -> None:
        self.when_ns = when_ns
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """Integers that only a test moves."""

    def __init__(self) -> None:
        self.now = 0
        self.timers: list[Timer] = []

    def now_ns(self) -> int:
        return self.now

    def wall_ns(self) -> int:
        return self.now

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(when_ns, callback))
        return self.timers[-1]

    def call_soon(self, callback: Callable[[], None]) -> None:
        raise AssertionError("the owner decides when to flush")


class Wire:
    """A stream whose other end reads nothing."""

    def __init__(self) -> None:
        self.peer = "somewhere:1"
        self.peer_names: frozenset[str] | None = None
        self.buffered_bytes = 0
        self.writes: list[bytes] = []
        self.aborted = False
        self.closed = False

    def write(self, parts: Sequence[bytes]) -> None:
        self.writes.append(b"".join(parts))
        self.buffered_bytes += len(self.writes[-1])

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


class End:
    """An accepted stream and what its owner was told."""

    def __init__(self, welcome: bool = True) -> None:
        self.clock = Clock()
        self.wire = Wire()
        self.events: list[object] = []
        self.to_flush = 0
        self._welcome = welcome
        self.end = Accepted(self, self.clock, TIMEOUT_NS, self._greeted, self._delivered)
        self.end.connected(self.wire)

    def _greeted(self, end: Accepted, greeting: Hello) -> None:
        self.events.append(greeting)
        if self._welcome:
            end.identified()
        else:
            end.close()

    def _delivered(self, end: Accepted, message: WireMessage) -> None:
        self.events.append(message)

    def flush_soon(self, end: StreamEnd) -> None:
        self.to_flush += 1

    def failed(self, end: StreamEnd, error: ProtocolError) -> None:
        self.events.append(error)

    def lost(self, end: StreamEnd) -> None:
        self.events.append("lost")


HELLO = b"".join(encode_handshake(hello()))


def test_what_is_queued_in_one_turn_leaves_in_one_write() -> None:
    owner = End()
    for sample in SAMPLES:
        owner.end.send(sample)
    assert owner.to_flush == 1
    assert owner.wire.writes == []
    owner.end.flush()
    assert owner.wire.writes == [b"".join(map(framed, SAMPLES))]
    owner.end.flush()
    assert len(owner.wire.writes) == 1


def test_more_than_the_bound_is_not_even_joined() -> None:
    """Many small requests for the same large answer, in one turn: references until then, and copies if they were joined."""
    owner = End()
    large = bytes(4 << 20)
    queued = 0
    while not owner.end.closed:
        owner.end.write(frame(b"header", [large]))
        queued += len(large)
        assert queued <= BUFFERED_BYTES_MAX + 2 * len(large)
    assert owner.wire.aborted
    owner.end.flush()
    assert owner.wire.writes == []


def test_a_receiver_that_reads_nothing_loses_its_stream() -> None:
    """Also when no turn queues much."""
    owner = End()
    large = bytes(4 << 20)
    while not owner.end.closed:
        owner.end.write(frame(b"header", [large]))
        owner.end.flush()
        assert owner.wire.buffered_bytes <= BUFFERED_BYTES_MAX + 2 * len(large)
    assert owner.wire.aborted


def test_a_receiver_that_reads_may_be_sent_any_amount() -> None:
    owner = End()
    large = bytes(8 << 20)
    for _ in range(3 * BUFFERED_BYTES_MAX // len(large)):
        owner.end.write(frame(b"header", [large]))
        owner.end.flush()
        owner.wire.buffered_bytes = 0
        owner.wire.writes.clear()
    assert not owner.end.closed


def test_the_deadline_ends_who_says_nothing() -> None:
    owner = End()
    (timer,) = owner.clock.timers
    assert timer.when_ns == TIMEOUT_NS
    timer.callback()
    assert owner.wire.aborted
    assert owner.end.closed


def test_the_deadline_ends_with_the_handshake() -> None:
    owner = End()
    owner.end.received(HELLO[:-1])
    assert not owner.clock.timers[0].cancelled, "a part of a Hello is none"
    owner.end.received(HELLO[-1:])
    assert owner.clock.timers[0].cancelled
    assert owner.events == [hello()]


def test_the_deadline_ends_with_the_stream() -> None:
    owner = End()
    owner.end.lost(None)
    assert owner.clock.timers[0].cancelled
    assert owner.events == ["lost"]


def test_what_stands_behind_a_hello_is_delivered_in_order() -> None:
    """In the same piece, and larger than a Hello may be."""
    owner = End()
    messages = [RequestRead(1), *SAMPLES, RangesRead(1, 1, 1, ())]
    owner.end.received(HELLO + b"".join(map(framed, messages)))
    assert owner.events == [hello(), *messages]


def test_what_stands_behind_a_refused_hello_is_not_looked_at() -> None:
    """Were it garbage or not."""
    owner = End(welcome=False)
    owner.end.received(HELLO + framed(RequestRead(1)) + b"\xff" * 64)
    assert owner.events == [hello()]
    assert owner.wire.closed


def test_garbage_is_told_once_and_ends_the_stream() -> None:
    """What stood before it counts, what stands behind it does not."""
    owner = End()
    owner.end.received(HELLO + framed(RequestRead(1)) + b"".join(frame(b"\xc1")) + framed(RequestRead(2)))
    assert owner.events[:2] == [hello(), RequestRead(1)]
    (error,) = owner.events[2:]
    assert isinstance(error, ProtocolError)
    assert owner.wire.aborted


def test_a_stream_that_was_dropped_before_it_opened_is_closed_when_it_does() -> None:
    """Too many strangers: the oldest may not be connected yet."""
    owner = End()
    owner.end.abort()
    late = Wire()
    owner.end.connected(late)
    assert late.aborted


def test_nothing_is_sent_over_a_closed_stream() -> None:
    owner = End()
    owner.end.write(frame(b"before"))
    owner.end.abort()
    owner.end.write(frame(b"after"))
    owner.end.flush()
    assert owner.wire.writes == []


def test_closing_sends_what_is_queued() -> None:
    """A refusal must arrive."""
    owner = End()
    owner.end.write(frame(b"last words"))
    owner.end.close()
    assert owner.wire.writes == [b"".join(frame(b"last words"))]
    assert owner.wire.closed


@pytest.mark.parametrize("size", [64, 65])
def test_a_hello_at_its_limit(size: int) -> None:
    owner = End()
    greeting = msgspec.structs.replace(hello(), store_id=b"s" * size)
    owner.end.received(b"".join(encode_handshake(greeting)))
    assert isinstance(owner.events[0], Hello if size == 64 else ProtocolError)
