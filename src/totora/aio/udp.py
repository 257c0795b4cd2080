"""Links between all peers over UDP: each message is JSON in one datagram (the ancestor's way). Clients come over TCP.

There is no connection, so each datagram introduces its sender and is judged like a handshake. A link is up while each side hears
the other: a datagram says whether its sender hears the one that it is for. Who has nothing to say greets once a heartbeat.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final

from ..config import Settings
from ..core.batch import HEADER_BYTES
from ..core.messages import Message, Propose, ProposeRejected
from ..errors import ProtocolError
from ..ports import Datagrams, Ports, Timer
from ..types import Address, NodeId
from ..wire.codec import WireMessage
from ..wire.handshake import Hello, Local, Refusal, encode_handshake, judge
from ..wire.json_datagrams import DATAGRAM_BYTES_MAX, Datagram, decode_datagram, encode_datagram
from .datagrams import is_name
from .links import Links, Observer
from .seldom import Seldom
from .streams import Accepted

__all__ = ["UdpLinks"]

REFUSE_EVERY_NS: Final = 500_000_000

LOOK_UP_NS: Final = 5_000_000_000
"""For so long a member's name may not have been looked up yet: who speaks for it is passed over, not refused."""


class _Member:
    """What is known of the way to one peer and back.

    known_ns: since when its address is known.
    heard_ns: when it was last heard; None: never, or not since it fell silent.
    store_id, incarnation: what it showed then.
    """

    def __init__(self, id: NodeId, address: Address, now: int) -> None:
        self.id = id
        self.address = address
        self.known_ns = now
        self.heard_ns: int | None = None
        self.sent_ns = 0
        self.store_id = b""
        self.incarnation = 0
        self.up = False


def _plain(address: Address) -> Address:
    """One spelling of each address: there are many for IPv6."""
    try:
        return str(ipaddress.ip_address(address[0])), address[1]
    except ValueError:
        return address


class UdpLinks(Links):
    """The links of one node over UDP. Of `Links` it keeps the streams of client processes."""

    def __init__(self, ports: Ports, settings: Settings, observer: Observer) -> None:
        super().__init__(ports, settings, observer)
        self._datagrams: Datagrams | None = None
        self._members: dict[NodeId, _Member] = {}
        self._silence_ns = settings.election_max_ns
        self._beat_timer: Timer | None = None
        self._beat_ns = 0
        self._answered_strangers = Seldom(REFUSE_EVERY_NS)

    async def start(self, bind: Address) -> Address:
        """Listen for clients over TCP and for peers over UDP, on one port. Raises OSError."""
        address = await super().start(bind)
        self._datagrams = await self._network.datagrams((bind[0], address[1]), self._arrived)
        self._beat_soon()
        return address

    def set_peers(self, addresses: Mapping[NodeId, Address]) -> None:
        for id in [id for id in self._members if id not in addresses]:
            self._fell_silent(self._members.pop(id))
        for id, address in addresses.items():
            known = self._members.get(id)
            if known is None:
                known = self._members[id] = _Member(id, address, self._clock.now_ns())
            known.address = address
            self._greet(known)

    def send(self, peer: NodeId, message: Message) -> bool:
        """Send to a peer that hears this node; False if none does, or the message is too large: it is dropped."""
        member = self._members.get(peer)
        if member is not None and member.up and self._send(member, message):
            self.counters.sent += 1
            return True
        self.counters.unsent += 1
        return False

    def recheck(self) -> None:
        """The configuration changed: let go of those that it no longer admits."""
        configuration = self._observer.local().configuration
        for member in self._members.values():
            listed = configuration.member(member.id)
            if listed is None or listed.store_id not in (None, member.store_id):
                self._fell_silent(member)

    def close(self) -> None:
        if not self._closed:
            for member in self._members.values():
                # Word that it stops hearing: whoever it led need not wait for a timeout.
                member.heard_ns = None
                if member.up:
                    self._greet(member)
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        if self._datagrams is not None:
            self._datagrams.close()
        super().close()

    # -- sending

    def _send(self, member: _Member, content: Message | None) -> bool:
        hello = self._observer.local().hello("control", member.id)
        data = encode_datagram(hello, member.heard_ns is not None, content)
        if len(data) > DATAGRAM_BYTES_MAX or self._datagrams is None:
            return False
        member.sent_ns = self._clock.now_ns()
        self._datagrams.send(member.address, data)
        return True

    def _greet(self, member: _Member) -> None:
        self._send(member, None)

    def _beat_soon(self) -> None:
        self._beat_ns = self._clock.now_ns() + self._settings.heartbeat_ns
        self._beat_timer = self._clock.call_at(self._beat_ns, self._beat)

    def _beat(self) -> None:
        """Greet whoever heard nothing for a heartbeat, let go of whoever said nothing for longer than elections take."""
        now = self._clock.now_ns()
        late_ns = now - self._beat_ns
        for member in self._members.values():
            if member.heard_ns is not None:
                if late_ns > self._silence_ns // 2:
                    member.heard_ns = now  # This process was held up, and so was its hearing.
                elif now - member.heard_ns > self._silence_ns:
                    self._fell_silent(member)
            if now - member.sent_ns >= self._settings.heartbeat_ns:
                self._greet(member)
        self._beat_soon()

    def _fell_silent(self, member: _Member) -> None:
        member.heard_ns = None
        self._lower(member)

    def _lower(self, member: _Member) -> None:
        if member.up:
            member.up = False
            self._observer.link_lost(member.id)

    # -- receiving

    def _arrived(self, source: Address, data: bytes) -> None:
        if self._closed:
            return
        try:
            datagram = decode_datagram(data)
            refusal = datagram.refusal()
            if refusal is not None:
                self._refused(_plain(source), datagram, refusal)
            else:
                self._judged(_plain(source), datagram)
        except ProtocolError as error:
            self.counters.garbage += 1
            # What it says may be anything: one line per host, not one per text.
            who = source[0] if isinstance(error.peer, str) else f"node {error.peer} at {source[0]}"
            self._log_seldom(("garbage", who), who, f"sent what it must not: {error}")

    def _judged(self, source: Address, datagram: Datagram) -> None:
        hello, local = datagram.hello(source), self._observer.local()
        answer = judge(hello, local, None)
        member = self._members.get(hello.node_id)
        refusal = answer if isinstance(answer, Refusal) else self._judge_source(source, hello, member, local)
        if refusal is not None and refusal is not answer and self._may_be_looked_up(member):
            self.counters.refused += 1
            return
        if refusal is not None or member is None:
            self._refuse(source, hello, refusal or Refusal("member", "is not a peer of this node"), local)
            return
        message = datagram.message()
        self.counters.received += 1
        self._heard(member, hello, datagram.hears)
        if message is not None:
            self._observer.received(member.id, message)

    def _may_be_looked_up(self, member: _Member | None) -> bool:
        return (
            member is not None
            and member.heard_ns is None
            and is_name(member.address[0])
            and self._clock.now_ns() < member.known_ns + LOOK_UP_NS
        )

    def _judge_source(
        self, source: Address, hello: Hello, member: _Member | None, local: Local
    ) -> Refusal | None:
        """There is no connection to tell two senders apart: the address must be the member's, and one store speak for it."""
        id = hello.node_id
        if member is None or source != _plain(member.address):
            known = "at no address" if member is None else f"at {member.address[0]}:{member.address[1]}"
            return Refusal(
                "address",
                f"speaks as node {id} from {source[0]}:{source[1]}, node {local.node_id} knows node {id} {known}: "
                "correct the addresses in nodes",
            )
        if not member.up or (hello.store_id == member.store_id and hello.incarnation >= member.incarnation):
            return None
        return Refusal("store", f"a second node uses the id {id}: give every node its own id")

    def _heard(self, member: _Member, hello: Hello, hears: bool) -> None:
        news = member.heard_ns is None
        member.heard_ns = self._clock.now_ns()
        if member.up and hello.incarnation != member.incarnation:
            self._lower(member)  # It started anew: what was under way to it is lost.
        member.store_id, member.incarnation = hello.store_id, hello.incarnation
        if not hears:
            self._lower(member)
        elif not member.up:
            member.up = True
            self._observer.link_up(member.id, member.store_id)
        if news or not hears:
            self._greet(member)

    # -- refusing and being refused

    def _refuse(self, source: Address, hello: Hello, refusal: Refusal, local: Local) -> None:
        self.counters.refused += 1
        who = f"node {hello.node_id} at {source[0]}:{source[1]}"
        self._log_seldom((refusal.code, source[0]), who, f"was refused: it {refusal.text}")
        if self._datagrams is not None and self._answered_strangers.passes(
            (source, refusal.code), self._clock.now_ns()
        ):
            answer = encode_datagram(local.hello("control", hello.node_id), False, refusal)
            self._datagrams.send(source, answer)

    def _refused(self, source: Address, datagram: Datagram, refusal: Refusal) -> None:
        """A peer says why it does not listen. Shown, and otherwise without effect: it may be of another cluster."""
        member = self._members.get(datagram.sender)
        if member is None or source != _plain(member.address):
            self.counters.refused += 1
            self._log_seldom(("refusal", source[0]), f"{source[0]}:{source[1]}", "refuses, but is no peer")
        elif not member.up:
            self._observer.refused(member.id, refusal)
            self._log_seldom(
                (refusal.code, member.id), f"node {member.id}", f"refused this node: {refusal.text}"
            )

    def _greeted(self, end: Accepted, hello: Hello) -> None:
        """Of streams, only those of clients are let in."""
        local = self._observer.local()
        refusal = judge(hello, local, end.peer_names)
        if hello.role == "client" or isinstance(refusal, Refusal):
            super()._greeted(end, hello)
            return
        self._unidentified.pop(end, None)
        self.counters.refused += 1
        why = f"uses transport 'tcp', node {local.node_id} uses 'udp': give all nodes the same transport"
        end.write(encode_handshake(Refusal("transport", why)))
        end.close()
        self._log_seldom(("transport", hello.node_id), f"node {hello.node_id}", f"was refused: it {why}")
        member = self._members.get(hello.node_id)
        if member is not None and not member.up:
            self._observer.refused(hello.node_id, Refusal("transport", f"it {why}"))

    def _delivered(self, end: Accepted, message: WireMessage) -> None:
        """What a client hands over may have to go on to the leader, in one datagram."""
        limit_bytes = self._settings.batch_limit_bytes
        if isinstance(message, Propose) and HEADER_BYTES + len(message.body) > limit_bytes:
            self.counters.received += 1
            end.send(ProposeRejected(0, None, message.request_id, "too_large", last_index=limit_bytes))
        else:
            super()._delivered(end, message)
