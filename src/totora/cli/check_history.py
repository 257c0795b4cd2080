"""`totora check-history`: could all that clients saw have happened one after the other?"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, BinaryIO, Final

import msgspec

from ..sim.explanation import Part, smallest_part
from ..sim.history import Operation, Value, load_history
from ..sim.linearizability import Verdict, check_history
from .ending import Unusable
from .text import count, escape, to_json, why

__all__ = ["check_file"]

FRAME_S: Final = 0.1
KEYS_SHOWN_MAX: Final = 3
VALUE_CHARS_MAX: Final = 60


def check_file(file: str, *, as_json: bool) -> bool:
    """The command: True if the history in `file` (`-`: standard input) is linearizable. Raises Unusable."""
    try:
        if file == "-":
            history = _load(sys.stdin.buffer)
        else:
            with open(file, "rb") as lines:
                history = _load(lines)
    except OSError as error:
        raise Unusable(why(error)) from error
    except ValueError as error:
        raise Unusable(f"{'standard input' if file == '-' else file}: {error}") from error
    with _progress("checked", len(history)) as checked:
        verdict = check_history(history, checked)
    parts = _explained(history, verdict)
    print(to_json(_report(history, verdict, parts)) if as_json else _account(history, verdict, parts))
    return verdict.ok


def _load(lines: BinaryIO) -> list[Operation]:
    with _progress("read", None) as read:

        def counted() -> Iterable[bytes]:
            for line in lines:
                yield line
                read()

        return list(load_history(counted()))


@contextmanager
def _progress(what: str, total: int | None) -> Generator[Callable[[], None]]:
    """Something to call for each operation. Shown on a terminal alone, from when it has taken a moment, until it ends."""
    done, shown = 0, False
    next_s = time.monotonic() + 5 * FRAME_S
    live = sys.stderr.isatty()

    def step() -> None:
        nonlocal done, shown, next_s
        done += 1
        if live and done % 64 == 0 and time.monotonic() >= next_s:
            next_s, shown = time.monotonic() + FRAME_S, True
            of = "" if total is None else f" of {total:,}"
            sys.stderr.write(f"\r{what} {done:,}{of} operations")
            sys.stderr.flush()

    try:
        yield step
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _explained(history: Iterable[Operation], verdict: Verdict) -> dict[str, Part]:
    """The smallest part that cannot be explained, by key."""
    wrong: dict[str, list[Operation]] = {violation.key: [] for violation in verdict.violations}
    for operation in history:
        if operation.key in wrong:
            wrong[operation.key].append(operation)
    parts = {key: smallest_part(operations) for key, operations in wrong.items()}
    return {key: part for key, part in parts.items() if part is not None}


def _report(history: list[Operation], verdict: Verdict, parts: dict[str, Part]) -> dict[str, Any]:
    return {
        "linearizable": True if verdict.ok else None if not verdict.violations else False,
        "operations": verdict.checked,
        "keys": len({operation.key for operation in history}),
        "violations": [
            {
                "key": key,
                "operations": part.operations,
                "anything_before": part.anything_before,
                "beside": part.beside,
            }
            for key, part in parts.items()
        ],
        "undecided": verdict.undecided,
    }


def _account(history: list[Operation], verdict: Verdict, parts: dict[str, Part]) -> str:
    keys: dict[str, int] = {}
    for operation in history:
        keys[operation.key] = keys.get(operation.key, 0) + 1
    size = f"{count(verdict.checked, 'operation')} on {count(len(keys), 'key')}"
    if verdict.ok:
        return f"linearizable: {size}"
    lines = []
    if verdict.violations:
        lines.append(f"NOT linearizable: {count(len(verdict.violations), 'key')} of {len(keys):,}; {size}")
        shown = list(parts.items())[:KEYS_SHOWN_MAX]
        for key, part in shown:
            lines += ["", *_part_lines(key, keys[key], part)]
        if len(verdict.violations) > len(shown):
            rest = [violation.key for violation in verdict.violations[len(shown) :]]
            named = ", ".join(to_json(key) for key in rest[:10]) + (", ..." if len(rest) > 10 else "")
            lines += ["", f"likewise: {escape(named)}"]
    if verdict.undecided:
        named = ", ".join(map(to_json, verdict.undecided[:10]))
        if verdict.violations:
            lines.append("")
        lines.append(
            f"undecided: {count(len(verdict.undecided), 'key')} of {len(keys):,} would take too long, with so many "
            f"operations at once or of unknown outcome: {escape(named)}; {size}"
        )
    return "\n".join(lines)


def _part_lines(key: str, size: int, part: Part) -> list[str]:
    """One key's smallest part, for people."""
    number = len(part.operations)
    before = "whatever it held before" if part.anything_before else "which is absent at first"
    these = "this one" if number == 1 else f"these {number:,}"
    lines = [f"key {to_json(key)}, {before}: of its {count(size, 'operation')} {these} cannot be explained"]
    start_ns = part.operations[0].call_ns
    width = max(len(str(operation.client)) for operation in part.operations)
    for operation in part.operations:
        since, until = ((ns - start_ns) / 1e6 for ns in (operation.call_ns, operation.return_ns))
        lines.append(
            f"  {since:12,.3f} to {until:12,.3f} ms  client {operation.client:<{width}}  {_said(operation)}"
        )
    if part.beside:
        writes = count(part.beside, "write")
        lines.append(f"  whether {writes} beside took effect or not, that does not help")
    return lines


def _said(operation: Operation) -> str:
    """What a client asked and was told."""
    match operation.op:
        case "get":
            return f"get gave {_spelled(operation.value)}"
        case "put":
            return f"put {_spelled(operation.value)}"
        case "append":
            return f"append {_spelled(operation.value)}"
        case "delete":
            return "delete"
        case "cas":
            old, new = map(_spelled, operation.value)
            if not operation.mismatch:
                return f"cas from {old} to {new}"
            told = "" if operation.actual is msgspec.UNSET else f", but {_spelled(operation.actual)}"
            return f"cas from {old} to {new} failed: it was not {old}{told}"


def _spelled(value: Value) -> str:
    text = "absent" if value is None else to_json(value)
    return escape(text if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}...")
