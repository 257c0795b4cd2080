"""What a planted bug is: a small mistake in the text of a function, made for a while and taken back."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, Final, TypeAlias

__all__ = ["Bug", "Mistake", "broken"]

Mistake: TypeAlias = tuple[Callable[..., Any], str, str]
"""In this function, instead of this text (which stands there once), that one."""

NAME_CHARS_MAX: Final = 48


@dataclass(frozen=True)
class Bug:
    """breaks: the rule that does not hold any more. source: where that rule stands, or who had this very bug.

    unlikely: why random runs hardly ever show it. by: then, a test that does.
    """

    name: str
    breaks: str
    source: str
    mistakes: Sequence[Mistake]
    unlikely: str = ""
    by: str = ""

    @contextmanager
    def plant(self) -> Generator[None]:
        """In this process, for a while; whoever holds one of the functions already has the bug too."""
        with ExitStack() as planted:
            for function, right, wrong in self.mistakes:
                code = broken(function, right, wrong, self.name)
                planted.enter_context(_swapped(_plain(function), code))
            yield


def broken(function: Callable[..., Any], right: str, wrong: str, name: str) -> CodeType:
    """The function's code with `wrong` instead of `right`."""
    plain = _plain(function)
    source = textwrap.dedent(inspect.getsource(plain))
    found = source.count(right)
    assert found == 1, f"{plain.__qualname__} says {right!r} {found} times"
    assert not plain.__code__.co_freevars, f"{plain.__qualname__} is made anew with each call"
    namespace: dict[str, Any] = {}
    text = "from __future__ import annotations\n" + source.replace(right, wrong)
    exec(compile(text, f"<{name}>", "exec"), dict(sys.modules[plain.__module__].__dict__), namespace)  # noqa: S102
    return _plain(namespace[plain.__name__]).__code__


def _plain(function: Any) -> FunctionType:
    inner = inspect.unwrap(getattr(function, "__func__", function))
    assert isinstance(inner, FunctionType)
    return inner


@contextmanager
def _swapped(function: FunctionType, code: CodeType) -> Generator[None]:
    right = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = right
