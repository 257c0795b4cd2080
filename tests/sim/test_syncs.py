"""Every sync of the storage is needed: without any one of them, a run that loses power turns red.

A sync that nobody would miss costs time on every write; one that is missing costs data. `kill -9` alone proves nothing here, for
the kernel keeps what it was given (DESIGN 10).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

import totora.storage
from tests.sim.test_durability import restless
from tests.sim.witness import Witness
from tests.storage import test_reserve
from tests.storage.test_crashes import live_through_power_failures
from tests.storage.test_each_operation import Crash, crash_before
from totora.sim.disk import MemoryDisk, MemoryFile
from totora.sim.world import World

STORAGE = Path(totora.storage.__file__).parent
RUNS_MAX = 400


@dataclass(frozen=True)
class Sync:
    """A place in the storage that syncs a file, by itself or as part of a write, or the directory."""

    path: Path
    function: str
    first_line: int
    last_line: int
    kind: str

    def __str__(self) -> str:
        return f"{self.path.stem}.{self.function}:{self.kind}:{self.first_line}"

    def is_asking(self, frame: Any) -> bool:
        code = frame.f_code
        return bool(
            code.co_filename == str(self.path) and self.first_line <= frame.f_lineno <= self.last_line
        )


def syncs() -> list[Sync]:
    found = []
    for path in sorted(STORAGE.glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                    continue
                writing = any(keyword.arg == "sync" for keyword in call.keywords)
                if call.func.attr in ("sync", "sync_dir") or writing:
                    last = call.end_lineno or call.lineno
                    found.append(Sync(path, function.name, call.lineno, last, call.func.attr))
    return found


def without(sync: Sync, patch: pytest.MonkeyPatch) -> None:
    """Leave this one out, and say that it was done."""

    def leave_out(kind: type, name: str) -> None:
        real: Callable[[Any], None] = getattr(kind, name)

        def maybe(self: Any) -> None:
            asking = sys._getframe(1)
            if asking.f_code is MemoryFile.pwrite.__code__ and asking.f_back:
                asking = asking.f_back
            if not sync.is_asking(asking):
                real(self)

        patch.setattr(kind, name, maybe)

    leave_out(MemoryFile, "sync")
    leave_out(MemoryDisk, "sync_dir")


def turns_red() -> bool:
    """A few random lives of a disk and of a cluster, every crash of one long story of writes, many more lives, a failed sync."""
    try:
        live(range(5))
        for crash in get_args(Crash):
            number = 0
            while crash_before(number, crash, seed=number):
                number += 1
        live(range(5, RUNS_MAX))
        test_reserve.test_a_file_whose_size_was_never_synced_is_not_kept_in_reserve()
    except Exception:
        return True
    return False


def live(seeds: range) -> None:
    for seed in seeds:
        live_through_power_failures(seed)
        world = World(seed)
        restless(world, Witness(world).acknowledged, rounds=60)


def test_the_syncs_are_found() -> None:
    """The list below is of the code as it is."""
    names = [sync.function for sync in syncs()]
    assert {"_flush", "_begin_segment", "_settle", "_write"} <= set(names)


@pytest.mark.parametrize("sync", syncs(), ids=str)
def test_without_this_sync_a_run_turns_red(sync: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    without(sync, monkeypatch)
    assert turns_red(), f"{sync} is missed by nobody: is it needed?"
