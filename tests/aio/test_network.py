"""The real network port: what it binds it gives back, and every stream's handler is told one end, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from functools import partial
from typing import Any, Final

import pytest

from tests.aio.certificates import Authority, run_on
from tests.processes.waiting import eventually
from totora.aio.network import AsyncioNetwork
from totora.cli.demo_cluster import free_addresses
from totora.ports import Stream
from totora.types import Address

LOOPS: Final = pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])


class Handler:
    """What it was told, in order."""

    def __init__(self, *, fails: bool = False) -> None:
        self.told: list[str] = []
        self.error: Exception | None = None
        self.stream: Stream | None = None
        self.data = b""
        self._fails = fails

    def connected(self, stream: Stream) -> None:
        self.told.append("connected")
        self.stream = stream

    def received(self, data: bytes | memoryview) -> None:
        self.data += data
        if self._fails:
            raise RuntimeError("a fault in a handler")

    def lost(self, error: Exception | None) -> None:
        self.told.append("lost")
        self.error = error


def is_open(handler: Handler) -> bool:
    return handler.stream is not None


def are_open(handlers: list[Handler], count: int) -> bool:
    return len(handlers) >= count and all(map(is_open, handlers))


async def ended(handler: Handler) -> None:
    await eventually("it ends", lambda: "lost" in handler.told)


@LOOPS
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "tls"])
def test_what_is_written_arrives_and_both_ends_are_told_of_the_end(
    host: str, tls: bool, uvloop: bool, tmp_path: Any
) -> None:
    """More than one piece, joined; nothing of the listener is left, so that its port can be bound again at once."""
    contexts = Authority(tmp_path / "authority").of_node(1) if tls else None
    address = host, free_addresses(1)[1][1]
    data = [b"one", bytes(1 << 20), b"three"]

    async def scenario() -> None:
        for _ in range(2):
            network = AsyncioNetwork(contexts)
            accepted: list[Handler] = []

            def accept(accepted: list[Handler] = accepted) -> Handler:
                accepted.append(Handler())
                return accepted[-1]

            listener = await network.listen(address, accept)
            assert listener.address[1] == address[1]
            dialler = Handler()
            network.connect(address, dialler)
            await eventually("it is open", partial(is_open, dialler))
            stream = dialler.stream
            assert stream is not None
            assert stream.peer_names == (frozenset({"node-1"}) if tls else None)
            stream.write(data)
            stream.close()
            await ended(dialler)
            await ended(accepted[0])
            assert accepted[0].data == b"".join(data)
            assert dialler.told == accepted[0].told == ["connected", "lost"]
            assert (dialler.error, accepted[0].error) == (None, None)
            listener.close()
            listener.close()

    run_on(uvloop, scenario())


@LOOPS
def test_what_cannot_be_connected_is_told_once(uvloop: bool) -> None:
    """Nobody there; no name at all; no port: a handler that is told nothing would wait for ever."""

    async def scenario() -> None:
        network = AsyncioNetwork()
        for address in (free_addresses(1)[1], ("a..b", 1), ("127.0.0.1", 1 << 20), ("127.0.0.1", "port")):
            handler = Handler()
            network.connect(address, handler)  # type: ignore[arg-type]
            await ended(handler)
            assert handler.told == ["lost"]
            assert isinstance(handler.error, Exception)

    run_on(uvloop, scenario())


@LOOPS
def test_a_fault_in_a_handler_costs_its_stream_alone(uvloop: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The loop goes on, and so does the next stream."""

    async def scenario() -> None:
        network = AsyncioNetwork()
        accepted: list[Handler] = []

        def accept() -> Handler:
            accepted.append(Handler(fails=not accepted))
            return accepted[-1]

        listener = await network.listen(("127.0.0.1", 0), accept)
        diallers = [Handler(), Handler()]
        for n, dialler in enumerate(diallers):
            network.connect(listener.address, dialler)
            await eventually("it is open", partial(are_open, accepted, n + 1))
        for dialler in diallers:
            assert dialler.stream is not None
            dialler.stream.write([b"data"])
        await ended(accepted[0])
        await ended(diallers[0])
        await eventually("the other one has it", lambda: accepted[1].data == b"data")
        assert "lost" not in accepted[1].told
        assert diallers[1].stream is not None
        diallers[1].stream.close()
        await ended(accepted[1])
        await ended(diallers[1])
        listener.close()

    run_on(uvloop, scenario())
    assert caplog.messages.count("stream_failed") == 1


@LOOPS
@pytest.mark.parametrize("kind", ["listen", "datagrams"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_who_gives_up_binding_leaves_nothing_bound(kind: str, host: str, uvloop: bool) -> None:
    """At whichever moment: the port is free, and nothing complains when it is collected."""
    address: Address = host, free_addresses(1)[1][1]

    async def bind(network: AsyncioNetwork) -> Any:
        if kind == "listen":
            return await network.listen(address, Handler)
        return await network.datagrams(address, lambda source, data: None)

    async def scenario() -> None:
        network = AsyncioNetwork()
        gave_up = 0
        for turns in range(12):
            binding = asyncio.ensure_future(bind(network))
            for _ in range(turns):
                await asyncio.sleep(0)
            binding.cancel()
            await asyncio.wait([binding])
            if binding.cancelled():
                gave_up += 1
            else:
                binding.result().close()
            (await bind(network)).close()
        assert gave_up

    run_on(uvloop, scenario())


def is_here(host: str) -> bool:
    """This machine has that address: not every one has IPv6."""
    try:
        with socket.socket(family_of(host)) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@LOOPS
def test_a_name_of_which_one_address_is_taken_is_not_bound_at_all(uvloop: bool) -> None:
    """Whichever of its addresses it is; the others are given back."""
    port = free_addresses(1)[1][1]
    found = socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
    hosts = [host for host in dict.fromkeys(str(place[4][0]) for place in found) if is_here(host)]
    assert hosts

    async def scenario() -> None:
        network = AsyncioNetwork()
        for host in hosts:
            with (
                socket.create_server((host, port), family=family_of(host)),
                pytest.raises(OSError, match="in use"),
            ):
                await network.listen(("localhost", port), Handler)
            (await network.listen((host, port), Handler)).close()

    run_on(uvloop, scenario())


@LOOPS
def test_a_port_that_another_program_has_is_not_bound(uvloop: bool) -> None:
    """One that is bound and does not listen yet is not free either, and datagrams have ports of their own."""
    address = free_addresses(1)[1]

    async def scenario() -> None:
        network = AsyncioNetwork()
        with socket.create_server(address):
            with pytest.raises(OSError, match="in use"):
                await network.listen(address, Handler)
            (await network.datagrams(address, lambda source, data: None)).close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(address)
            with pytest.raises(OSError, match="in use"):
                await network.datagrams(address, lambda source, data: None)
            (await network.listen(address, Handler)).close()
        with socket.socket() as bound:
            bound.bind(address)
            with pytest.raises(OSError, match="in use"):
                await network.listen(address, Handler)

    run_on(uvloop, scenario())


@LOOPS
@pytest.mark.parametrize("turns", range(6))
def test_whoever_calls_as_the_listener_closes_is_not_left_hanging(turns: int, uvloop: bool) -> None:
    """In whichever turn of the loop that is: either a handler has the stream, or it ends."""
    handlers: list[Handler] = []

    def accept() -> Handler:
        handlers.append(Handler())
        return handlers[-1]

    async def scenario() -> None:
        listener = await AsyncioNetwork().listen(("127.0.0.1", 0), accept)
        with socket.create_connection(listener.address) as caller:
            caller.setblocking(False)
            for _ in range(turns):
                await asyncio.sleep(0)
            listener.close()
            for _ in range(6):
                await asyncio.sleep(0)
            gc.collect()  # It complains of what nobody closed.
            for handler in handlers:
                assert handler.told[0] == "connected"
                assert handler.stream is not None
                handler.stream.close()
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(caller, 1) == b""
        for handler in handlers:
            await ended(handler)

    run_on(uvloop, scenario())
