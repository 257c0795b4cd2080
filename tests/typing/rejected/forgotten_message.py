"""A match over a closed union that forgets a member: a new message must break type checking until it is handled."""

from __future__ import annotations

from typing import assert_never

from totora import RemoteProcedureCall
from totora.core.effects import Apply, Effect, Persist, Send
from totora.core.messages import (
    AppendEntries,
    Propose,
    RequestPreVote,
    RequestRead,
    RequestTransfer,
    RequestVote,
    TimeoutNow,
)


def name_of(call: RemoteProcedureCall) -> str:
    match call:
        case RequestVote() | RequestPreVote() | TimeoutNow() | RequestTransfer():
            return "election"
        case AppendEntries():
            return "replication"
        case Propose():
            return "proposal"
        case _:
            assert_never(call)  # E: RequestRead is not handled


def carry_out(effect: Effect) -> None:
    match effect:
        case Persist() | Send() | Apply():
            return
        case _:
            assert_never(effect)  # E: eight others are not handled


def all_of_them(call: RemoteProcedureCall) -> str:
    match call:
        case RequestVote() | RequestPreVote() | AppendEntries() | Propose() | RequestRead():
            return "handled"
        case TimeoutNow() | RequestTransfer():
            return "handled"
        case _:
            assert_never(call)
