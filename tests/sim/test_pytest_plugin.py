"""The pytest plugin: a test runs once for each seed, and what it prints is enough to run the seed that failed alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import pytest

pytest_plugins = ["pytester"]

ROOT: Final = Path(__file__).parents[2]
Run: TypeAlias = Callable[..., pytest.RunResult]

HEAD: Final = """
import pytest
from totora.sim.key_value import Append, Command, Get, KeyValue, Put
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Run a file of tests in a process of its own, warnings as errors."""

    def play(source: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=HEAD + source)
        return pytester.runpytest_subprocess("-W", "error", "-p", "no:randomly", "-rA", *options)

    return play


def printed(result: pytest.RunResult) -> str:
    return result.stdout.str()


SEEDS = """
seen = []

@pytest.mark.simulate(seeds=7, hash_seeds=False)
def test_seeds(cluster, simulate_seed):
    assert cluster.seed == simulate_seed
    assert cluster.running == {1, 2, 3}
    seen.append(simulate_seed)
    print("seed", simulate_seed)

def test_what_was_seen():
    print("seen", seen)
"""


@pytest.mark.parametrize(
    ("options", "seeds"),
    [
        ((), [0, 1, 2, 3, 4, 5, 6]),
        (("--simulate-seeds", "2"), [0, 1]),
        (("--simulate-seed", "5"), [5]),
    ],
)
def test_a_test_runs_once_for_each_seed_and_is_one_report(
    run: Run, options: tuple[str, ...], seeds: list[int]
) -> None:
    result = run(SEEDS, *options)
    result.assert_outcomes(passed=2)
    assert f"seen {seeds}" in printed(result)
    assert printed(result).count("PASSED test_it.py::test_seeds") == 1
    told = re.findall(r"^seed \d$", printed(result), re.MULTILINE)
    assert told == [f"seed {seeds[-1]}"], "what the last run printed, and no other"


FAILS = """
@pytest.fixture(scope="module")
def shared():
    yield []
    print("shared is taken down")

@pytest.mark.simulate(seeds=50)
def test_fails(cluster, shared):
    shared.append(cluster.seed)
    assert cluster.seed < 3, f"after {shared}"

def test_next(shared):
    assert shared == [0, 1, 2, 3]
"""


def test_the_first_seed_that_fails_ends_the_test_and_can_be_run_alone(run: Run) -> None:
    result = run(FAILS)
    result.assert_outcomes(passed=1, failed=1)
    assert "AssertionError: after [0, 1, 2, 3]" in printed(result)
    result.stdout.fnmatch_lines([
        "*- simulation -*",
        "seed 3 fails, after 3 that passed, of 50",
        "alone: pytest 'test_it.py::test_fails' --simulate-seed 3",
        "*- cluster -*",
        "seed 3, at *",
        "node  role *",
    ])  # fmt: skip
    alone = run(FAILS, "--simulate-seed", "3", "test_it.py::test_fails")
    alone.assert_outcomes(failed=1)
    alone.stdout.fnmatch_lines(["*AssertionError: after [[]3]", "seed 3 fails, the first, of 1"])
    assert printed(result).count("shared is taken down") == 1


def test_what_tests_share_is_taken_down_before_the_next_module(run: Run, pytester: pytest.Pytester) -> None:
    """Though the test before ended in the middle of its seeds."""
    pytester.makepyfile(test_later='def test_later():\n    print("this is later")\n')
    result = run(FAILS, "test_it.py::test_fails", "test_later.py", "-s")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*shared is taken down", "*this is later"])


FINDS = """
import itertools, random, time

class Late(KeyValue):
    def apply(self, command):
        self.values["when"] = time.time()

@pytest.mark.simulate(seeds=1, machine=Late, entry_type=Command)
def test_clock(cluster):
    cluster.apply(Put("x", 1))

class Each(KeyValue):
    born = itertools.count()
    def __init__(self):
        super().__init__()
        self.number = next(self.born)

@pytest.mark.simulate(seeds=1, machine=Each, entry_type=Command)
def test_replicas(cluster):
    cluster.apply(Put("x", 1))
    cluster.settle()

class Ordered(KeyValue):
    def apply(self, command):
        super().apply(command)
        return list({command.key, *"bcdefghi"})

@pytest.mark.simulate(seeds=1, machine=Ordered, entry_type=Command)
def test_result_in_the_order_of_a_set(cluster):
    cluster.apply(Put("x", 1))

class Remembers(KeyValue):
    def apply(self, command):
        self.values["all"] = "".join({command.key, *"bcdefghi"})

@pytest.mark.simulate(seeds=1, machine=Remembers, entry_type=Command)
def test_state_in_the_order_of_a_set(cluster):
    cluster.apply(Put("x", 1))

@pytest.mark.simulate(seeds=1, machine=KeyValue, entry_type=Command)
def test_script_that_draws_for_itself(cluster):
    cluster.apply(Put("x", random.randrange(1 << 60)))

class Sorted(KeyValue):
    def apply(self, command):
        self.values["all"] = sorted({command.key, *"bcdefghi"})
        return {command.key, *"bcdefghi"}

@pytest.mark.simulate(seeds=1, machine=Sorted, entry_type=Command)
def test_sets_are_no_harm_in_themselves(cluster):
    cluster.apply(Put("x", 1))
    cluster.settle()

@pytest.mark.simulate(seeds=1, machine=Ordered, entry_type=Command, hash_seeds=False)
def test_nobody_looks(cluster):
    cluster.apply(Put("x", 1))
"""


def test_what_would_be_another_run_is_found(run: Run) -> None:
    """In the first run: a clock with its line, replicas with the place, the order of sets with what to do."""
    result = run(FINDS)
    result.assert_outcomes(passed=2, failed=5)
    text = printed(result)
    assert re.search(
        r"NondeterminismError: .*test_it\.py:8: Late\.apply calls time\.time\(\), which is different", text
    )
    assert "Divergence: after the same 1 commands the machines of nodes 1 and 2 differ at .number: " in text
    for name in (
        "result_in_the_order_of_a_set",
        "state_in_the_order_of_a_set",
        "script_that_draws_for_itself",
    ):
        assert re.search(
            rf"^alone: PYTHONHASHSEED=\d+ pytest 'test_it\.py::test_{name}' --simulate-seed 0$",
            text,
            re.MULTILINE,
        ), name
    assert text.count("seed 0 is another run in a process with PYTHONHASHSEED=") >= 3
    assert "Iterate over sorted(...)" in text


def test_a_test_that_fails_only_under_another_hash_seed_says_so(run: Run) -> None:
    result = run("""
import os

@pytest.mark.simulate(seeds=2)
def test_it(cluster):
    here = os.environ.get("PYTHONHASHSEED", "random")
    assert os.environ.setdefault("HASH_SEED_OF_THE_FIRST", here) == here
""")
    result.assert_outcomes(failed=1)
    assert "the test passes here, but not in a process of its own with PYTHONHASHSEED=" in printed(result)


STORM = """
@pytest.mark.simulate(seeds=2, seconds=10, size=5, hash_seeds=False, machine=KeyValue, entry_type=Command)
def test_storm(cluster):
    cluster.advance(10)
    assert len(cluster.ids) == 5
    assert cluster._injector.injected

@pytest.mark.simulate(seeds=1, seconds=30, hash_seeds=False, faults=["kill"])
def test_kinds(cluster):
    cluster.advance(30)
    assert set(cluster._injector.injected) == {"kill"}

@pytest.mark.simulate(seeds=1, hash_seeds=False, start=False)
def test_nobody_runs(cluster):
    assert cluster.running == set()

def test_without_a_mark(cluster):
    assert cluster.seed == 0 and cluster.propose("x")

@pytest.mark.simulate(seeds=3)
def test_without_a_cluster(simulate_seed):
    from totora.sim import Plan, simulate
    assert simulate(Plan(seed=simulate_seed, seconds=3)).violation is None

class TestOfAClass:
    pytestmark = pytest.mark.simulate(seeds=2, size=1, hash_seeds=False)

    @pytest.mark.parametrize("value", ["a b", "c::d"])
    def test_it(self, cluster, value):
        assert cluster.propose(value).value == value

@pytest.mark.simulate(seeds=2)
def test_skips(cluster):
    pytest.skip("not today")

@pytest.mark.simulate(seeds=2)
@pytest.mark.xfail(strict=True)
def test_is_known_to_fail(cluster):
    assert False
"""


def test_the_mark_describes_the_cluster_and_its_faults(run: Run) -> None:
    run(STORM).assert_outcomes(passed=7, skipped=1, xfailed=1)


@pytest.mark.ci
def test_it_goes_with_xdist(run: Run) -> None:
    run(STORM + FINDS, "-n", "2").assert_outcomes(passed=9, failed=5, skipped=1, xfailed=1)


MISUSE: Final = {
    "simulate(seed=3)": "simulate has no seed; it takes seeds, size, machine",
    "simulate(20)": "simulate has no arguments without a name",
    "simulate(seeds=0)": "seeds is at least 1, not 0",
}


@pytest.mark.parametrize("mark", MISUSE)
def test_a_mark_that_makes_no_sense_is_named(run: Run, mark: str) -> None:
    result = run(f"@pytest.mark.{mark}\ndef test_it(cluster): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"test_it.py::test_it: {MISUSE[mark]}" in result.stderr.str()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--simulate-seed", "1", "--simulate-seeds", "2"), "exclude each other"),
        (("--simulate-seeds", "0"), "at least 1"),
        (("--simulate-seed", "x"), "invalid int value"),
    ],
)
def test_options_that_make_no_sense_are_named(run: Run, options: tuple[str, ...], message: str) -> None:
    result = run(SEEDS, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str()


def test_it_tells_what_it_offers(pytester: pytest.Pytester) -> None:
    assert "simulate(seeds=100, size=3" in pytester.runpytest_subprocess("--markers").stdout.str()
    told = pytester.runpytest_subprocess("--help").stdout.str()
    assert "--simulate-seed=N" in told
    assert "--simulate-seeds=N" in told


def test_a_run_of_pytest_without_simulations_loads_none(pytester: pytest.Pytester) -> None:
    """It is loaded with every pytest where totora is installed: it must cost nothing there."""
    pytester.makepyfile("""
        import sys

        def test_it():
            loaded = {name for name in sys.modules if name.startswith("totora.")}
            assert "totora.sim.pytest_plugin" in loaded
            assert not {"totora.aio", "totora.sim.cluster", "totora.sim.guard", "totora.sim.world"} & loaded
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


# -- the example of the guide


def test_the_bug_of_the_guide_is_found_and_what_the_guide_shows_is_printed(pytester: pytest.Pytester) -> None:
    for name in ("bank.py", "test_bank.py"):
        folder = (
            pytester.mkdir("examples")
            if not (pytester.path / "examples").exists()
            else pytester.path / "examples"
        )
        (folder / name).write_text((ROOT / "examples" / name).read_text())
    pytester.makeini("[pytest]\npythonpath = .\n")
    result = pytester.runpytest_subprocess("-W", "error", "--simulate-seeds", "12", "examples/test_bank.py")
    result.assert_outcomes(passed=1, failed=1)
    lines = {shape(line) for line in result.outlines}
    guide = (ROOT / "docs" / "guide" / "testing-your-machine.md").read_text()
    shown = re.search(
        r"^```text\n\$ pytest examples/test_bank\.py\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL
    )
    assert shown is not None
    for line in shown[1].splitlines():
        assert line == "..." or shape(line) in lines, line
    alone = re.search(r"^alone: pytest '(\S+)' (--simulate-seed) (\d+)$", printed(result), re.MULTILINE)
    assert alone is not None
    pytester.runpytest_subprocess(*alone.groups()).assert_outcomes(failed=1)


def shape(line: str) -> str:
    """Numbers belong to a run."""
    return re.sub(r"\d+(\.\d+)?", "N", line).rstrip()
