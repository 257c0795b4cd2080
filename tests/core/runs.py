"""Random runs of a cluster of cores: every fault, proposals with sessions and retries, conditions, reads; then peace.

A run is a function of its seed. `python -m tests.core.runs SEED` prints a digest of every effect of the run.
"""

from __future__ import annotations

import hashlib
import random
import sys
from dataclasses import dataclass, field
from typing import Literal

from totora.config import Settings
from totora.core import effects as fx
from totora.core import events as ev
from totora.core.effects import Persist

from .cluster import Cluster

WINDOW = 4
"""How many requests of a session are under way at once."""


@dataclass
class Request:
    """Something that a client wants appended, once."""

    session: int
    sequence: int
    payloads: tuple[bytes, ...]
    opened_at: int
    condition: tuple[int, int] | None = None
    places: set[tuple[int, int, int]] = field(default_factory=set)
    failed: bool = False


@dataclass
class Client:
    """The holder of a session: it retries what has no outcome, and opens another session when its own is forgotten."""

    session: int
    opened_at: int
    next_sequence: int = 1
    waiting: list[Request] = field(default_factory=list)


class WatchedCluster(Cluster):
    """A cluster that remembers all effects, as a digest."""

    digest = hashlib.sha256()

    def step(self, id: int, event: ev.Event) -> list[fx.Effect]:
        effects = super().step(id, event)
        for effect in effects:
            self.digest.update(repr(effect).encode())
            if isinstance(effect, Persist):
                for batch in effect.batches:
                    self.digest.update(batch.data)
        return effects


class Run:
    """One random run."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        size = self.chance.choice((1, 2, 3, 3, 3, 4, 5, 5))
        transport: Literal["tcp", "udp"] = self.chance.choice(("tcp", "udp"))
        settings = Settings(
            transport=transport,
            heartbeat_s=0.02,
            election_min_s=0.1,
            election_max_s=0.2,
            failover_delay_s=0.01,
        )
        WatchedCluster.digest = hashlib.sha256()
        self.cluster = WatchedCluster(size, seed=seed, settings=settings)
        self.clients = [self.client() for _ in range(4)]
        self.asked: dict[tuple[object, int], Request] = {}
        self.requests: list[Request] = []
        self.seen = 0
        self.number = 0

    def client(self) -> Client:
        known = self.chance.choice(list(self.cluster.nodes.values())).commit_index
        return Client(self.chance.getrandbits(63) | 1, known)

    # -- what clients do

    def ask(self, request: Request, id: int) -> None:
        key = self.cluster.key()
        self.asked[key] = request
        self.cluster.propose(
            id,
            *request.payloads,
            key=key,
            session=request.session,
            sequence=request.sequence,
            opened_at=request.opened_at,
            condition=request.condition,
        )

    def work(self) -> None:
        """A client asks for something new, or again for what has no outcome, of whoever says that it leads."""
        c = self.cluster
        leaders = c.leaders()
        if not leaders:
            return
        client = self.chance.choice(self.clients)
        alone = not any(request.condition for request in client.waiting)
        if len(client.waiting) < WINDOW and alone:
            self.number += 1
            condition = None
            if not client.waiting and self.chance.random() < 0.2:
                node = c.nodes[self.chance.choice(leaders)]
                condition = (node.log.summary.last_user_index, node.log.summary.last_user_term)
            payloads = tuple(b"%d/%d" % (self.number, n) for n in range(self.chance.randint(1, 3)))
            request = Request(client.session, client.next_sequence, payloads, client.opened_at, condition)
            client.next_sequence += len(payloads)
            client.waiting.append(request)
            self.requests.append(request)
        for request in client.waiting:
            self.ask(request, self.chance.choice(leaders))
        if self.requests and self.chance.random() < 0.2:
            self.ask(self.chance.choice(self.requests), self.chance.choice(leaders))  # a copy, however late
        self.outcomes()

    def outcomes(self) -> None:
        """What clients learn."""
        c = self.cluster
        for _, effect in c.other[self.seen :]:
            if isinstance(effect, fx.Append):
                request = self.asked[effect.key]
                if not request.failed:
                    # Of a failed condition nothing is in the log and its numbers are free: a late copy of it may be
                    # answered by the place of the request that has them now. Nobody waits for that answer.
                    request.places.add((effect.first_index, effect.last_index, effect.term))
            elif isinstance(effect, fx.Refused):
                self.refused(self.asked[effect.key], effect)
        self.seen = len(c.other)
        for client in self.clients:
            client.waiting = [request for request in client.waiting if not self.done(request)]

    def refused(self, request: Request, refusal: fx.Refused) -> None:
        client = next((client for client in self.clients if request in client.waiting), None)
        if client is None:
            return
        if refusal.reason == "mismatch":
            assert request.condition != (refusal.last_index, refusal.last_term)
            request.failed = True
            client.waiting.remove(request)
            assert not client.waiting, "a condition travels alone"
            client.next_sequence = request.sequence
        elif refusal.reason == "expired":
            self.clients[self.clients.index(client)] = self.client()

    def done(self, request: Request) -> bool:
        """Committed where an answer said that it stands; then the very bytes stand there."""
        for first_index, last_index, term in request.places:
            batch = self.cluster.committed.get(first_index)
            if batch is not None and (batch.last_index, batch.term) == (last_index, term):
                payloads = tuple(bytes(payload) for payload in batch.payloads())
                assert payloads == request.payloads, "an answer names the place of what was asked for"
                return True
        return False

    # -- what goes wrong

    def fault(self) -> None:
        c, chance = self.cluster, self.chance
        ids = list(c.nodes)
        up = [id for id in ids if id not in c.down]
        kind = chance.randrange(14)
        if kind == 0 and up:
            c.crash(chance.choice(up), links_break=chance.random() < 0.7)
        elif kind == 1 and c.down:
            c.restart(chance.choice(sorted(c.down)))
        elif kind == 2:
            chance.shuffle(ids)
            at = chance.randrange(len(ids) + 1)
            c.partition(ids[:at], ids[at:])
        elif kind == 3:
            c.cut = {(a, b) for a in ids for b in ids if a != b and chance.random() < 0.3}
        elif kind in (4, 5):
            c.heal()
        elif kind == 6:
            id = chance.choice(ids)
            if id in c.held and id not in c.down:
                c.release(id)
            elif id not in c.down:
                c.hold(id)
        elif kind == 7 and c.held - c.down:
            id = chance.choice(sorted(c.held - c.down))
            if c.unwritten(id):
                c.write(id)
        elif kind == 8 and len(ids) > 1:
            one, other = chance.sample(ids, 2)
            c.disconnect(one, other)
            if chance.random() < 0.7 and not {one, other} & c.down:
                c.connect(one, other)
        elif c.messages:
            self.disorder()

    def disorder(self) -> None:
        """Messages are doubled, lost and overtake each other."""
        c, chance = self.cluster, self.chance
        c.messages.extend(chance.choices(c.messages, k=chance.randrange(4)))
        chance.shuffle(c.messages)
        del c.messages[: chance.randrange(len(c.messages) // 3 + 1)]

    def go(self, steps: int) -> None:
        c, chance = self.cluster, self.chance
        for _ in range(steps):
            kind = chance.random()
            if kind < 0.25:
                c.advance(chance.random() * 100, deliver=chance.random() < 0.8)
            elif kind < 0.45:
                self.work()
            elif kind < 0.55 and c.leaders():
                c.read(chance.choice(c.leaders()))
            elif kind < 0.75:
                for _ in range(chance.randrange(1 + min(10, len(c.messages)))):
                    if c.messages:
                        c.hand_over(c.messages.pop(chance.randrange(min(3, len(c.messages)))))
            elif kind < 0.8:
                c.deliver()
            else:
                self.fault()
        c.check_logs()
        self.peace()

    # -- the end

    def peace(self) -> None:
        """Everything works again: one leader, every request has its outcome, all logs are the same."""
        c = self.cluster
        c.heal()
        for id in c.nodes:
            if id in c.down:
                c.restart(id)
            c.release(id)
        for one in c.nodes:
            for other in c.nodes:
                if one < other:
                    c.disconnect(one, other)
                    c.connect(one, other)
        for _ in range(40):
            c.advance(500)
            self.outcomes()
            if len(c.leaders()) == 1:
                for client in list(self.clients):
                    for request in client.waiting:
                        self.ask(request, c.leaders()[0])
        self.outcomes()
        c.advance(500)
        assert len(c.leaders()) == 1, "a leader emerges"
        assert not [r for client in self.clients for r in client.waiting], "every request has its outcome"
        last = c.nodes[c.leaders()[0]].log.last_index
        assert {node.commit_index for node in c.nodes.values()} == {last}, "all is committed everywhere"
        logs = [[batch.data for batch in c.log(id)] for id in c.nodes]
        assert logs == [logs[0]] * len(logs), "all logs are the same"
        assert logs[0] == [batch.data for batch in c.disks[1].batches], "and are what the disks hold"
        c.check_logs()
        self.check_requests()

    def check_requests(self) -> None:
        """Each request once or, if its outcome is unknown, at most once; in its session's order; if its condition held."""
        log = self.cluster.log(1)
        payloads = self.cluster.payloads(1)
        assert len(payloads) == len(set(payloads)), "nothing stands in the log twice"
        there = set(payloads)
        last_sequence: dict[int, int] = {}
        last_user = (0, 0)
        by_payload = {request.payloads: request for request in self.requests}
        for batch in log:
            if batch.session:
                assert batch.sequence == last_sequence.get(batch.session, 1), (
                    "a session's entries stand in order"
                )
                last_sequence[batch.session] = batch.sequence + batch.count
                request = by_payload[tuple(bytes(payload) for payload in batch.payloads())]
                assert request.condition in (None, last_user), "a condition held where its entries stand"
                assert not request.failed, "what was said to have failed is not in the log"
                last_user = (batch.last_index, batch.term)
        for request in self.requests:
            if self.done(request):
                assert there.issuperset(request.payloads), "what was acknowledged is in the log"


def digest(seed: int, steps: int = 200) -> str:
    """All effects of a run, and the bytes of all batches."""
    run = Run(seed)
    run.go(steps)
    return WatchedCluster.digest.hexdigest()


if __name__ == "__main__":
    sys.stdout.write(digest(int(sys.argv[1])))
