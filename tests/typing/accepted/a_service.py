"""What a user writes: the types flow from `entry_type` to what comes back, through all three faces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never, assert_type

import msgspec

from totora import (
    Client,
    Entry,
    Err,
    LogMismatch,
    Node,
    Ok,
    OutcomeUnknown,
    RaftError,
    RaftNode,
    append_request,
    index_range,
)


class Order(msgspec.Struct):
    sku: str
    n: int


NODES = {1: ("127.0.0.1", 7001), 2: ("127.0.0.1", 7002), 3: ("127.0.0.1", 7003)}


def threads() -> None:
    requests, responses = RaftNode.start(1, NODES, entry_type=str, data_dir="data/1")
    with requests:
        requests.send(append_request(["a", "b"]))
        requests.send(append_request(["c"], prev_log_index=3, prev_log_term=1))
        requests.send(index_range(1, 4))
    for response in responses:
        match response:
            case Ok(entries):
                assert_type(entries, Sequence[Entry[str]])
                for entry in entries:
                    assert_type(entry.value, str)
            case Err(error):
                assert_type(error, RaftError)
            case _:
                assert_never(response)


def pairs() -> None:
    requests, _ = RaftNode.start(1, [(1, ("127.0.0.1", 7001))], entry_type=Order)
    requests.send(append_request([Order("reed", 3)]))


async def asynchronous() -> None:
    async with Node(1, NODES, entry_type=Order, data_dir="data/1") as node:
        receipt = await node.propose(Order("reed", 3))
        assert_type(receipt, Entry[Order])
        entries = await node.append(
            [Order("reed", 3)], prev_log_index=receipt.index, prev_log_term=receipt.term
        )
        assert_type(entries, Sequence[Entry[Order]])
        async for entry in node.entries():
            assert_type(entry, Entry[Order])


async def elsewhere() -> int | None:
    async with Client(NODES, entry_type=bytes) as client:
        try:
            return (await client.propose(b"x")).index
        except LogMismatch as error:
            return error.last_index
        except OutcomeUnknown:
            return None
