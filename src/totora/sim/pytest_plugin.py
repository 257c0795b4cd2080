"""A pytest plugin: a test that plays with a cluster runs once for each seed.

    @pytest.mark.simulate(seeds=200, machine=Bank, entry_type=Command)
    def test_no_money_is_lost(cluster):
        cluster.chaos(work=lambda: cluster.apply(transfer(cluster.chance)))
        assert cluster.query(Total()) == 100

The first seed that fails ends the test, and its report says how to run that seed alone: `pytest TEST --simulate-seed N`. If all
pass, some run once more in another process with another PYTHONHASHSEED: what comes out otherwise hangs on the order of a set.

pytest is imported here and nowhere else; it loads this module by itself, once totora is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
from _pytest.runner import runtestprotocol

if TYPE_CHECKING:
    from .cluster import Cluster

SEEDS: Final = 100

REPEATED_MAX: Final = 3
"""So many seeds run again under another PYTHONHASHSEED."""

HANG_S: Final = 600

_SEED: Final = pytest.StashKey[int]()
_DIGESTS: Final = pytest.StashKey[dict[int, str]]()
_PICTURE: Final = pytest.StashKey[str]()


@dataclass(frozen=True, kw_only=True)
class _Marked:
    """The arguments of the mark.

    seeds: how many. size, machine, entry_type, settings: as of `Cluster`. start: whether all nodes run when the test begins.
    seconds: for so long from then on there are random faults, of the kinds in `faults` (None: all that nodes come back from).
    hash_seeds: whether it runs again under another PYTHONHASHSEED.
    """

    seeds: int = SEEDS
    size: int = 3
    machine: Any = None
    entry_type: Any = str
    settings: Any = None
    start: bool = True
    seconds: float = 0.0
    faults: Any = None
    hash_seeds: bool = True


def _marked(item: pytest.Item) -> _Marked | None:
    mark = item.get_closest_marker("simulate")
    if mark is None:
        return None
    known = [field.name for field in fields(_Marked)]
    unknown = sorted(set(mark.kwargs) - set(known))
    if mark.args or unknown:
        wrong = "arguments without a name" if mark.args else ", ".join(unknown)
        raise pytest.UsageError(f"{item.nodeid}: simulate has no {wrong}; it takes {', '.join(known)}")
    marked = _Marked(**mark.kwargs)
    if marked.seeds < 1:
        raise pytest.UsageError(f"{item.nodeid}: seeds is at least 1, not {marked.seeds}")
    return marked


# -- options


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulate", "simulated clusters (totora)")
    group.addoption(
        "--simulate-seed", type=int, metavar="N", help="run each simulated test with this seed alone"
    )
    group.addoption(
        "--simulate-seeds",
        type=int,
        metavar="N",
        help="run each simulated test with N seeds, whatever it says",
    )
    group.addoption(
        "--simulate-digests",
        metavar="FILE",
        help="for the plugin's own use: write down what each seed came to",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "simulate(seeds=100, size=3, machine=None, entry_type=str, seconds=0, faults=None, ...): "
        "run the test once for each seed, each time with a new `cluster` (see totora.sim)",
    )
    if config.getoption("simulate_seed") is not None and config.getoption("simulate_seeds") is not None:
        raise pytest.UsageError("--simulate-seed and --simulate-seeds exclude each other")
    seeds: int | None = config.getoption("simulate_seeds")
    if seeds is not None and seeds < 1:
        raise pytest.UsageError(f"--simulate-seeds is at least 1, not {seeds}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        _marked(item)


def _seeds(config: pytest.Config, marked: _Marked) -> range:
    alone: int | None = config.getoption("simulate_seed")
    if alone is not None:
        return range(alone, alone + 1)
    return range(config.getoption("simulate_seeds") or marked.seeds)


# -- fixtures


@pytest.fixture
def simulate_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run of the test."""
    alone: int | None = request.config.getoption("simulate_seed")
    seed: int = request.node.stash.get(_SEED, 0 if alone is None else alone)
    return seed


@pytest.fixture
def cluster(request: pytest.FixtureRequest, simulate_seed: int) -> Iterator[Cluster]:
    """A `totora.sim.Cluster` as the test's mark `simulate` describes it; all its nodes run."""
    from .cluster import CHAOS, Cluster

    marked = _marked(request.node) or _Marked()
    with Cluster(
        marked.size,
        seed=simulate_seed,
        machine=marked.machine,
        entry_type=marked.entry_type,
        settings=marked.settings,
    ) as cluster:
        if marked.start:
            cluster.start()
        if marked.seconds:
            cluster.storm(marked.seconds, CHAOS if marked.faults is None else marked.faults)
        yield cluster
        # What there is to check was checked at the end of the test; if that failed, nothing more is to be said.
        cluster.close()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    cluster: Any = pyfuncitem.funcargs.get("cluster")
    marked = _marked(pyfuncitem)
    if cluster is None or marked is None:
        return (yield)
    try:
        result = yield
        if marked.seconds:
            cluster.settle()
        cluster.check()
    except Exception as error:
        picture = str(cluster)
        if picture not in "\n".join((str(error), *getattr(error, "__notes__", ()))):
            pyfuncitem.stash[_PICTURE] = picture
        raise
    pyfuncitem.stash[_DIGESTS][pyfuncitem.stash[_SEED]] = cluster.trace_sha256
    return result


# -- once for each seed


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    marked = _marked(item)
    if marked is None:
        return None
    from .guard import guarded

    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    with guarded():
        reports = _each_seed(item, nextitem, _seeds(item.config, marked))
    if all(report.passed for report in reports):
        _compare_with_another_process(item, marked, reports)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _each_seed(item: pytest.Item, nextitem: pytest.Item | None, seeds: range) -> list[pytest.TestReport]:
    """The reports of the first seed that fails, or of the last one; they tell the time of all."""
    item.stash[_DIGESTS] = {}
    took_s = {"setup": 0.0, "call": 0.0, "teardown": 0.0}
    reports: list[pytest.TestReport] = []
    for number, seed in enumerate(seeds, start=1):
        item.stash[_SEED] = seed
        item._report_sections.clear()
        # Between two seeds the test is taken down, and what it shares with others stays.
        last = seed == seeds[-1]
        reports = runtestprotocol(
            item, log=False, nextitem=nextitem if last else cast(pytest.Item, item.parent)
        )
        for report in reports:
            took_s[report.when] += report.duration
        if not all(report.passed for report in reports):
            _tell(item, reports, seed, number, len(seeds))
            if not last:
                reports += _take_down(item, nextitem)
            break
    for report in reports:
        report.duration = took_s[report.when]
    return reports


def _take_down(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """What the test shared with others and the next one does not need; a report if that fails."""
    ended = pytest.CallInfo.from_call(lambda: item.session._setupstate.teardown_exact(nextitem), "teardown")
    return [] if ended.excinfo is None else [pytest.TestReport.from_item_and_call(item, ended)]


def _tell(item: pytest.Item, reports: list[pytest.TestReport], seed: int, number: int, of: int) -> None:
    for report in reports:
        if report.failed:
            before = f"after {number - 1} that passed" if number > 1 else "the first"
            told = (
                f"seed {seed} fails, {before}, of {of}\nalone: pytest '{item.nodeid}' --simulate-seed {seed}"
            )
            report.sections.insert(0, ("simulation", told))
            if report.when == "call" and (picture := item.stash.get(_PICTURE, None)) is not None:
                report.sections.insert(1, ("cluster", picture))


# -- the order of sets


def _compare_with_another_process(
    item: pytest.Item, marked: _Marked, reports: list[pytest.TestReport]
) -> None:
    """Marks the test as failed if a seed comes out otherwise under another PYTHONHASHSEED."""
    config, digests = item.config, item.stash[_DIGESTS]
    file: str | None = config.getoption("simulate_digests")
    if file is not None:
        Path(file).write_text("".join(f"{seed} {digest}\n" for seed, digest in digests.items()))
        return
    if not marked.hash_seeds or not digests:
        return
    why = _differs(item, dict(list(digests.items())[:REPEATED_MAX]))
    if why is not None:
        for report in reports:
            if report.when == "call":
                report.outcome, report.longrepr = "failed", why


def _differs(item: pytest.Item, digests: dict[int, str]) -> str | None:
    config = item.config
    hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    alone: int | None = config.getoption("simulate_seed")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "digests")
        which = f"--simulate-seeds={len(digests)}" if alone is None else f"--simulate-seed={alone}"
        command = [
            sys.executable,
            "-m",
            "pytest",
            *_as_here(config),
            which,
            f"--simulate-digests={file}",
            item.nodeid,
        ]
        ended = subprocess.run(
            command,
            cwd=config.rootpath,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        if ended.returncode != 0 or not file.exists():
            return (
                f"the test passes here, but not in a process of its own with PYTHONHASHSEED={hash_seed} "
                f"(hash_seeds=False in the mark leaves that out):\n\n{ended.stdout}"
            )
        there = dict(line.split() for line in file.read_text().splitlines())
    for seed, digest in digests.items():
        if there.get(str(seed)) != digest:
            return (
                f"seed {seed} is another run in a process with PYTHONHASHSEED={hash_seed}: the order of a set, or an address in "
                "memory, reaches what the state machine does or what the test asks of it, or the test draws otherwise than "
                "from cluster.chance.\nIterate over sorted(...), or keep a dict, which has an order of its own.\n"
                f"alone: PYTHONHASHSEED={hash_seed} pytest '{item.nodeid}' --simulate-seed {seed}"
            )
    return None


def _as_here(config: pytest.Config) -> list[str]:
    """Options with which another pytest finds the same test."""
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={config.rootpath}",
        f"--import-mode={config.getoption('importmode')}",
    ]
    if config.inipath is not None:
        options += ["-c", str(config.inipath)]
    for plugin in config.getoption("plugins") or ():
        if plugin != "no:terminal":
            options += ["-p", plugin]
    for override in config.getoption("override_ini") or ():
        options += ["-o", override]
    for warning in config.getoption("pythonwarnings") or ():
        options += ["-W", warning]
    if config.pluginmanager.has_plugin("xdist"):
        options.append("-n0")
    if config.pluginmanager.has_plugin("pytest_cov"):
        options.append("--no-cov")
    return options
