"""The options that commands share, and what is wrong with them in the command line's own words. Opens nothing."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from ..config import checked_nodes, is_loopback
from ..errors import ConfigurationError
from ..types import Address, NodeId

if TYPE_CHECKING:
    import ssl

__all__ = [
    "Security",
    "Seeds",
    "bind_option",
    "json_option",
    "nodes_option",
    "nodes_option_or_offline",
    "offline_options",
    "parse_address",
    "parse_nodes",
    "require_encryption",
    "security_options",
    "timeout_option",
]

F = TypeVar("F", bound=Callable[..., Any])

SECONDS_MAX: Final = 1e6


class _Seconds(click.ParamType[float]):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        if not 0.001 <= seconds <= SECONDS_MAX:
            self.fail(f"{value} is not between 0.001 and {SECONDS_MAX:,.0f} seconds.", param, ctx)
        return seconds


class Seeds(click.ParamType[range]):
    """`A:B`, `A:` and `A`: a range, which may be endless (it ends at sys.maxsize then)."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> range:
        if isinstance(value, range):
            return value
        first, colon, last = str(value).partition(":")
        if not _is_number(first) or (last and not _is_number(last)):
            self.fail(f"{value!r} is not A:B, A: or a number.", param, ctx)
        begin = int(first)
        end = (int(last) if last else sys.maxsize) if colon else begin + 1
        if begin >= end or end > sys.maxsize:
            self.fail(f"{value!r} holds no seed.", param, ctx)
        return range(begin, end)


def timeout_option(default_s: float, meaning: str) -> Callable[[F], F]:
    """--timeout, in seconds."""
    return click.option(
        "--timeout", type=_Seconds(), metavar="SECONDS", default=default_s, show_default=True, help=meaning
    )


def parse_address(text: str) -> Address:
    """`host:port`, with an IPv6 host in brackets. Raises BadParameter."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or not _is_number(port) or any(c.isspace() for c in host):
        raise click.BadParameter(f"{text!r} is not host:port")
    if ":" in host and not bracketed:
        raise click.BadParameter(
            f"{text!r} is not host:port: write an IPv6 host in brackets, [{host}]:{port}"
        )
    if not 0 < int(port) < 65_536:
        raise click.BadParameter(f"{text!r} has no port from 1 to 65535")
    return host, int(port)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20


def parse_nodes(text: str) -> dict[NodeId, Address]:
    """`id=host:port,...`. Raises BadParameter."""
    pairs: list[tuple[NodeId, Address]] = []
    for part in text.split(","):
        id, equals, address = part.strip().partition("=")
        if not equals or not _is_number(id):
            raise click.BadParameter(f"{part.strip()!r} is not id=host:port, as in 1=10.0.0.1:7000")
        pairs.append((int(id), parse_address(address)))
    try:
        return checked_nodes(pairs)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from error


def _nodes_option(*, required: bool) -> Callable[[F], F]:
    return click.option(
        "--nodes",
        metavar="ID=HOST:PORT,...",
        callback=lambda context, option, text: None if text is None else parse_nodes(text),
        required=required,
        envvar="TOTORA_NODES",
        show_envvar=True,
        help="Every member's id and address, separated by commas.",
    )


nodes_option: Final = _nodes_option(required=True)
nodes_option_or_offline: Final = _nodes_option(required=False)


def offline_options(command: F) -> F:
    """--data and --offline, which belong together."""
    data = click.option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="DIRECTORY",
        help="With --offline: of a node that does not run.",
    )
    return data(click.option("--offline", is_flag=True, help="Read --data, and ask nobody.")(command))


bind_option: Final = click.option(
    "--bind",
    metavar="HOST:PORT",
    callback=lambda context, option, text: None if text is None else parse_address(text),
    help="Listen here instead of at its address in --nodes.",
)
json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line, on stdout."
)


@dataclass(frozen=True, slots=True)
class Security:
    """How to speak to others. files: certificate, key and authority; None: in plaintext."""

    files: tuple[Path, Path, Path] | None
    insecure_plaintext: bool

    def contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext] | None:
        """For a server and for a client. Raises OSError, ConfigurationError."""
        if self.files is None:
            return None
        for file in self.files:
            file.open("rb").close()  # an error that names the file: that of the TLS library names none
        from ..aio.tls import tls_contexts

        return tls_contexts(*self.files)


def require_encryption(addresses: Iterable[Address], security: Security, *, udp: bool = False) -> None:
    """Raise UsageError if plaintext would leave this machine and nobody allowed it."""
    exposed = next((f"{host}:{port}" for host, port in addresses if not is_loopback(host)), None)
    if exposed is None or security.insecure_plaintext:
        return
    if udp:
        raise click.UsageError(
            f"{exposed} is beyond this machine and UDP is never encrypted: "
            "give --insecure-plaintext if the network is trusted, or use --transport tcp"
        )
    if security.files is None:
        raise click.UsageError(
            f"{exposed} is beyond this machine: give --tls-cert, --tls-key and --tls-ca, "
            "or --insecure-plaintext if the network is trusted"
        )


def security_options(command: F) -> F:
    """Adds --tls-cert, --tls-key, --tls-ca and --insecure-plaintext, and passes them as `security`."""

    @functools.wraps(command)
    def gathered(
        *args: Any,
        tls_cert: Path | None,
        tls_key: Path | None,
        tls_ca: Path | None,
        insecure_plaintext: bool,
        **kwargs: Any,
    ) -> Any:
        files = None
        if tls_cert is not None and tls_key is not None and tls_ca is not None:
            files = (tls_cert, tls_key, tls_ca)
        elif any(file is not None for file in (tls_cert, tls_key, tls_ca)):
            raise click.UsageError("--tls-cert, --tls-key and --tls-ca belong together: give all three")
        return command(*args, security=Security(files, insecure_plaintext), **kwargs)

    for name, meaning in (
        ("--tls-ca", "PEM file of the authority that signed all certificates."),
        ("--tls-key", "PEM file of the certificate's key."),
        ("--tls-cert", "PEM file of this process's certificate; a node's names node-<id>."),
    ):
        variable = f"TOTORA_{name.removeprefix('--').replace('-', '_').upper()}"
        file = click.Path(path_type=Path)
        click.option(name, type=file, metavar="FILE", envvar=variable, show_envvar=True, help=meaning)(
            gathered
        )
    click.option("--insecure-plaintext", is_flag=True, help="Allow unencrypted traffic beyond this machine.")(
        gathered
    )
    return gathered  # type: ignore[return-value]
