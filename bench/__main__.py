"""All figures, short: `python -m bench`."""

from __future__ import annotations

import sys

from bench import commit, failover, simulation, stability

if __name__ == "__main__":
    commit.main(["--seconds", "1.5"])
    failover.main(["--trials", "5"])
    simulation.main(["--seeds", "0:2"])
    sys.exit(stability.main(["--minutes", "0.25"]))
