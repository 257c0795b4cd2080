"""Bad usage is refused before anything is opened, in words that help; help is complete; little is imported for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tests.cli.shell import environment, totora
from tests.processes.waiting import HANG_S
from totora.cli.commands import totora as group
from totora.cli.options import parse_address, parse_nodes

NODES = "1=127.0.0.1:7001,2=127.0.0.1:7002"
AWAY = "1=10.0.0.1:7000"


def invoke(*words: str, **variables: str) -> Result:
    return CliRunner(env={"TOTORA_NODES": None, **variables}).invoke(group, words, prog_name="totora")


# -- --nodes and --bind


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("1=a:7000", {1: ("a", 7000)}),
        ("2=b:1,1=a:65535", {1: ("a", 65535), 2: ("b", 1)}),
        (" 1=10.0.0.1:7000 , 2=10.0.0.2:7000 ", {1: ("10.0.0.1", 7000), 2: ("10.0.0.2", 7000)}),
        ("1=[::1]:7000", {1: ("::1", 7000)}),
        ("1=[fe80::1%eth0]:7000", {1: ("fe80::1%eth0", 7000)}),
    ],
)
def test_nodes_are_ids_and_addresses(text: str, nodes: dict[int, tuple[str, int]]) -> None:
    assert parse_nodes(text) == nodes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not id=host:port"),
        ("1=a:7000,", "'' is not id=host:port"),
        ("a:7000", "'a:7000' is not id=host:port"),
        ("x=a:7000", "'x=a:7000' is not id=host:port"),
        ("-1=a:7000", "'-1=a:7000' is not id=host:port"),
        ("\N{ARABIC-INDIC DIGIT ONE}=a:7000", "is not id=host:port"),
        (f"{'9' * 5000}=a:7000", "is not id=host:port"),
        ("1=a", "'a' is not host:port"),
        ("1=:7000", "':7000' is not host:port"),
        ("1=a b:7000", "'a b:7000' is not host:port"),
        ("1=a:", "'a:' is not host:port"),
        ("1=a:b", "'a:b' is not host:port"),
        ("1=a:0", "'a:0' has no port from 1 to 65535"),
        ("1=a:65536", "'a:65536' has no port from 1 to 65535"),
        ("1=::1:7000", "write an IPv6 host in brackets, [::1]:7000"),
        ("0=a:7000", "a node id is a positive integer, not 0"),
        ("1=a:7000,1=b:7000", "node 1 is listed twice"),
        ("1=a:7000,2=a:7000", "nodes 1 and 2 share the address a:7000"),
    ],
)
def test_what_is_no_list_of_nodes_is_refused(text: str, says: str) -> None:
    with pytest.raises(click.BadParameter) as raised:
        parse_nodes(text)
    assert says in raised.value.message
    refused = invoke("status", "--nodes", text)
    assert refused.exit_code == 2
    assert "Invalid value for '--nodes'" in refused.stderr


def test_an_address_to_listen_on_is_host_and_port() -> None:
    assert parse_address("[::]:7000") == ("::", 7000)
    refused = invoke("node", "--id", "1", "--nodes", NODES, "--bind", "7000")
    assert refused.exit_code == 2
    assert "Invalid value for '--bind': '7000' is not host:port" in refused.stderr


# -- other options


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("status", "Missing option '--nodes'"),
        ("node --id 1", "Missing option '--nodes'"),
        (f"node --nodes {NODES}", "Missing option '--id'"),
        (f"node --nodes {NODES} --id 0", "Invalid value for '--id'"),
        (f"node --nodes {NODES} --id 3", "Invalid value for '--id': 3 is not in --nodes, which lists 1, 2."),
        (f"node --nodes {NODES} --id 1 --transport ip", "Invalid value for '--transport'"),
        (f"log --nodes {NODES} --from 0", "Invalid value for '--from'"),
        (f"log --nodes {NODES} --from 7 --to 6", "--to 6 lies before --from 7"),
        (f"log --nodes {NODES} --timeout 0", "0 is not between 0.001 and 1,000,000 seconds"),
        (f"append --nodes {NODES} --timeout nan", "nan is not between"),
        (f"append --nodes {NODES} --timeout soon", "'soon' is not a number of seconds"),
        (f"append --nodes {NODES} a b", "unexpected extra argument (b)"),
        (f"status --nodes {NODES} --tls-cert a", "belong together"),
        (f"status --nodes {NODES} --tls-cert a --tls-ca b", "belong together"),
        (f"status --nodes {NODES} --verbose", "No such option"),
        ("demo --entries 9", "Invalid value for '--entries'"),
        ("perform", "No such command 'perform'"),
    ],
)
def test_bad_usage_ends_with_2_and_says_what_is_wrong(words: str, says: str) -> None:
    refused = invoke(*words.split())
    assert refused.exit_code == 2, refused.output
    assert says in refused.stderr
    assert not refused.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            f"append --nodes {AWAY}",
            "10.0.0.1:7000 is beyond this machine: give --tls-cert, --tls-key and --tls-ca",
        ),
        (f"log --nodes {AWAY}", "10.0.0.1:7000 is beyond this machine"),
        (f"status --nodes {AWAY}", "10.0.0.1:7000 is beyond this machine"),
        (f"node --id 1 --nodes {AWAY}", "10.0.0.1:7000 is beyond this machine"),
        (f"node --id 1 --nodes {NODES} --bind 0.0.0.0:7001", "0.0.0.0:7001 is beyond this machine"),
        (
            f"node --id 1 --nodes {AWAY} --transport udp --tls-cert a --tls-key b --tls-ca c",
            "10.0.0.1:7000 is beyond this machine and UDP is never encrypted",
        ),
    ],
)
def test_plaintext_beyond_this_machine_is_refused(words: str, says: str) -> None:
    refused = invoke(*words.split())
    assert refused.exit_code == 2, refused.output
    assert says in refused.stderr
    assert "--insecure-plaintext" in refused.stderr


def test_plaintext_beyond_this_machine_may_be_allowed() -> None:
    """An address that nobody has: the command gets as far as to look for it."""
    ended = invoke("status", "--nodes", "1=nobody.invalid:7000", "--insecure-plaintext", "--timeout", "0.2")
    assert ended.exit_code == 1
    assert ended.stderr == "totora status: no node answers\n"


def test_the_environment_may_hold_what_all_commands_need(tmp_path: Path) -> None:
    """TOTORA_NODES and the files of TLS; an option goes before."""
    refused = invoke("log", "--from", "2", "--to", "1", TOTORA_NODES=NODES)
    assert "--to 1 lies before --from 2" in refused.stderr
    missing = str(tmp_path / "missing.pem")
    variables = {"TOTORA_TLS_CERT": missing, "TOTORA_TLS_KEY": missing, "TOTORA_TLS_CA": missing}
    ended = invoke("status", TOTORA_NODES=AWAY, **variables)
    assert ended.exit_code == 1
    assert ended.stderr == f"totora status: {missing}: No such file or directory\n"
    assert invoke("status", "--nodes", "", TOTORA_NODES=NODES).exit_code == 2


# -- help


@pytest.mark.parametrize("name", ["", *group.commands])
def test_help_fits_a_terminal_and_leaves_nothing_out(name: str) -> None:
    helped = invoke(*name.split(), "--help")
    assert helped.exit_code == 0
    assert max(map(len, helped.stdout.splitlines())) <= 80
    assert "..." not in helped.stdout.replace("PORT,...", "").replace("[ARGS]...", ""), (
        "a sentence is cut off"
    )
    command = group.commands[name] if name else group
    assert command.help
    assert invoke(*name.split(), "-h").stdout == helped.stdout


def test_every_option_says_what_it_does() -> None:
    for name, command in group.commands.items():
        assert command.short_help, name
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.opts}"
                assert option.help.endswith("."), f"{name} {option.opts}"
                assert max(option.opts, key=len) in invoke(name, "--help").stdout


def test_help_names_the_commands_and_the_exit_codes() -> None:
    helped = invoke("--help").stdout
    assert re.findall(r"^  ([\w-]+)  +\S", helped.partition("Commands:")[2], re.MULTILINE) == sorted(
        group.commands
    )
    assert "Exit code: 0" in helped


# -- the start


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=HANG_S,
        check=False,
    )


def test_module_and_version() -> None:
    ended = totora("--version")
    assert re.fullmatch(r"totora \d+\.\d+\.\d+\n", ended.out)
    assert (ended.code, ended.err) == (0, "")


HELP_AND_MODULES = """
import atexit, sys
atexit.register(lambda: print(*sys.modules))
from totora.cli.main import main
sys.argv = ["totora", "--help"]
main()
"""


def test_help_loads_no_event_loop_and_nothing_that_draws() -> None:
    ended = python("-c", HELP_AND_MODULES)
    modules = set(ended.stdout.splitlines()[-1].split())
    assert "totora.cli.commands" in modules
    assert {"asyncio", "rich", "ssl", "uvloop", "totora.aio", "totora.cli.demo"}.isdisjoint(modules)


@pytest.mark.parametrize(("missing", "command"), [("click", "--version"), ("rich", "demo")])
def test_without_the_extra_it_says_what_to_install(missing: str, command: str) -> None:
    """rich is wanted by whatever draws on a terminal."""
    script = f"""
import sys
sys.modules[{missing!r}] = None
sys.stdout.isatty = lambda: True
from totora.cli.main import main
sys.argv = ["totora", {command!r}]
main()
"""
    ended = python("-c", script)
    assert ended.returncode == 1
    assert ended.stderr == "totora: the command line is an extra: pip install 'totora[cli]'\n"


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_trap(closed: str) -> None:
    """A socket would else get their number, and what is printed would be sent to a node."""
    command = f"{sys.executable} -m totora.cli status --nodes 1=127.0.0.1:1 --timeout 0.2 {closed}"
    ended = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, env=environment(), timeout=HANG_S, check=False
    )
    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr
