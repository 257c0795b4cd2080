"""Every snippet in the README and in the guide runs as it stands, but for its ports: those are chosen free."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from totora.cli.demo_cluster import free_addresses

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
SNIPPET: Final = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT: Final = re.compile(r"\b700\d\b")
HANG_S: Final = 60


@dataclass(frozen=True)
class Snippet:
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def snippets(language: str) -> Iterator[Snippet]:
    for page in PAGES:
        text = page.read_text()
        for found in SNIPPET.finditer(text):
            if found[1] == language:
                line = text.count("\n", 0, found.start()) + 2
                yield Snippet(page.relative_to(ROOT).as_posix(), line, language, found[2])


def with_free_ports(text: str) -> str:
    ports = sorted(set(PORT.findall(text)))
    free = [str(port) for _, port in free_addresses(max(1, len(ports))).values()]
    places = dict(zip(ports, free, strict=False))
    return PORT.sub(lambda found: places[found[0]], text)


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONWARNINGS": "error", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.mark.parametrize("snippet", list(snippets("python")), ids=str)
def test_python_runs(snippet: Snippet, tmp_path: Path) -> None:
    """In a process and a directory of its own; warnings are errors."""
    script = tmp_path / "snippet.py"
    script.write_text(with_free_ports(snippet.text))
    printed = run([sys.executable, str(script)], tmp_path)
    assert ("print(" in snippet.text) == bool(printed)


@pytest.mark.parametrize("snippet", list(snippets("console")), ids=str)
def test_commands_print_what_the_page_shows(snippet: Snippet, tmp_path: Path) -> None:
    """Commands after `$` run in one shell; what is shown below them is printed, up to numbers and roles."""
    lines = snippet.text.splitlines()
    commands = [line[2:] for line in lines if line.startswith("$ ")]
    script = (
        "set -e\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n"
        + with_free_ports("\n".join(commands))
        + "\n"
    )
    printed = {shape(line) for line in run(["bash", "-c", script], tmp_path).splitlines()}
    for line in lines:
        if not line.startswith("$ "):
            assert shape(line) in printed, f"{line!r} is not printed, but {printed}"


def shape(line: str) -> str:
    """What does not change from run to run."""
    for words, word in ((r"follower|leader", "role"), (r"[\d.,]+", "N"), (r"\s+", " ")):
        line = re.sub(words, word, line)
    return line.strip()


def test_the_pages_have_snippets() -> None:
    assert len(list(snippets("python"))) >= 9
    assert len(list(snippets("console"))) >= 1


def test_the_guide_names_every_error() -> None:
    """And says what to do about it."""
    import totora
    from totora import RaftError

    errors = [
        n
        for n in totora.__all__
        if isinstance(getattr(totora, n), type) and issubclass(getattr(totora, n), RaftError)
    ]
    guide = (ROOT / "docs" / "guide" / "requests.md").read_text()
    missing = [name for name in errors if f"`{name}" not in guide and name != "RaftError"]
    assert missing == []
