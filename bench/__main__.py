"""All figures: `python -m bench`. The comparison goes into docs/performance.md."""

from __future__ import annotations

import shutil
import sys

from bench import compare, counts, edge, failover, simulation, stability

if __name__ == "__main__":
    counts.main([])
    if shutil.which("valgrind"):
        edge.main([])
    compare.main(["--page", "docs/performance.md"])
    failover.main(["--trials", "5"])
    simulation.main(["--seeds", "0:2"])
    sys.exit(stability.main(["--minutes", "0.25"]))
