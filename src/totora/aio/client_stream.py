"""A client process's end of one stream to a node: Hello, Welcome, then requests out and answers in. Retries are not its business."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..errors import ProtocolError, RaftError, Unavailable
from ..ports import Ports, Stream
from ..types import Address, NodeStatus
from ..wire import codec
from ..wire.client import RequestFailed, RequestStatus, StatusReport, error_of
from ..wire.handshake import (
    MAGIC,
    VERSION_MAX,
    VERSION_MIN,
    Hello,
    Refusal,
    Welcome,
    certificate_refusal,
    decode_answer,
    encode_handshake,
)
from .streams import StreamEnd

__all__ = ["ClientEnd", "Greeting", "probe", "spell"]

_PROBE_ID: Final = 1


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
        if known is not None and welcome.cluster_id is not None and known != welcome.cluster_id:
            return Refusal("cluster", f"belongs to another cluster, {welcome.cluster_id.hex()}")
        return certificate_refusal(welcome.node_id, certified)


class ClientEnd(StreamEnd):
    """One attempt to talk to one node. `ended` is called once, with the reason for a person, unless `abort` came first.

    heard_ns: when the node last sent anything.
    """

    def __init__(
        self,
        ports: Ports,
        timeout_ns: int,
        address: Address,
        greeting: Greeting,
        welcomed: Callable[[ClientEnd, Welcome], None],
        delivered: Callable[[ClientEnd, codec.WireMessage], None],
        ended: Callable[[ClientEnd, str | Refusal], None],
    ) -> None:
        super().__init__(self, ports.clock, timeout_ns)
        self._clock = ports.clock
        self.address = address
        self.welcome: Welcome | None = None
        self.heard_ns = ports.clock.now_ns()
        self._greeting = greeting
        self._welcomed = welcomed
        self._delivered = delivered
        self._ended: Callable[[ClientEnd, str | Refusal], None] | None = ended
        self._why: str | Refusal = "closed the connection"
        self.gone: Callable[[], None] | None = None

    # -- ports.StreamHandler

    def connected(self, stream: Stream) -> None:
        super().connected(stream)
        if not self.closed:
            stream.write(encode_handshake(self._greeting.hello()))

    def received(self, data: bytes | memoryview) -> None:
        self.heard_ns = self._clock.now_ns()
        super().received(data)

    def lost(self, error: Exception | None) -> None:
        if error is not None:
            self._why = _reason(error)
        super().lost(error)
        if self.gone is not None:
            self.gone()
        self._end()

    def frame(self, header: memoryview, blob: memoryview) -> None:
        if self.welcome is not None:
            self._delivered(self, codec.decode(header, blob))
            return
        answer = decode_answer(header)
        refusal = answer if isinstance(answer, Refusal) else self._greeting.judge(answer, self.peer_names)
        if refusal is None and isinstance(answer, Welcome):
            self.welcome = answer
            self.identified()
            self._welcomed(self, answer)
        elif refusal is not None:
            self._give_up(refusal)

    # -- its own StreamOwner: whoever writes flushes

    def flush_soon(self, end: StreamEnd) -> None:
        pass

    def failed(self, end: StreamEnd, error: ProtocolError) -> None:
        self._why = f"sent what no node sends: {error}"

    def flush(self) -> None:
        """What may wait here is bounded by the requests without an outcome, so a slow node costs no memory beyond them."""
        parts, self._out = self._out, []
        if self.stream is not None and parts:
            self.stream.write(parts)

    # -- the end

    def give_up(self, why: str) -> None:
        """Close it; `ended` follows at once, even if the network never says anything."""
        self._give_up(why)

    def _give_up(self, why: str | Refusal) -> None:
        self._why = why
        self.abort()
        self._end()

    def abort(self) -> None:
        if not self.closed and self._deadline is not None and self.welcome is None:
            # The deadline of the handshake calls this, too.
            self._why = "did not answer in time" if isinstance(self._why, str) else self._why
        self._handshake_over()
        super().abort()
        if self.stream is None:
            self._end()

    def forget(self) -> None:
        """Close it; nothing is told to anybody any more."""
        self._ended = None
        self.abort()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self, self._why)


def _reason(error: Exception) -> str:
    match error:
        case ConnectionRefusedError():
            return "connection refused"
        case TimeoutError():
            return "did not answer in time"
        case ssl.SSLError():
            return f"tls failed: {error.reason or error}"
        case ConnectionError():
            return "connection reset"
        case OSError():
            return (error.strerror or str(error)).lower()
        case _:
            return str(error) or type(error).__name__
