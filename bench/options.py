"""The options of the commands, as all of them read theirs."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["numbers", "options_of"]


def options_of(doc: str | None, *, folder: bool = False) -> argparse.ArgumentParser:
    """A parser whose help is the module's own text. folder: it has --folder."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if folder:
        parser.add_argument(
            "--folder", type=Path, help="for the data, on the disk to be measured (default: under build/)"
        )
    return parser


def numbers(text: str) -> list[int]:
    """`1,64,1024`: each at least 1."""
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of numbers of at least 1, such as 1,64,1024"
        )
    return found
