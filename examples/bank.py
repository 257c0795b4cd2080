"""A replicated bank, and a subtle bug of its clients: see docs/guide/testing-your-machine.md."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from totora import Node, NotAppended, OutcomeUnknown

__all__ = ["Balance", "Bank", "Command", "Deposit", "Transfer", "pay_again", "pay_once"]


class Deposit(msgspec.Struct, frozen=True, array_like=True, tag="deposit"):
    account: str
    amount: int


class Transfer(msgspec.Struct, frozen=True, array_like=True, tag="transfer"):
    """number: of the payment, so that it is made once however often it is asked for; None: it has none."""

    source: str
    target: str
    amount: int
    number: int | None = None


class Balance(msgspec.Struct, frozen=True):
    account: str


Command: TypeAlias = Deposit | Transfer


class Bank:
    """Accounts that are never overdrawn. `apply` returns whether the command was carried out."""

    def __init__(self) -> None:
        self.accounts: dict[str, int] = {}
        self.made: set[int] = set()

    def apply(self, command: Command) -> bool:
        match command:
            case Deposit(account, amount):
                self.accounts[account] = self.accounts.get(account, 0) + amount
            case Transfer(source, target, amount, number):
                if number in self.made:
                    return True
                if self.accounts.get(source, 0) < amount:
                    return False
                self.accounts[source] -= amount
                self.accounts[target] = self.accounts.get(target, 0) + amount
                if number is not None:
                    self.made.add(number)
        return True

    def query(self, query: Balance) -> int:
        return self.accounts.get(query.account, 0)


async def pay_again(node: Node[Command], number: int) -> None:
    """Pay a coin, again and again until it works. That is the bug: what has no answer may yet have been paid."""
    while True:
        try:
            await node.apply(Transfer("ann", "bob", 1), timeout_s=1)
            return
        except (NotAppended, OutcomeUnknown):
            pass


async def pay_once(node: Node[Command], number: int) -> None:
    """The same, but each time it is the same payment, and the bank knows it by its number."""
    while True:
        try:
            await node.apply(Transfer("ann", "bob", 1, number), timeout_s=1)
            return
        except (NotAppended, OutcomeUnknown):
            pass
