"""Notices what would make two replicas, or two runs of one seed, differ: a clock that is read, a random number that is drawn.

    with guarded():
        world.run(scenario)

While a virtual loop runs in this thread, code of totora, of the user and of what they call may not read a clock of the machine or
draw from a source of chance that has no seed: `NondeterminismError` names the line and says what to do instead. It ends the run,
whoever catches it. The standard library's own uses (asyncio, logging) and those of test tools pass.

Not seen: a clock that was put away before the guard came (in a class's attribute, a `default_factory`), and the order of a set.
Replicas that are compared show the first, two runs under different PYTHONHASHSEEDs the second.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import datetime as dt
import gc
import os
import random
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from types import BuiltinFunctionType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, Final, TypeAlias

from .clock import VirtualLoop

__all__ = ["NondeterminismError", "guarded"]

CLOCK: Final = "read the clock where the command is proposed, and put the time into the command (a node asks its port Clock)"
CHANCE: Final = (
    "draw where the command is proposed, and put the result into the command, or use random.Random with a seed from it "
    "(a node asks its port Random)"
)

CLOCKS: Final = (
    "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "process_time_ns",
    "thread_time", "thread_time_ns", "clock_gettime", "clock_gettime_ns",
)  # fmt: skip
CLOCKS_WITHOUT_ARGUMENT: Final = {"localtime": 0, "gmtime": 0, "ctime": 0, "asctime": 0, "strftime": 1}
"""They read the clock if so many arguments are given and no more."""

TRANSPARENT: Final = frozenset(("random", "secrets", "uuid", "datetime", "_strptime", "tempfile"))
"""Modules of the library that hand on what they drew: whoever called them did it."""

TOOLS: Final = frozenset(
    (
        "_pytest",
        "pytest",
        "pluggy",
        "pytest_timeout",
        "xdist",
        "execnet",
        "hypothesis",
        "coverage",
        "IPython",
        "ipykernel",
    )
)
"""Test tools, which may interrupt a run to look at the time."""

PASS: Final = frozenset(sys.stdlib_module_names - {"__main__"}) | TOOLS


class NondeterminismError(AssertionError):
    """Something was asked that has another answer in each run. what: the call. file, line: where. instead: what to do."""

    def __init__(self, what: str, file: str, line: int, where: str, instead: str) -> None:
        super().__init__(
            f"{file}:{line}: {where} calls {what}(), which is different on every replica and in every run: {instead}"
        )
        self.what = what
        self.file = file
        self.line = line
        self.instead = instead


def _judge(what: str, instead: str) -> None:
    """Raises if a virtual loop runs here and the one who asked for it is no exception."""
    loop = asyncio._get_running_loop()
    if not isinstance(loop, VirtualLoop):
        return
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "") in TRANSPARENT:
        frame = frame.f_back
    if frame is None or frame.f_code.co_name == "<module>":  # an import, which happens once
        return
    if str(frame.f_globals.get("__name__", "")).partition(".")[0] in PASS:
        return
    code = frame.f_code
    error = NondeterminismError(what, code.co_filename, frame.f_lineno, code.co_qualname, instead)
    loop.abort(error)
    raise error


def _watched(
    real: Callable[..., Any], what: str, instead: str, arguments_max: int | None = None
) -> Callable[..., Any]:
    def asked(*args: Any, **kwargs: Any) -> Any:
        if arguments_max is None or len(args) <= arguments_max:
            _judge(what, instead)
        return real(*args, **kwargs)

    asked.__name__ = asked.__qualname__ = getattr(real, "__name__", what)
    asked.__doc__ = real.__doc__
    return asked


def _functions() -> dict[Any, Callable[..., Any]]:
    """What stands in for what."""
    table: dict[Any, Callable[..., Any]] = {}

    def add(module: ModuleType, names: Iterable[str], instead: str) -> None:
        for name in names:
            if (real := getattr(module, name, None)) is not None:
                most = CLOCKS_WITHOUT_ARGUMENT.get(name) if module is time else None
                table[real] = _watched(real, f"{module.__name__}.{name}", instead, most)

    add(time, (*CLOCKS, *CLOCKS_WITHOUT_ARGUMENT), CLOCK)
    hidden = random.random.__self__  # type: ignore[attr-defined]  # the generator that all share
    shared = [name for name, thing in vars(random).items() if getattr(thing, "__self__", None) is hidden]
    add(random, (name for name in shared if name not in ("getstate", "setstate")), CHANCE)
    add(os, ("urandom", "getrandom"), CHANCE)
    add(uuid, ("uuid1", "uuid4"), CHANCE)
    add(secrets, ("token_bytes", "token_hex", "token_urlsafe", "randbelow", "randbits", "choice"), CHANCE)
    return table


def _methods() -> list[tuple[type, str, Any, Any]]:
    """Type, name, what is there, what stands in for it. Kept for ever: a type's caches hold no reference to what they know."""

    def watched(kind: type, name: str, real: Any) -> Any:
        def asked(cls: type, *args: Any, **kwargs: Any) -> Any:
            _judge(f"datetime.{kind.__name__}.{name}", CLOCK)
            return real.__get__(None, cls)(*args, **kwargs)

        return classmethod(asked)

    places = ((dt.datetime, "now"), (dt.datetime, "utcnow"), (dt.date, "today"))
    held = [(kind, name, vars(kind)[name]) for kind, name in places if name in vars(kind)]
    return [(kind, name, real, watched(kind, name, real)) for kind, name, real in held]


_FUNCTIONS: Final = _functions()
_METHODS: Final = _methods()
_KINDS: Final = (BuiltinFunctionType, FunctionType, MethodType)


# -- watching


_depth = 0
_undo = contextlib.ExitStack()
_lock = threading.Lock()
"""Simulations may run in several threads at once: the first one that comes watches, the last one that goes ends it."""


@contextlib.contextmanager
def guarded() -> Generator[None]:
    """While it lasts, the functions are watched wherever a module of this process holds them. Nests."""
    global _depth
    with _lock:
        if _depth == 0:
            _watch_all(_undo)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _undo.close()


def _watch_all(undo: contextlib.ExitStack) -> None:
    for key, module in list(sys.modules.items()):
        if type(module) is ModuleType and key != __name__:
            for names, name, real in _places(key, module):
                watched = _FUNCTIONS[real]
                # It may hold the one that watches: someone took that for the real one, and put it back after we had gone.
                if names.get(name) in (real, watched):
                    _replace(names, name, real, watched, undo)
    for function in _with_defaults:
        _watch_defaults(function, undo)
    _watch_seed(undo)
    for kind, name, real, watched in _METHODS:
        _watch_method(kind, name, real, watched, undo)


def _replace(names: dict[str, Any], name: str, real: Any, watched: Any, undo: contextlib.ExitStack) -> None:
    names[name] = watched

    def restore() -> None:
        if names.get(name) is watched:  # else someone else has put something there meanwhile
            names[name] = real

    undo.callback(restore)


_Place: TypeAlias = tuple[dict[str, Any], str, Any]
_known: Final[dict[str, tuple[ModuleType, int, list[_Place]]]] = {}
_with_defaults: Final[dict[FunctionType, None]] = {}


def _places(key: str, module: ModuleType) -> list[_Place]:
    """Where a module holds a function that is watched. Looked for again when it has got or lost a name."""
    names = vars(module)
    known = _known.get(key)
    if known is not None and known[0] is module and known[1] == len(names):
        return known[2]
    held = [(name, thing) for name, thing in list(names.items()) if type(thing) in _KINDS]
    places = [(names, name, thing) for name, thing in held if thing in _FUNCTIONS]
    _known[key] = module, len(names), places
    if module.__name__.partition(".")[0] not in PASS:
        _with_defaults.update(dict.fromkeys(filter(_has_watched_default, _functions_of(module))))
    return places


def _functions_of(module: ModuleType) -> Iterator[FunctionType]:
    """Those of the module, and of its classes."""
    for thing in list(vars(module).values()):
        own = isinstance(thing, type) and thing.__module__ == module.__name__
        for member in list(vars(thing).values()) if own else [thing]:
            function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
            if isinstance(function, FunctionType):
                yield function


def _has_watched_default(function: FunctionType) -> bool:
    """Whether it has a watched function as a default: `def __init__(self, clock=time.time)`."""
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return any(type(value) in _KINDS and value in _FUNCTIONS for value in defaults)


def _watch_defaults(function: FunctionType, undo: contextlib.ExitStack) -> None:
    def watched(value: Any) -> Any:
        return _FUNCTIONS.get(value, value) if type(value) in _KINDS else value

    for name in ("__defaults__", "__kwdefaults__"):
        before = getattr(function, name)
        if before is not None:
            after = (
                {k: watched(v) for k, v in before.items()}
                if isinstance(before, dict)
                else tuple(map(watched, before))
            )
            setattr(function, name, after)
            undo.callback(setattr, function, name, before)


def _watch_seed(undo: contextlib.ExitStack) -> None:
    """A generator that is seeded with nothing takes its seed from the system."""
    real = random.Random.seed

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        if a is None:
            _judge("random.Random", CHANCE)
        real(self, a, version)

    random.Random.seed = seed  # type: ignore[method-assign]
    undo.callback(setattr, random.Random, "seed", real)


def _watch_method(kind: type, name: str, real: Any, watched: Any, undo: contextlib.ExitStack) -> None:
    """A class method of a type that is written in C, whose names cannot be set: through the dictionary behind them.

    To replace the class instead would hide it from all who compare types, msgspec among them.
    """
    members = gc.get_referents(vars(kind))[0]

    def forget() -> None:
        """Python remembers what it found under a name."""
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))

    undo.callback(forget)
    _replace(members, name, real, watched, undo)
    forget()
