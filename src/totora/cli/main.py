"""The command `totora`; says so where its extra is not installed."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit: 0 it worked, 1 it did not, 2 bad usage, 130 Ctrl-C."""
    try:
        from .commands import totora
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        print("totora: the command line is an extra: pip install 'totora[cli]'", file=sys.stderr)
        sys.exit(1)
    totora.main(prog_name="totora")
