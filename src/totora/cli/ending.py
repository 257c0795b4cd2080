"""How a command ends: 0 it worked, 1 and one line on stderr it did not, 2 bad usage, 130 Ctrl-C, 143 SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn, TextIO

import click

from ..errors import RaftError
from .text import escape, why

__all__ = ["Commands", "Failed", "Interrupted", "Unusable", "discard", "leave"]


class Failed(Exception):
    """The command did not do what it was asked to; `str()` says why, in one line."""


class Unusable(Failed):
    """What the command was given cannot be used: as bad as bad usage."""


class Interrupted(Exception):
    """A signal ended the command; `str()` says what had become of its work, if there is anything to say."""

    def __init__(self, number: int, account: str = "") -> None:
        super().__init__(account)
        self.number = number


class Commands(click.Group):
    """A group of commands that end as this module says, whatever they raise."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read has seen enough. What is buffered must not be tried again when the interpreter ends.
            discard(sys.stdout)
            ctx.exit(1)
        except Interrupted as interrupted:
            print(_interrupted(ctx, interrupted.number, str(interrupted)), file=sys.stderr)
            ctx.exit(128 + interrupted.number)
        except KeyboardInterrupt:
            print(_interrupted(ctx, signal.SIGINT, ""), file=sys.stderr)
            ctx.exit(128 + signal.SIGINT)
        except (Failed, RaftError, OSError) as error:
            print(_named(ctx, why(error)), file=sys.stderr)
            try:
                sys.stdout.flush()
            except OSError:
                discard(sys.stdout)
            ctx.exit(2 if isinstance(error, Unusable) else 1)
        return result


def _named(ctx: click.Context, what: str) -> str:
    name = " ".join(filter(None, (ctx.command_path, ctx.invoked_subcommand)))
    return f"{name}: {escape(what)}"


def _interrupted(ctx: click.Context, number: int, account: str) -> str:
    words = "terminated" if number == signal.SIGTERM else "interrupted"
    # A terminal has written ^C.
    gap = "\n" if number == signal.SIGINT and sys.stderr.isatty() else ""
    return gap + _named(ctx, f"{words}; {account}" if account else words)


def leave(number: int) -> NoReturn:
    """End the process in a signal's handler, wherever it is: an exception might be raised where nobody passes it on."""
    os.write(2, (_interrupted(click.get_current_context(), number, "") + "\n").encode())
    os._exit(128 + number)


def discard(stream: TextIO) -> None:
    """Whatever is written there from now on, and what is buffered, goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
