"""Links between all peers, kept open, over streams.

Each node dials every peer twice and sends over its own streams only: what carries batches over *bulk*, all else over
*control*, so that a large batch never delays a heartbeat. Client processes come in over the same address.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol

from ..config import Settings
from ..core.messages import AppendEntries, Message
from ..errors import ProtocolError
from ..ports import Clock, Listener, Network, Ports, StreamHandler, Timer
from ..types import Address, NodeId
from ..wire import codec
from ..wire.client import ClientMessage
from ..wire.handshake import Hello, Local, Refusal, Welcome, encode_handshake, judge, judge_welcome
from .seldom import Seldom
from .streams import Accepted, Dialled, StreamEnd
from .tls import TlsFailed

__all__ = ["Client", "Counters", "Links", "Observer", "PeerLinks"]

UNIDENTIFIED_MAX: Final = 128
"""Streams that have not said who they are; beyond that the oldest is dropped."""

CLIENTS_MAX: Final = 1_024

BACKOFF_MIN_NS: Final = 20_000_000
BACKOFF_MAX_NS: Final = 1_000_000_000

UNANSWERED_MAX: Final = 4
"""Streams in a row that were lost before a word came back, until that is shown: a peer may just have been stopping."""

COMPLAIN_EVERY_NS: Final = 60_000_000_000

Client = Accepted
"""A connected client process, as `Observer.client_received` names it."""


@dataclass(slots=True)
class Counters:
    """What happened on the links since the start; plain integers."""

    sent: int = 0
    received: int = 0
    unsent: int = 0
    garbage: int = 0
    refused: int = 0
    dialled: int = 0

    def as_dict(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Observer(Protocol):
    """The node, as its links see it. Calls come from the loop, never from inside a call to the links."""

    def local(self) -> Local: ...

    def link_up(self, peer: NodeId, store_id: bytes) -> None: ...

    def link_lost(self, peer: NodeId) -> None: ...

    def received(self, peer: NodeId, message: Message) -> None:
        """Raises ProtocolError for what no correct peer sends."""
        ...

    def client_received(self, client: Client, message: codec.WireMessage) -> None: ...

    def client_lost(self, client: Client) -> None: ...

    def refused(self, peer: NodeId, refusal: Refusal) -> None:
        """A peer does not let this node in."""
        ...


class PeerLinks(Protocol):
    """What a node needs of its links, whatever carries them.

    holding: whoever set it will call `flush`; otherwise what is sent leaves in the next turn of the loop.
    """

    counters: Counters
    holding: bool

    async def start(self, bind: Address) -> Address: ...

    def set_peers(self, addresses: Mapping[NodeId, Address]) -> None: ...

    def send(self, peer: NodeId, message: Message) -> bool: ...

    def send_client(self, client: Client, message: Message | ClientMessage) -> None: ...

    def flush(self) -> None:
        """Let what was sent leave, joined in one write for each stream."""
        ...

    def recheck(self) -> None: ...

    def close(self) -> None: ...


class _Peer:
    """The link to one peer: two dialled streams, and whether its own control stream reaches this node."""

    def __init__(self, id: NodeId, address: Address) -> None:
        self.id = id
        self.address = address
        self.control: Dialled | None = None
        self.bulk: Dialled | None = None
        self.welcome: Welcome | None = None
        self.deaf = False
        self.up = False
        self.unanswered = 0
        self.backoff_ns = 0
        self.retry: Timer | None = None

    @property
    def reachable(self) -> bool:
        return all(end is not None and end.welcomed and not end.closed for end in (self.control, self.bulk))


class Links:
    """The links of one node over TCP."""

    def __init__(self, ports: Ports, settings: Settings, observer: Observer) -> None:
        self._network: Network = ports.network
        self._clock: Clock = ports.clock
        self._random = ports.random
        self._settings = settings
        self._observer = observer
        self._log = ports.log
        self._listener: Listener | None = None
        self._peers: dict[NodeId, _Peer] = {}
        self._unidentified: dict[Accepted, None] = {}
        self._accepted: dict[Accepted, Hello] = {}
        self._dirty: list[StreamEnd] = []
        self.holding = False
        self._logged = Seldom(COMPLAIN_EVERY_NS)
        self._closed = False
        self.counters = Counters()

    async def start(self, bind: Address) -> Address:
        """Listen; returns the address that was bound. Raises OSError."""
        self._listener = await self._network.listen(bind, self._accept)
        return self._listener.address

    def set_peers(self, addresses: Mapping[NodeId, Address]) -> None:
        """The members to keep links to, and where they were last known to be."""
        for id in [id for id in self._peers if id not in addresses]:
            self._drop(self._peers.pop(id))
        for id, address in addresses.items():
            known = self._peers.get(id)
            if known is None:
                self._peers[id] = peer = _Peer(id, address)
                self._dial(peer)
            elif known.address != address:
                known.address = address
                self._dial_soon(known)

    def send(self, peer: NodeId, message: Message) -> bool:
        """Send to a peer; False if no stream leads there now: the message is dropped, as on any network."""
        link = self._peers.get(peer)
        if link is not None:
            end = link.bulk if isinstance(message, AppendEntries) and message.batches else link.control
            if end is not None and end.welcomed and not end.closed:
                end.write(codec.encode(message))
                self.counters.sent += 1
                return True
        self.counters.unsent += 1
        return False

    def send_client(self, client: Client, message: Message | ClientMessage) -> None:
        client.write(codec.encode(message))

    def recheck(self) -> None:
        """The configuration changed: cut the streams of those that it no longer admits."""
        local = self._observer.local()
        for end, hello in list(self._accepted.items()):
            if hello.role != "client" and isinstance(judge(hello, local, end.peer_names), Refusal):
                end.abort()
        for peer in self._peers.values():
            if peer.up and peer.welcome is not None and peer.control is not None:
                refusal = judge_welcome(peer.welcome, peer.id, local, peer.control.peer_names)
                if refusal is not None:
                    self._drop(peer)
                    self._shown(peer, refusal)
                    self._dial_soon(peer)

    def close(self) -> None:
        self._closed = True
        if self._listener is not None:
            self._listener.close()
        for peer in self._peers.values():
            self._drop(peer)
        ends = [*self._unidentified, *self._accepted]
        for end in ends:
            end.close()

        def drop_rest() -> None:
            for end in ends:
                end.drop_rest()

        # Last words leave within a turn of the loop; who does not even take those shall not keep a stream open.
        self._clock.call_soon(drop_rest)

    # -- dialling

    def _dial(self, peer: _Peer) -> None:
        peer.retry = None
        if self._closed:
            return
        self.counters.dialled += 1
        if peer.control is None:
            peer.control = self._open(peer, "control")
        if peer.bulk is None:
            peer.bulk = self._open(peer, "bulk")

    def _open(self, peer: _Peer, role: Any) -> Dialled:
        end = Dialled(
            self,
            self._clock,
            self._settings.handshake_timeout_ns,
            peer.id,
            role,
            lambda: self._observer.local().hello(role, peer.id),
            self._answered,
        )
        self._network.connect(peer.address, end)
        return end

    def _answered(self, end: Dialled, answer: Welcome | Refusal) -> None:
        peer = self._peers.get(end.peer)
        if peer is None:
            end.abort()
            return
        peer.unanswered = 0
        if isinstance(answer, Refusal):
            self.counters.refused += 1
            self._observer.refused(peer.id, answer)
            self._log_seldom((answer.code, peer.id), f"node {peer.id}", f"refused this node: {answer.text}")
            peer.backoff_ns = BACKOFF_MAX_NS
            end.abort()
            return
        refusal = judge_welcome(answer, peer.id, self._observer.local(), end.peer_names)
        if refusal is not None:
            self._shown(peer, refusal)
            end.abort()
            return
        peer.welcome = answer
        self._update(peer)

    def _shown(self, peer: _Peer, refusal: Refusal, cause: str | None = None) -> None:
        """There will be no link before somebody mends something: say why, and try less often."""
        self._observer.refused(peer.id, refusal)
        self._log_seldom((cause or refusal.code, peer.id), f"node {peer.id}", refusal.text)
        peer.backoff_ns = BACKOFF_MAX_NS

    def _update(self, peer: _Peer) -> None:
        """Tell the node if the link came up or broke."""
        up = peer.reachable and not peer.deaf
        if up and not peer.up and peer.welcome is not None:
            peer.up, peer.backoff_ns = True, 0
            self._observer.link_up(peer.id, peer.welcome.store_id)
        elif peer.up and not up:
            peer.up = False
            self._observer.link_lost(peer.id)

    def _drop(self, peer: _Peer) -> None:
        if peer.retry is not None:
            peer.retry.cancel()
            peer.retry = None
        ends, peer.control, peer.bulk = (peer.control, peer.bulk), None, None
        for end in ends:
            if end is not None:
                end.abort()
        if not self._closed:
            self._update(peer)

    def _dial_soon(self, peer: _Peer) -> None:
        if self._closed:
            return
        if peer.retry is not None:
            peer.retry.cancel()
        base_ns = max(peer.backoff_ns, BACKOFF_MIN_NS)
        delay_ns = int(base_ns * self._random.random()) if peer.backoff_ns < BACKOFF_MAX_NS else base_ns
        peer.backoff_ns = min(2 * base_ns, BACKOFF_MAX_NS)
        peer.retry = self._clock.call_at(self._clock.now_ns() + delay_ns, lambda: self._dial(peer))

    # -- accepting

    def _accept(self) -> StreamHandler:
        end = Accepted(self, self._clock, self._settings.handshake_timeout_ns, self._greeted, self._delivered)
        if self._closed:
            end.abort()  # It was on its way when the listener was closed.
            return end
        self._unidentified[end] = None
        if len(self._unidentified) > UNIDENTIFIED_MAX:
            oldest = next(iter(self._unidentified))
            del self._unidentified[oldest]
            oldest.abort()
        return end

    def _greeted(self, end: Accepted, hello: Hello) -> None:
        self._unidentified.pop(end, None)
        local = self._observer.local()
        answer = judge(hello, local, end.peer_names)
        if isinstance(answer, Welcome) and hello.role == "client":
            clients = sum(known.role == "client" for known in self._accepted.values())
            if clients >= CLIENTS_MAX:
                answer = Refusal(
                    "full", f"node {local.node_id} serves {CLIENTS_MAX} clients already: ask another"
                )
        elif isinstance(answer, Welcome) and self._has_twin(hello):
            answer = Refusal(
                "store", f"a second node uses the id {hello.node_id}: give every node its own id"
            )
        end.write(encode_handshake(answer))
        if isinstance(answer, Refusal):
            self.counters.refused += 1
            who = f"node {hello.node_id} at {end.peer_address}"
            self._log_seldom((answer.code, _host(end)), who, f"was refused: it {answer.text}")
            end.close()
            return
        end.identified()
        self._accepted[end] = hello
        peer = self._peers.get(hello.node_id) if hello.role == "control" else None
        if peer is not None:
            peer.deaf = False
            if peer.reachable:
                self._update(peer)
            else:
                # It is there: do not wait for the next attempt.
                peer.backoff_ns = 0
                if peer.retry is not None:
                    peer.retry.cancel()
                    self._dial(peer)

    def _has_twin(self, hello: Hello) -> bool:
        """Another data directory speaks for the same node right now."""
        return any(
            known.role != "client" and known.node_id == hello.node_id and known.store_id != hello.store_id
            for known in self._accepted.values()
        )

    def _delivered(self, end: Accepted, message: codec.WireMessage) -> None:
        hello = self._accepted.get(end)
        if hello is None:
            return
        self.counters.received += 1
        if hello.role == "client":
            self._observer.client_received(end, message)
        else:
            if isinstance(message, ClientMessage):
                raise ProtocolError(
                    hello.node_id, f"sent {type(message).__name__}, which only clients and nodes exchange"
                )
            self._observer.received(hello.node_id, message)

    # -- StreamOwner

    def flush_soon(self, end: StreamEnd) -> None:
        if not self._dirty and not self.holding:
            self._clock.call_soon(self.flush)
        self._dirty.append(end)

    def flush(self) -> None:
        self.holding = False
        if self._dirty:
            dirty, self._dirty = self._dirty, []
            for end in dirty:
                end.flush()

    def failed(self, end: StreamEnd, error: ProtocolError) -> None:
        self.counters.garbage += 1
        if isinstance(end, Dialled) and not end.welcomed and (peer := self._peers.get(end.peer)) is not None:
            self._shown(peer, Refusal("address", f"does not answer as a node: {error}"), "garbage")
            return
        # What it says may be anything, and each connection has another port: one line per host.
        who = f"node {end.peer}" if isinstance(end, Dialled) else _host(end)
        self._log_seldom(("garbage", who), who, f"sent what it must not: {error}")

    def lost(self, end: StreamEnd) -> None:
        if isinstance(end, Dialled):
            self._dialled_lost(end)
        elif isinstance(end, Accepted):
            self._unidentified.pop(end, None)
            hello = self._accepted.pop(end, None)
            if isinstance(end.error, TlsFailed) and not self._closed:
                self.counters.refused += 1
                host = end.error.peer.rpartition(":")[0]
                self._log_seldom(("tls", host), end.error.peer, f"was refused: it {end.error}")
            if hello is not None and not self._closed:
                self._accepted_lost(end, hello)

    def _dialled_lost(self, end: Dialled) -> None:
        peer = self._peers.get(end.peer)
        if peer is None or self._closed:
            return
        if peer.control is end:
            peer.control = None
        elif peer.bulk is end:
            peer.bulk = None
        else:
            return
        self._update(peer)
        if isinstance(end.error, TlsFailed) and not end.welcomed:
            self._shown(peer, Refusal("certificate", str(end.error)))
        elif end.opened and not end.answered:
            peer.unanswered += 1
            if peer.unanswered >= UNANSWERED_MAX:
                self._shown(
                    peer,
                    Refusal(
                        "address", "takes connections and does not answer: does it use tls, or is it no node?"
                    ),
                )
        if peer.retry is None:
            self._dial_soon(peer)

    def _accepted_lost(self, end: Accepted, hello: Hello) -> None:
        if hello.role == "client":
            self._observer.client_lost(end)
            return
        peer = self._peers.get(hello.node_id)
        if hello.role == "control" and peer is not None and self._control_of(hello.node_id) is None:
            peer.deaf = True
            self._update(peer)

    def _control_of(self, peer: NodeId) -> Accepted | None:
        return next(
            (e for e, known in self._accepted.items() if known.role == "control" and known.node_id == peer),
            None,
        )

    def _log_seldom(self, cause: Hashable, who: str, why: str) -> None:
        """Log at most once per peer, cause and minute."""
        if self._logged.passes(cause, self._clock.now_ns()):
            self._log("warning", "peer_trouble", {"peer": who, "why": why})


def _host(end: StreamEnd) -> str:
    return end.peer_address.rpartition(":")[0]
