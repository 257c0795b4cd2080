"""What the demo replicates: the lines of a file, or of the project itself."""

from __future__ import annotations

from itertools import chain, islice, repeat
from pathlib import Path

import msgspec

from .ending import Failed
from .lines import all_lines

__all__ = ["Text", "load"]

_PROJECT = ("*.md", "docs/**/*.md", "src/**/*.py", "tests/**/*.py", "bench/*.py")


class Text(msgspec.Struct, frozen=True):
    """Lines, and where they are from, in words."""

    lines: list[str]
    origin: str


def load(file: Path | None, entries: int) -> Text:
    """All lines of `file`, once; without one, those of the project, repeated to `entries`. Raises Failed, OSError."""
    if file is not None:
        try:
            lines = all_lines(file.read_bytes())
        except Failed as error:
            raise Failed(f"{file}: {error}") from error
        if not lines:
            raise Failed(f"{file}: it holds no line")
        return Text(lines, str(file))
    package = Path(__file__).resolve().parent.parent
    project = package.parent.parent
    if (project / "pyproject.toml").is_file() and (project / "docs").is_dir():
        paths = sorted({path for pattern in _PROJECT for path in project.glob(pattern)})
        origin = "this project's text"
    else:
        paths = sorted(package.rglob("*.py"))
        origin = "totora's sources"
    lines = [line for path in paths for line in all_lines(path.read_bytes())]
    repeated = list(islice(chain.from_iterable(repeat(lines)), entries))
    return Text(repeated, f"{origin} ({len(paths)} files)")
