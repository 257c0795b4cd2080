"""The guard of determinism: who reads a clock or draws a number in the virtual world is named; all others are left alone."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import random
import secrets
import sys
import tempfile
import threading
import time
import types
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from random import random as draw
from time import monotonic_ns
from typing import Any, Final

import pytest

from totora.aio.runtime import Runtime
from totora.errors import RaftError
from totora.sim import Cluster, NondeterminismError, Plan, Simulation, World, guard
from totora.sim.clock import VirtualLoop
from totora.sim.guard import guarded
from totora.sim.key_value import Command, KeyValue, Put


def play(what: Callable[[], object]) -> None:
    async def main() -> None:
        what()
        await asyncio.sleep(1)

    with guarded():
        VirtualLoop().run(main())


def with_default(
    clock: Callable[[], float] = time.monotonic, *, chance: Callable[[], float] = random.random
) -> float:
    return clock()


class Mine(datetime):
    pass


class Lease:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.now = clock

    @staticmethod
    def drawn(*, chance: Callable[[], float] = random.random) -> float:
        return chance()


UTCNOW: Final = "utcnow"
"""Deprecated, and still called."""

FOUND: dict[str, Callable[[], object]] = {
    "time.time": lambda: [time.time()],
    "time.time_ns": lambda: [time.time_ns()],
    "time.monotonic": lambda: [time.monotonic()],
    "time.monotonic_ns": lambda: [monotonic_ns()],
    "time.perf_counter": lambda: [time.perf_counter()],
    "time.process_time": lambda: [time.process_time()],
    "time.clock_gettime": lambda: time.clock_gettime(0),
    "time.localtime": lambda: [time.localtime()],
    "time.gmtime": lambda: [time.gmtime()],
    "time.ctime": lambda: [time.ctime()],
    "time.strftime": lambda: time.strftime("%Y"),
    "datetime.datetime.now": lambda: dt.datetime.now(dt.UTC),
    "datetime.datetime.utcnow": lambda: [getattr(dt.datetime, UTCNOW)()],
    "datetime.date.today": lambda: [dt.date.today()],  # noqa: DTZ011
    "random.random": lambda: [draw()],
    "random.randint": lambda: random.randint(1, 6),
    "random.shuffle": lambda: random.shuffle([1, 2]),
    "random.seed": lambda: random.seed(1),
    "random.Random": lambda: [random.Random()],
    "uuid.uuid1": lambda: [uuid.uuid1()],
    "uuid.uuid4": lambda: [uuid.uuid4()],
    "secrets.token_hex": lambda: [secrets.token_hex()],
    "secrets.randbelow": lambda: secrets.randbelow(3),
    "os.urandom": lambda: os.urandom(3),
}

HIDDEN: dict[str, tuple[str, Callable[[], object]]] = {
    "from datetime import datetime": ("datetime.datetime.now", lambda: datetime.now(dt.UTC)),
    "a subclass": ("datetime.datetime.now", lambda: Mine.now(dt.UTC)),
    "a default": ("time.monotonic", lambda: [with_default()]),
    "a default of a method": ("time.time", lambda: Lease().now()),
    "a default by name": ("random.random", lambda: [Lease.drawn()]),
    "what draws from the system": ("os.urandom", lambda: random.SystemRandom().random()),
    "what draws for others": ("random.Random", lambda: next(tempfile._RandomNameSequence())),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("what", FOUND)
def test_a_clock_or_a_number_is_found(what: str) -> None:
    with pytest.raises(NondeterminismError) as raised:
        play(FOUND[what])
    error = raised.value
    assert error.what == what
    assert Path(error.file) == Path(__file__)
    assert error.line == FOUND[what].__code__.co_firstlineno
    assert str(error).startswith(f"{error.file}:{error.line}: <lambda> calls {what}(), ")
    assert "put the time into the command" in str(error) or "put the result into the command" in str(error)


@pytest.mark.parametrize("how", HIDDEN)
def test_it_is_found_however_it_is_held(how: str) -> None:
    what, ask = HIDDEN[how]
    with pytest.raises(NondeterminismError) as raised:
        play(ask)
    assert raised.value.what == what
    assert Path(raised.value.file) == Path(__file__)


def import_something() -> None:
    module = types.ModuleType("of_a_user")
    exec("import time\nSTARTED = time.time()", vars(module))  # noqa: S102


ALLOWED: dict[str, Callable[[], object]] = {
    "a generator with a seed": lambda: random.Random(7).random(),
    "a time that was given": lambda: (time.gmtime(0), time.strftime("%Y", time.gmtime(0)), time.ctime(3)),
    "a date that was given": lambda: (datetime(2020, 1, 1, tzinfo=dt.UTC), dt.date.fromordinal(1)),
    "logging": lambda: logging.getLogger("totora.test").debug("it looks at the clock"),
    "logging that is formatted": lambda: logging.Formatter("%(asctime)s").format(
        logging.makeLogRecord({"msg": "it looks at the clock"})
    ),
    "asyncio": lambda: asyncio.get_running_loop().time(),
    "an identifier of a name": lambda: uuid.uuid5(uuid.NAMESPACE_DNS, "x"),
    "an import": import_something,
}


@pytest.mark.parametrize("what", ALLOWED)
def test_what_is_always_the_same_and_what_the_library_does_for_itself_passes(what: str) -> None:
    play(ALLOWED[what])


def test_other_threads_and_other_loops_are_left_alone() -> None:
    seen: list[float] = []

    def other() -> None:
        seen.append(time.time())

    def ask() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    play(ask)
    with guarded():
        seen += [time.time(), asyncio.run(a_real_loop()), random.random()]
        assert datetime.now(dt.UTC) > datetime(2020, 1, 1, tzinfo=dt.UTC)
    assert len(seen) == 4


async def a_real_loop() -> float:
    return time.time()


def test_everything_is_as_it_was_afterwards() -> None:
    """Also where a world was inside a world, and where one failed."""

    def held() -> list[object]:
        return [
            time.time, monotonic_ns, draw, random.Random.seed, os.urandom, uuid.uuid4, with_default.__defaults__,
            with_default.__kwdefaults__, vars(datetime)["now"], vars(dt.date)["today"], Lease.__init__.__defaults__,
        ]  # fmt: skip

    before = held()
    with guarded():
        assert all(one is not other for one, other in zip(before, held(), strict=True))
        assert not isinstance(datetime.now, types.BuiltinFunctionType)
        with pytest.raises(NondeterminismError):
            play(lambda: [time.time()])
        with pytest.raises(NondeterminismError):
            play(lambda: [draw()])
    assert all(one is other for one, other in zip(before, held(), strict=True))
    assert isinstance(datetime.now, types.BuiltinFunctionType)


def test_what_someone_else_puts_there_meanwhile_stays() -> None:
    """A tool that fakes the time may come and go while a world is open, or go after it."""
    real = time.time
    with pytest.MonkeyPatch.context() as patch:
        with guarded():
            patch.setattr(time, "time", lambda: 7.0)
            assert time.time() == 7.0
        assert time.time() == 7.0
    assert time.time is not real, "what it found was watched, so that is what it puts back"
    assert time.time() > 7.0
    with guarded():
        pass
    assert time.time is real


def test_a_name_that_a_module_gets_later_is_found() -> None:
    module = types.ModuleType("totora_test_of_a_user")
    sys.modules[module.__name__] = module
    try:
        with guarded():
            pass
        exec("from time import time\ndef ask(): time()", vars(module))  # noqa: S102
        with pytest.raises(NondeterminismError):
            play(module.ask)
    finally:
        del sys.modules[module.__name__]


# -- in the world


def test_it_ends_the_run_whoever_catches_it() -> None:
    """A node takes what a machine raises for an error of the command; the run ends all the same, and names the machine."""

    class Expiring(KeyValue):
        def apply(self, command: Command) -> Any:
            try:
                self.values["until"] = int(time.time()) + 10
            except Exception:
                return None
            return super().apply(command)

    def script() -> None:
        with Cluster(3, seed=1, machine=Expiring, entry_type=Command) as cluster:
            cluster.start().apply(Put("x", 1))

    where = r"test_guard\.py:\d+: .*Expiring\.apply calls time\.time\(\)"
    with pytest.raises(NondeterminismError, match=where) as raised:
        script()
    assert "last events:" in raised.value.__notes__[0]


@pytest.mark.parametrize("what", ["time.time_ns", "random.random", "uuid.uuid4"])
def test_a_node_that_looks_is_found_in_any_simulation(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the runtime asks what no port gave it."""
    asks: dict[str, Callable[[], object]] = {
        "time.time_ns": lambda: [time.time_ns()],
        "random.random": lambda: [random.random()],
        "uuid.uuid4": lambda: [uuid.uuid4()],
    }
    ask = asks[what]
    tick = Runtime._tick

    def planted(self: Runtime) -> None:
        ask()
        tick(self)

    async def scenario(world: World) -> None:
        await world.start_all()
        await world.elected()

    monkeypatch.setattr(Runtime, "_tick", planted)
    with pytest.raises(NondeterminismError) as raised:
        World(1).run(scenario)
    assert raised.value.what == what
    report = Simulation(Plan(seed=1, seconds=5)).run()
    assert report.violation is not None
    assert report.violation.startswith(f"NondeterminismError: {__file__}:")


def test_a_script_may_look_at_the_clock_between_its_calls() -> None:
    with Cluster(1, seed=1) as cluster:
        cluster.start()
        assert time.time() > 0
        cluster.propose(f"{random.random()}")
        with pytest.raises(RaftError):
            cluster.call(lambda node: node.index_range(100, 200))


def test_it_costs_nothing_while_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole simulation of nodes asks it not once, and to open it again looks at no name twice."""
    asked: list[str] = []

    def judge(what: str, instead: str) -> None:
        # A test tool may look at the time whenever memory is collected.
        if str(sys._getframe(2).f_globals["__name__"]).partition(".")[0] not in guard.TOOLS:
            asked.append(what)

    monkeypatch.setattr(guard, "_judge", judge)
    Simulation(Plan(seed=3, seconds=20)).run()
    assert asked == []
    before = {name: places for name, (_, _, places) in guard._known.items()}
    with guarded():
        pass
    assert all(guard._known[name][2] is places for name, places in before.items())
