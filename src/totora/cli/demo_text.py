"""What the demo replicates: the lines of a file, or of the project itself."""

from __future__ import annotations

from itertools import chain, islice, repeat
from pathlib import Path

import msgspec

__all__ = ["Text", "load"]

_PROJECT = ("*.md", "docs/**/*.md", "src/**/*.py", "tests/**/*.py", "bench/*.py")


class Text(msgspec.Struct, frozen=True):
    """Lines, and where they are from, in words."""

    lines: list[str]
    origin: str


def load(file: Path | None, entries: int) -> Text:
    """All lines of `file`, once; without one, those of the project, repeated to `entries`. Raises OSError, ValueError."""
    if file is not None:
        lines = _lines(file)
        if not lines:
            raise ValueError(f"{file} holds no line")
        return Text(lines, str(file))
    package = Path(__file__).resolve().parent.parent
    project = package.parent.parent
    if (project / "pyproject.toml").is_file() and (project / "docs").is_dir():
        paths = sorted({path for pattern in _PROJECT for path in project.glob(pattern)})
        origin = "this project's pages and sources"
    else:
        paths = sorted(package.rglob("*.py"))
        origin = "totora's own sources"
    lines = [line for path in paths for line in _lines(path)]
    repeated = list(islice(chain.from_iterable(repeat(lines)), max(entries, 1)))
    return Text(repeated, f"{origin}, {len(paths)} files")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
