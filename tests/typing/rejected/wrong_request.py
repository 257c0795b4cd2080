"""What the ancestor could not do: a function that accepts one variant alone; and entries of the channel's own type."""

from __future__ import annotations

from collections.abc import Sequence

from totora import (
    AppendRequest,
    Client,
    ClientRequest,
    Entry,
    IndexRange,
    Node,
    Requests,
    Responses,
    append_request,
    index_range,
)


def read(request: IndexRange) -> int:
    return request.end_index - request.start_index


def takes_ranges_alone(append: AppendRequest[str], either: ClientRequest[str]) -> None:
    read(index_range(1, 2))
    read(append)  # E: it is no range
    read(either)  # E: it may be none


def sends(requests: Requests[str]) -> None:
    requests.send(append_request(["text"]))
    requests.send(append_request([1]))  # E: the channel is of text
    requests.send("text")  # E: that is no request
    append_request(["text"], 1, 1)  # E: a condition is named


def receives(responses: Responses[str]) -> Sequence[Entry[str]]:
    response = responses.recv()
    print(response.value)  # E: it may be an Err
    return responses.recv()  # E: look first which of both it is


async def proposes(node: Node[str], client: Client[bytes]) -> Entry[bytes]:
    await node.propose(b"bytes")  # E: the node is of text
    await client.append(["text"])  # E: the client is of bytes
    return await node.propose("text")  # E: what comes back is text


def ask(call: ClientRequest[str]) -> Sequence[str]:
    return call.entries  # E: a range has none
