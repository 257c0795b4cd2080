"""What random runs hardly ever show, the test that is named beside it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.planted import BUGS, LIKELY

ROOT = Path(__file__).parents[2]

RUN = """
import sys, pytest
from tests.planted import planted

name, by, folder = sys.argv[1:]
with planted(name):
    options = ["--basetemp", folder, "-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    sys.exit(pytest.main([*options, "-k", by, "tests/core", "tests/session", "tests/storage", "tests/scenarios"]))
"""


@pytest.mark.ci
@pytest.mark.parametrize("name", sorted(set(BUGS) - set(LIKELY)))
def test_an_unlikely_bug_is_caught_by_its_test(name: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", RUN, name, BUGS[name].by, str(tmp_path / "inner")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=300,
    )
    told = ended.stdout.decode()
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, told
    assert f"::{BUGS[name].by}" in told, told
