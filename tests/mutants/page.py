"""docs/design/mutants.md, from what is known of the catalogue's bugs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from tests.mutants.hunt import Catch
from tests.planted import BUGS, LIKELY, Bug

__all__ = ["KNOWN_FILE", "PAGE_FILE", "known", "page"]

KNOWN_FILE: Final = Path(__file__).parent / "known.json"
PAGE_FILE: Final = Path(__file__).parents[2] / "docs/design/mutants.md"

HEAD: Final = """\
# Planted bugs

A checker that has never seen a bug may check nothing. So there is a catalogue of small mistakes (`tests/planted/`), each
of one or two lines in one place, each of a kind that a Raft library has had or could have. Nothing in the product knows of
them: a mistake is planted in a function's code for one hunt and taken back.

A hunt plays random runs, seed after seed, until one does not end well: a step that the specification does not allow, an
answer that the log refutes, machines that differ, a node that stops by itself or does not start again, nodes that talk without
end, a cluster that does not come right within a minute of peace; and that
ends well without the bug. Even seeds append to the log, odd ones use the machine of
keys and values; each run has 60 s of faults.

    make mutants
    python -m tests.mutants --jobs 2 --write

The second command writes this page. `make test` hunts some of these bugs again, `LEVEL=ci make test` most.

"""

TABLE: Final = """
| bug | breaks the rule | source | runs | simulated | what broke |
|---|---|---|---|---|---|
"""


UNLIKELY: Final = """
Some more are in the catalogue whose harm random runs hardly ever meet. Each is caught by a test that is about nothing else
(`tests/planted/test_unlikely.py`).

| bug | breaks the rule | source | why it is seldom seen | caught by |
|---|---|---|---|---|
"""


def known() -> list[Catch]:
    """What came of the latest hunt for each bug."""
    return msgspec.json.decode(KNOWN_FILE.read_bytes(), type=list[Catch])


def page(catches: Sequence[Catch]) -> str:
    """The whole page."""
    counts = [catch.seeds for catch in catches if catch.seed is not None]
    hunted = {catch.name: catch for catch in catches}
    told = (
        f"Of {len(LIKELY)} bugs {len(counts)} are caught, the median within {statistics.median(counts):g} runs, the last within "
        f"{max(counts)}.\n"
    )
    rows = [_row(name, hunted.get(name)) for name in LIKELY]
    return HEAD + told + TABLE + "".join(rows) + UNLIKELY + "".join(map(_unlikely, BUGS.values()))


def _row(name: str, catch: Catch | None) -> str:
    runs, simulated, broke = "not hunted", "", ""
    if catch is not None:
        runs = f"none of {catch.seeds}" if catch.seed is None else str(catch.seeds)
        simulated, broke = f"{catch.simulated_s:,.0f} s", catch.broken or ""
    bug = BUGS[name]
    return f"| `{name}` | {bug.breaks} | {bug.source} | {runs} | {simulated} | {broke} |\n"


def _unlikely(bug: Bug) -> str:
    if not bug.unlikely:
        return ""
    return f"| `{bug.name}` | {bug.breaks} | {bug.source} | {bug.unlikely} | `{bug.by}` |\n"
