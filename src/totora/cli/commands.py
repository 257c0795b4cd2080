"""The commands and their options. Each does its work in a module of its own, loaded when it is called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal

import click

from .. import __version__
from ..types import Address, NodeId
from .ending import Commands
from .options import (
    Security,
    Seeds,
    bind_option,
    json_option,
    nodes_option,
    nodes_option_or_offline,
    offline_options,
    require_encryption,
    security_options,
    timeout_option,
)

__all__ = ["totora"]

INDEX: Final = click.IntRange(min=1)


_ENDING: Final = """\b
Exit code: 0 it worked; 1 it did not, stderr says why in one line;
           2 bad usage; 130 Ctrl-C; 143 SIGTERM, but 0 for a node."""

_HELP: Final = """A replicated log of text: run its nodes, append to it, read it, look after it.

\b
totora demo                          see it survive kill -9
export TOTORA_NODES=1=127.0.0.1:7001,2=127.0.0.1:7002,3=127.0.0.1:7003
totora node --id 1 --data data/1     one node; likewise 2 and 3
totora append FILE                   send lines to them
totora log                           read them
totora status                        see how the nodes are
totora transfer                      let another one lead
totora verify --data data/1          check a stopped node's directory
totora simulate                      look for what could ever go wrong
"""


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, help=_HELP, epilog=_ENDING
)
@click.version_option(__version__, message="totora %(version)s")
def totora() -> None:
    """The group; what it does is in its help."""


@totora.command(short_help="Run one node until Ctrl-C.")
@click.option(
    "--id", "node_id", type=INDEX, metavar="N", required=True, help="Which of the nodes this one is."
)
@nodes_option
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIRECTORY",
    help="Where its log is kept, made if need be; without it: in memory, lost with the process.",
)
@bind_option
@click.option(
    "--transport",
    type=click.Choice(["tcp", "udp"]),
    default="tcp",
    show_default=True,
    help="Between nodes; the same for all of them.",
)
@security_options
@json_option
def node(
    node_id: NodeId,
    nodes: dict[NodeId, Address],
    data: Path | None,
    bind: Address | None,
    transport: Literal["tcp", "udp"],
    security: Security,
    as_json: bool,
) -> None:
    """Run one node until SIGTERM or Ctrl-C, and tell on stderr what happens to it.

    --json: the same on stdout, as objects with at (seconds since 1970), level, event and node, and what belongs to the
    event: peer, term, leader, address, cause and the like.
    """
    if node_id not in nodes:
        listed = ", ".join(map(str, nodes))
        raise click.BadParameter(f"{node_id} is not in --nodes, which lists {listed}.", param_hint="'--id'")
    require_encryption(
        nodes.values() if bind is None else (bind, *nodes.values()), security, udp=transport == "udp"
    )
    from .node import run_node

    run_node(node_id, nodes, data, bind=bind, transport=transport, security=security, as_json=as_json)


@totora.command(short_help="Append lines of text, each once, in order.")
@click.argument("file", type=click.Path(), default="-")
@nodes_option
@timeout_option(30.0, "So long may a line wait for its acknowledgement.")
@security_options
@json_option
def append(
    file: str, nodes: dict[NodeId, Address], timeout: float, security: Security, as_json: bool
) -> None:
    """Append the lines of FILE, or of the standard input, in their order, each exactly once.

    A line is UTF-8, at most 1 MiB, and ends in LF or CR LF. The command ends when all lines are on stable storage on a
    majority, or with the first that is not: it says then how many are appended, and of how many that is not known.

    --json: one object with appended, unknown, first_index, last_index and seconds, also if it fails.
    """
    require_encryption(nodes.values(), security)
    from .append import append_lines

    append_lines(file, nodes, security, timeout_s=timeout, as_json=as_json)


@totora.command(short_help="Print the entries.")
@nodes_option_or_offline
@offline_options
@click.option("--from", "first", type=INDEX, metavar="N", default=1, show_default=True, help="First index.")
@click.option("--to", "last", type=INDEX, metavar="M", help="Last index; without it: to the end.")
@timeout_option(5.0, "So long may an answer take.")
@security_options
@json_option
def log(
    nodes: dict[NodeId, Address] | None,
    data: Path | None,
    offline: bool,
    first: int,
    last: int | None,
    timeout: float,
    security: Security,
    as_json: bool,
) -> None:
    """Print the entries that are committed now: index, term and text, with control characters escaped.

    Indexes may skip: the cluster's own entries take places too. A range may reach beyond the end.

    With --offline: what the directory --data of a stopped node holds, committed or not; it stays as it is. Entries that are
    not text are shown as JSON.

    --json: objects with index, term and value.
    """
    if last is not None and last < first:
        raise click.UsageError(f"--to {last} lies before --from {first}")
    if offline != (data is not None):
        raise click.UsageError("--data and --offline belong together: stop the node, then read its directory")
    if data is not None:
        from .offline import print_offline

        print_offline(data, first, last, as_json=as_json)
        return
    if nodes is None:
        raise click.MissingParameter(param_type="option", param_hint="'--nodes' (env var: 'TOTORA_NODES')")
    require_encryption(nodes.values(), security)
    from .log import print_log

    print_log(nodes, security, first, last, timeout_s=timeout, as_json=as_json)


@totora.command(short_help="Check a stopped node's data directory.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIRECTORY",
    required=True,
    help="Of a node that does not run.",
)
@json_option
def verify(data: Path, as_json: bool) -> None:
    """Read all of a data directory, while no node runs there, and tell whose it is and what it holds; it stays as it is.

    Fails if anything is damaged, and names each segment's first damage by file and offset, and what to do about it.

    --json: one object with sound, damages and, unless the end of the log is damaged, node, cluster_id, store_id, incarnation,
    term, voted_for, first_index, last_index, commit_index, voters and segments.
    """
    from .offline import verify as verify_data

    verify_data(data, as_json=as_json)


@totora.command(short_help="Show how each node is, and what is amiss.")
@nodes_option
@timeout_option(2.0, "So long may a node's answer take.")
@security_options
@json_option
def status(nodes: dict[NodeId, Address], timeout: float, security: Security, as_json: bool) -> None:
    """Show each node's role, term and last, commit and applied index, and what is amiss: why there is no leader, say.

    Fails only if no node answers.

    --json: an object for each node, with id, address and either error or role, term, leader, last_index, commit_index,
    applied_index, durable_index, cluster_id, store_id, incarnation, volatile, peers and why.
    """
    require_encryption(nodes.values(), security)
    from .status import print_status

    print_status(nodes, security, timeout_s=timeout, as_json=as_json)


@totora.command(short_help="Have the leader hand over to another node.")
@nodes_option
@click.option(
    "--to", "target", type=INDEX, metavar="N", help="To this node; without it: to the one that holds most."
)
@timeout_option(5.0, "So long may it take.")
@security_options
@json_option
def transfer(
    nodes: dict[NodeId, Address], target: NodeId | None, timeout: float, security: Security, as_json: bool
) -> None:
    """Have the leader hand over, before its machine is stopped, say. What is asked for meanwhile waits for a round of votes.

    A node that is stopped by SIGTERM does so by itself.

    --json: one object with leader, the node that leads now.
    """
    require_encryption(nodes.values(), security)
    from .transfer import hand_over

    hand_over(nodes, security, target, timeout_s=timeout, as_json=as_json)


@totora.command("check-history", short_help="Is what clients saw linearizable?")
@click.argument("file", type=click.Path(), default="-")
@json_option
@click.pass_context
def check_history(context: click.Context, file: str, as_json: bool) -> None:
    """Check the history in FILE, or on the standard input: could each operation have taken effect at one instant between its
    call and its return?

    A line is one operation, as JSON: client, op (get, put, append, cas or delete), key, value (of a cas: [old, new]), status
    (ok, fail or unknown), call_ns and return_ns. If the answer is no, the smallest part that cannot be explained is shown.

    Exit code: 0 linearizable; 1 not, or not decided; 2 the file cannot be read, or a line makes no sense.

    --json: one object with linearizable (null: not decided), operations, keys, violations and undecided.
    """
    from .check_history import check_file

    if not check_file(file, as_json=as_json):
        context.exit(1)


@totora.command(short_help="See three nodes lose their leader, and nothing else.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--entries",
    type=click.IntRange(min=10),
    metavar="N",
    default=300_000,
    show_default=True,
    help="Lines to send, without FILE.",
)
@json_option
def demo(file: Path | None, entries: int, as_json: bool) -> None:
    """Three nodes on this machine replicate the lines of FILE, or of this project's own pages and sources.

    Half way the leader is killed with SIGKILL, later it is started again. At the end the three logs are read from disk
    and compared with the text, entry by entry. Fails if an acknowledged line is missing, doubled or out of order on any.

    --json: objects with event and at_s, and what belongs to the event: progress, started, elected, killed, took_over,
    restarted, caught_up, acknowledged, stopped, finding; verified or failed is the last.
    """
    from .demo import run_demo

    run_demo(file, entries=entries, as_json=as_json)


@totora.command(short_help="Play clusters under faults, and check all they do.")
@click.option(
    "--seeds",
    type=Seeds(),
    metavar="A:B",
    default="0:1000",
    show_default=True,
    help="From A up to, not including, B; A: has no end, a number is one seed. With --hours or --minutes: from 0 on.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 86_400),
    metavar="S",
    default=60.0,
    show_default=True,
    help="A run's length, simulated; peace and checks follow.",
)
@click.option(
    "--hours",
    type=click.FloatRange(0, min_open=True),
    metavar="H",
    help="End after so many simulated ones, the ledger's included.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="M",
    help="End after so many of real time.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 1_024),
    metavar="N",
    default=lambda: os.cpu_count() or 1,
    show_default="one per processor",
    help="Processes.",
)
@click.option(
    "--faults",
    metavar="KINDS",
    default="all",
    show_default=True,
    help="What may go wrong: all, none, or kinds between commas.",
)
@click.option("--list-faults", is_flag=True, help="Say what each kind of fault does.")
@click.option(
    "--workload",
    type=click.Choice(["log", "kv", "all"]),
    show_default="all; log with --replay",
    help="What clients do. all: each seed once with each.",
)
@click.option("--size", type=click.IntRange(1, 9), metavar="N", help="Nodes; without it the seed says.")
@click.option(
    "--transport", type=click.Choice(["tcp", "udp"]), help="Between nodes; without it the seed says."
)
@click.option(
    "--rate",
    type=click.FloatRange(0.01, 1_000),
    metavar="R",
    default=5.0,
    show_default=True,
    help="Operations a second.",
)
@click.option(
    "--ledger",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Note what was played, and play only what it lacks.",
)
@click.option(
    "--shrink/--no-shrink",
    default=True,
    show_default=True,
    help="Cut what breaks a property to the least that does.",
)
@click.option(
    "--cases",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIRECTORY",
    default=".",
    show_default=True,
    help="Where files of shrunk runs go.",
)
@click.option(
    "--replay",
    "replayed",
    metavar="SEED|FILE",
    help="Play this one run instead, from its seed or a shrunk run's file.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --replay: write all that nodes do.",
)
@click.option(
    "--history",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --replay: write what clients of kv saw.",
)
@json_option
@click.pass_context
def simulate(context: click.Context, /, as_json: bool, **options: Any) -> None:
    """Play clusters of the very node that production runs, in simulated time, with clients and faults, one run for each seed.

    Every step is checked against Raft's specification, every answer against the log, and in the end all nodes must
    serve and agree. A seed always gives the same run. Fails if a property breaks, and says how to see it again.

    --json: objects with event: violation, failed, shrunk, not_shrunk; summary is the last. With --replay: replayed.
    """
    from .simulate_options import carry_out

    carry_out(context, as_json=as_json, **options)


@totora.command(short_help="Check a trace against Raft's specification.")
@click.argument("file", type=click.Path(), default="-")
@json_option
def check_trace(file: str, as_json: bool) -> None:
    """Check the trace in FILE, or in the standard input, against the executable specification of Raft.

    The trace may be of any implementation; the guide has its format. Fails at the first step that is not allowed, and
    says what the node did and what is allowed.

    --json: one object with ok, steps, starts, voters, highest_term and committed_index, or error; if it is refused also
    line, rule, node, why, allowed, before and record.
    """
    from .check_trace import check_file

    check_file(file, as_json=as_json)
