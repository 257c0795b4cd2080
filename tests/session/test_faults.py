"""Everything goes wrong at once, by seed: what was answered is what stands in the log, once, in its place and in order."""

from __future__ import annotations

import random
from typing import Literal

import pytest

from tests.levels import by_level
from tests.session.cluster import MS, Asked, Client, Cluster, Envelope
from totora.config import Settings
from totora.core import summary
from totora.core.batch import Kind
from totora.core.messages import Propose
from totora.errors import LogMismatch, NotAppended, SessionExpired
from totora.session import proposals
from totora.session.units import Appended
from totora.types import NodeId

STEPS = 2_500


class Chaos:
    """One run. Over `udp` messages between nodes are lost, doubled, overtaken and very late; over `tcp` a stream is in order
    and what it loses it loses with its link."""

    def __init__(self, seed: int, transport: Literal["tcp", "udp"]) -> None:
        self.random = random.Random(seed)
        self.udp = transport == "udp"
        self.cluster = Cluster(
            self.random.choice((3, 3, 5)), seed=seed, settings=Settings(transport=transport)
        )
        self.clients = [self.cluster.client(self.a_node()) for _ in range(2)]
        self.graveyard: list[Envelope] = []
        self.written = 0

    def a_node(self) -> NodeId:
        return self.random.choice(self.cluster.alive)

    def run(self) -> None:
        acts = {
            self.deliver: 60,
            self.write: 18,
            self.pass_time: 12,
            self.append: 10,
            self.read: 2,
            self.lose: 4,
            self.double: 4,
            self.exhume: 2,
            self.flap: 0.5,
            self.crash: 0.25,
            self.restart: 1,
            self.partition: 0.25,
            self.heal: 1,
            self.move: 0.5,
        }
        if self.random.random() < 0.8:
            self.cluster.elect(1)
        # Some runs are calm enough that leaders do their work, in some everything breaks all the time.
        calm = self.random.choice((1, 1, 5))
        weights = [weight if weight >= 2 else weight / calm for weight in acts.values()]
        for act in self.random.choices(list(acts), weights, k=STEPS):
            act()
        self.finish()

    # -- what happens

    def deliver(self) -> None:
        messages = self.cluster.messages
        if messages:
            self.cluster.hand_over(messages.pop(self.pick()))

    def pick(self) -> int:
        """The place of a message that may arrive now."""
        messages = self.cluster.messages
        at = self.random.randrange(min(len(messages), 24))
        chosen = messages[at]
        if self.udp and not isinstance(chosen.to, Client) and not isinstance(chosen.sender, Client):
            return at
        # A stream is in order: the oldest of the same stream goes first.
        return next(
            n for n, other in enumerate(messages) if other.sender == chosen.sender and other.to == chosen.to
        )

    def lose(self) -> None:
        self.bury(copy=False)

    def double(self) -> None:
        self.bury(copy=True)

    def bury(self, *, copy: bool) -> None:
        """A datagram is lost, or doubled; the copy of a Propose may come back at any time."""
        messages = self.cluster.messages
        if not (self.udp and messages):
            return
        at = self.random.randrange(len(messages))
        chosen = messages[at]
        if isinstance(chosen.to, Client) or isinstance(chosen.sender, Client):
            return
        if isinstance(chosen.message, Propose):
            self.graveyard.append(chosen)
        elif copy:
            messages.append(chosen)
        if not copy:
            del messages[at]

    def exhume(self) -> None:
        """A very late copy arrives, even in another life of the node."""
        if self.graveyard:
            self.arrive_late(self.random.choice(self.graveyard))

    def arrive_late(self, envelope: Envelope) -> None:
        assert not isinstance(envelope.to, Client)
        self.cluster.hand_over(
            Envelope(envelope.sender, self.cluster.hosts[envelope.to[0]].place, envelope.message)
        )

    def write(self) -> None:
        self.cluster.write(self.a_node())

    def pass_time(self) -> None:
        limit_ms = self.random.choices((2, 30, 400, 1_500), (20, 20, 3, 1))[0]
        self.cluster.clock.now += self.random.randrange(limit_ms * MS)
        self.cluster.tick()

    def append(self) -> None:
        bys: list[NodeId | Client] = [*self.cluster.alive, *self.clients]
        by = self.random.choice(bys)
        values = []
        for _ in range(self.random.choice((1, 1, 2, 3))):
            self.written += 1
            values.append(b"%d" % self.written)
        condition = self.condition() if self.random.random() < 0.15 else None
        timeout_ms = self.random.choice((20, 200, 1_000, 4_000, 4_000))
        self.cluster.append(
            by, *values, condition=condition, timeout_ms=timeout_ms, flush=self.random.random() < 0.7
        )

    def condition(self) -> tuple[int, int]:
        """Mostly one that holds or held lately."""
        known = [asked for asked in self.cluster.requests[-30:] if isinstance(asked.outcome, Appended)]
        mismatches = [a.outcome for a in self.cluster.requests[-30:] if isinstance(a.outcome, LogMismatch)]
        if mismatches and self.random.random() < 0.5:
            last = mismatches[-1]
            return last.last_index, last.last_term
        if not known:
            return 0, 0
        asked = max(known, key=lambda asked: asked.appended.first_index)
        return asked.appended.first_index + len(asked.values) - 1, asked.appended.term

    def read(self) -> None:
        self.cluster.read(self.a_node(), timeout_ms=self.random.choice((50, 500, 3_000)))

    def flap(self) -> None:
        """A link breaks, with what is under way on it, and comes again."""
        one, other = (
            self.random.choice(list(self.cluster.hosts)),
            self.random.choice(list(self.cluster.hosts)),
        )
        if one == other or {one, other} & self.cluster.down:
            return
        pair = {self.cluster.hosts[one].place, self.cluster.hosts[other].place}
        lost = self.cluster.take(lambda e: {e.sender, e.to} == pair)
        if self.random.random() < 0.5 and not self.udp:
            # What had arrived is still handled: a prefix of each stream.
            keep = self.random.randrange(len(lost) + 1)
            for envelope in lost[:keep]:
                self.cluster.hand_over(envelope)
        self.cluster.unlink(one, other)
        if self.random.random() < 0.7 and frozenset((one, other)) not in self.cluster.cut:
            self.cluster.link(one, other)

    def crash(self) -> None:
        if len(self.cluster.down) < len(self.cluster.hosts) // 2:
            id = self.a_node()
            self.cluster.crash(id)
            for client in self.clients:
                if client.at[0] == id:
                    client.move(self.a_node())

    def restart(self) -> None:
        if self.cluster.down:
            self.cluster.restart(self.random.choice(sorted(self.cluster.down)))

    def partition(self) -> None:
        ids = self.random.sample(list(self.cluster.hosts), len(self.cluster.hosts))
        at = self.random.randrange(1, len(ids))
        self.cluster.partition(ids[:at], ids[at:])
        if not self.udp:
            for pair in self.cluster.cut:
                one, other = sorted(pair)
                if not pair & self.cluster.down:
                    self.cluster.unlink(one, other)

    def heal(self) -> None:
        self.cluster.heal()
        for one in self.cluster.alive:
            for other in self.cluster.alive:
                if one < other:
                    self.cluster.link(one, other)

    def move(self) -> None:
        self.random.choice(self.clients).move(self.a_node())

    # -- the end

    def finish(self) -> None:
        cluster = self.cluster
        while cluster.down:
            self.restart()
        self.heal()
        for _ in range(200):
            cluster.settle()
            if all(asked.outcome is not None for asked in self.of_the_living()):
                break
            cluster.advance(50)
        missing = [asked for asked in self.of_the_living() if asked.outcome is None]
        assert not missing, f"every request gets an outcome, but not {missing}"
        last = cluster.append(cluster.lead(), b"the last")
        cluster.settle()
        if isinstance(last.outcome, SessionExpired):
            # Of a sender that was idle for long; over UDP nobody can tell a first attempt from a copy of it.
            last = cluster.append(cluster.lead(), b"the very last")
        for envelope in self.random.sample(self.graveyard, len(self.graveyard)):
            self.arrive_late(envelope)
            if self.random.random() < 0.1:
                cluster.settle()
        cluster.settle()
        cluster.advance(500)
        assert last.acknowledged, "a healed cluster works"
        self.check()

    def of_the_living(self) -> list[Asked]:
        lives = {host.place for host in self.cluster.hosts.values()}
        return [asked for asked in self.cluster.requests if isinstance(asked.by, Client) or asked.by in lives]

    def check(self) -> None:
        cluster = self.cluster
        cluster.check_outcomes()
        log = cluster.log_of_all()
        places = {value: index for index, value in log.items()}
        indexes = sorted(log)
        terms = {
            batch.last_index: batch.term for batch in cluster.hosts[1].log() if batch.kind == Kind.ENTRIES
        }
        for asked in cluster.requests:
            outcome = asked.outcome
            found = [places[value] for value in asked.values if value in places]
            assert found in ([], list(range(found[0], found[0] + len(asked.values)))) if found else True, (
                "a request is appended as a whole"
            )
            if isinstance(outcome, LogMismatch):
                last = outcome.last_index, outcome.last_term
                assert last == (0, 0) or terms.get(last[0]) == last[1], "a mismatch names an entry that stays"
            if found and asked.condition is not None:
                before = [index for index in indexes if index < found[0]]
                assert asked.condition[0] == (before[-1] if before else 0), "a condition held where it stands"
        senders: dict[object, list[Asked]] = {}
        for asked in cluster.requests:
            senders.setdefault(asked.by, []).append(asked)
        for requests in senders.values():
            self.check_order(requests, places)

    def check_order(self, requests: list[Asked], places: dict[bytes, int]) -> None:
        acknowledged = [
            a.appended.first_index for a in requests if isinstance(a.outcome, Appended) and a.values
        ]
        assert acknowledged == sorted(acknowledged), "acknowledged values stand in sending order"
        runs: dict[int, list[int]] = {}
        batches = {batch.first_index: batch for batch in self.cluster.hosts[1].log()}
        session_at = {
            batch.first_index + offset: batch.session
            for batch in batches.values()
            for offset in range(batch.count)
        }
        for asked in requests:
            if asked.values and asked.values[0] in places:
                assert not isinstance(asked.outcome, NotAppended)
                place = places[asked.values[0]]
                # A datagram, or a client's old stream, may still bring what belongs to a session that was given up.
                late = self.udp or isinstance(asked.by, Client)
                runs.setdefault(session_at[place] if late else 0, []).append(place)
        for found in runs.values():
            assert found == sorted(found), "whatever the outcome, values of one sender stand in sending order"


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("seed", range(by_level(quick=12, ci=150)))
def test_whatever_fails_every_request_has_one_outcome_and_it_is_true(
    seed: int, transport: Literal["tcp", "udp"]
) -> None:
    """Loss, doubles, late copies, overtaking, slow disks, broken links, partitions, crashes, timeouts."""
    Chaos(seed, transport).run()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("seed", range(by_level(quick=12, ci=150)))
def test_forgotten_sessions_never_append_twice(
    seed: int, transport: Literal["tcp", "udp"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, with a session table so small that sessions and their appends are forgotten all the time."""
    monkeypatch.setattr(summary, "SESSIONS_MAX", 3)
    monkeypatch.setattr(summary, "RUNS_MAX", 3)
    monkeypatch.setattr(proposals, "UNITS_IN_FLIGHT_MAX", 3)
    Chaos(1_000 + seed, transport).run()
