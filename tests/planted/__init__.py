"""Bugs to be found: small mistakes that a Raft library can have, planted in ours for a simulation alone.

    with planted("log_not_compared"):
        report = simulate(Plan(seed=13, seconds=20))
    assert report.broken == "HandleRequestVoteRequest"

Nothing in the product knows of them. Each is a change of one or two lines in one place, which the catalogue names.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final

from . import elections, reads, replication, sessions, storage, transfers
from .bug import Bug

__all__ = ["BUGS", "LIKELY", "Bug", "planted"]

BUGS: Final[Mapping[str, Bug]] = {
    bug.name: bug
    for layer in (elections, transfers, replication, reads, sessions, storage)
    for bug in layer.BUGS
}
"""All of them, by name."""

LIKELY: Final[Mapping[str, Bug]] = {name: bug for name, bug in BUGS.items() if not bug.unlikely}
"""Those that random runs are to catch."""


def planted(name: str) -> AbstractContextManager[None]:
    """In this process, for a while."""
    return BUGS[name].plant()
