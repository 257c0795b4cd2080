"""Clients of the log: appends, conditional appends and range reads over channels, and what must be true of all answers.

Each client talks to one node over the channel without threads (`session.channel`), gives up what has no answer in its time, and
goes on with a new channel at any node. In the end the log that all nodes agree on tells which answers were right.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from ..errors import LogMismatch, NotAppended, OutcomeUnknown, OutOfRange, RaftError
from ..session.channel import Channel, Ticket
from ..session.requests import AppendRequest, ClientRequest, Err, IndexRange, Ok, Response
from ..types import Entry, LogIndex, NodeId
from .history import Operation
from .world import Host, World

__all__ = ["LogWorkload"]

S: Final = 1_000_000_000

BURST: Final = 50
PURSUED: Final = 0.5
"""So many of the acknowledged appends."""

TOGETHER: Final = 0.5
"""So many of the requests that can share a lot do."""

READ: Final = 0.3
CONDITIONAL: Final = 0.45
"""Of a number from 0 to 1: below the one a read, between the two an append with a condition, above an append without."""

R = TypeVar("R")

Respond: TypeAlias = Callable[[Response[str]], None]

_Channel: TypeAlias = "Channel[ClientRequest[str], Response[str]]"


@dataclass(slots=True)
class _Operation:
    """One request. response: None while it has none; it may never get one."""

    client: int
    channel: int
    request: ClientRequest[str]
    call_ns: int
    return_ns: int = 0
    response: Response[str] | None = None


@dataclass(slots=True)
class _Connection:
    """A channel to one incarnation of a node."""

    number: int
    host: Host
    gate: Any
    channel: _Channel
    sent: list[_Operation] = field(default_factory=list)
    answered: int = 0


class LogWorkload:
    """Some clients, so many operations a second together.

    counts: operations by outcome. operations: all that were sent.
    """

    entry_type: Any = str
    history: Sequence[Operation] = ()
    patience_s: float = 7.0
    """No request waits longer for its outcome."""

    def __init__(self, world: World, *, clients: int = 3, rate_per_s: float = 5.0) -> None:
        self.world = world
        self.counts: Counter[str] = Counter()
        self.operations: list[_Operation] = []
        self._chance = world.fork()
        self._clients = clients
        self._interval_ns = round(S * clients * (1 + 0.01 * BURST) * (1 + 0.5 * PURSUED) / rate_per_s)
        self._values = 0
        self._channels = 0
        self._connections: dict[int, _Connection] = {}
        self._known: list[tuple[LogIndex, int]] = [(0, 0)]
        self._until_ns = 0

    def machine(self) -> None:
        """Nodes have none."""

    # -- while it runs

    def begin(self, seconds: float) -> None:
        """Let the clients work for so long."""
        self._until_ns = self.world.loop.now_ns + round(seconds * S)
        for client in range(self._clients):
            self._soon(client)

    def _soon(self, client: int) -> None:
        when_ns = self.world.loop.now_ns + int(self._interval_ns * 2 * self._chance.random())
        if when_ns < self._until_ns:
            self.world.loop.call_at_ns(when_ns, lambda: self._work(client))

    def _work(self, client: int) -> None:
        """Make a request; now and then many, at once or in a row: the more a leader takes and cannot commit."""
        self._soon(client)
        self._send(client, self._request(self._chance.random()))
        if self._chance.random() < 0.02:
            step_ns = int(max(0.0, self._chance.random() - 0.3) * 10_000_000)
            for place in range(int(self._chance.random() * BURST)):
                self._send_later(client, self._chance.random(), place * step_ns)

    def _pursue(self, host: Host) -> None:
        """Just after this node acknowledged something, somebody looks elsewhere, where it may not be known."""
        elsewhere = [client for client, other in self._connections.items() if other.host is not host]
        if not elsewhere:
            return
        client = elsewhere[int(self._chance.random() * len(elsewhere))]
        kind = 0.0 if self._chance.random() < 0.5 else READ
        self._send_later(client, kind, int(5_000_000 * self._chance.random()))

    def _send_later(self, client: int, kind: float, delay_ns: int) -> None:
        when_ns = self.world.loop.now_ns + delay_ns
        self.world.loop.call_at_ns(when_ns, lambda: self._send(client, self._request(kind)))

    def _send(self, client: int, request: ClientRequest[str]) -> None:
        connection = self._connections.get(client)
        if (
            connection is None
            or connection.gate.fallen
            or self._is_stuck(connection)
            or self._chance.random() < 0.02
        ):
            connection = self._connect(client)
        if connection is None:
            return
        operation = _Operation(client, connection.number, request, self.world.loop.now_ns)
        try:
            if connection.channel.offer(request):
                connection.sent.append(operation)
                self.operations.append(operation)
        except RaftError:
            self.counts["overloaded"] += 1
        connection.host.gate.enter(lambda: self._pump(connection))

    def _is_stuck(self, connection: _Connection) -> bool:
        """Its node stopped, or has not answered for ten seconds."""
        if not connection.host.up:
            return True
        waiting = connection.sent[connection.answered : connection.answered + 1]
        return bool(waiting) and self.world.loop.now_ns - waiting[0].call_ns > 10 * S

    def _connect(self, client: int) -> _Connection | None:
        up = [host for host in self.world.hosts.values() if host.up]
        if not up:
            return None
        host = up[int(self._chance.random() * len(up))]
        self._channels += 1
        channel: _Channel = Channel(lambda request: isinstance(request, IndexRange))
        self._connections[client] = _Connection(self._channels, host, host.gate, channel)
        return self._connections[client]

    def _request(self, kind: float) -> ClientRequest[str]:
        if kind < READ:
            newest = self._known[-1][0]
            end = max(1, newest - int(self._chance.random() ** 2 * newest))
            return IndexRange(
                max(1, end - int(self._chance.random() * 20)), end + int(self._chance.random() * 3)
            )
        entries = []
        for _ in range(1 + int(self._chance.random() ** 4 * 4)):
            self._values += 1
            entries.append(f"entry {self._values} " + "x" * int(self._chance.random() ** 6 * 2_000))
        if kind < CONDITIONAL:
            last = self._known[-1 - int(self._chance.random() ** 4 * min(3, len(self._known)))]
            return AppendRequest(entries, *last)
        return AppendRequest(entries)

    def _pump(self, connection: _Connection) -> None:
        """Hand over what may be carried out now, and take what was answered."""
        channel, host = connection.channel, connection.host
        if connection.gate is not host.gate or not host.up:
            return
        while (taken := channel.take()) is not None:
            ticket, request = taken
            self._ask(host, request, self._chance.random(), self._responder(connection, ticket))
        self._collect(connection)

    def _ask(self, host: Host, request: ClientRequest[str], patience: float, respond: Respond) -> None:
        """Ask a node, with a deadline of its own, or with the others of this turn of the loop (lots)."""
        node = host.running
        match request:
            case AppendRequest(entries=[entry], prev_log_index=None) if patience < TOGETHER:
                self._when_done(node.propose(entry), lambda entry: respond(Ok([entry])), respond)
            case IndexRange(start, end) if patience < TOGETHER:
                self._when_done(node.index_range(start, end), lambda entries: respond(Ok(entries)), respond)
            case _:
                node.submit(request, respond, 0.3 + (self.patience_s - 1) * patience**2)

    def _when_done(self, asked: asyncio.Future[R], succeed: Callable[[R], None], respond: Respond) -> None:
        def done(asked: asyncio.Future[R]) -> None:
            error = asked.exception()
            if error is None:
                succeed(asked.result())
            elif isinstance(error, RaftError):
                respond(Err(error))
            else:
                self.world.loop.abort(error)

        asked.add_done_callback(done)

    def _responder(self, connection: _Connection, ticket: Ticket[Response[str]]) -> Respond:
        def respond(response: Response[str]) -> None:
            connection.channel.answer(ticket, response)
            self._collect(connection)
            self.world.loop.call_soon(connection.gate.enter, lambda: self._pump(connection))

        return respond

    def _collect(self, connection: _Connection) -> None:
        while (response := connection.channel.poll()) is not None:
            operation = connection.sent[connection.answered]
            connection.answered += 1
            operation.response, operation.return_ns = response, self.world.loop.now_ns
            self._must_be_committed(response)
            match response:
                case Ok(entries):
                    self.counts["ok"] += 1
                    if entries and entries[-1].index > self._known[-1][0]:
                        self._known.append((entries[-1].index, entries[-1].term))
                    if isinstance(operation.request, AppendRequest) and self._chance.random() < PURSUED:
                        self._pursue(connection.host)
                case Err(error):
                    self.counts[type(error).__name__] += 1
                    if isinstance(error, LogMismatch) and error.last_index > self._known[-1][0]:
                        self._known.append((error.last_index, error.last_term))

    def _must_be_committed(self, response: Response[str]) -> None:
        """Nothing that a client is told is taken back."""
        match response:
            case Ok(entries) if entries:
                index, term = entries[-1].index, entries[-1].term
            case Err(LogMismatch() as error) if error.last_index:
                index, term = error.last_index, error.last_term
            case _:
                return
        if self.world.is_committed is not None and not self.world.is_committed(index, term):
            self.world.loop.abort(AssertionError(f"told before it is committed: {response}"))

    # -- in the end

    def farewell(self, id: NodeId) -> str:
        return f"through {id}"

    def check(self, log: Sequence[Entry[str]], hosts: Sequence[Host]) -> None:
        """All answers against the log that all nodes hold in the end. Raises AssertionError."""
        _Check(log, self.operations).run()


class _Check:
    def __init__(self, log: Sequence[Entry[str]], operations: Sequence[_Operation]) -> None:
        self._log = log
        self._at = {entry.index: entry for entry in log}
        self._place = {entry.value: place for place, entry in enumerate(log)}
        self._operations = operations

    def run(self) -> None:
        assert len(self._place) == len(self._log), "nothing is applied twice: a value stands in the log twice"
        for operation in self._operations:
            match operation.request, operation.response:
                case AppendRequest() as request, Ok(entries):
                    self._appended(request, entries)
                case AppendRequest() as request, response:
                    self._not_appended(request, response)
                case IndexRange() as request, Ok(entries):
                    self._read(request, entries)
                case _:
                    pass
        self._real_time()
        self._sending_order()

    def _appended(self, request: AppendRequest[str], entries: Sequence[Entry[str]]) -> None:
        assert [entry.value for entry in entries] == list(request.entries), (
            "an answer holds what was asked for"
        )
        for entry in entries:
            assert self._at.get(entry.index) == entry, f"what was acknowledged is lost: {entry.index}"
        self._together(request)
        if request.condition is not None:
            first = self._place[request.entries[0]]
            before = (self._log[first - 1].index, self._log[first - 1].term) if first else (0, 0)
            assert request.condition == before, (
                f"a condition {request.condition} did not hold at {entries[0].index}"
            )

    def _not_appended(self, request: AppendRequest[str], response: Response[str] | None) -> None:
        there = [value in self._place for value in request.entries]
        assert all(there) or not any(there), "a request is carried out as a whole or not at all"
        if all(there):
            error = response.error if isinstance(response, Err) else None
            assert not isinstance(error, NotAppended), (
                f"it was said to be without effect, and is in the log: {error}"
            )
            assert error is None or isinstance(error, OutcomeUnknown | RaftError)
            self._together(request)
        if isinstance(response, Err) and isinstance(response.error, LogMismatch):
            last = response.error.last_index, response.error.last_term
            assert last != request.condition, "a mismatch names another entry than the condition"
            entry = self._at.get(last[0])
            assert last == (0, 0) or (entry is not None and entry.term == last[1]), (
                f"a mismatch names {last}: no entry"
            )

    def _together(self, request: AppendRequest[str]) -> None:
        places = [self._place[value] for value in request.entries]
        assert places == list(range(places[0], places[0] + len(places))), (
            "nothing stands between the entries of a request"
        )

    def _read(self, request: IndexRange, entries: Sequence[Entry[str]]) -> None:
        expected = [e for e in self._log if request.start_index <= e.index <= request.end_index]
        assert list(entries) == expected, f"a read of {request} returned something else than the log holds"

    def _real_time(self) -> None:
        """What was acknowledged before something began is seen by it, and stands before it."""
        moments: list[tuple[int, int, int, _Operation]] = []
        for number, operation in enumerate(self._operations):
            moments.append((operation.call_ns, 0, number, operation))
            if operation.response is not None:
                moments.append((operation.return_ns, 1, number, operation))
        moments.sort(key=lambda moment: moment[:3])
        highest = 0
        floor: dict[int, int] = {}
        for _, returns, number, operation in moments:
            if not returns:
                floor[number] = highest
                continue
            before = floor.pop(number)
            match operation.response:
                case Ok(entries) if isinstance(operation.request, AppendRequest):
                    assert entries[0].index > before, (
                        "an append stands behind all that was acknowledged before it"
                    )
                    highest = max(highest, entries[-1].index)
                case Ok(entries):
                    highest = max([highest, *(entry.index for entry in entries)])
                case Err(OutOfRange() as error):
                    assert error.commit_index >= before, (
                        f"a stale read: {error.commit_index} is committed, {before} was"
                    )
                case Err(LogMismatch() as error):
                    assert error.last_index >= before, (
                        f"a stale mismatch names {error.last_index}, {before} was there"
                    )
                    highest = max(highest, error.last_index)
                case _:
                    pass

    def _sending_order(self) -> None:
        """The appends of one channel stand in sending order."""
        last: dict[int, int] = {}
        for operation in self._operations:
            if isinstance(operation.request, AppendRequest) and operation.request.entries[0] in self._place:
                place = self._place[operation.request.entries[0]]
                assert place > last.get(operation.channel, -1), (
                    "appends of one channel stand in sending order"
                )
                last[operation.channel] = place
