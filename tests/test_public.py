"""The public names: documented, and errors that can be raised, read, copied and sent to another process."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final, get_origin

import pytest

import totora
from totora import errors
from totora.errors import (
    CommandFailed,
    Compacted,
    ConfigurationError,
    DecodeFailed,
    EntryTooLarge,
    InvalidRequest,
    LogMismatch,
    NodeStopped,
    NotAppended,
    NotLeader,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    ProtocolError,
    QueryFailed,
    RaftError,
    RangeTooLarge,
    SessionExpired,
    StorageError,
    TransferFailed,
    Unavailable,
)

KINDS: Final = {
    name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, RaftError)
}

EXAMPLES: Final[list[RaftError]] = [
    RaftError("something is amiss"),
    InvalidRequest("a request to append needs at least one entry"),
    EntryTooLarge(2_000_000, 1_048_576),
    EntryTooLarge(9_000_000, 8_388_608, "a request"),
    OutOfRange(1, 9),
    RangeTooLarge(5_000),
    Compacted(7),
    NotAppended("not appended"),
    NotLeader(None),
    NotLeader(2, "it lost its office"),
    Overloaded(1_024),
    Overloaded(65_536, "responses"),
    LogMismatch(7, 2),
    Unavailable("no quorum"),
    OutcomeUnknown("no answer in time"),
    SessionExpired("the session was forgotten"),
    CommandFailed(7, ValueError("an account\nis overdrawn")),
    CommandFailed(7, KeyError()),
    QueryFailed(LookupError("no such account")),
    DecodeFailed(7, "not valid text"),
    TransferFailed("node 2 cannot be reached"),
    ConfigurationError("nodes lists no node"),
    StorageError("data/1/segment", None, "no space is left"),
    StorageError("data/1/segment", 4_096, "the checksum does not match"),
    ProtocolError(3, "sent a vote that nobody asked for"),
    ProtocolError("127.0.0.1:7003", "sent no frame"),
    NodeStopped(),
    NodeStopped(StorageError("data/1/segment", 4_096, "the checksum does not match")),
    NodeStopped(OSError(28, "No space left on device")),
]


def told(error: Any) -> Any:
    """All that an error tells: its kind, its sentence, its fields, and those of its cause."""
    if not isinstance(error, BaseException):
        return error
    return type(error), str(error), error.args, {name: told(value) for name, value in vars(error).items()}


def example_id(error: RaftError) -> str:
    return type(error).__name__


# -- documented ------------------------------------------------------------------------------------


def is_alias(thing: object) -> bool:
    """A name for a type that has other names: there is nothing of its own to document."""
    return not inspect.isclass(thing) and not inspect.isroutine(thing)


@pytest.mark.parametrize("name", totora.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    thing = getattr(totora, name)
    if is_alias(thing):
        assert get_origin(thing) is not None, "a name is a class, a function or an alias of types"
        return
    assert (thing.__doc__ or "").strip(), f"{name} has no docstring"
    inherited = [base.__doc__ for base in thing.__mro__[1:]] if inspect.isclass(thing) else []
    assert thing.__doc__ not in inherited, f"{name} has no docstring of its own"


@pytest.mark.parametrize(
    "kind", [totora.Node, totora.Client, totora.RaftNode, totora.Requests, totora.Responses]
)
def test_every_public_method_of_a_face_is_documented(kind: type[Any]) -> None:
    members = inspect.getmembers(
        kind, lambda member: inspect.isroutine(member) or isinstance(member, property)
    )
    public = {name: member for name, member in members if not name.startswith("_")}
    assert public
    assert [name for name, member in public.items() if not inspect.getdoc(member)] == []


def test_dir_lists_what_is_public() -> None:
    """Also what is loaded only when it is used."""
    assert dir(totora) == sorted(totora.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nodes'"):
        _ = totora.Nodes


# -- errors ----------------------------------------------------------------------------------------


def test_there_is_an_example_of_every_error() -> None:
    assert {type(example) for example in EXAMPLES} == set(KINDS.values())


@pytest.mark.parametrize("name", KINDS)
def test_every_error_is_public(name: str) -> None:
    assert name in errors.__all__
    assert name in totora.__all__
    assert getattr(totora, name) is KINDS[name]


def test_the_tree_at_the_top_of_errors_is_the_tree() -> None:
    """Each class stands under its base, in the words of the module's docstring."""
    drawn: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").split("RaftError\n", 1)[1].splitlines():
        if not line.startswith("      "):
            break
        depth = len(line) - len(line.lstrip())
        # On a line of leaves every word is one; elsewhere the rest of the line is for people.
        names = [word for word in line.split() if word in KINDS]
        while above and above[-1][0] >= depth:
            above.pop()
        for name in names:
            drawn[name] = above[-1][1] if above else "RaftError"
        above.append((depth, names[0]))
    found = {name: kind.__mro__[1].__name__ for name, kind in KINDS.items() if kind is not RaftError}
    assert drawn == found


@pytest.mark.parametrize("error", EXAMPLES, ids=example_id)
def test_an_error_is_a_sentence(error: RaftError) -> None:
    """For a person, in one line: words, not a tuple of arguments, no name of a class, no None."""
    text = str(error)
    with pytest.raises(type(error)) as raised:
        raise error
    assert str(raised.value) == text
    assert len(text.split()) >= 2
    assert text.isprintable()
    assert "None" not in text
    assert not text.startswith(("(", type(error).__name__))
    assert not text.endswith((" ", ":"))


@pytest.mark.parametrize("error", EXAMPLES, ids=example_id)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_of_an_error_tells_the_same(error: RaftError, duplicate: Any) -> None:
    again = duplicate(error)
    assert again is not error
    assert told(again) == told(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=example_id)
def test_an_error_travels_between_processes(error: RaftError) -> None:
    """Users put them through executors and queues. (This library itself never unpickles anything.)"""
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        ours.send(error)
        assert told(theirs.recv()) == told(error)


def test_what_was_noted_on_an_error_travels_with_it() -> None:
    error = Overloaded(7)
    error.add_note("while the import ran")
    assert getattr(copy.copy(error), "__notes__", None) == ["while the import ran"]


class _OfAUser(LogMismatch):
    """A subclass with a constructor of its own."""

    def __init__(self, table: str, error: LogMismatch) -> None:
        super().__init__(error.last_index, error.last_term)
        self.table = table


def test_a_users_subclass_travels_too() -> None:
    error = _OfAUser("stock", LogMismatch(7, 2))
    assert told(copy.copy(error)) == told(error)


def _fail(error: RaftError) -> None:
    raise error


def test_an_error_that_is_raised_in_an_executors_process_arrives_here() -> None:
    """A process that cannot unpickle what it gets breaks the whole pool."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for error in (Overloaded(7), LogMismatch(7, 2), NodeStopped(StorageError("data/1", 8, "damaged"))):
            arrived = pool.submit(_fail, error).exception()
            assert type(arrived) is type(error)
            assert str(arrived) == str(error)
