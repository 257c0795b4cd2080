"""A user's entries to bytes and back: str as UTF-8, bytes as they are, anything else that msgspec knows as MessagePack."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, Generic, TypeVar, cast

import msgspec

from ..errors import ConfigurationError, InvalidRequest

__all__ = ["EntryCodec"]

T = TypeVar("T")


class EntryCodec(Generic[T]):
    """Encodes and checks entries of one type.

    fingerprint: 16 bytes that are equal where the types' schemas are: every member of a cluster must have the same.
    Raises ConfigurationError for a type that msgspec does not support.
    """

    def __init__(self, entry_type: type[T] | UnionType) -> None:
        self.entry_type = entry_type
        self.encode: Callable[[T], bytes] = self._encode
        """Raises InvalidRequest if the value is not of the entry type."""
        if entry_type is str or entry_type is bytes:
            self.encode = cast(Any, _encode_text if entry_type is str else _encode_bytes)
            form = f"raw {entry_type.__name__}".encode()
        else:
            try:
                self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(entry_type)
                schema = msgspec.json.schema(entry_type)
            except (TypeError, NotImplementedError, NameError) as error:
                raise ConfigurationError(
                    f"entry_type {entry_type!r} is not supported by msgspec: {error}"
                ) from error
            # In no particular order: with one, msgspec takes only text for the keys of a dict.
            self._encoder = msgspec.msgpack.Encoder()
            form = b"msgpack " + msgspec.json.encode(schema, order="deterministic")
        self.fingerprint = hashlib.sha256(form).digest()[:16]

    def _encode(self, entry: T) -> bytes:
        try:
            encoded = self._encoder.encode(entry)
            self._decoder.decode(encoded)
        except Exception as error:  # a type's own `__post_init__` may raise anything
            raise InvalidRequest(f"an entry is not of type {self._name}: {error}") from error
        return encoded

    def encode_all(self, entries: Sequence[T]) -> Sequence[bytes]:
        """Each as `encode` does it; with no call for each where they need none."""
        if self.entry_type is bytes and set(map(type, entries)) == {bytes}:
            return cast(Sequence[bytes], entries)
        return tuple(map(self.encode, entries))

    def decode(self, payload: bytes | memoryview) -> T:
        """Raises ValueError if the bytes are not of the entry type."""
        if self.entry_type is str:
            return cast(T, str(payload, "utf-8"))
        if self.entry_type is bytes:
            return cast(T, bytes(payload))
        try:
            return self._decoder.decode(payload)
        except ValueError:
            raise
        except Exception as error:  # nested too deep, a set of lists, or what `__post_init__` raises
            raise ValueError(f"{type(error).__name__}: {error}") from error

    @property
    def _name(self) -> str:
        return cast(str, getattr(self.entry_type, "__name__", cast(Any, repr(self.entry_type))))


def _encode_bytes(entry: object) -> bytes:
    if isinstance(entry, bytes):
        return entry
    raise InvalidRequest(f"an entry is of type {type(entry).__name__}, not bytes")


def _encode_text(entry: object) -> bytes:
    if not isinstance(entry, str):
        raise InvalidRequest(f"an entry is of type {type(entry).__name__}, not str")
    try:
        return entry.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"an entry is not valid text: {error}") from error
