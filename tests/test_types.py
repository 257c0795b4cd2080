"""What must type-check does, and what must not does not: under mypy and under pyright alike.

`typing/accepted/*.py` pass both checkers. In `typing/rejected/*.py` both find errors in exactly the lines that end
in `# E`, with or without a reason behind it (`# E: a follower has no next_index`), and in no others. Write each such
statement on one line: the checkers disagree where an error of several lines begins.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

ROOT: Final = Path(__file__).parents[1]
HERE: Final = ROOT / "tests" / "typing"
MARK: Final = re.compile(r"#\s*E(?=\s*$|:)")

Place: TypeAlias = tuple[str, int]
"""A file, from `tests/typing` on, and a line."""


def sources() -> list[Path]:
    return sorted([*HERE.glob("accepted/*.py"), *HERE.glob("rejected/*.py")])


def marked() -> set[Place]:
    places: set[Place] = set()
    for path in sources():
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if MARK.search(line):
                places.add((path.relative_to(HERE).as_posix(), number))
    return places


def mypy(scratch: Path) -> dict[Place, str]:
    files = [str(path.relative_to(ROOT)) for path in sources()]
    cache = ["--cache-dir", str(ROOT / ".mypy_cache" / "typing")]
    output = _run(["-m", "mypy", "--strict", "--output", "json", *cache, *files])
    found: dict[Place, str] = {}
    for line in output.splitlines():
        if not line.startswith("{"):
            pytest.fail(f"mypy says: {line}", pytrace=False)
        report: dict[str, Any] = json.loads(line)
        if report["severity"] == "error":
            found[_place(ROOT / report["file"], report["line"])] = report["message"]
    return found


def pyright(scratch: Path) -> dict[Place, str]:
    """What must pass passes in strict mode; what must not pass does not even in standard mode."""
    config = {
        "include": [str(HERE / "accepted"), str(HERE / "rejected")],
        "strict": [str(HERE / "accepted")],
        "typeCheckingMode": "standard",
        "extraPaths": [str(ROOT / "src")],
        "pythonVersion": "3.11",
    }
    project = scratch / "pyrightconfig.json"
    project.write_text(json.dumps(config))
    interpreter = ["--pythonpath", sys.executable]
    output = _run(["-m", "basedpyright", "--outputjson", "--project", str(project), *interpreter])
    found: dict[Place, str] = {}
    for report in json.loads(output)["generalDiagnostics"]:
        if report["severity"] == "error":
            found[_place(Path(report["file"]), report["range"]["start"]["line"] + 1)] = report["message"]
    return found


def _run(arguments: list[str]) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode in {0, 1}, f"{arguments[1]} broke down\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def _place(path: Path, line: int) -> Place:
    try:
        return path.relative_to(HERE).as_posix(), line
    except ValueError:
        return str(path), line  # an error in the library itself: unexpected, and so reported


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_accepts_and_rejects_what_it_should(
    checker: Callable[[Path], dict[Place, str]], tmp_path: Path
) -> None:
    expected, found = marked(), checker(tmp_path)
    wrong = [
        f"{file}:{line}: rejected: {found[file, line]}" for file, line in sorted(found.keys() - expected)
    ]
    wrong += [f"{file}:{line}: accepted, though marked" for file, line in sorted(expected - found.keys())]
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def test_each_rejected_file_marks_what_is_rejected() -> None:
    files_with_marks = {file for file, _ in marked()}
    assert files_with_marks == {path.relative_to(HERE).as_posix() for path in HERE.glob("rejected/*.py")}
