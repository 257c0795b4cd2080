"""Is a history linearizable? Could each operation have taken effect at one instant between its call and its return?

The search of Wing and Gong, in Lowe's form ("Testing for linearizability", 2017): the history is walked through in the order of
time with a set of *configurations*, each a state that the object may be in and the pending operations that took effect already.
An operation is made to take effect only when it must, at its return, after whatever pending ones are needed before it. If no
configuration allows a return, the history is not linearizable. Four things keep the set small:

- *Locality*: a history is linearizable if its part for each key is.
- *Eager observations*: a pending operation that changes nothing takes effect as soon as the state allows its answer.
- *Dominance*: an operation of unknown outcome may never take effect, so of two configurations in the same state the one that has
  used fewer of them can do all that the other can.
- *Symmetry*: of operations of unknown outcome that do the same, one is as good as the other: the first that is left is used.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from .history import Operation, Value

__all__ = ["Call", "Verdict", "Violation", "check_calls", "check_history"]

S = TypeVar("S", bound=Hashable)

STEPS_MAX: Final = 500_000
"""A return that needs more is given up: the history is undecided, never passed."""


@dataclass(slots=True, eq=False)
class Call(Generic[S]):
    """One operation on one object.

    effect: the state after it, from the state before; None if it cannot have answered as it did in that state.
    needs: (state,) if it is possible in that state alone. leaves: (state,) if it leaves that state, whatever was before.
    observes: it changes nothing. optional: its outcome is unknown, so it may never take effect, and returns never; if it expires,
        it does not take effect after its return.
    label: what it was, for people.
    """

    call_ns: int
    return_ns: int
    effect: Callable[[S], S | None]
    needs: tuple[S] | None = None
    leaves: tuple[S] | None = None
    observes: bool = False
    optional: bool = False
    label: object = None
    expires: bool = False


@dataclass(slots=True, frozen=True)
class Violation:
    """Why a history is not linearizable: `operation` returned, and in none of `states` could it have answered so.

    pending: what was under way beside it.
    """

    key: str
    operation: object
    states: tuple[object, ...]
    pending: tuple[object, ...]

    def __str__(self) -> str:
        states = ", ".join(map(repr, self.states[:5])) + (", ..." if len(self.states) > 5 else "")
        return f"key {self.key!r}: {self.operation} is not possible where the value is one of: {states}"


@dataclass(slots=True)
class Verdict:
    """checked: operations that were looked at. undecided: keys that took too many configurations."""

    checked: int = 0
    violations: list[Violation] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.violations and not self.undecided


class _Undecided(Exception):
    pass


_Configurations: TypeAlias = "dict[tuple[S, int], list[int]]"
"""By state and the definite pending operations that took effect: the sets of optional ones used, none within another."""


class _Search(Generic[S]):
    """One object's history. Sets of operations are bits of an integer, by their place in the history.

    initial: the states that it may be in at first. steps_max: see STEPS_MAX.
    """

    def __init__(
        self, initial: Iterable[S], calls: Sequence[Call[S]], *, steps_max: int | None = None
    ) -> None:
        self._calls = calls
        self._steps_max = STEPS_MAX if steps_max is None else steps_max
        self._pending: list[int] = []
        self._optional: dict[Hashable, list[int]] = {}
        self._leaving: dict[S, list[int]] = {}
        self._found: _Configurations[S] = {(state, 0): [0] for state in initial}

    def run(
        self, returned: Callable[[], None] = lambda: None
    ) -> tuple[Call[S], tuple[S, ...], tuple[Call[S], ...]] | None:
        """The first return that is not possible, with the states before it and what was pending; None: all are.

        returned: called after each return that is.
        """
        moments: list[tuple[int, int, int]] = []
        for number, call in enumerate(self._calls):
            # Of equal times calls come first: what may be concurrent is taken to be.
            moments.append((call.call_ns, 0, number))
            if not call.optional or call.expires:
                moments.append((call.return_ns, 1, number))
        moments.sort()
        for _, returns, number in moments:
            if not returns:
                self._called(number)
                continue
            before = self._found
            self._found = self._returned(number)
            if self._calls[number].expires:
                self._add_without(number, before)
            if not self._found:
                states = tuple(dict.fromkeys(state for state, _ in before))
                optional = chain.from_iterable((*self._optional.values(), *self._leaving.values()))
                beside = tuple(self._calls[n] for n in sorted((*self._pending, *optional)) if n != number)
                return self._calls[number], states, beside
            self._pending.remove(number)
            returned()
        return None

    def _called(self, number: int) -> None:
        call = self._calls[number]
        if not call.optional or call.expires:
            self._pending.append(number)
            if call.observes:
                self._found = self._settled(self._found)
        elif call.leaves is None:
            self._optional[number] = [number]  # It is like no other.
        elif call.needs is None:
            self._leaving.setdefault(call.leaves[0], []).append(number)
        else:
            self._optional.setdefault((call.needs, call.leaves), []).append(number)

    def _add_without(self, number: int, before: _Configurations[S]) -> None:
        """It may as well have had no effect."""
        for (state, done), sets in before.items():
            if not done & 1 << number:
                for used in sets:
                    _add(self._found, state, done, used)

    def _returned(self, number: int) -> _Configurations[S]:
        """Every configuration in which operation `number` has taken effect, and nothing that need not have."""
        bit = 1 << number
        reached: _Configurations[S] = {}
        seen: _Configurations[S] = {}
        frontier = [(state, done, used) for (state, done), sets in self._found.items() for used in sets]
        for state, done, used in frontier:
            _add(seen, state, done, used)
        steps = 0
        while frontier:
            following = []
            for state, done, used in frontier:
                if done & bit:
                    _add(reached, state, done & ~bit, used)
                    continue
                for after, done_then, used_then in self._following(state, done, used):
                    steps += 1
                    if _add(seen, after, done_then, used_then):
                        following.append((after, done_then, used_then))
                if steps > self._steps_max:
                    raise _Undecided
            frontier = following
        return reached

    def _following(self, state: S, done: int, used: int) -> Iterator[tuple[S, int, int]]:
        """The configurations that are one operation further."""
        needed: set[S] = set()
        anything = False
        for number in self._pending:
            if done & 1 << number:
                continue
            call = self._calls[number]
            if call.needs is not None:
                needed.add(call.needs[0])
            elif call.leaves is None:
                anything = True
            if not call.observes and (after := call.effect(state)) is not None:
                yield after, self._observed(after, done | 1 << number), used
        firsts = (_unused(alike, used) for alike in self._optional.values())
        optional = [first for first in firsts if first is not None]
        for number in optional:
            call = self._calls[number]
            if call.needs is not None:
                needed.add(call.needs[0])
            else:
                anything = True
        # What may never have happened is taken to have happened only where something goes on from there.
        for left in self._leaving if anything else needed:
            first = _unused(self._leaving.get(left, ()), used)
            if first is not None and left != state:
                yield left, self._observed(left, done), used | 1 << first
        for number in optional:
            after = self._calls[number].effect(state)
            if after is not None and (anything or after in needed):
                yield after, self._observed(after, done), used | 1 << number

    def _settled(self, found: _Configurations[S]) -> _Configurations[S]:
        settled: _Configurations[S] = {}
        for (state, done), sets in found.items():
            for used in sets:
                _add(settled, state, self._observed(state, done), used)
        return settled

    def _observed(self, state: S, done: int) -> int:
        """`done` with every pending observation that this state allows: it changes nothing, so there is no reason to wait."""
        for number in self._pending:
            call = self._calls[number]
            if call.observes and not done & 1 << number and call.effect(state) is not None:
                done |= 1 << number
        return done


def _unused(alike: Iterable[int], used: int) -> int | None:
    """The first of these operations that is not in `used`."""
    return next((number for number in alike if not used & 1 << number), None)


def _add(found: _Configurations[S], state: S, done: int, used: int) -> bool:
    """Add a configuration unless another one can do all that it can; True if it was added."""
    sets = found.setdefault((state, done), [])
    if any(other & used == other for other in sets):
        return False
    sets[:] = [other for other in sets if used & other != used]
    sets.append(used)
    return True


def check_calls(
    initial: S, calls: Iterable[Call[S]], key: str = "", returned: Callable[[], None] = lambda: None
) -> Violation | None:
    """The history of one object, whatever it is. Raises RuntimeError if it takes too many configurations to decide."""
    ordered = sorted(calls, key=lambda call: call.call_ns)
    try:
        found = _Search((initial,), ordered).run(returned)
    except _Undecided:
        raise RuntimeError(f"key {key!r}: too many configurations to decide") from None
    if found is None:
        return None
    call, states, pending = found
    return Violation(key, call.label, tuple(states), tuple(other.label for other in pending))


# -- keys and values


_ABSENT: Final[Hashable] = ()
"""The state of a key that holds nothing; of one that holds something it is a tuple of one."""


def _state(value: Value) -> Hashable:
    return _ABSENT if value is None else (_frozen(value),)


def _frozen(value: Value) -> Hashable:
    """A value of JSON as something that can be compared and hashed; 1, 1.0 and True are three values."""
    if isinstance(value, list | tuple):
        return ("list", *map(_frozen, value))
    if isinstance(value, dict):
        return ("dict", *sorted((key, _frozen(held)) for key, held in value.items()))
    return value if value is None or isinstance(value, str) else (type(value).__name__, value)


def _appended(suffix: str) -> Callable[[Hashable], Hashable | None]:
    def effect(state: Hashable) -> Hashable | None:
        assert isinstance(state, tuple), "states are tuples"
        before = state[0] if state else ""
        return (before + suffix,) if isinstance(before, str) else None

    return effect


def _call_of(operation: Operation) -> Call[Hashable] | None:
    """What the checker must know of it; None: it says nothing."""
    unknown = operation.status == "unknown"
    if operation.status == "fail" and not operation.mismatch:
        return None
    if operation.op == "get" and unknown:
        return None
    needs: tuple[Hashable] | None = None
    leaves: tuple[Hashable] | None = None
    observes = operation.op == "get" or operation.mismatch
    misses: Hashable = None
    match operation.op:
        case "get":
            needs = (_state(operation.value),)
        case "put":
            leaves = (_state(operation.value),)
        case "delete":
            leaves = (_ABSENT,)
        case "append":
            appended = _appended(operation.value)
            return Call(operation.call_ns, operation.return_ns, appended, optional=unknown, label=operation)
        case "cas":
            old, new = map(_state, operation.value)
            if not operation.mismatch:
                needs, leaves = (old,), (new,)
            else:
                misses = old
                needs = None if operation.actual is msgspec.UNSET else (_state(operation.actual),)

    def effect(state: Hashable) -> Hashable | None:
        if state == misses or (needs is not None and state != needs[0]):
            return None
        return state if leaves is None else leaves[0]

    return Call(operation.call_ns, operation.return_ns, effect, needs, leaves, observes, unknown, operation)


def check_history(history: Iterable[Operation], returned: Callable[[], None] = lambda: None) -> Verdict:
    """Check a history of keys and values; all keys are absent at its beginning.

    returned: called as it goes on, at most once for each operation.
    """
    by_key: dict[str, list[Call[Hashable]]] = {}
    verdict = Verdict()
    for operation in history:
        verdict.checked += 1
        calls = by_key.setdefault(operation.key, [])
        call = _call_of(operation)
        if call is not None:
            calls.append(call)
    for key, calls in by_key.items():
        try:
            violation = check_calls(_ABSENT, calls, key, returned)
        except RuntimeError:
            verdict.undecided.append(key)
            continue
        if violation is not None:
            verdict.violations.append(violation)
    return verdict
