"""What a user of a state machine writes: the types flow from the machine to what `apply` and `query` take and return."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, assert_type

import msgspec

from totora import CommandFailed, Entry, Node
from totora.ports import StateMachine
from totora.session.requests import Err, Ok, Result


class Deposit(msgspec.Struct, tag=True):
    account: str
    amount: int


class Close(msgspec.Struct, tag=True):
    account: str


class Balance(msgspec.Struct):
    account: str


Command: TypeAlias = Deposit | Close


class Bank:
    def __init__(self) -> None:
        self.accounts: dict[str, int] = {}

    def apply(self, command: Command) -> int:
        match command:
            case Deposit(account, amount):
                self.accounts[account] = self.accounts.get(account, 0) + amount
                return self.accounts[account]
            case Close(account):
                return self.accounts.pop(account)

    def query(self, query: Balance) -> int | None:
        return self.accounts.get(query.account)


NODES = {1: ("127.0.0.1", 7001), 2: ("127.0.0.1", 7002), 3: ("127.0.0.1", 7003)}


def a_machine() -> StateMachine[Command, int, Balance, int | None]:
    return Bank()


async def asynchronous() -> None:
    async with Node(1, NODES, entry_type=Command, machine=Bank(), data_dir="data/1") as node:
        assert_type(node, Node[Command, int, Balance, int | None])
        assert_type(await node.apply(Deposit("ann", 5)), int)
        assert_type(await node.query(Balance("ann")), int | None)
        assert_type(await node.propose(Close("ann")), Entry[Command])
        try:
            await node.apply(Close("bob"))
        except CommandFailed as error:
            assert_type(error.error, Exception)
        await log_alone(node)


def with_callbacks(node: Node[Command, int, Balance, int | None], told: Callable[[int], None]) -> None:
    def respond(result: Result[int]) -> None:
        match result:
            case Ok(balance):
                told(balance)
            case Err(error):
                raise error

    node.submit_command(Deposit("ann", 5), respond)


async def log_alone(node: Node[Command]) -> int:
    """Whoever uses the log alone takes a node with any machine, or with none."""
    return (await node.propose(Deposit("ann", 5))).index


async def without_a_machine() -> None:
    node: Node[Command] = Node(
        1, NODES, entry_type=Command, data_dir="data/1"
    )  # a union says too little by itself
    async with node:
        await log_alone(node)
