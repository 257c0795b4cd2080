"""Whose data directory this is: written at the first start, checked and counted up at each later one (DESIGN 6).

    IDENTITY      one line of JSON for people and programs, and its checksum
    LOCK          held while a node runs on the directory

`incarnation` is 0 until the log's first segment exists: from then on a directory without segments has lost them.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import msgspec

from ..core.quorum import Configuration, Member
from ..errors import ConfigurationError, RaftError
from ..ports import Disk, Lock
from ..types import NodeId, Random
from .segment import is_of_the_disk, named, storage_error

__all__ = ["IDENTITY", "LOCK", "DataDirectory", "Identity", "open_directory", "read_identity"]

FORMAT_VERSION: Final = 1
IDENTITY: Final = "IDENTITY"
LOCK: Final = "LOCK"
NEED_BYTES: Final = 8 << 10
"""What must be free to write the identity anew."""

_UNFINISHED: Final = "IDENTITY.tmp"


class _Format(msgspec.Struct):
    format: int


class _Member(msgspec.Struct, frozen=True):
    id: NodeId
    host: str
    port: int


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What the directory says of itself.

    nodes: the members with which the cluster was first started; later the log alone says who is one.
    fingerprint: of the entry type's schema, hexadecimal, as is store_id.
    """

    format: int
    node_id: NodeId
    store_id: str
    incarnation: int
    fingerprint: str
    nodes: tuple[_Member, ...]

    @property
    def configuration(self) -> Configuration:
        members = tuple(Member(node.id, node.host, node.port) for node in self.nodes)
        return Configuration(members, frozenset(node.id for node in self.nodes))


@dataclass(slots=True)
class DataDirectory:
    """An open directory. `begin` counts the start; `release` gives the lock back."""

    disk: Disk
    identity: Identity
    lock: Lock

    @property
    def store_id(self) -> bytes:
        return bytes.fromhex(self.identity.store_id)

    def begin(self) -> None:
        """Count this start, durably: to be called when the log is open, before anything leaves the node.

        Raises StorageError.
        """
        counted = msgspec.structs.replace(self.identity, incarnation=self.identity.incarnation + 1)
        with named(self.disk, IDENTITY, need_bytes=NEED_BYTES):
            _write(self.disk, counted)
        self.identity = counted

    def release(self) -> None:
        self.lock.release()


def open_directory(
    disk: Disk, random: Random, node_id: NodeId, configuration: Configuration, fingerprint: bytes
) -> DataDirectory:
    """Open the directory of node `node_id`, or make it. Raises ConfigurationError, StorageError: they say what to do."""
    path = disk.path
    try:
        disk.prepare()
        lock = disk.lock(LOCK)
    except BlockingIOError:
        raise ConfigurationError(
            f"{path} is in use by another node or process: stop it, or use another data_dir"
        ) from None
    except OSError as error:
        raise _unusable(disk, error) from error
    try:
        return DataDirectory(disk, _open(disk, random, node_id, configuration, fingerprint), lock)
    except OSError as error:
        lock.release()
        raise _unusable(disk, error) from error
    except BaseException:
        lock.release()
        raise


def _open(
    disk: Disk, random: Random, node_id: NodeId, configuration: Configuration, fingerprint: bytes
) -> Identity:
    names = disk.list()
    if IDENTITY in names:
        identity = read_identity(disk)
        _check(disk.path, identity, node_id, configuration, fingerprint)
        return identity
    _require_empty(disk.path, names)
    identity = Identity(
        format=FORMAT_VERSION,
        node_id=node_id,
        store_id=random.getrandbits(128).to_bytes(16, "big").hex(),
        incarnation=0,
        fingerprint=fingerprint.hex(),
        nodes=tuple(_Member(member.id, member.host, member.port) for member in configuration.members),
    )
    _write(disk, identity)
    return identity


def _unusable(disk: Disk, error: OSError) -> RaftError:
    if is_of_the_disk(error):
        return storage_error(disk, IDENTITY, None, error, NEED_BYTES)
    return ConfigurationError(
        f"{disk.path} cannot be used as a data directory: {error.strerror or error}; "
        "let this user write there, or use another data_dir"
    )


def _require_empty(path: str, names: list[str]) -> None:
    strangers = [name for name in names if name not in (LOCK, _UNFINISHED)]
    if strangers:
        raise ConfigurationError(
            f"{path} holds {strangers[0]} but no {IDENTITY}: restore that file from a copy, or use an empty directory"
        )


def _check(
    path: str, identity: Identity, node_id: NodeId, configuration: Configuration, fingerprint: bytes
) -> None:
    if identity.node_id != node_id:
        raise ConfigurationError(
            f"{path} belongs to node {identity.node_id}, this is node {node_id}: use its own data_dir"
        )
    if identity.fingerprint != fingerprint.hex():
        raise ConfigurationError(
            f"{path} holds entries of another type: start the node with the entry_type it was made with"
        )
    listed = ", ".join(map(str, sorted(node.id for node in identity.nodes)))
    if {node.id for node in identity.nodes} != configuration.voters:
        given = ", ".join(map(str, sorted(configuration.voters)))
        raise ConfigurationError(
            f"{path} was started with nodes {listed}, now nodes are {given}: start it with the former, "
            "members change through the log"
        )


def read_identity(disk: Disk) -> Identity:
    """What the directory says of itself. Raises ConfigurationError if that is damaged or of a newer version, OSError."""
    path = f"{disk.path}/{IDENTITY}"
    file = disk.open(IDENTITY)
    try:
        text = file.pread(file.size(), 0)
    finally:
        file.close()
    line, _, checksum = text.strip().rpartition(b"\n")
    if checksum != _checksum(line):
        raise ConfigurationError(f"{path} is damaged: restore it from a copy of this directory")
    try:
        version = msgspec.json.decode(line, type=_Format).format
        if version > FORMAT_VERSION:
            raise ConfigurationError(
                f"{path} has format {version}, this totora knows {FORMAT_VERSION}: upgrade it"
            )
        return msgspec.json.decode(line, type=Identity)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(
            f"{path} is not the identity of a totora node ({error}): restore it from a copy of this directory"
        ) from error


def _checksum(line: bytes) -> bytes:
    return f"crc32 {zlib.crc32(line):08x}".encode()


def _write(disk: Disk, identity: Identity) -> None:
    """Replace the file atomically: a crash leaves the old one or the new one."""
    line = msgspec.json.encode(identity)
    if _UNFINISHED in disk.list():
        disk.remove(_UNFINISHED)
    file = disk.open(_UNFINISHED, create=True)
    try:
        file.pwrite([line, b"\n", _checksum(line), b"\n"], 0)
        file.sync()
    finally:
        file.close()
    disk.rename(_UNFINISHED, IDENTITY)
    disk.sync_dir()
