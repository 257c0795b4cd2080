"""What a campaign has played, a JSON object a line, so that it can go on after whatever ended it. Version 1 of the format.

    {"type": "plan", "key": "5d0c", "version": 1, "source": "9be1", "plan": {"seconds": 60.0, "faults": ["cut", ...], ...}}
    {"type": "played", "plan": "5d0c", "seed": 17, "simulated_ns": 67412000000, "operations": {"ok": 210}, ...}
    {"type": "failed", "plan": "5d0c", "seed": 18, "why": "its process died of signal 9"}

A seed counts as played for one plan and one version of the source. Lines are only appended, each in one write: what was cut off
in the midst of one is the last line, which was not played. One campaign at a time writes to a ledger.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from .simulation import Plan, Report, broken_property

__all__ = ["Failed", "Ledger", "Outcome", "Played", "plan_key", "read_ledger", "source_hash"]

VERSION: Final = 1
KEY_CHARACTERS: Final = 16


@cache
def source_hash() -> str:
    """The version of the source: a hash of all files of the package."""
    package = Path(__file__).parents[1]
    seen = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        seen.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode())
        seen.update(content)
    return seen.hexdigest()[:KEY_CHARACTERS]


class Played(msgspec.Struct, frozen=True, kw_only=True, tag="played", omit_defaults=True):
    """A seed that was played to its end, or to its violation.

    plan: the key of its plan. took_s: real seconds. at_s: when in the run the violation showed.
    """

    plan: str
    seed: int
    simulated_ns: int
    steps: int
    committed: int
    operations: dict[str, int]
    injected: dict[str, int]
    took_s: float = 0.0
    violation: str | None = None
    at_s: float | None = None

    @property
    def broken(self) -> str | None:
        """The property that broke; see `Report.broken`."""
        return None if self.violation is None else broken_property(self.violation)

    @staticmethod
    def of(key: str, report: Report, took_s: float) -> Played:
        return Played(
            plan=key,
            seed=report.plan.seed,
            simulated_ns=round(report.simulated_s * 1e9),
            steps=report.steps,
            committed=report.committed,
            operations=report.operations,
            injected=report.injected,
            took_s=round(took_s, 3),
            violation=report.violation,
            at_s=report.at_s,
        )


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """A seed that could not be played: its process died, say. It is played again when the campaign is resumed."""

    plan: str
    seed: int
    why: str


Outcome: TypeAlias = Played | Failed


class _PlanLine(msgspec.Struct, frozen=True, kw_only=True, tag="plan"):
    """Which plan a key stands for: all of it but the seed, and by which version of the source it is played."""

    key: str
    version: int
    source: str
    plan: dict[str, Any]


_Line: TypeAlias = _PlanLine | Played | Failed
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[_Line]] = msgspec.json.Decoder(_Line)


def plan_key(plan: Plan, source: str) -> str:
    """The same for all seeds of one plan, in whatever order its faults are named."""
    told = _ENCODER.encode([source, sorted(_without_seed(plan).items())])
    return hashlib.sha256(told).hexdigest()[:KEY_CHARACTERS]


def _without_seed(plan: Plan) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(plan)
    del told["seed"]
    return told | {"faults": sorted(plan.faults)}


def read_ledger(lines: Iterable[bytes]) -> Iterator[Outcome]:
    """What became of each seed. Raises ValueError, which names the line; a last line that was cut off is passed over."""
    for _, told in _lines(lines):
        if not isinstance(told, _PlanLine):
            yield told


def _lines(lines: Iterable[bytes]) -> Iterator[tuple[bytes, _Line]]:
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            return
        try:
            told = _DECODER.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from error
        if isinstance(told, _PlanLine) and told.version > VERSION:
            raise ValueError(
                f"line {number}: version {told.version} of the format, this totora knows {VERSION}"
            )
        yield line, told


class Ledger:
    """The file. A context manager; made if it is not there, in an existing directory.

    Raises OSError, ValueError if it is not a ledger, and BlockingIOError if a campaign writes to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._lock()
            end = sum(len(line) for line, _ in self._read())
            if os.fstat(self._descriptor).st_size > end:
                os.ftruncate(self._descriptor, end)  # or the next line would be a part of the torn one
        except BaseException:
            os.close(self._descriptor)
            raise
        self._keys: set[str] = set()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, "another campaign writes to it", str(self.path)) from error

    def _read(self) -> Iterator[tuple[bytes, _Line]]:
        with self.path.open("rb") as file:
            try:
                yield from _lines(file)
            except ValueError as error:
                raise ValueError(f"{self.path}: {error}") from error

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """What was written is on stable storage then."""
        if self._descriptor >= 0:
            try:
                os.fsync(self._descriptor)
            finally:
                os.close(self._descriptor)
                self._descriptor = -1

    def played(self, keys: Iterable[str]) -> Iterator[Played]:
        """The seeds of these plans that were played so far, each once. Raises OSError, ValueError."""
        wanted = set(keys)
        seen: set[tuple[str, int]] = set()
        for _, told in self._read():
            if isinstance(told, Played) and told.plan in wanted and (told.plan, told.seed) not in seen:
                seen.add((told.plan, told.seed))
                yield told

    def write(self, plan: Plan, source: str, outcome: Outcome) -> None:
        """Append what became of a seed of this plan. Raises OSError."""
        lines: list[_Line] = [outcome]
        if outcome.plan not in self._keys:
            self._keys.add(outcome.plan)
            described = _PlanLine(key=outcome.plan, version=VERSION, source=source, plan=_without_seed(plan))
            lines.insert(0, described)
        data = b"".join(_ENCODER.encode(line) + b"\n" for line in lines)
        while data:
            data = data[os.write(self._descriptor, data) :]
