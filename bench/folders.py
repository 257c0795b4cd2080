"""Where a run keeps its data: on a real disk, never in /tmp, which may be memory."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

__all__ = ["scratch"]


@contextlib.contextmanager
def scratch(parent: Path | None) -> Generator[Path]:
    """A folder that is removed at the end, within `parent` or else the project's build/."""
    parent = parent or Path(__file__).resolve().parent.parent / "build"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
