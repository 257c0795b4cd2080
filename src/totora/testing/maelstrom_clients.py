"""Clients of the `lin-kv` workload, who write down what they did and saw.

As in Jepsen's test of registers: two clients a node, one of which reads while the other writes or compares and sets, a few
values, and a new key after about 128 operations. A client waits for its answer; what comes too late counts as unknown.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from ..sim.history import Operation, Status, Value
from .maelstrom_cluster import Broken
from .maelstrom_messages import DEFINITE, Code

__all__ = ["Clients"]

PATIENCE_S: Final = 1.0
PATIENCE_LATENCIES: Final = 10
"""A client waits so many latencies, and at least PATIENCE_S."""

VALUES: Final = 5
OPERATIONS_OF_KEY_MAX: Final = 128
RECOVERY_S: Final = 10.0
KEYS_READ_MAX: Final = 20


class Clients:
    """All clients together.

    send: from a client to a node. written: gets each operation, once it is over. counts: operations by what became of them.
    latencies_ns: of those that succeeded.
    """

    def __init__(
        self,
        names: list[str],
        send: Callable[[str, str, dict[str, Any]], None],
        written: Callable[[Operation], None],
        chance: random.Random,
        *,
        rate_per_s: float,
        latency_s: float,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.latencies_ns: list[int] = []
        self.keys: list[int] = []
        self._names = names
        self._send = send
        self._written = written
        self._chance = chance
        self._gap_s = 1 / rate_per_s
        self._patience_s = max(PATIENCE_S, PATIENCE_LATENCIES * latency_s)
        self._turn = asyncio.Lock()
        self._next_s = 0.0
        self._left_of_key = 0
        self._number = 2 * len(names)
        self._msg_id = 0
        self._waiting: dict[tuple[str, int], asyncio.Future[tuple[dict[str, Any], int]]] = {}

    def replied(self, client: str, body: dict[str, Any], now_ns: int) -> None:
        """A node sent this to a client."""
        waiting = self._waiting.pop((client, body.get("in_reply_to", 0)), None)
        if waiting is not None and not waiting.done():
            waiting.set_result((body, now_ns))

    # -- while it runs

    async def run(self, seconds: float) -> None:
        """Two clients a node, until the time is over and each has its answer. Raises Broken."""
        self._next_s = time.monotonic()
        until_s = self._next_s + seconds
        size = len(self._names)
        await asyncio.gather(*(self._client(number, number >= size, until_s) for number in range(2 * size)))

    async def _client(self, number: int, writes: bool, until_s: float) -> None:
        name = self._names[number % len(self._names)]
        while True:
            async with self._turn:
                now_s = time.monotonic()
                if self._next_s > now_s:
                    await asyncio.sleep(min(self._next_s, until_s) - now_s)
                if time.monotonic() >= until_s:
                    return
                self._next_s = max(self._next_s, now_s) + 2 * self._gap_s * self._chance.random()
                body = self._body(writes)
            operation = await self._operate(number, name, body)
            if operation.status == "unknown":
                number, self._number = self._number, self._number + 1

    def _body(self, writes: bool) -> dict[str, Any]:
        chance = self._chance
        if not self._left_of_key:
            self.keys.append(len(self.keys))
            self._left_of_key = int(OPERATIONS_OF_KEY_MAX * (0.9 + 0.1 * chance.random()))
        self._left_of_key -= 1
        key = self.keys[-1]
        if not writes:
            return {"type": "read", "key": key}
        if chance.random() < 1 / 3:
            return {"type": "write", "key": key, "value": chance.randrange(VALUES)}
        return {"type": "cas", "key": key, "from": chance.randrange(VALUES), "to": chance.randrange(VALUES)}

    # -- afterwards

    async def read_all(self) -> dict[str, float | None]:
        """The latest keys, each at every node, again and again until it answers. Returns how long that took, by node; None:
        it did not answer in time. Raises Broken."""
        began_s = time.monotonic()

        async def read(name: str) -> float | None:
            for key in self.keys[-KEYS_READ_MAX:]:
                while True:
                    number, self._number = self._number, self._number + 1
                    operation = await self._operate(number, name, {"type": "read", "key": key}, counts=False)
                    if operation.status == "ok":
                        break
                    if time.monotonic() > began_s + RECOVERY_S:
                        return None
                    await asyncio.sleep(0.05)
            return time.monotonic() - began_s

        took = await asyncio.gather(*map(read, self._names))
        return dict(zip(self._names, took, strict=True))

    # -- one operation

    async def _operate(
        self, number: int, name: str, body: dict[str, Any], *, counts: bool = True
    ) -> Operation:
        client = f"c{number + 1}"
        self._msg_id += 1
        key = client, self._msg_id
        self._waiting[key] = waiting = asyncio.get_running_loop().create_future()
        call_ns = time.monotonic_ns()
        self._send(client, name, body | {"msg_id": self._msg_id})
        try:
            reply, return_ns = await asyncio.wait_for(waiting, self._patience_s)
        except TimeoutError:
            reply, return_ns = {"type": "error", "code": Code.TIMEOUT}, call_ns
        finally:
            self._waiting.pop(key, None)
        what, fields = _understood(name, body, reply)
        if counts:
            self.counts[what] += 1
            if what == "succeeded":
                self.latencies_ns.append(return_ns - call_ns)
        if fields["status"] == "unknown":
            return_ns = 0
        operation = Operation(
            client=number, key=str(body["key"]), call_ns=call_ns, return_ns=return_ns, **fields
        )
        self._written(operation)
        return operation


def _understood(name: str, body: dict[str, Any], reply: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What became of an operation (succeeded, refused for its value, unavailable, unknown), and how the history says it.

    Raises Broken."""
    op = {"read": "get", "write": "put", "cas": "cas"}[body["type"]]
    asked: Value = None if op == "get" else body["value"] if op == "put" else [body["from"], body["to"]]

    def said(what: str, status: Status, value: Value = asked, **more: Any) -> tuple[str, dict[str, Any]]:
        return what, {"op": op, "value": value, "status": status, **more}

    if reply["type"] == f"{body['type']}_ok":
        return said("succeeded", "ok", reply.get("value") if op == "get" else asked)
    code = reply.get("code")
    if reply["type"] != "error" or type(code) is bool or not isinstance(code, int):
        raise Broken(f"{name} answered {body['type']} with {reply}")
    match op, code:
        case "get", Code.KEY_DOES_NOT_EXIST:
            return said("refused", "ok")
        case "cas", Code.KEY_DOES_NOT_EXIST:
            return said("refused", "fail", mismatch=True, actual=None)
        case "cas", Code.PRECONDITION_FAILED:
            return said("refused", "fail", mismatch=True)
        case _ if code in DEFINITE:
            return said("unavailable", "fail")
        case _:
            return said("unknown", "unknown")
