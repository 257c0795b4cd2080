"""docs/design/scenarios.md names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
ROWS: Final = [
    row for row in (ROOT / "docs/design/scenarios.md").read_text().splitlines() if row.startswith("| `")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("`")[1])
def test_a_scenario_is_a_test_of_its_name(row: str) -> None:
    name, *files = re.findall(r"`([^`]+)`", row)
    assert files
    for file in files:
        tree = ast.parse((ROOT / file).read_text())
        tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert any(test.startswith(f"test_{name}") for test in tests), file


def test_there_are_nineteen() -> None:
    assert len(ROWS) == 19
