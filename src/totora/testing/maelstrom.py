"""A node for Jepsen's Maelstrom, workload `lin-kv`: linearizable keys and values on pipes.

    python -m totora.testing.maelstrom [--data DIRECTORY] [--timeout SECONDS] [--heartbeat SECONDS]

It takes messages on stdin, sends them on stdout and tells on stderr what happens. Any node takes any request. An error is
definite where it is certain that the request had no effect, else it is code 0.

Without --data a node keeps its log in memory, which is safe for as long as it is not killed. One that is started again is another
store: the others do not let it in. A majority that is started again knows nothing of what was, and founds another cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, assert_never

import msgspec

from ..aio.loops import new_event_loop
from ..aio.real import real_ports
from ..config import Settings
from ..errors import InvalidRequest, NotAppended, RaftError
from ..ports import Ports
from ..sim.key_value import CompareAndSet, Get, Put
from .maelstrom_messages import (
    Cas,
    Code,
    Datagram,
    Ending,
    Init,
    Lines,
    Packet,
    Read,
    Reply,
    Request,
    Write,
    encode_packet,
    one_spelling,
)
from .maelstrom_node import MaelstromNetwork, MaelstromNode, Outcome

__all__ = ["Contract", "main"]

UNSENT_BYTES_MAX: Final = 4 << 20
"""While more waits to be read by the network, messages to other nodes are dropped, as on any network."""

NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
"""Names of nodes; each is a directory within --data."""

SEGMENT_BYTES: Final = 1 << 20

_PACKET: Final = msgspec.json.Decoder(Packet)
_REQUEST: Final[msgspec.json.Decoder[Request]] = msgspec.json.Decoder(Request)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_KNOWN: Final = frozenset(("init", "read", "write", "cas", "totora"))

_BAD_JSON: Final = (msgspec.MsgspecError, ValueError, RecursionError)


def log(words: str) -> None:
    """A line of diagnostics. That nobody reads it is no reason to stop a node."""
    with contextlib.suppress(OSError):
        sys.stderr.write(words.translate(_ESCAPES) + "\n")


_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class Contract:
    """Maelstrom's side of a node: lines become requests, outcomes become replies.

    write: a line to the network. unsent_bytes: what waits there. open_ports: the node's ports, by its name.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        unsent_bytes: Callable[[], int],
        open_ports: Callable[[str], Ports],
        settings: Settings,
    ) -> None:
        self._write = write
        self._unsent_bytes = unsent_bytes
        self._open_ports = open_ports
        self._settings = settings
        self._name: str | None = None
        self._called = "?"
        self._node: MaelstromNode | None = None
        self._opening: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    # -- lines

    def line(self, line: bytes) -> None:
        """One line of the network."""
        try:
            packet = _PACKET.decode(line)
        except _BAD_JSON as error:
            log(f"passed over a line that is no message: {error}")
            return
        self._called = packet.dest
        try:
            request = _REQUEST.decode(packet.body)
        except _BAD_JSON as error:
            self._misunderstood(packet, error)
            return
        match request:
            case Init():
                self._init(packet.src, request)
            case Datagram():
                if self._node is not None:
                    self._node.network.deliver(packet.src, request.datagram.encode())
            case Read() | Write() | Cas():
                self._requested(packet.src, request)
            case _:
                assert_never(request)

    def overlong(self) -> None:
        log("passed over a line that is too long")

    def _misunderstood(self, packet: Packet, error: Exception) -> None:
        """What is known of it decides how it is answered."""
        log(f"message of {packet.src} is not understood: {error}")
        try:
            body = _OBJECT.decode(packet.body)
        except _BAD_JSON:
            body = {}
        number = body.get("msg_id")
        if type(number) is not int or "in_reply_to" in body:
            return  # Nobody waits for an answer.
        kind = body.get("type")
        if isinstance(kind, str) and kind not in _KNOWN:
            self._fail(packet.src, number, Code.NOT_SUPPORTED, f"type {kind!r} is not known here")
        else:
            self._fail(packet.src, number, Code.MALFORMED_REQUEST, str(error))

    # -- init

    def _init(self, client: str, init: Init) -> None:
        names = sorted(set(init.node_ids))
        if init.node_id not in names or not all(map(NAME.fullmatch, names)):
            log("init makes no sense")
            why = "node_ids are names of letters and digits, and node_id is one of them"
            self._fail(client, init.msg_id, Code.MALFORMED_REQUEST, why)
        elif self._opening is not None:
            self._fail(client, init.msg_id, Code.ABORT, f"this is {self._name} already")
        else:
            self._name = init.node_id
            self._opening = asyncio.ensure_future(self._open(client, init, names))

    async def _open(self, client: str, init: Init, names: list[str]) -> None:
        def ports(network: MaelstromNetwork) -> Ports:
            return replace(self._open_ports(init.node_id), network=network)

        node = MaelstromNode(init.node_id, names, ports, self._settings, self._send)
        try:
            await node.start()
        except Exception as error:
            self._fail(client, init.msg_id, Code.CRASH, str(error))
            self.failed.set_result(error)
            return
        self._node = node
        self._reply(client, Reply("init_ok", init.msg_id))
        cause = await node.stopped()
        if cause is not None and not self.failed.done():
            self.failed.set_result(cause)

    async def stop(self) -> None:
        if self._node is not None:
            await self._node.stop()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)

    # -- requests

    def _requested(self, client: str, request: Read | Write | Cas) -> None:
        node = self._node
        if node is None:
            self._fail(client, request.msg_id, Code.TEMPORARILY_UNAVAILABLE, "not initialized yet")
            return
        answered = partial(self._answered, client, request)
        try:
            key = one_spelling(request.key)
            match request:
                case Read():
                    node.ask(Get(key), answered)
                case Write():
                    node.carry_out(Put(key, one_spelling(request.value)), answered)
                case Cas():
                    if request.create_if_not_exists:
                        self._fail(client, request.msg_id, Code.NOT_SUPPORTED, "create_if_not_exists is not")
                        return
                    old, new = one_spelling(request.old), one_spelling(request.new)
                    node.carry_out(CompareAndSet(key, old, new), answered)
        except RaftError as error:
            answered(error)
        except _BAD_JSON as error:
            self._fail(client, request.msg_id, Code.MALFORMED_REQUEST, str(error))

    def _answered(self, client: str, request: Read | Write | Cas, outcome: Outcome) -> None:
        number = request.msg_id
        if isinstance(outcome, RaftError):
            self._fail(client, number, _code_of(outcome, is_read=isinstance(request, Read)), str(outcome))
            return
        match request:
            case Write():
                self._reply(client, Reply("write_ok", number))
            case _ if outcome is None:
                self._fail(client, number, Code.KEY_DOES_NOT_EXIST, "no such key")
            case Read():
                self._reply(client, Reply("read_ok", number, value=msgspec.Raw(str(outcome).encode())))
            case Cas() if outcome == one_spelling(request.old):
                self._reply(client, Reply("cas_ok", number))
            case Cas():
                self._fail(client, number, Code.PRECONDITION_FAILED, f"the value is {outcome}")
            case _:
                assert_never(request)

    # -- sending

    def _fail(self, client: str, number: int, code: Code, why: str) -> None:
        self._reply(client, Reply("error", number, code=int(code), text=why))

    def _reply(self, client: str, reply: Reply) -> None:
        self._write(encode_packet(self._name or self._called, client, reply))

    def _send(self, name: str, data: bytes) -> None:
        assert self._name is not None, "a node that sends has a name"
        if self._unsent_bytes() <= UNSENT_BYTES_MAX:
            self._write(encode_packet(self._name, name, Datagram(data.decode())))


def _code_of(error: RaftError, *, is_read: bool) -> Code:
    """Definite only where it is certain; a read never has an effect."""
    if isinstance(error, InvalidRequest):
        return Code.NOT_SUPPORTED
    if is_read or isinstance(error, NotAppended):
        return Code.TEMPORARILY_UNAVAILABLE
    return Code.TIMEOUT


async def _serve(data: str | None, settings: Settings) -> int:
    """Until the network closes the pipes, or SIGTERM; 1 if the node failed."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not over.done():
            over.set_result(None)

    def open_ports(name: str) -> Ports:
        return replace(real_ports(None if data is None else os.path.join(data, name), None), log=_tell)

    try:
        output, _ = await loop.connect_write_pipe(lambda: Ending(end), sys.stdout)
    except ValueError:
        log("stdin and stdout must be pipes, sockets or terminals, not files")
        return 2
    contract = Contract(output.write, output.get_write_buffer_size, open_ports, settings)
    lines = Lines(contract.line, end, contract.overlong)
    source, _ = await loop.connect_read_pipe(lambda: lines, sys.stdin)
    loop.add_signal_handler(signal.SIGTERM, end)
    await asyncio.wait((over, contract.failed), return_when=asyncio.FIRST_COMPLETED)
    await contract.stop()
    source.close()
    output.close()
    if contract.failed.done():
        log(f"failed: {contract.failed.result()}")
        return 1
    return 0


def _tell(level: str, event: str, fields: dict[str, Any]) -> None:
    log(" ".join([level, event, *(f"{name}={value}" for name, value in fields.items())]))


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.001 <= seconds <= 3600:
        raise ValueError
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        "totora.testing.maelstrom", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        metavar="DIRECTORY",
        help="keep each node's log in a directory of its name in here; new for each run",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        default=0.9,
        help="how long a request may wait; default 0.9",
    )
    parser.add_argument(
        "--heartbeat",
        type=_seconds,
        metavar="SECONDS",
        default=0.05,
        help="default 0.05; elections take 6 to 12 of them, so it is to be more than the network's latency",
    )
    options = parser.parse_args(arguments)
    settings = Settings(
        transport="udp",
        heartbeat_s=options.heartbeat,
        election_min_s=6 * options.heartbeat,
        election_max_s=12 * options.heartbeat,
        request_timeout_s=options.timeout,
        segment_bytes=SEGMENT_BYTES,
        entry_max_bytes=32 << 10,
        batch_max_bytes=256 << 10,
    )
    with asyncio.Runner(loop_factory=new_event_loop) as runner, contextlib.suppress(KeyboardInterrupt):
        return runner.run(_serve(options.data, settings))
    return 130


if __name__ == "__main__":
    sys.exit(main())
