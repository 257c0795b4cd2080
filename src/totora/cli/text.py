"""Words for people: control characters are shown and not obeyed, one thing is not called many."""

from __future__ import annotations

import os
from typing import Final, TextIO

import msgspec

__all__ = ["count", "escape", "is_colorful", "to_json", "why"]

_TURNS: Final = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks that change the direction of what follows: text is not always what it looks like."""

_BREAKS: Final = (0x2028, 0x2029)

_ESCAPES: Final = (
    {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
    | {code: f"\\u{code:04x}" for code in (*_TURNS, *_BREAKS)}
    | {9: "\\t", 10: "\\n", 13: "\\r"}
)


_JSON_ESCAPES: Final = {code: f"\\u{code:04x}" for code in (*range(127, 160), *_TURNS, *_BREAKS)}


def escape(text: str) -> str:
    """Text for people, on one line; ordinary text stays as it is."""
    return text.translate(_ESCAPES)


def to_json(value: object) -> str:
    """One line of JSON. What JSON would leave as it is, and a terminal obeys or a program takes for a line's end, is escaped."""
    return msgspec.json.encode(value).decode().translate(_JSON_ESCAPES)


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 line`, `1,024 lines`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def why(error: Exception) -> str:
    """An error's reason in one sentence."""
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename is not None else ""
        return f"{named}{error.strerror}"
    return str(error) or type(error).__name__


def is_colorful(stream: TextIO) -> bool:
    """A terminal whose user wants colours."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
