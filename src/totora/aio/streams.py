"""One end of one stream, from its first byte on: framing, the handshake, joined writes. `links` decides what they are for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from ..core.messages import Message
from ..errors import ProtocolError
from ..ports import Clock, Stream, Timer
from ..types import NodeId
from ..wire import codec
from ..wire.frames import FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX, FrameReader
from ..wire.handshake import (
    Hello,
    Refusal,
    StreamRole,
    Welcome,
    decode_answer,
    decode_hello,
    encode_handshake,
)

__all__ = ["Accepted", "Dialled", "StreamEnd", "StreamOwner", "read_answer"]

BUFFERED_BYTES_MAX: Final = 64 << 20
"""A receiver that falls further behind than this loses its stream; what it lacks is sent again when it is back."""


def read_answer(header: memoryview) -> Welcome | Refusal:
    """Raises ProtocolError for what is neither, and for text that a terminal would obey."""
    answer = decode_answer(header)
    if isinstance(answer, Refusal) and not answer.text.isprintable():
        raise ProtocolError("handshake", "control characters in a refusal")
    return answer


class StreamOwner(Protocol):
    """Who is told what happens on a stream."""

    def flush_soon(self, end: StreamEnd) -> None: ...

    def failed(self, end: StreamEnd, error: ProtocolError) -> None: ...

    def lost(self, end: StreamEnd) -> None: ...


class StreamEnd:
    """What both ends have in common: a `ports.StreamHandler` that reads frames and joins what is written in one turn.

    error: why the stream was lost; None: it is not, or the other end closed it.
    """

    def __init__(self, owner: StreamOwner, clock: Clock, handshake_timeout_ns: int) -> None:
        self._owner = owner
        self._reader = FrameReader(HANDSHAKE_BYTES_MAX)
        self._out: list[bytes] = []
        self._deadline: Timer | None = clock.call_at(clock.now_ns() + handshake_timeout_ns, self.abort)
        self.stream: Stream | None = None
        self.closed = False
        self.error: Exception | None = None

    # -- ports.StreamHandler

    def connected(self, stream: Stream) -> None:
        self.stream = stream
        if self.closed:
            stream.abort()

    def received(self, data: bytes | memoryview) -> None:
        try:
            for header, blob in self._reader.feed(data):
                if self.closed:
                    return
                self.frame(header, blob)
        except ProtocolError as error:
            self._owner.failed(self, error)
            self.abort()

    def lost(self, error: Exception | None) -> None:
        self.closed, self.error = True, error
        self.stream = None
        self._out.clear()
        self._handshake_over()
        self._owner.lost(self)

    def frame(self, header: memoryview, blob: memoryview) -> None:
        raise NotImplementedError

    def _handshake_over(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def identified(self) -> None:
        """The other end said who it is and is welcome: messages may follow, however large."""
        self._handshake_over()
        self._reader.limit = FRAME_BYTES_MAX

    # -- writing

    def write(self, parts: list[bytes]) -> None:
        """Queue a frame; what is queued in one turn of the loop leaves in one write."""
        if self.closed:
            return
        if not self._out:
            self._owner.flush_soon(self)
        self._out += parts

    def flush(self) -> None:
        parts, self._out = self._out, []
        stream = self.stream
        if stream is None or not parts:
            return
        stream.write(parts)
        if stream.buffered_bytes > BUFFERED_BYTES_MAX:
            self.abort()

    def close(self) -> None:
        """Send what is queued, then close."""
        self.flush()
        self.closed = True
        if self.stream is not None:
            self.stream.close()

    def abort(self) -> None:
        self.closed = True
        self._out.clear()
        self._handshake_over()
        if self.stream is not None:
            self.stream.abort()

    def drop_rest(self) -> None:
        """After `close`: what the other end has not taken yet is dropped."""
        if self.stream is not None and self.stream.buffered_bytes:
            self.stream.abort()

    @property
    def peer_names(self) -> frozenset[str] | None:
        return None if self.stream is None else self.stream.peer_names

    @property
    def peer_address(self) -> str:
        return "?" if self.stream is None else self.stream.peer


class Dialled(StreamEnd):
    """A stream that this node opened, to send over. It was opened, answered and welcomed, in this order, or not yet."""

    def __init__(
        self,
        owner: StreamOwner,
        clock: Clock,
        handshake_timeout_ns: int,
        peer: NodeId,
        role: StreamRole,
        hello: Callable[[], Hello],
        answered: Callable[[Dialled, Welcome | Refusal], None],
    ) -> None:
        super().__init__(owner, clock, handshake_timeout_ns)
        self.peer = peer
        self.role = role
        self.opened = self.answered = self.welcomed = False
        self._hello = hello
        self._answered = answered

    def connected(self, stream: Stream) -> None:
        super().connected(stream)
        if not self.closed:
            self.opened = True
            stream.write(encode_handshake(self._hello()))

    def received(self, data: bytes | memoryview) -> None:
        self.answered = True
        super().received(data)

    def frame(self, header: memoryview, blob: memoryview) -> None:
        if self.welcomed:
            raise ProtocolError(self.peer, "sent something over a stream on which it only receives")
        answer = read_answer(header)
        if isinstance(answer, Welcome):
            self.welcomed = True
            self._handshake_over()
        self._answered(self, answer)


class Accepted(StreamEnd):
    """A stream that another node or a client process opened, to receive over."""

    def __init__(
        self,
        owner: StreamOwner,
        clock: Clock,
        handshake_timeout_ns: int,
        greeted: Callable[[Accepted, Hello], None],
        delivered: Callable[[Accepted, codec.WireMessage], None],
    ) -> None:
        super().__init__(owner, clock, handshake_timeout_ns)
        self.hello: Hello | None = None
        self._out_bytes = 0
        self._greeted = greeted
        self._delivered = delivered

    def frame(self, header: memoryview, blob: memoryview) -> None:
        if self.hello is None:
            self.hello = decode_hello(header)
            self._greeted(self, self.hello)
        else:
            self._delivered(self, codec.decode(header, blob))

    def write(self, parts: list[bytes]) -> None:
        """A stranger's few bytes may ask for many: more than the bound is not even joined."""
        super().write(parts)
        self._out_bytes += sum(map(len, parts))
        if self._out_bytes > BUFFERED_BYTES_MAX:
            self.abort()

    def flush(self) -> None:
        self._out_bytes = 0
        super().flush()

    def send(self, message: Message | codec.WireMessage) -> None:
        self.write(codec.encode(message))
