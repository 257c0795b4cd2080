"""A user's entries to bytes and back: str as UTF-8, bytes as they are, anything else that msgspec knows as MessagePack."""

from __future__ import annotations

import hashlib
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
        if entry_type is str or entry_type is bytes:
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

    def encode(self, entry: T) -> bytes:
        """Raises InvalidRequest if the value is not of the entry type."""
        if self.entry_type is str:
            if isinstance(entry, str):
                try:
                    return entry.encode()
                except UnicodeEncodeError as error:
                    raise InvalidRequest(f"an entry is not valid text: {error}") from error
        elif self.entry_type is bytes:
            if isinstance(entry, bytes):
                return entry
        else:
            try:
                encoded = self._encoder.encode(entry)
                self._decoder.decode(encoded)
            except Exception as error:  # a type's own `__post_init__` may raise anything
                raise InvalidRequest(f"an entry is not of type {self._name}: {error}") from error
            return encoded
        raise InvalidRequest(f"an entry is of type {type(entry).__name__}, not {self._name}")

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
