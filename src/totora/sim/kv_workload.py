"""Clients of the reference machine: they change and read a few keys at once, and what they saw must be linearizable.

Each client does one thing at a time, through any node. It gives up what has no answer in its time, or whose node died, and goes
on elsewhere: under a new number then, for what it gave up may still take effect. Keys are contended and short-lived, so that
the checker's search stays small.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, assert_never

import msgspec

from ..aio.node import Node
from ..errors import NotAppended
from ..session.requests import Err, Ok, Result
from ..types import Entry, NodeId
from .gate import Gate
from .history import Operation, OperationKind, Status
from .key_value import Append, Command, CompareAndSet, Delete, Get, KeyValue, Put, Value
from .linearizability import check_history
from .world import Host, World

__all__ = ["KvWorkload"]

S: Final = 1_000_000_000

KEYS: Final = 5
"""So many are in use at a time."""

KEY_WEIGHT_MAX: Final = 60
"""After so many operations a key is replaced by a fresh one."""

UNKNOWN_WEIGHT: Final = 12
"""One of unknown outcome counts for more: it stays possible for good."""

WATCH_NS: Final = 200_000_000
"""How soon a client notices that its node died."""

_Question: TypeAlias = Command | Get
_ENCODER: Final = msgspec.msgpack.Encoder()


@dataclass(slots=True, eq=False)
class _Client:
    """number: as the history has it. link: the node that it talks to, and that incarnation's gate."""

    number: int
    link: tuple[Node[Any, Any, Any, Any], Gate] | None = None


@dataclass(slots=True, eq=False)
class _Call:
    """One operation. status: None while it has no outcome. result: what the machine returned, if anybody was told.

    mismatch: the machine told, and it was a swap that found another value.
    """

    client: int
    question: _Question
    gate: Gate
    call_ns: int
    give_up_ns: int
    return_ns: int = 0
    status: Status | None = None
    result: Value | None = None
    mismatch: bool = False


class Machine(KeyValue):
    """It remembers by a checksum what it applied, in which order: its state alone forgets what was overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.checksum = 0

    def apply(self, command: Command) -> Value | None:
        self.checksum = zlib.crc32(_ENCODER.encode(command), self.checksum)
        return super().apply(command)


class KvWorkload:
    """Some clients, so many operations a second together, in bursts.

    counts: operations by outcome. history: all that have one, in the order in which they got it.
    """

    entry_type: Any = Command
    patience_s: float = 8.0
    """No operation waits longer for its outcome."""

    def __init__(self, world: World, *, clients: int = 5, rate_per_s: float = 5.0) -> None:
        self.world = world
        self.counts: Counter[str] = Counter()
        self._chance = world.fork()
        self._clients = clients
        self._interval_ns = round(S * clients / rate_per_s)
        self._calls: list[_Call] = []
        self._numbers = 0
        self._values = 0
        self._fresh = 0
        self._weights: dict[str, int] = {}
        self._known: dict[str, Value | None] = {}
        self._until_ns = 0

    @property
    def history(self) -> Sequence[Operation]:
        return [_operation(call) for call in self._calls if call.status is not None]

    def machine(self) -> Machine:
        return Machine()

    # -- while it runs

    def begin(self, seconds: float) -> None:
        """Let the clients work for so long."""
        self._until_ns = self.world.loop.now_ns + round(seconds * S)
        for _ in range(self._clients):
            self._soon(_Client(self._number()))

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _soon(self, client: _Client) -> None:
        when_ns = self.world.loop.now_ns + int(5 * self._interval_ns * self._chance.random() ** 4)
        if when_ns < self._until_ns:
            self.world.loop.call_at_ns(when_ns, lambda: self._work(client))

    def _work(self, client: _Client) -> None:
        if client.link is None or client.link[1].fallen or self._chance.random() < 0.05:
            client.link = self._linked()
        if client.link is None:
            self._soon(client)
            return
        node, gate = client.link
        now_ns = self.world.loop.now_ns
        timeout_s = 0.3 + (self.patience_s - 1.5) * self._chance.random() ** 2
        question = self._question()
        call = _Call(client.number, question, gate, now_ns, now_ns + round((timeout_s + 0.5) * S))
        self._calls.append(call)

        def respond(result: Result[Value | None]) -> None:
            # A node that has crashed tells nothing any more.
            if call.status is None and not gate.fallen:
                self._answered(client, call, result)

        def ask() -> None:
            if isinstance(question, Get):
                node.submit_query(question, respond, timeout_s)
            else:
                node.submit_command(question, respond, timeout_s)

        gate.enter(ask)
        self._watch(client, call)

    def _linked(self) -> tuple[Node[Any, Any, Any, Any], Gate] | None:
        """Any node that runs."""
        up = [host for host in self.world.hosts.values() if host.up]
        if not up:
            return None
        host = up[int(self._chance.random() * len(up))]
        return host.running, host.gate

    def _question(self) -> _Question:
        while len(self._weights) < KEYS:
            self._fresh += 1
            self._weights[f"key {self._fresh}"] = 0
        key = list(self._weights)[int(self._chance.random() * KEYS)]
        self._weigh(key, 1)
        self._values += 1
        value = f"{self._values}."
        kind = self._chance.random()
        if kind < 0.35:
            return Get(key)
        if kind < 0.6:
            return Append(key, value)
        if kind < 0.75:
            return Put(key, value)
        if kind < 0.93:
            return CompareAndSet(key, self._known.get(key), value)
        return Delete(key)

    def _weigh(self, key: str, weight: int) -> None:
        if key in self._weights:
            self._weights[key] += weight
            if self._weights[key] >= KEY_WEIGHT_MAX:
                del self._weights[key]
                self._known.pop(key, None)

    def _watch(self, client: _Client, call: _Call) -> None:
        """A client gives up when its time is over, or when its node has died."""
        now_ns = self.world.loop.now_ns
        if call.status is not None:
            return
        if call.gate.fallen or now_ns >= call.give_up_ns:
            self._finish(client, call, "unknown", "no answer")
        else:
            self.world.loop.call_at_ns(now_ns + WATCH_NS, lambda: self._watch(client, call))

    def _answered(self, client: _Client, call: _Call, result: Result[Value | None]) -> None:
        match result:
            case Ok(value):
                call.result = value
                if call.question.key in self._weights:
                    self._known[call.question.key] = _after(call.question, value)
                swap = call.question
                call.mismatch = isinstance(swap, CompareAndSet) and value != swap.old
                self._finish(client, call, "fail" if call.mismatch else "ok", "ok")
            case Err(error):
                certain = isinstance(error, NotAppended) or isinstance(call.question, Get)
                self._finish(client, call, "fail" if certain else "unknown", type(error).__name__)

    def _finish(self, client: _Client, call: _Call, status: Status, told: str) -> None:
        self.counts[told] += 1
        call.status, call.return_ns = status, self.world.loop.now_ns
        if told != "ok":
            client.link = None
        if status == "unknown":
            client.number = self._number()
            self._weigh(call.question.key, UNKNOWN_WEIGHT)
        self._soon(client)

    # -- in the end

    def farewell(self, id: NodeId) -> Command:
        return Put("farewell", f"from {id}")

    def check(self, log: Sequence[Entry[Command]], hosts: Sequence[Host]) -> None:
        """What clients saw, what the machines hold, and the log that all nodes agree on. Raises AssertionError."""
        assert all(call.status is not None for call in self._calls), "every operation has an outcome"
        verdict = check_history(self.history)
        assert not verdict.violations, f"the history is not linearizable: {verdict.violations[0]}"
        assert not verdict.undecided, f"too much is possible to decide: {verdict.undecided}"
        replayed = Machine()
        results: dict[Command, list[Value | None]] = {}
        for entry in log:
            results.setdefault(entry.value, []).append(replayed.apply(entry.value))
        for host in hosts:
            assert isinstance(host.machine, Machine), "each node has a machine"
            assert host.machine.values == replayed.values, (
                f"all machines are in the state that the log leads to: node {host.id}"
            )
            assert host.machine.checksum == replayed.checksum, (
                f"each entry is applied once, in the order of the log: node {host.id}"
            )
        for call in self._calls:
            if not isinstance(call.question, Get | Delete):
                _check_effect(call, results.get(call.question, []))


def _check_effect(call: _Call, results: list[Value | None]) -> None:
    """Every value is written by one operation only, so its place in the log tells what became of it."""
    assert len(results) <= 1, f"nothing is applied twice: {call.question}"
    if call.status == "ok" or call.mismatch:
        assert results == [call.result], (
            f"a call gets its own result: {call.question} got {call.result!r}, not {results}"
        )
    elif call.status == "fail":
        assert not results, f"what is said to be without effect has none: {call.question}"


def _operation(call: _Call) -> Operation:
    assert call.status is not None, "what is in a history has an outcome"
    op: OperationKind
    value: Any
    match call.question:
        case Get():
            op, value = "get", call.result
        case Put(_, new):
            op, value = "put", new
        case Append(_, suffix):
            op, value = "append", suffix
        case CompareAndSet(_, old, new):
            op, value = "cas", [old, new]
        case Delete():
            op, value = "delete", None
        case _ as unreachable:
            assert_never(unreachable)
    return Operation(
        client=call.client,
        op=op,
        key=call.question.key,
        value=value,
        status=call.status,
        call_ns=call.call_ns,
        return_ns=call.return_ns,
        mismatch=call.mismatch,
        actual=call.result if call.mismatch else msgspec.UNSET,
    )


def _after(question: _Question, result: Value | None) -> Value | None:
    """The key's value after it, by what the machine returned."""
    match question:
        case Get():
            return result
        case Put(_, value):
            return value
        case Append(_, suffix):
            return ("" if result is None else str(result)) + suffix
        case CompareAndSet(_, old, new):
            return new if result == old else result
        case Delete():
            return None
        case _:
            assert_never(question)
