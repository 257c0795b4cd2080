"""All figures, in about twenty minutes; the comparison goes into docs/performance.md.

Each is a command of its own: `python -m bench.commit --help`.
"""

from __future__ import annotations

import argparse
import shutil
import sys

from bench import clients, commit, compare, counts, edge, failover, lag, large, length, simulation, stability

if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m bench", description=__doc__).parse_args()
    counts.main([])
    if shutil.which("valgrind"):
        edge.main([])
    compare.main(["--page", "docs/performance.md"])
    failover.main(["--trials", "10"])
    large.main([])
    clients.main([])
    commit.main(["--nodes", "1,3,5,7,9", "--in-flight", "1024", "--payload", "16", "--seconds", "1"])
    lagged = lag.main(["--seconds", "2", "--then", "5"])
    length.main([])
    simulation.main(["--seeds", "0:2"])
    sys.exit(stability.main(["--minutes", "0.25"]) or lagged)
