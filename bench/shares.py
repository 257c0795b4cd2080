"""Where the leader's loop spends its time, by layer: read from the files that `bench.commit --profile` writes.

    python -m bench.commit --in-flight 1,64,1024 --payload 16 --profile build/profile
    python -m bench.shares build/profile/*.prof

One line of a table a layer, a column a file: microseconds a commit, as cProfile counts them, which makes calls of Python
dearer than they are. What waits in the kernel for something to happen is not in it.
"""

from __future__ import annotations

import pstats
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from bench.options import options_of

__all__ = ["main", "shares"]

LAYERS: Final = ("core", "session", "wire", "storage", "aio")
CALLERS: Final = "the load's own"
BUILT_IN: Final = "built-in functions, the system's calls among them"


def shares(path: Path) -> dict[str, float]:
    """Microseconds a commit, by layer. Raises ValueError for a file of something else."""
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, Any]]
    stats = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]
    spent_s: dict[str, float] = defaultdict(float)
    commits = 0
    for (file, _, name), (_, calls, own_s, _, _) in stats.items():
        spent_s[_layer(file)] += own_s
        if name == "propose" and file.endswith("face.py"):
            commits += calls
    if not commits:
        raise ValueError(f"{path} is of no load that proposes")
    return {layer: seconds * 1e6 / commits for layer, seconds in spent_s.items()}


def _layer(file: str) -> str:
    parts = Path(file).parts
    if "totora" in parts:
        inside = parts[len(parts) - parts[::-1].index("totora")]
        return inside if inside in LAYERS else "totora's rest"
    return BUILT_IN if file == "~" else CALLERS


def main(arguments: list[str] | None = None) -> None:
    parser = options_of(__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        columns = [shares(path) for path in options.files]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    layers = [
        layer for layer in (*LAYERS, "totora's rest", BUILT_IN, CALLERS) if any(layer in c for c in columns)
    ]
    print("| microseconds a commit |", " | ".join(path.stem for path in options.files), "|")
    print("|---" * (len(columns) + 1) + "|")
    for layer in layers:
        print(f"| {layer} |", " | ".join(f"{column.get(layer, 0):.2f}" for column in columns), "|")
    print("| all |", " | ".join(f"{sum(column.values()):.2f}" for column in columns), "|")


if __name__ == "__main__":
    main()
