"""Why a history is not linearizable: the smallest part of it that cannot be explained, for whoever has to find the fault.

The history of one key is made weaker, step by step, for as long as no order explains it:

- What was called after the first answer that is not possible goes.
- What had returned before some moment goes, if the contradiction stands whatever the key held then.
- Of the others, reads and failed comparisons go, and writes may as well have had no effect.

Each step only allows more, so whatever is left contradicts itself within the whole history too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from .history import Operation
from .linearizability import _ABSENT, Call, _call_of, _Search, _Undecided

__all__ = ["Part", "smallest_part"]

STEPS_MAX: Final = 50_000
"""A weaker history that takes more is left aside: what is found is a little larger then."""

TRIALS_MAX: Final = 1_000

_Calls: TypeAlias = "list[Call[Hashable]]"

_SOMETHING_ELSE: Final[Hashable] = ("something else", "that no operation names")


@dataclass(slots=True, frozen=True)
class Part:
    """operations: no order of them, each between its call and its return, gives their answers; by the times of their calls.

    anything_before: that is so whatever the key held before them; else it is absent at first.
    beside: writes among them of which it does not matter whether they took effect.
    """

    operations: tuple[Operation, ...]
    anything_before: bool
    beside: int


def _weaker(call: Call[Hashable]) -> Sequence[Call[Hashable]]:
    """What is left of it where it need not be explained: a write may have taken effect in its time, or not."""
    if call.observes:
        return ()
    return (call if call.optional else replace(call, optional=True, expires=True),)


class _Reducer:
    def __init__(self) -> None:
        self.initial: Iterable[Hashable] = (_ABSENT,)
        self._trials = 0

    def contradicts(self, calls: _Calls) -> bool:
        """No order explains `calls`; False if that takes too long to say."""
        self._trials += 1
        if self._trials > TRIALS_MAX:
            return False
        try:
            return _Search(self.initial, calls, steps_max=STEPS_MAX).run() is not None
        except _Undecided:
            return False

    def cut_what_was_before(self, calls: _Calls) -> tuple[_Calls, bool]:
        """Leave out all that returned before the latest moment from which on `calls` contradict themselves.

        It made the state of that moment, which may be any. What was under way then may have taken effect already.
        """
        if any(call.leaves is None and not call.observes for call in calls):
            return calls, False  # What an append leaves depends on what was before.
        named = [state for call in calls for state in (call.needs, call.leaves) if state is not None]
        exact, self.initial = self.initial, dict.fromkeys((_ABSENT, _SOMETHING_ELSE, *(s for (s,) in named)))

        def since(moment: int) -> _Calls:
            kept = (
                call for call in calls if call.return_ns >= moment or (call.optional and not call.expires)
            )
            return [new for call in kept for new in (_weaker(call) if call.call_ns < moment else (call,))]

        # The contradiction stands from every moment before `low` on, from none at `high`.
        moments = sorted({call.call_ns for call in calls})
        low, high = 0, len(moments)
        while low < high:
            middle = (low + high) // 2
            if self.contradicts(since(moments[middle])):
                low = middle + 1
            else:
                high = middle
        if low == 0:
            self.initial = exact
            return calls, False
        return since(moments[low - 1]), True

    def weaken(self, calls: _Calls, may: Callable[[Call[Hashable]], bool]) -> _Calls:
        """Make weaker as many as possible of those that `may`, first many at once, then one by one."""
        size = sum(map(may, calls))
        while size:
            candidates = [call for call in calls if may(call)]
            for start in range(0, len(candidates), size):
                chosen = set(map(id, candidates[start : start + size]))
                tried = [new for call in calls for new in (_weaker(call) if id(call) in chosen else (call,))]
                if self.contradicts(tried):
                    calls = tried
            size //= 2
        return calls


def smallest_part(history: Iterable[Operation]) -> Part | None:
    """What cannot be explained in the history of one key; None if all can, or if that takes too long to say."""
    calls = [call for operation in history if (call := _call_of(operation)) is not None]
    calls.sort(key=lambda call: call.call_ns)
    try:
        found = _Search((_ABSENT,), calls).run()
    except _Undecided:
        return None
    if found is None:
        return None
    impossible, anything_before = found[0], False
    end_ns = impossible.return_ns
    calls = [
        new
        for call in calls
        if call.call_ns <= end_ns
        for new in ((call,) if call.return_ns <= end_ns else _weaker(call))
    ]
    reducer = _Reducer()
    # What nobody wrote is impossible whatever else happened: there is no need to look at all of that.
    others = [new for call in calls for new in ((call,) if call is impossible else _weaker(call))]
    if reducer.contradicts(others):
        calls = others
    else:
        calls, anything_before = reducer.cut_what_was_before(calls)
        calls = reducer.weaken(calls, lambda call: call.observes)
        calls = reducer.weaken(calls, lambda call: not call.observes and not call.optional)
    firm = [call.label for call in calls if not call.optional]
    operations = tuple(label for label in firm if isinstance(label, Operation))
    return Part(operations, anything_before, len(calls) - len(firm))
