"""The commands and their options; each does its work in a module of its own."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Literal

import click

from .. import __version__
from ..types import Address, NodeId
from .append import Appending
from .demo import run as run_demo
from .node import run_node
from .options import Security, bind_option, json_option, nodes_option, open_client, run, security_options
from .show import show_log, show_status

__all__ = ["totora"]

TIMEOUT_S = 30.0
"""A line waits so long for its acknowledgement: longer than any election."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="totora %(version)s")
def totora() -> None:
    """A replicated log of text: run its nodes, append to it, read it, look after it."""


@totora.command()
@click.option(
    "--id", "node_id", type=click.IntRange(min=1), required=True, help="Which of the nodes this one is."
)
@nodes_option
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of its log; without it: memory.",
)
@bind_option
@click.option(
    "--transport", type=click.Choice(["tcp", "udp"]), default="tcp", show_default=True, help="Between nodes."
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
    """Run one node until Ctrl-C."""
    run(run_node(node_id, nodes, data, bind=bind, transport=transport, security=security, as_json=as_json))


@totora.command()
@click.argument("file", type=click.File("rb"), default="-")
@nodes_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.001),
    default=TIMEOUT_S,
    show_default=True,
    help="Seconds for each line.",
)
@security_options
@json_option
def append(
    file: BinaryIO, nodes: dict[NodeId, Address], timeout: float, security: Security, as_json: bool
) -> None:
    """Append the lines of FILE (or of the standard input), in their order, each once."""
    appending = Appending(file, open_client(nodes, security), timeout)
    run(appending.run(as_json=as_json), lambda: f"interrupted; {appending.account()}")


@totora.command()
@nodes_option
@click.option(
    "--from", "first", type=click.IntRange(min=1), default=1, show_default=True, help="First index."
)
@click.option("--to", "last", type=click.IntRange(min=1), help="Last index; to the end without it.")
@security_options
@json_option
def log(
    nodes: dict[NodeId, Address], first: int, last: int | None, security: Security, as_json: bool
) -> None:
    """Print the entries: index, term and text."""
    run(show_log(open_client(nodes, security), first, last, as_json=as_json))


@totora.command()
@nodes_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.001),
    default=2.0,
    show_default=True,
    help="Seconds for a node's answer.",
)
@security_options
@json_option
def status(nodes: dict[NodeId, Address], timeout: float, security: Security, as_json: bool) -> None:
    """Show each node's role, term and indexes, and what is amiss."""
    run(show_status(open_client(nodes, security), nodes, timeout_s=timeout, as_json=as_json))


@totora.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option(
    "--entries",
    type=click.IntRange(min=10),
    default=100_000,
    show_default=True,
    help="Lines to send, without FILE.",
)
@json_option
def demo(file: Path | None, entries: int, as_json: bool) -> None:
    """Three nodes replicate the lines of FILE (or this project's own), lose their leader, and lose nothing else."""
    raise SystemExit(run_demo(file, entries=entries, json=as_json))
