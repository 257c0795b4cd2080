"""What clients did and saw: operations on keys, with the times of their calls and returns. One JSON object a line.

    {"client": 0, "op": "put", "key": "x", "value": 1, "status": "ok", "call_ns": 10, "return_ns": 25}

Times are monotonic nanoseconds of one clock. `status` says what the client knows: `ok`, `fail` (certainly without effect) or
`unknown` (it may take effect at any time after its call; `return_ns` means nothing then).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias

import msgspec

__all__ = ["Operation", "OperationKind", "Status", "Value", "dump_history", "load_history"]

OperationKind: TypeAlias = Literal["get", "put", "append", "cas", "delete"]
Status: TypeAlias = Literal["ok", "fail", "unknown"]
Value: TypeAlias = Any
"""Whatever JSON knows; None: absent."""


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One operation of one client.

    value: of a get what was read (None: absent), of a cas `[old, new]`, of an append the suffix, of a put the new value.
    mismatch: a cas failed because the value was another one: that is an observation. actual: the value that it met, if told.
    """

    client: int
    op: OperationKind
    key: str
    value: Value = None
    status: Status
    call_ns: int
    return_ns: int = 0
    mismatch: bool = False
    actual: Value = msgspec.UNSET

    def __post_init__(self) -> None:
        if self.status != "unknown" and self.return_ns < self.call_ns:
            raise ValueError(f"it returns at {self.return_ns}, before its call at {self.call_ns}")
        if self.op == "cas" and not (isinstance(self.value, list | tuple) and len(self.value) == 2):
            raise ValueError("the value of a cas is [old, new]")
        if self.op == "append" and not isinstance(self.value, str):
            raise ValueError("the value of an append is text")
        if self.mismatch and (self.op != "cas" or self.status != "fail"):
            raise ValueError("only a cas that failed has a mismatch")


_DECODER = msgspec.json.Decoder(Operation)
_ENCODER = msgspec.json.Encoder()


def load_history(lines: Iterable[bytes | str]) -> Iterator[Operation]:
    """Decode a history. Raises ValueError, which names the line."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _DECODER.decode(line)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: {error}") from error


def dump_history(history: Iterable[Operation]) -> Iterator[bytes]:
    """One line for each operation, without its end."""
    for operation in history:
        yield _ENCODER.encode(operation)
