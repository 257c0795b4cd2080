"""One of the bugs with a run that shows it, for tests of what happens once something is found."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from totora.sim.simulation import Plan

from . import planted as planted_by_name

__all__ = ["BREAKS", "BROKEN", "planted", "planted_everywhere"]

NAME: Final = "log_not_compared"
BROKEN: Final = "HandleRequestVoteRequest"
BREAKS: Final = Plan(seed=96, seconds=20)
"""It shows it."""

ROOT: Final = Path(__file__).parents[2]


def planted() -> AbstractContextManager[None]:
    """In this process."""
    return planted_by_name(NAME)


def planted_everywhere(folder: Path) -> dict[str, str]:
    """In every Python process that is started with these variables."""
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        f"sys.path.append({str(ROOT)!r})\n"
        "from tests.planted import planted\n"
        f"for_good = planted({NAME!r})\n"
        "for_good.__enter__()\n"
    )
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}
