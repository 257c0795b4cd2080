"""Hold each layer to its bound of branch coverage: `python tools/coverage_bounds.py build/coverage.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

BOUNDS_PERCENT: Final = {"core": 100.0, "session": 95.0, "storage": 95.0}
PACKAGE: Final = "src/totora/"


def percent(files: dict[str, Any]) -> float:
    """Lines and branches that were taken, of all that there are; nothing at all counts as 0."""
    sums = [file["summary"] for file in files.values()]
    there = sum(s["num_statements"] + s["num_branches"] for s in sums)
    taken = sum(s["covered_lines"] + s["covered_branches"] for s in sums)
    return 100.0 * taken / there if there else 0.0


def gaps(files: dict[str, Any]) -> list[str]:
    """Where the layer falls short: a line per file."""
    found: list[str] = []
    for path, file in sorted(files.items()):
        lines = ", ".join(map(str, file["missing_lines"]))
        branches = ", ".join(f"{a}->{b if b > 0 else 'exit'}" for a, b in file["missing_branches"])
        if lines or branches:
            found.append(f"    {path}: " + "; ".join(filter(None, [lines, branches])))
    return found


def main(report: str) -> int:
    """Print a line per layer, and the gaps of those below their bound; 1 if there is any."""
    all_files: dict[str, Any] = json.loads(Path(report).read_text())["files"]
    worst = 0
    for layer, bound in BOUNDS_PERCENT.items():
        files = {path: file for path, file in all_files.items() if path.startswith(f"{PACKAGE}{layer}/")}
        reached = percent(files)
        short = reached < bound
        print(f"  {layer:<8} {reached:6.2f} %  (bound {bound:g} %){'  too low' if short else ''}")
        if short:
            worst = 1
            print("\n".join(gaps(files) or ["    no file of this layer was measured"]))
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
