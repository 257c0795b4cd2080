"""What the commands share: options, and how an error ends a command."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from ..aio.client import Client
from ..aio.loops import new_event_loop
from ..aio.tls import tls_contexts
from ..config import Settings, checked_nodes
from ..errors import ConfigurationError, RaftError
from ..types import Address, NodeId

__all__ = [
    "Failed",
    "Security",
    "bind_option",
    "escape",
    "json_option",
    "nodes_option",
    "open_client",
    "run",
    "security_options",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED: Final = 130

_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    9: "\\t",
    10: "\\n",
    13: "\\r",
}


def escape(text: str) -> str:
    """Text for people: control characters are shown, not obeyed."""
    return text.translate(_CONTROL)


def parse_address(text: str) -> Address:
    """`host:port`. Raises BadParameter."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise click.BadParameter(f"{text!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def parse_nodes(text: str) -> dict[NodeId, Address]:
    """`id=host:port,...`. Raises BadParameter."""
    pairs: list[tuple[NodeId, Address]] = []
    for part in text.split(","):
        id, equals, address = part.strip().partition("=")
        if not equals or not id.isdecimal():
            raise click.BadParameter(f"{part.strip()!r} is not id=host:port, as in 1=10.0.0.1:7000")
        pairs.append((int(id), parse_address(address)))
    try:
        return checked_nodes(pairs)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from error


nodes_option: Final = click.option(
    "--nodes",
    metavar="ID=HOST:PORT,...",
    callback=lambda context, option, text: parse_nodes(text),
    required=True,
    envvar="TOTORA_NODES",
    show_envvar=True,
    help="Every member's id and address, separated by commas.",
)
bind_option: Final = click.option(
    "--bind",
    metavar="HOST:PORT",
    callback=lambda context, option, text: None if text is None else parse_address(text),
    help="Listen here instead of at its address in --nodes.",
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@dataclass(frozen=True, slots=True)
class Security:
    """How to speak to others."""

    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None
    insecure_plaintext: bool


def security_options(command: F) -> F:
    """Adds --tls-cert, --tls-key, --tls-ca and --insecure-plaintext, and passes them as `security`."""

    def gathered(
        *args: Any,
        tls_cert: Path | None,
        tls_key: Path | None,
        tls_ca: Path | None,
        insecure_plaintext: bool,
        **kwargs: Any,
    ) -> Any:
        files = [file for file in (tls_cert, tls_key, tls_ca) if file is not None]
        if files and len(files) < 3:
            raise click.UsageError("--tls-cert, --tls-key and --tls-ca belong together: give all three")
        try:
            tls = tls_contexts(*files) if files else None
        except RaftError as error:
            _end(str(error), 1)
        return command(*args, security=Security(tls, insecure_plaintext), **kwargs)

    gathered.__name__, gathered.__doc__ = command.__name__, command.__doc__
    gathered.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    for name, meaning in (
        ("--tls-ca", "PEM file of the authority that signed all certificates."),
        ("--tls-key", "PEM file of its key."),
        ("--tls-cert", "PEM file of this process's certificate; a node's names node-<id>."),
    ):
        click.option(name, type=file, help=meaning)(gathered)
    click.option("--insecure-plaintext", is_flag=True, help="Allow unencrypted traffic beyond this machine.")(
        gathered
    )
    return gathered  # type: ignore[return-value]


def open_client(nodes: dict[NodeId, Address], security: Security) -> Client[str]:
    """A client of a cluster whose entries are text."""
    return Client(
        nodes,
        entry_type=str,
        tls=security.tls[1] if security.tls else None,
        insecure_plaintext=security.insecure_plaintext,
        settings=Settings(),
    )


class Failed(Exception):
    """The command did not do what it was asked to; `str()` says why, in one line."""


def _end(why: str, code: int) -> NoReturn:
    name = click.get_current_context().command_path
    print(f"{name}: {escape(why)}", file=sys.stderr)
    raise SystemExit(code)


def run(what: Coroutine[Any, Any, T], interrupted: Callable[[], str] = lambda: "interrupted") -> T:
    """Run a command to its end; errors end it in one line, Ctrl-C cleanly."""
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(what)
    except BrokenPipeError:
        raise  # click ends quietly: whoever read has seen enough
    except (Failed, RaftError, OSError) as error:
        _end(str(error), 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        _end(interrupted(), INTERRUPTED)
