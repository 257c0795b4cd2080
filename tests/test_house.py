"""The house is in order: what is published, what is linked, what is imported, what is named."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

import totora
import totora.core

ROOT: Final = Path(__file__).parents[1]
BINARY: Final = {".gif", ".ico", ".png", ".woff2"}


def run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def files() -> list[Path]:
    """What is committed or about to be: all that git does not ignore."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        named = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
        found = [ROOT / name for name in named if name]
    except (OSError, subprocess.CalledProcessError):  # no git, or not a repository of this user's
        tops = ["src", "tests", "bench", "docs", "tools", "requirements", "examples"]
        found = [*ROOT.glob("*.*"), ROOT / "Makefile", *(p for top in tops for p in (ROOT / top).rglob("*"))]
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


# -- the package -----------------------------------------------------------------------------------


def test_metadata_says_what_is_so() -> None:
    metadata = importlib.metadata.metadata("totora")
    assert metadata["Version"] == totora.__version__, (
        "run `make setup`: the installed metadata is of another version"
    )
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    always = [r for r in importlib.metadata.requires("totora") or [] if "extra ==" not in r]
    assert [re.split(r"[^\w-]", r)[0] for r in always] == ["msgspec"], "msgspec is the only dependency"


def test_console_script_exists() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="totora")
    assert callable(script.load())


def test_public_names_are_importable_sorted_and_not_repeated() -> None:
    names: list[str] = list(getattr(totora, "__all__", []))
    assert len(names) == len(set(names))
    for name in names:
        assert hasattr(totora, name), f"totora.__all__ names {name}, which is not there"


def test_importing_totora_costs_no_extra() -> None:
    """`import totora` loads neither what an extra brings nor the command line."""
    heavy = {"click", "rich", "uvloop", "totora.cli"}
    loaded = run("-c", "import sys, totora; print(*sys.modules)").split()
    assert heavy.isdisjoint(loaded)


@pytest.mark.ci
def test_built_wheel_is_typed_licensed_and_works(tmp_path: Path) -> None:
    """sdist, the wheel from it, and an import from there: without network."""
    run("-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT))
    (sdist,) = tmp_path.glob("totora-*.tar.gz")
    (wheel,) = tmp_path.glob("totora-*-py3-none-any.whl")
    assert totora.__version__ in sdist.name
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    packed = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    info = f"totora-{totora.__version__}.dist-info"
    assert {"totora/py.typed", f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= packed
    assert {name.split("/")[0] for name in packed} == {"totora", info}, "nothing else gets into site-packages"
    source = ROOT / "src"
    expected = {p.relative_to(source).as_posix() for p in source.rglob("*.py")}
    assert expected <= packed
    where = run("-c", "import totora; print(totora.__file__)", cwd=tmp_path, PYTHONPATH=str(site))
    assert Path(where.strip()).is_relative_to(site)


# -- the layers ------------------------------------------------------------------------------------


def test_imports_point_downward() -> None:
    """The contracts in pyproject.toml: the layers of the design, and no I/O from storage down."""
    run("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache")


# -- the pages -------------------------------------------------------------------------------------

LINK: Final = re.compile(r"(?<!`)!?\[[^\]]*\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)")
NAME: Final = re.compile(r"`([\w.]+)`")
TEST: Final = re.compile(r"^def (test_\w+)", re.MULTILINE)
FENCE: Final = re.compile(r"^(```+|~~~+).*?^\1", re.MULTILINE | re.DOTALL)


def test_relative_links_lead_somewhere() -> None:
    broken: list[str] = []
    for page in files():
        if page.suffix != ".md":
            continue
        name = page.relative_to(ROOT).as_posix()
        for target in LINK.findall(FENCE.sub("", page.read_text())):
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            if not there.exists():
                broken.append(f"{name}: {target} does not exist")
            elif anchor and there.suffix == ".md" and anchor not in anchors(there):
                broken.append(f"{name}: {path or 'this page'} has no heading #{anchor}")
    assert not broken, "\n".join(broken)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_of_figure_2_names_what_exists() -> None:
    """Its functions are in the core, its tests in tests/core, and each rule has one of both."""
    defined = {
        name
        for path in (ROOT / "tests" / "core").glob("test_*.py")
        for name in TEST.findall(path.read_text())
    }
    page = (ROOT / "ARCHITECTURE.md").read_text().partition("## Figure 2, rule by rule")[2]
    rows = [
        line.split("|")[1:4]
        for line in page.splitlines()
        if line.startswith("| ") and not line.startswith("| rule ")
    ]
    assert len(rows) > 25
    for rule, functions, tests in rows:
        for name in NAME.findall(functions):
            thing: object = totora.core
            importlib.import_module(f"totora.core.{name.split('.')[0]}")
            for part in name.split("."):
                thing = getattr(thing, part, None)
            assert callable(thing), f"{rule.strip()}: no function {name}"
        assert NAME.findall(functions), f"{rule.strip()} names no function"
        assert NAME.findall(tests), f"{rule.strip()} names no test"
        missing = set(NAME.findall(tests)) - defined
        assert not missing, f"{rule.strip()}: no test {missing}"


# -- names that have no business here --------------------------------------------------------------

# Written in pieces, so that this file does not name them either.
REGISTRIES: Final = [
    "py" + r"pi\.org",
    "python" + r"hosted\.org",
    "npm" + r"js\.(?:org|com)",
    "crates" + r"\.io",
    "proxy" + r"\.golang\.org",
]
MACHINE: Final = [
    r"(?<![\w.$}~-])/(?:" + "|".join(["ro" + "ot", "ho" + "me", "wo" + "rk", "Us" + "ers"]) + r")/\w"
]
UNWANTED: Final = re.compile("|".join([*REGISTRIES, *MACHINE]))


def test_no_file_names_a_registry_or_a_path_of_a_machine() -> None:
    found: list[str] = []
    for path in files():
        if path.suffix in BINARY:
            continue
        name = path.relative_to(ROOT).as_posix()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if UNWANTED.search(line):
                found.append(f"{name}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


def test_pins_are_hashed_and_cover_what_is_asked_for() -> None:
    asked = re.findall(r"^[\w-]+", (ROOT / "requirements" / "dev.in").read_text(), re.MULTILINE)
    pinned = (ROOT / "requirements" / "dev.txt").read_text()
    blocks = re.split(r"\n(?=\S)", pinned.strip())
    names = {re.split(r"[=\[ ]", block)[0] for block in blocks}
    assert set(asked) <= names, "run `make pins`"
    assert "://" not in pinned, "addresses are the installer's business"
    for block in blocks:
        assert re.match(r"[\w.-]+==\S+ ", block), block
        assert "--hash=sha256:" in block, block
