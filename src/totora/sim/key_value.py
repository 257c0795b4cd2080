"""The reference state machine: keys with values, small enough to be seen to be right, rich enough for lost writes to show.

It serves the simulator's checks of linearizability and shows what a machine looks like: commands and queries are plain data, and
what `apply` does follows from the state and the command alone.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

__all__ = ["Append", "Command", "CompareAndSet", "Delete", "Get", "KeyValue", "Put", "Value"]

Value: TypeAlias = int | str


class Put(msgspec.Struct, frozen=True, array_like=True, tag="put"):
    """Set a key."""

    key: str
    value: Value


class Append(msgspec.Struct, frozen=True, array_like=True, tag="append"):
    """Put a suffix behind a key's value, as text; an absent key counts as empty."""

    key: str
    suffix: str


class CompareAndSet(msgspec.Struct, frozen=True, array_like=True, tag="cas"):
    """Set a key if it has this value; `old` None: if it is absent."""

    key: str
    old: Value | None
    new: Value


class Delete(msgspec.Struct, frozen=True, array_like=True, tag="delete"):
    """Remove a key, if it is there."""

    key: str


class Get(msgspec.Struct, frozen=True, array_like=True, tag="get"):
    """Ask for a key's value."""

    key: str


Command: TypeAlias = Put | Append | CompareAndSet | Delete


class KeyValue:
    """`ports.StateMachine`: applying a command returns the value that the key had before, None if it was absent.

    A `CompareAndSet` took effect exactly if what it returns is its `old`.
    """

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}

    def apply(self, command: Command) -> Value | None:
        before = self.values.get(command.key)
        match command:
            case Put(key, value):
                self.values[key] = value
            case Append(key, suffix):
                self.values[key] = ("" if before is None else str(before)) + suffix
            case CompareAndSet(key, old, new):
                if before == old:
                    self.values[key] = new
            case Delete(key):
                self.values.pop(key, None)
        return before

    def query(self, query: Get) -> Value | None:
        return self.values.get(query.key)
