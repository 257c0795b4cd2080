"""Replicas of a state machine are compared: what each makes of the same commands, and where their states differ.

A machine decides from its state and the command alone, so the first replica that carries out a command says what it comes to,
and all others, restarted ones that carry out everything again included, must come to the same.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Final, TypeAlias

import msgspec

from ..types import NodeId
from .world import Machine

__all__ = ["Divergence", "Replicas", "difference", "plain"]

Plain: TypeAlias = "dict[str, Any] | list[Any] | str | int | float | bool | None"

REMEDY: Final = (
    "only the state and the command may decide what a machine does: no clock, no chance, no order of a set"
)


class Divergence(AssertionError):
    """Two replicas that carried out the same commands are not the same."""


class Replicas:
    """All lives of one machine in one run.

    make: a new machine, with nothing applied. nodes: which node has which now. told: gets what each command comes to, as bytes,
    and the states when they are compared. fail: ends the run.
    """

    def __init__(
        self,
        make: Callable[[], Machine],
        nodes: Callable[[], Mapping[NodeId, Machine | None]],
        told: Callable[[bytes], object],
        fail: Callable[[BaseException], object],
    ) -> None:
        self._make = make
        self._nodes = nodes
        self._told = told
        self._fail = fail
        self._firsts: list[tuple[NodeId, str, Plain]] = []

    def new(self) -> Machine:
        """The machine of a node that starts."""
        return _Replica(self, self._make())

    def machine(self, id: NodeId) -> Any:
        """The user's machine of this node."""
        return self._newest()[id].machine

    def _newest(self) -> dict[NodeId, _Replica]:
        return {id: machine for id, machine in self._nodes().items() if isinstance(machine, _Replica)}

    def compare(self) -> None:
        """The states of those that have carried out equally many commands. Raises Divergence, which names the place."""
        firsts: dict[int, tuple[NodeId, Plain]] = {}
        for id, replica in self._newest().items():
            state = plain(replica.machine)
            self._told(msgspec.json.encode(state, order="sorted"))
            one, expected = firsts.setdefault(replica.applied, (id, state))
            where = difference(expected, state)
            if where is not None:
                raise Divergence(
                    f"after the same {replica.applied} commands the machines of nodes {one} and {id} differ at {where}: {REMEDY}"
                )

    def applied(self, replica: _Replica, command: Any, outcome: Plain) -> None:
        """A replica has carried out one more command."""
        id = next(id for id, newest in self._newest().items() if newest is replica)
        if replica.applied > len(self._firsts):
            self._firsts.append((id, repr(command), outcome))
            self._told(msgspec.json.encode(outcome, order="sorted"))
            return
        one, first, expected = self._firsts[replica.applied - 1]
        which = f"command {replica.applied}, {first}"
        if first != repr(command):
            error = Divergence(f"node {id} carries out {command!r} where node {one} carried out {which}")
        elif (where := difference(expected, outcome)) is not None:
            error = Divergence(
                f"nodes {one} and {id} come to different results of {which}: they differ at {where}: {REMEDY}"
            )
        else:
            return
        self._fail(error)
        raise error


class _Replica:
    """A user's machine, with eyes on it."""

    def __init__(self, replicas: Replicas, machine: Machine) -> None:
        self._replicas = replicas
        self.machine = machine
        self.applied = 0

    def apply(self, command: Any) -> Any:
        self.applied += 1
        try:
            result = self.machine.apply(command)
        except Exception as error:
            self._replicas.applied(self, command, {"raised": f"{type(error).__name__}: {error}"})
            raise
        self._replicas.applied(self, command, {"result": plain(result)})
        return result

    def query(self, query: Any) -> Any:
        return self.machine.query(query)


# -- values, compared


def plain(value: Any, above: tuple[int, ...] = ()) -> Plain:
    """What a value holds, as JSON: equal for equal contents. The order of a set or a dictionary is no part of it."""
    match value:
        case enum.Enum():
            return f"{type(value).__qualname__}.{value.name}"
        case None | bool() | int() | str():
            return value
        case float():
            return repr(value) if math.isnan(value) else value
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case type():
            return value.__qualname__
        case _:
            pass
    if id(value) in above:
        return "itself"
    above = (*above, id(value))
    match value:
        case Mapping():
            return {f"[{_text(plain(key, above))}]": plain(held, above) for key, held in value.items()}
        case Set():
            return dict.fromkeys(sorted(f"{{{_text(plain(member, above))}}}" for member in value), True)
        case Sequence():
            return [plain(member, above) for member in value]
        case _:
            pass
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    return {
        "": type(value).__qualname__,
        **{f".{name}": plain(held, above) for name, held in _fields(value).items()},
    }


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    kind: Any = type(value)
    root: Any = object
    if kind.__reduce__ is root.__reduce__ and kind.__getstate__ is root.__getstate__:
        slots = (name for base in kind.__mro__ for name in _slots(base) if hasattr(value, name))
        return {name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {})
    try:  # it says itself what a copy is made of
        made_of = value.__reduce_ex__(2)
    except Exception:  # it cannot be copied, so it is not looked into
        return {}
    return {} if isinstance(made_of, str) else {"state": made_of[1:3]}


def _slots(kind: type) -> Sequence[str]:
    slots = vars(kind).get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _text(value: Plain) -> str:
    return repr(value) if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()


def difference(one: Plain, other: Plain, path: str = "") -> str | None:
    """The first place where two plain values differ, and what they hold there; None: nowhere."""
    if isinstance(one, dict) and isinstance(other, dict) and one.get("") == other.get(""):
        for key in sorted({*one, *other}):
            if key not in one or key not in other:
                return f"{path}{key}, which only one of them has"
            if (where := difference(one[key], other[key], path + key)) is not None:
                return where
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            if (where := difference(mine, theirs, f"{path}[{place}]")) is not None:
                return where
        return None
    return None if one == other and type(one) is type(other) else f"{path or 'all'}: {one!r} and {other!r}"
