"""A client process's end of one stream to a node: Hello, Welcome, then requests out and answers in. It retries nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ProtocolError, RaftError, Unavailable
from ..ports import Ports, Stream
from ..types import Address
from ..wire import codec
from ..wire.client import ClientMessage, RequestFailed, error_of
from ..wire.handshake import (
    MAGIC,
    VERSION_MAX,
    VERSION_MIN,
    Hello,
    Refusal,
    Welcome,
    certificate_refusal,
    encode_handshake,
)
from .streams import StreamEnd, read_answer
from .tls import TlsFailed

__all__ = ["ClientEnd", "Greeting", "probe", "spell"]


def spell(address: Address) -> str:
    """An address for people."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a client says of itself. fingerprint: of its entry type; b"": it takes any."""

    fingerprint: bytes
    cluster_id: bytes | None = None

    def hello(self) -> Hello:
        return Hello(
            MAGIC,
            VERSION_MIN,
            VERSION_MAX,
            "client",
            self.cluster_id,
            b"",
            0,
            b"",
            0,
            self.fingerprint,
            "",
            0,
            None,
        )

    def judge(self, welcome: Welcome, certified: frozenset[str] | None) -> Refusal | None:
        """Why the client does not accept who answered; None: it does."""
        known = self.cluster_id
        if known is not None and welcome.cluster_id is None:
            # It may be new in the right cluster, or the first of another one.
            return Refusal("member", "does not know yet which cluster it belongs to")
        if known is not None and welcome.cluster_id is not None and known != welcome.cluster_id:
            return Refusal("cluster", f"belongs to another cluster, {welcome.cluster_id.hex()}")
        return certificate_refusal(welcome.node_id, certified)


class _Alone:
    """The owner of a stream that looks after itself: whoever writes flushes."""

    def flush_soon(self, end: StreamEnd) -> None:
        pass

    def failed(self, end: StreamEnd, error: ProtocolError) -> None:
        assert isinstance(end, ClientEnd), "it owns no other"
        end.give_up(f"sent what no node sends: {error}")

    def lost(self, end: StreamEnd) -> None:
        pass


class ClientEnd(StreamEnd):
    """One attempt to talk to one node, for as long as it lasts.

    ended: called once, at the latest when the stream is lost, with the reason for a person.
    gone: called when the network has let go of the stream.
    heard_ns: when the node last sent anything.
    """

    def __init__(
        self,
        ports: Ports,
        timeout_ns: int,
        address: Address,
        greeting: Greeting,
        *,
        welcomed: Callable[[ClientEnd, Welcome], None],
        delivered: Callable[[ClientEnd, codec.WireMessage], None],
        ended: Callable[[ClientEnd, str | Refusal], None],
    ) -> None:
        super().__init__(_Alone(), ports.clock, timeout_ns)
        self._clock = ports.clock
        self.address = address
        self.welcome: Welcome | None = None
        self.heard_ns = ports.clock.now_ns()
        self.gone: Callable[[], None] | None = None
        self._greeting = greeting
        self._welcomed = welcomed
        self._delivered = delivered
        self._ended: Callable[[ClientEnd, str | Refusal], None] | None = ended
        self._why: str | Refusal | None = None
        self._silent = True

    # -- ports.StreamHandler

    def connected(self, stream: Stream) -> None:
        super().connected(stream)
        if not self.closed:
            stream.write(encode_handshake(self._greeting.hello()))

    def received(self, data: bytes | memoryview) -> None:
        self.heard_ns = self._clock.now_ns()
        self._silent = False
        super().received(data)

    def lost(self, error: Exception | None) -> None:
        unanswered = self.stream is not None and self._silent
        super().lost(error)
        if unanswered and (error is None or isinstance(error, ConnectionResetError)):
            self._end("closed the connection without an answer: does it use tls?")
        else:
            self._end("closed the connection" if error is None else _reason(error))
        if self.gone is not None:
            self.gone()

    def frame(self, header: memoryview, blob: memoryview) -> None:
        if self.welcome is not None:
            self._delivered(self, codec.decode(header, blob))
            return
        answer = read_answer(header)
        refusal = answer if isinstance(answer, Refusal) else self._greeting.judge(answer, self.peer_names)
        if isinstance(answer, Welcome) and refusal is None:
            self.welcome = answer
            self.identified()
            self._welcomed(self, answer)
        elif refusal is not None:
            self.give_up(refusal)

    def flush(self) -> None:
        """What waits here is bounded by the requests without an outcome: a slow node costs no memory beyond theirs."""
        parts, self._out = self._out, []
        if self.stream is not None and parts:
            self.stream.write(parts)

    # -- the end

    def give_up(self, why: str | Refusal) -> None:
        self._why = why
        self.abort()

    def abort(self) -> None:
        """Close it. Without another reason it is the handshake's deadline that asks for this."""
        super().abort()
        self._handshake_over()
        self._end("did not answer in time")

    def forget(self) -> None:
        """Close it and tell nobody but `gone`."""
        self._ended = None
        self.abort()

    def _end(self, why: str) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self, self._why or why)


def _reason(error: Exception) -> str:
    match error:
        case ConnectionRefusedError():
            return "connection refused"
        case TimeoutError():
            return "did not answer in time"
        case TlsFailed():
            return str(error)
        case ConnectionError():
            return "connection reset"
        case OSError():
            return (error.strerror or str(error)).lower()
        case _:
            return str(error) or type(error).__name__


async def probe(
    ports: Ports, timeout_ns: int, address: Address, greeting: Greeting, question: ClientMessage
) -> codec.WireMessage | RaftError:
    """Ask one node one thing, over a stream of its own. An error is returned, not raised: others may answer."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[codec.WireMessage | RaftError] = loop.create_future()
    gone: asyncio.Future[None] = loop.create_future()

    def settle(outcome: codec.WireMessage | RaftError) -> None:
        if not answer.done():
            answer.set_result(outcome)

    def welcomed(end: ClientEnd, welcome: Welcome) -> None:
        end.write(codec.encode(question))
        end.flush()

    def delivered(end: ClientEnd, message: codec.WireMessage) -> None:
        settle(error_of(message) if isinstance(message, RequestFailed) else message)

    def ended(end: ClientEnd, why: str | Refusal) -> None:
        settle(Unavailable(why.text if isinstance(why, Refusal) else why))

    def left() -> None:
        if not gone.done():
            gone.set_result(None)

    end = ClientEnd(ports, timeout_ns, address, greeting, welcomed=welcomed, delivered=delivered, ended=ended)
    end.gone = left
    deadline = ports.clock.call_at(
        ports.clock.now_ns() + timeout_ns, lambda: end.give_up("did not answer in time")
    )
    ports.network.connect(address, end)
    try:
        return await answer
    finally:
        deadline.cancel()
        open_still = end.stream is not None
        end.forget()
        if open_still:
            await gone
