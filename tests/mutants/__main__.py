"""`python -m tests.mutants [NAME...]`: how many random runs it takes to catch each planted bug."""

from __future__ import annotations

import argparse
import statistics
import sys
from concurrent.futures import as_completed

import msgspec

from tests.mutants.hunt import SEEDS_MAX, Catch, hunt
from tests.mutants.page import KNOWN_FILE, PAGE_FILE, known, page
from tests.planted import BUGS, LIKELY
from totora.sim.workers import Workers


def line(catch: Catch) -> str:
    found = "not caught" if catch.seed is None else f"seed {catch.seed}"
    return (
        f"{catch.name:49} {found:>10} {catch.seeds:5} runs {catch.simulated_s:9,.0f} s simulated "
        f"{catch.real_s:7,.1f} s  {catch.broken or ''}"
    )


def write_down(catch: Catch) -> None:
    """Into the file and the page, at once: what a hunt that is stopped has found so far stays."""
    catches = {known.name: known for known in known() if known.name in LIKELY}
    # What differs from machine to machine is left out.
    catches[catch.name] = msgspec.structs.replace(catch, real_s=0.0)
    ordered = [catches[name] for name in LIKELY if name in catches]
    KNOWN_FILE.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
    PAGE_FILE.write_text(page(ordered))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="bugs of the catalogue; none: all that are likely to be met"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="give a bug up after so many")
    parser.add_argument(
        "--write", action="store_true", help=f"write into {KNOWN_FILE.name} and {PAGE_FILE.name}"
    )
    options = parser.parse_args()
    names = options.names or list(LIKELY)
    if options.jobs < 1 or options.seeds < 1:
        parser.error("--jobs and --seeds are 1 or more")
    if unknown := [name for name in names if name not in BUGS]:
        parser.error(f"no such bug: {', '.join(unknown)}")
    caught = []
    with Workers(options.jobs) as workers:
        for done in as_completed([workers.submit(hunt, name, range(options.seeds)) for name in names]):
            catch = done.result()
            if catch.seed is not None:
                caught.append(catch.seeds)
            print(line(catch), flush=True)
            if options.write:
                write_down(catch)
    print(f"{len(caught)} of {len(names)} bugs caught", end="")
    print(f", the median within {statistics.median(caught):g} runs" if caught else "")
    return 0 if len(caught) == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
