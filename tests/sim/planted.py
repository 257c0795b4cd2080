"""A bug to be found: a vote goes to whoever asks, whatever its log lacks (against section 5.4.1)."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from totora.core import election
from totora.sim.simulation import Plan

__all__ = ["BREAKS", "BROKEN", "planted", "planted_everywhere"]

BROKEN: Final = "HandleRequestVoteRequest"
BREAKS: Final = Plan(seed=13, seconds=20)
"""It shows it."""


@contextmanager
def planted() -> Generator[None]:
    """In this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(election, "_is_up_to_date", lambda *_: True)
        yield


def planted_everywhere(folder: Path) -> dict[str, str]:
    """In every Python process that is started with these variables."""
    (folder / "sitecustomize.py").write_text(
        "from totora.core import election\nelection._is_up_to_date = lambda *_: True\n"
    )
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}
