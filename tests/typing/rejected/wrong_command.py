"""A command or a query that the machine does not know, a result taken for another type, a machine for other entries."""

from __future__ import annotations

from totora import Node
from totora.sim.key_value import Command, Get, KeyValue, Put, Value

NODES = {1: ("127.0.0.1", 7001)}


async def calls(node: Node[Command, Value | None, Get, Value | None]) -> str:
    await node.apply(Get("a"))  # E: a query changes nothing
    await node.query(Put("a", 1))  # E: a command is no query
    await node.apply("a")  # E: that is no command
    return await node.apply(Put("a", 1))  # E: it returns the value before, of whatever type


async def without_a_machine(node: Node[str]) -> None:
    await node.query("a")  # E: there may be nothing to ask


class Lists:
    def apply(self, command: list[int]) -> int:
        return len(command)


class Texts(Lists):
    def query(self, query: str) -> str:
        return query


def of_another_type() -> None:
    Node(1, NODES, entry_type=str, machine=Texts())  # E: it takes lists
    Node(1, NODES, entry_type=list[int], machine=Lists())  # E: it answers nothing
    Node(1, NODES, entry_type=Command, machine=KeyValue())
