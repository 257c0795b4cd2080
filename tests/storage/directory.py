"""A data directory as a node opens it, one with a past, and ways to look into it from outside."""

from __future__ import annotations

import random
import struct
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tests.storage.model import CONFIGURATION, Model, batch, check_summary, contents
from totora.core.batch import HEADER_BYTES, join_payloads
from totora.core.effects import HardState, Persist
from totora.core.log import Recovered
from totora.core.quorum import Configuration
from totora.sim.disk import Inode, MemoryDisk, MemoryFile
from totora.storage.identity import DataDirectory, open_directory
from totora.storage.record import RECORD_HEADER_BYTES, RecordType
from totora.storage.segment import FIRST_RECORD, SegmentHeader, read_header
from totora.storage.wal import WriteAheadLog

SEGMENT_BYTES: Final = 8 << 10
FINGERPRINT: Final = b"f" * 32


class WatchedDisk(MemoryDisk):
    """It knows which files are open."""

    def __init__(self, path: str = "/disk") -> None:
        super().__init__(path)
        self._opened: list[MemoryFile] = []

    def open(self, name: str, *, create: bool = False) -> MemoryFile:
        file = super().open(name, create=create)
        self._opened.append(file)
        return file

    @property
    def open_files(self) -> list[str]:
        self._opened = [file for file in self._opened if not file._closed]
        return [file._name for file in self._opened]


def files_of(disk: MemoryDisk) -> dict[str, bytes]:
    """All that a reader of the directory would see."""
    return {name: bytes(inode.data) for name, inode in disk.names.items()}


def disk_of(files: dict[str, bytes]) -> WatchedDisk:
    """A disk that holds these files, durably."""
    disk = WatchedDisk()
    for name, data in files.items():
        disk.names[name] = Inode(bytearray(data), bytearray(data))
    disk.durable_names = dict(disk.names)
    disk.used_bytes = sum(map(len, files.values()))
    return disk


def segments_of(files: dict[str, bytes] | MemoryDisk) -> list[str]:
    names = files.names if isinstance(files, MemoryDisk) else files
    return sorted(name for name in names if name.endswith(".log"))


@dataclass
class Opened:
    """What `totora.aio.opening` opens for a node."""

    directory: DataDirectory
    log: WriteAheadLog
    recovered: Recovered

    def close(self) -> None:
        try:
            self.log.close()
        finally:
            self.directory.release()

    def contents(self) -> Model:
        """Everything, read; what footers and fold say of it is checked."""
        found = contents(self.log, self.recovered)
        check_summary(self.recovered, found)
        return found


def open_node(
    disk: MemoryDisk,
    *,
    node_id: int = 1,
    configuration: Configuration = CONFIGURATION,
    fingerprint: bytes = FINGERPRINT,
    seed: int = 1,
    segment_bytes: int = SEGMENT_BYTES,
) -> Opened:
    """Open the directory and its log, and count the start."""
    chance = random.Random(seed)
    directory = open_directory(disk, chance, node_id, configuration, fingerprint)
    try:
        log = WriteAheadLog(
            disk,
            chance,
            store_id=directory.store_id,
            configuration=directory.identity.configuration,
            segment_bytes=segment_bytes,
            may_create=directory.identity.incarnation == 0,
        )
        recovered = log.recover()
        try:
            directory.begin()
        except BaseException:
            log.close()
            raise
    except BaseException:
        directory.release()
        raise
    return Opened(directory, log, recovered)


class Writer:
    """Writes to a log and to the model of it.

    possible: what the log may hold after a failure right now; the last one is what was asked for.
    """

    def __init__(self, log: WriteAheadLog, model: Model | None = None) -> None:
        self.log = log
        self.possible = [model or Model()]
        self._token = 0

    @property
    def model(self) -> Model:
        return self.possible[-1]

    def write(
        self,
        *sizes: int,
        term: int | None = None,
        truncate_after: int | None = None,
        hard_state: HardState | None = None,
        session: int = 0,
        sequence: int = 0,
        commit_index: int = 0,
    ) -> None:
        """One group of one write: batches of one entry each, of these sizes."""
        self._token += 1
        model = self.model
        last_index = model.last_index if truncate_after is None else truncate_after
        term = term or max(1, model.last_term)
        batches = tuple(
            batch(
                last_index + 1 + n,
                term,
                size=size,
                session=session,
                sequence=sequence + n if session else 0,
            )
            for n, size in enumerate(sizes)
        )
        write = Persist(self._token, truncate_after, hard_state, batches, commit_index)
        self.possible += model.stages(write)
        self.log.write([write])
        self.possible = [self.possible[-1]]

    def fill(self) -> None:
        """Fill the newest segment to the brim with one batch."""
        last = self.model.last_index + 1, max(1, self.model.last_term)
        overhead = RECORD_HEADER_BYTES + HEADER_BYTES + len(join_payloads([b"%d.%d." % last]))
        self.write(self.log._limit - self.log._offset - overhead)
        assert self.log._offset == self.log._limit


def tell(opened: Opened) -> Writer:
    """A past with everything in it: full segments, truncations within one and across several, a cut of a full one."""
    writer = Writer(opened.log)
    live(writer)
    return writer


def live(writer: Writer) -> None:
    """What `tell` tells, with a writer that is looked at when it fails."""
    writer.write(hard_state=HardState(1, 1))
    for sequence in range(1, 18, 3):
        writer.write(700, 20, 800, session=7, sequence=sequence)
        writer.log.reserve()
    writer.write(20, 30, 40, hard_state=HardState(2, 2), term=2, commit_index=3)
    writer.write(50, truncate_after=writer.model.last_index - 1, term=3)
    writer.write(60, truncate_after=9, term=4, hard_state=HardState(4, 1))
    while writer.log.wants_reserve:
        writer.log.reserve()
    writer.write(70, 80, 90, term=4)
    writer.write(75, 85, truncate_after=writer.model.last_index - 2, term=5)
    writer.fill()
    for _ in range(3):
        writer.write(1_500, 1_400, term=5)
        writer.write(20, term=5)
    writer.write(12_000, 10, 20, term=6)
    writer.write(hard_state=HardState(7, None), commit_index=8)
    writer.write(100, 110, 115, term=7)
    writer.write(105, 125, truncate_after=writer.model.last_index - 2, term=8)
    writer.write(120, 130, term=8)


def closed_directory(segment_bytes: int = SEGMENT_BYTES) -> tuple[dict[str, bytes], Model]:
    """The files of a directory with a past that was closed cleanly, and what its log holds."""
    disk = WatchedDisk()
    opened = open_node(disk, segment_bytes=segment_bytes)
    model = tell(opened).model
    opened.close()
    return files_of(disk), model


@dataclass(frozen=True)
class Place:
    """A record of a segment, or its footer: what stands where."""

    type: int
    offset: int
    end: int
    synced: int


def places(data: bytes) -> list[Place]:
    """The records of a segment, by their lengths alone."""
    found: list[Place] = []
    salt, offset = data[12:16], FIRST_RECORD
    while data[offset : offset + 4] == salt and (not found or found[-1].type != RecordType.FOOTER):
        length, synced = struct.unpack_from("<II", data, offset + 8)
        end = offset + RECORD_HEADER_BYTES + length
        found.append(Place(data[offset + 24], offset, end, synced))
        offset = end
    return found


def header_of(name: str, data: bytes) -> SegmentHeader:
    """The header block, decoded."""
    disk = disk_of({name: data})
    return read_header(disk, name, disk.open(name), data[16:32])


@contextmanager
def unchanged(disk: MemoryDisk) -> Generator[None]:
    """Nothing on disk changes in here, and no file, not even the lock, stays open."""
    before = files_of(disk)
    locks = set(disk.locks)
    opened = disk.open_files if isinstance(disk, WatchedDisk) else []
    yield
    assert files_of(disk) == before, "nothing on disk changed"
    assert disk.locks == locks, "the lock is given back"
    if isinstance(disk, WatchedDisk):
        assert disk.open_files == opened, "no file stays open"
