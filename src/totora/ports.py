"""What a node needs from outside, kept low, so that a simulator runs the very same node.

Everything above these protocols (handshake, framing, write-ahead log, retries) is the node's own and the same in
production and under simulation. One incarnation of a node has one set of ports; a simulated crash makes all of them
deaf, so that no later call, clean-up code included, has any effect.

Callbacks run on the node's one event loop, never inside the call that asked for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from .core.effects import Effect
from .core.events import Event
from .core.raft import Raft
from .types import Address, Random

__all__ = [
    "LARGE_BYTES",
    "Clock",
    "Datagrams",
    "Disk",
    "File",
    "Listener",
    "Lock",
    "Network",
    "Observer",
    "Ports",
    "Random",
    "StateMachine",
    "Stream",
    "StreamHandler",
    "Timer",
    "Worker",
]

LARGE_BYTES: Final = 64 << 10
"""A part of this size costs more to be joined with others than to be handed to the system beside them."""

T = TypeVar("T")
CommandT_contra = TypeVar("CommandT_contra", contravariant=True)
QueryT_contra = TypeVar("QueryT_contra", contravariant=True)
ResultT_co = TypeVar("ResultT_co", covariant=True)
AnswerT_co = TypeVar("AnswerT_co", covariant=True)


class StateMachine(Protocol[CommandT_contra, ResultT_co, QueryT_contra, AnswerT_co]):
    """What a user replicates: every node applies the same commands in the same order (section 2).

    Nothing but the state and the argument may decide what a call does: no clock, no chance, no order of a set.
    """

    def apply(self, command: CommandT_contra, /) -> ResultT_co:
        """Carry out a committed command; called once for each, in the order of the log."""
        ...

    def query(self, query: QueryT_contra, /) -> AnswerT_co:
        """Answer from the state; changes nothing."""
        ...


class StreamHandler(Protocol):
    """The node's end of a byte stream: what it is told."""

    def connected(self, stream: Stream) -> None:
        """The stream is open (and, with TLS, the peer's certificate is verified). Called once, first."""
        ...

    def received(self, data: bytes | memoryview) -> None:
        """Bytes arrived; `data` is valid only during the call."""
        ...

    def lost(self, error: Exception | None) -> None:
        """The stream is closed, or could not be opened; None: the other end closed it. Called once, last."""
        ...


class Stream(Protocol):
    """The network's end of a byte stream: ordered, reliable while it lasts."""

    @property
    def peer(self) -> str:
        """The other end's address, for people."""
        ...

    @property
    def peer_names(self) -> frozenset[str] | None:
        """The DNS names in the peer's verified certificate; None without TLS."""
        ...

    @property
    def buffered_bytes(self) -> int:
        """What was written and has not left yet: senders must bound it."""
        ...

    def write(self, parts: Sequence[bytes]) -> None:
        """Queue these bytes, joined; nothing happens on a lost stream."""
        ...

    def close(self) -> None:
        """Send what is queued, then close; `lost` follows."""
        ...

    def abort(self) -> None:
        """Close at once, dropping what is queued; `lost` follows."""
        ...


class Listener(Protocol):
    """A bound address."""

    @property
    def address(self) -> Address: ...

    def close(self) -> None: ...


class Datagrams(Protocol):
    """A bound datagram socket."""

    @property
    def address(self) -> Address: ...

    def send(self, to: Address, data: bytes) -> None:
        """Send one datagram; it may be lost, doubled or overtaken, and a full buffer drops it."""
        ...

    def close(self) -> None: ...


class Network(Protocol):
    """Streams and datagrams. With TLS set up in the port, every stream is mutually authenticated."""

    def listen(self, address: Address, accept: Callable[[], StreamHandler]) -> Awaitable[Listener]:
        """Bind and accept; OSError if the address cannot be bound."""
        ...

    def connect(self, address: Address, handler: StreamHandler) -> None:
        """Open a stream: `handler.connected` or `handler.lost` tells how it went."""
        ...

    def datagrams(self, address: Address, received: Callable[[Address, bytes], None]) -> Awaitable[Datagrams]:
        """Bind a datagram socket; OSError if the address cannot be bound."""
        ...


class File(Protocol):
    """An open file. Blocking: called on a Worker. Raises OSError."""

    def pread(self, size_bytes: int, offset: int) -> bytes:
        """Up to `size_bytes`, fewer only at the end of the file."""
        ...

    def pwrite(self, parts: Sequence[bytes | memoryview], offset: int, *, sync: bool = False) -> None:
        """Write all parts, one behind the other.

        sync: and return once they are on stable storage, with all that is needed to read them. A failure is final.
        """
        ...

    def allocate(self, size_bytes: int) -> None:
        """Have room for at least so much, without writing it: what is new reads as zeros."""
        ...

    def sync(self) -> None:
        """Return once data and size are on stable storage. A failure is final: never call it again."""
        ...

    def size(self) -> int: ...

    def close(self) -> None: ...


class Lock(Protocol):
    """A held lock file; the system releases it when the process dies."""

    def release(self) -> None: ...


class Disk(Protocol):
    """One data directory. Names are plain file names in it. Blocking: called on a Worker. Raises OSError."""

    @property
    def path(self) -> str:
        """Where it is, for messages."""
        ...

    def prepare(self) -> None:
        """Create the directory (mode 0700, parents as needed) if it is missing, durably."""
        ...

    def list(self) -> list[str]:
        """The names of all files, sorted."""
        ...

    def open(self, name: str, *, create: bool = False) -> File:
        """Open for reading and writing; `create` makes a new file (mode 0600), which must not exist."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Replace atomically; durable only after `sync_dir`."""
        ...

    def remove(self, name: str) -> None:
        """Durable only after `sync_dir`."""
        ...

    def sync_dir(self) -> None: ...

    def lock(self, name: str) -> Lock:
        """Take the lock file or raise BlockingIOError at once if another process (or node) holds it."""
        ...


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """The only source of time; integers, nanoseconds."""

    def now_ns(self) -> int:
        """Monotonic."""
        ...

    def wall_ns(self) -> int:
        """Since the epoch; may jump."""
        ...

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        """Call back at a monotonic time, after everything that has arrived by then."""
        ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in this turn of the loop, after what is ready now."""
        ...


class Worker(Protocol):
    """Work off the loop, in the order of submission."""

    def submit(self, job: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        """Run `job`; `done(result, None)` or `done(None, error)` follows on the loop."""
        ...

    def close(self) -> None:
        """Finish what was submitted; its `done` is still called."""
        ...


class Observer(Protocol):
    """Whoever watches the core of a node, for traces and checks. It changes nothing."""

    def opened(self, raft: Raft) -> None:
        """The log is open, nothing has happened yet."""
        ...

    def stepped(self, raft: Raft, event: Event, effects: list[Effect]) -> None:
        """A step was taken; its effects are not carried out yet."""
        ...


@dataclass(slots=True, frozen=True)
class Ports:
    """All of them, for one incarnation of one node. `disk` is None for a volatile node."""

    network: Network
    clock: Clock
    random: Random
    disk: Disk | None
    writer: Worker
    reader: Worker
    log: Callable[[str, str, dict[str, Any]], None]
    """log(level, event, fields): facts, past tense, never payloads."""
    observer: Observer | None = None
